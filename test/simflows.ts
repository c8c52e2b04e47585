/**
 * What goes through a simulated tunnel (simbond.ts): TCP streams of the model in tcp.ts, pings, and datagrams
 * at a steady rate. Each flow has a number, which is its bucket and the last byte of its packets; what
 * comes back has the next number. Every packet is known by an identity, so that one that is damaged,
 * delivered twice or overtaken within its flow is found out.
 */
import { decode, encode, segmentBytes, type Ack, type Flow, type Segment } from './segment.ts';
import type { Clock } from './sim.ts';
import type { BondEnd, SimBond } from './simbond.ts';
import { CLIENT_IP, SERVER_IP } from './simends.ts';
import { TcpReceiver, TcpSender } from './tcp.ts';

/** From the client to the server, or back. */
export type Way = 'up' | 'down';

/** IPv4 and TCP with timestamps: what is not payload. */
export const TCP_HEADER_BYTES = 52;
/**
 * Linux's tcp_wmem lets a sender keep 4 MiB, and its tcp_rmem a receiver 6 MiB, of which headers and the
 * like take a part (tcp_win_from_space). The one that does not vary is taken for both.
 */
const WINDOW_BYTES = 4 * 1024 * 1024;
const IPV4_BYTES = 20;
const STAMP_AT = IPV4_BYTES + 8;
const PING_BYTES = 64;
const PROTOCOL_ICMP = 1;
const PROTOCOL_UDP = 17;
/** RFC 3246. */
const EXPEDITED = 46 << 2;
/** Before the last byte. */
const IDENTITY_FROM_END = 5;
const DELIVERED = -1;

/** One timer. To set it later than it was costs nothing: it is looked at again when it fires. */
class Alarm {
  private readonly clock: Clock;
  private readonly ring: () => void;
  private wantedMs = Number.POSITIVE_INFINITY;
  private dueMs = Number.POSITIVE_INFINITY;

  constructor(clock: Clock, ring: () => void) {
    this.clock = clock;
    this.ring = ring;
  }

  set(atMs: number): void {
    this.wantedMs = atMs;
    if (atMs >= this.dueMs) return;
    this.dueMs = atMs;
    this.clock.at(atMs, () => this.fire(atMs));
  }

  private fire(atMs: number): void {
    if (atMs !== this.dueMs) return;
    this.dueMs = Number.POSITIVE_INFINITY;
    if (this.wantedMs > this.clock.nowMs) {
      this.set(this.wantedMs);
      return;
    }
    this.wantedMs = Number.POSITIVE_INFINITY;
    this.ring();
  }
}

/** All flows of a network, and what the tunnel did to their packets. */
export class Flows {
  readonly net: SimBond;
  /** Packets delivered that were never sent, or whose length or identity is not what it was. */
  damaged = 0;
  duplicated = 0;
  /** Packets delivered after one of their flow that was sent later. */
  overtaken = 0;
  private readonly handlers: ((packet: Uint8Array) => void)[] = [];
  /** Length by identity. */
  private readonly lengths: number[] = [];
  /** Latest identity delivered, by number of the flow. */
  private readonly latest: number[] = [];

  constructor(net: SimBond) {
    this.net = net;
    for (const end of [net.client, net.server]) end.onPacket = (packet) => this.arrived(packet);
  }

  /** The number of a new flow, whose packets `handler` is given where they arrive. */
  add(handler: (packet: Uint8Array) => void): number {
    this.latest.push(-1);
    return this.handlers.push(handler) - 1;
  }

  source(way: Way): BondEnd {
    return way === 'up' ? this.net.client : this.net.server;
  }

  /** Puts a packet, whose last byte is the number of its flow, into TUN. */
  send(packet: Uint8Array, way: Way): void {
    const { length } = packet;
    const number = packet[length - 1]!;
    writeIdentity(packet, this.lengths.push(length) - 1);
    // Knuth, The Art of Computer Programming 6.4: any hash that tells numbers apart.
    this.source(way).inject(packet, number, Math.imul(number + 1, 2_654_435_761) >>> 0);
  }

  private arrived(packet: Uint8Array): void {
    const number = packet[packet.length - 1]!;
    const identity = readIdentity(packet);
    const length = this.lengths[identity];
    if (length === DELIVERED) {
      this.duplicated++;
      return;
    }
    const handler = this.handlers[number];
    if (length !== packet.length || handler === undefined) {
      this.damaged++;
      return;
    }
    this.lengths[identity] = DELIVERED;
    if (identity < this.latest[number]!) this.overtaken++;
    else this.latest[number] = identity;
    handler(packet);
  }
}

function writeIdentity(packet: Uint8Array, identity: number): void {
  const at = packet.length - IDENTITY_FROM_END;
  packet[at] = identity >>> 24;
  packet[at + 1] = identity >>> 16;
  packet[at + 2] = identity >>> 8;
  packet[at + 3] = identity;
}

function readIdentity(packet: Uint8Array): number {
  const at = packet.length - IDENTITY_FROM_END;
  const high = (packet[at]! << 24) | (packet[at + 1]! << 16);
  return (high | (packet[at + 2]! << 8) | packet[at + 3]!) >>> 0;
}

const addresses = (way: Way): { source: number[]; target: number[] } => {
  const [client, server] = [[...CLIENT_IP], [...SERVER_IP]];
  return way === 'up' ? { source: client, target: server } : { source: server, target: client };
};

const opposite = (way: Way): Way => (way === 'up' ? 'down' : 'up');

/** One TCP stream that always has something to send; it starts at once. */
export class Stream {
  readonly sender = new TcpSender();
  readonly receiver = new TcpReceiver();
  readonly payloadBytes: number;
  private readonly flows: Flows;
  private readonly way: Way;
  private readonly mtu: number;
  private readonly data: Flow;
  private readonly acks: Flow;
  private readonly sending: Alarm;
  private readonly acknowledging: Alarm;

  /** `mtu`: of the tun device when the connection is made. */
  constructor(flows: Flows, way: Way, mtu: number) {
    const { clock } = flows.net;
    this.flows = flows;
    this.way = way;
    this.mtu = mtu;
    this.payloadBytes = mtu - TCP_HEADER_BYTES;
    this.sender.mostOutstanding = Math.floor(WINDOW_BYTES / this.payloadBytes);
    this.sending = new Alarm(clock, () => this.send());
    this.acknowledging = new Alarm(clock, () => this.acknowledge());
    const data = flows.add((packet) => {
      this.receiver.receive(decode(packet) as Segment, clock.nowMs);
      this.acknowledge();
    });
    const acks = flows.add((packet) => {
      this.sender.receive(decode(packet) as Ack, clock.nowMs);
      this.send();
    });
    this.data = { ...addresses(way), bucket: data };
    this.acks = { ...addresses(opposite(way)), bucket: acks };
    this.send();
  }

  /** Payload that the application has got. */
  get receivedBytes(): number {
    return this.receiver.next * this.payloadBytes;
  }

  private send(): void {
    for (const segment of this.sender.take(this.flows.net.clock.nowMs))
      this.flows.send(this.encode(segment, this.data), this.way);
    this.sending.set(this.sender.wakeAtMs);
  }

  private acknowledge(): void {
    const way = opposite(this.way);
    for (const ack of this.receiver.take(this.flows.net.clock.nowMs))
      this.flows.send(this.encode(ack, this.acks), way);
    this.acknowledging.set(this.receiver.wakeAtMs);
  }

  private encode(segment: Segment | Ack, flow: Flow): Uint8Array {
    const packet = this.flows.net.arena.take(segmentBytes(segment, this.mtu));
    return encode(segment, flow, this.mtu, packet);
  }
}

/** A packet with the time in it. */
function stamped(
  way: Way,
  protocol: number,
  bytes: number,
  number: number,
  stampMs: number,
): Uint8Array {
  const packet = new Uint8Array(bytes);
  const view = new DataView(packet.buffer);
  const { source, target } = addresses(way);
  packet[0] = 0x45;
  view.setUint16(2, bytes);
  packet[9] = protocol;
  packet.set(source, 12);
  packet.set(target, 16);
  view.setFloat64(STAMP_AT, stampMs);
  packet[bytes - 1] = number;
  return packet;
}

const stampOf = (packet: Uint8Array): number =>
  new DataView(packet.buffer, packet.byteOffset).getFloat64(STAMP_AT);

/** Small packets at an interval, each answered by one as long. */
export class Ping {
  sent = 0;
  readonly rttMs: number[] = [];
  /** Longest time between two answers; may be set to 0 again. */
  longestGapMs = 0;
  private answeredMs: number;

  constructor(flows: Flows, way: Way, intervalMs: number) {
    const { clock } = flows.net;
    this.answeredMs = clock.nowMs;
    const back = opposite(way);
    const request = flows.add((packet) => {
      flows.send(stamped(back, PROTOCOL_ICMP, PING_BYTES, request + 1, stampOf(packet)), back);
    });
    flows.add((packet) => {
      this.rttMs.push(clock.nowMs - stampOf(packet));
      this.longestGapMs = Math.max(this.longestGapMs, clock.nowMs - this.answeredMs);
      this.answeredMs = clock.nowMs;
    });
    const ask = (): void => {
      this.sent++;
      flows.send(stamped(way, PROTOCOL_ICMP, PING_BYTES, request, clock.nowMs), way);
      clock.at(clock.nowMs + intervalMs, ask);
    };
    ask();
  }
}

export interface SteadyOptions {
  readonly mbit: number;
  /** Of the IP packet. */
  readonly bytes: number;
  /** Marked DSCP EF. */
  readonly isExpedited: boolean;
  readonly port: number;
}

/** UDP at a constant rate, one way. */
export class Steady {
  sent = 0;
  received = 0;
  /** Nothing is sent any more. */
  isStopped = false;
  longestGapMs = 0;
  longestDelayMs = 0;
  private arrivedMs: number;

  constructor(flows: Flows, way: Way, { mbit, bytes, isExpedited, port }: SteadyOptions) {
    const { clock } = flows.net;
    this.arrivedMs = clock.nowMs;
    const number = flows.add((packet) => {
      this.received++;
      this.longestGapMs = Math.max(this.longestGapMs, clock.nowMs - this.arrivedMs);
      this.longestDelayMs = Math.max(this.longestDelayMs, clock.nowMs - stampOf(packet));
      this.arrivedMs = clock.nowMs;
    });
    const next = (): void => {
      if (this.isStopped) return;
      this.sent++;
      const packet = stamped(way, PROTOCOL_UDP, bytes, number, clock.nowMs);
      if (isExpedited) packet[1] = EXPEDITED;
      const view = new DataView(packet.buffer);
      view.setUint16(IPV4_BYTES, port);
      view.setUint16(IPV4_BYTES + 2, port);
      flows.send(packet, way);
      clock.at(clock.nowMs + (bytes * 8) / (mbit * 1000), next);
    };
    next();
  }
}
