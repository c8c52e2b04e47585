/**
 * A network under a virtual clock: hosts for `Tunnel` whose tun devices are lists and whose links lead over a
 * simulated path with delay, loss, duplication, reordering, an MTU and a NAT. Deterministic from a
 * seed. Sealing and opening is the addon's own.
 */
import { constants as os } from 'node:os';
import { endpoint as makeEndpoint, isSameRemote, parseIp } from '../src/address.ts';
import { ENDPOINT_BYTES, type DatagramTable, type PacketTable } from '../src/batch.ts';
import type { Host, LinkSocket, TunnelEvent } from '../src/host.ts';
import { loadNative } from '../src/native.ts';
import type { Tunnel } from '../src/vpn.ts';
import { Random } from './random.ts';

const native = loadNative(new URL('../build/vpn.node', import.meta.url).pathname);
const UDP_IPV4_BYTES = 28;

/** What happens to datagrams in one direction. May be changed at any time. */
export interface Path {
  delayMs: number;
  jitterMs: number;
  lossRatio: number;
  duplicateRatio: number;
  /** Whole IP packets above this vanish without a word. */
  mtu: number;
  isDown: boolean;
}

export function path(options: Partial<Path> = {}): Path {
  return {
    delayMs: 10,
    jitterMs: 0,
    lossRatio: 0,
    duplicateRatio: 0,
    mtu: 1500,
    isDown: false,
    ...options,
  };
}

interface Datagram {
  readonly bytes: Uint8Array;
  readonly from: Uint8Array;
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

const isBefore = (a: Event, b: Event): boolean =>
  a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

/** Events in time order; ties in the order they were made. */
export class Clock {
  nowMs = 1_000;
  private order = 0;
  /** A binary heap: the children of `i` are `2 i + 1` and `2 i + 2`. */
  private readonly heap: Event[] = [];
  private hasPromise = false;

  at(atMs: number, run: () => void): void {
    // In no order with any time, it would stop the clock.
    if (Number.isNaN(atMs)) throw new Error('an event at no time');
    const { heap } = this;
    const event = { atMs: Math.max(atMs, this.nowMs), order: this.order++, run };
    let i = heap.length;
    heap.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (isBefore(heap[parent], event)) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = event;
  }

  /** The event that runs now has made a promise; what waits for that is to go on before the next event. */
  settle(): void {
    this.hasPromise = true;
  }

  /** Runs until `ms` later. */
  async run(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    await this.settled();
    while (this.heap.length > 0 && this.heap[0].atMs <= endMs) {
      const { atMs, run } = this.takeFirst();
      this.nowMs = atMs;
      run();
      // To await something after each event would cost more than most events do.
      if (this.hasPromise) await this.settled();
    }
    this.nowMs = endMs;
  }

  private async settled(): Promise<void> {
    this.hasPromise = false;
    await new Promise((resolve) => void setImmediate(resolve));
  }

  private takeFirst(): Event {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop()!;
    const count = heap.length;
    if (count === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= count) break;
      if (child + 1 < count && isBefore(heap[child + 1], heap[child])) child++;
      if (isBefore(last, heap[child])) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = last;
    return first;
  }
}

/** One end: give `host` to a `Tunnel`, then set `tunnel`. */
export class SimEnd {
  tunnel: Tunnel | undefined = undefined;
  readonly events: TunnelEvent[] = [];
  /** Packets that TUN was given, in order. */
  readonly delivered: Uint8Array[] = [];
  /** Datagrams this end sent, as the wire saw them. */
  readonly sent: Datagram[] = [];
  keepsSent = false;
  tunMtu = 1280;
  address: Uint8Array;
  resolved: readonly Uint8Array[] = [];
  private readonly world: SimWorld;
  private readonly toRead: Uint8Array[] = [];
  private readonly arrived: Datagram[] = [];
  private onTunReadable: (() => void) | undefined = undefined;
  private onSocketReadable: (() => void) | undefined = undefined;
  private wakeToken = 0;

  constructor(world: SimWorld, address: string, port: number) {
    this.world = world;
    this.address = makeEndpoint(parseIp(address)!, port);
  }

  /** Puts a packet into TUN. */
  inject(packet: Uint8Array): void {
    this.toRead.push(packet);
    this.world.clock.at(this.world.clock.nowMs, () => this.onTunReadable?.());
  }

  /** A datagram arrives here, from anybody. */
  arrive(bytes: Uint8Array, from: Uint8Array): void {
    this.arrived.push({ bytes: bytes.slice(), from: from.slice() });
    this.world.clock.at(this.world.clock.nowMs, () => {
      if (this.arrived.length > 0) this.onSocketReadable?.();
    });
  }

  /** The program is killed: nothing runs here any more. */
  kill(): void {
    this.wakeToken++;
    this.onTunReadable = undefined;
    this.onSocketReadable = undefined;
    this.tunnel = undefined;
    this.arrived.length = 0;
  }

  readonly host: Host = {
    nowMs: () => this.world.clock.nowMs,
    wakeAt: (atMs) => {
      const token = ++this.wakeToken;
      if (atMs === Number.POSITIVE_INFINITY) return;
      this.world.clock.at(atMs, () => {
        if (token === this.wakeToken) this.tunnel?.onTimer();
      });
    },
    randomBytes: (bytes) => this.world.random.fill(bytes),
    aead: native,
    tun: {
      read: (ring, start, headroom, table) => this.tunRead(ring, start, headroom, table),
      write: (bytes, table, count) => this.tunWrite(bytes, table, count),
      setMtu: (mtu) => {
        this.tunMtu = mtu;
      },
      onReadable: (callback) => {
        this.onTunReadable = callback;
        if (callback !== undefined && this.toRead.length > 0) {
          this.world.clock.at(this.world.clock.nowMs, () => this.onTunReadable?.());
        }
      },
    },
    openLink: (_index, onReadable) => this.openLink(onReadable),
    resolve: () => {
      this.world.clock.settle();
      return Promise.resolve(this.resolved);
    },
    report: (event) => void this.events.push(event),
  };

  private openLink(onReadable: () => void): LinkSocket {
    let errno = 0;
    this.onSocketReadable = onReadable;
    return {
      receive: (slab, start, end, table) => this.receive(slab, start, end, table),
      send: (slab, to, sizes, first, count, endpoint, at) => {
        for (let i = first; i < first + count; i++) {
          const bytes = slab.slice(to[i], to[i] + sizes[i]);
          if (bytes.length + UDP_IPV4_BYTES > this.world.interfaceMtu) errno = os.errno.EMSGSIZE;
          else this.world.send(this, bytes, endpoint.subarray(at, at + ENDPOINT_BYTES));
        }
        return count;
      },
      errno: () => {
        const last = errno;
        errno = 0;
        return last;
      },
      watch: () => {},
      close: () => {
        this.onSocketReadable = undefined;
      },
    };
  }

  private tunRead(ring: Uint8Array, start: number, headroom: number, table: PacketTable): number {
    let at = start;
    let count = 0;
    while (this.toRead.length > 0 && count < table.lengths.length) {
      const packet = this.toRead[0];
      if (at + headroom + packet.length > ring.length) break;
      this.toRead.shift();
      table.offsets[count] = at + headroom;
      table.lengths[count] = packet.length;
      table.flags[count] = 0;
      table.buckets[count] = packet[packet.length - 1];
      table.flows[count] = (packet[1] << 8) | packet[packet.length - 1];
      ring.set(packet, at + headroom);
      at += headroom + packet.length;
      count++;
    }
    return count;
  }

  private tunWrite(bytes: Uint8Array, table: PacketTable, count: number): number {
    for (let i = 0; i < count; i++) {
      if (table.lengths[i] === 0) continue;
      this.delivered.push(bytes.slice(table.offsets[i], table.offsets[i] + table.lengths[i]));
    }
    return 0;
  }

  private receive(slab: Uint8Array, start: number, end: number, table: DatagramTable): number {
    let at = start;
    let count = 0;
    while (this.arrived.length > 0 && count < table.lengths.length) {
      const { bytes, from } = this.arrived[0];
      if (at + bytes.length > end) break;
      this.arrived.shift();
      table.offsets[count] = at;
      table.lengths[count] = bytes.length;
      table.sources[count] = count;
      table.endpoints.set(from, count * ENDPOINT_BYTES);
      slab.set(bytes, at);
      at += bytes.length;
      count++;
    }
    return count;
  }
}

export class SimWorld {
  readonly clock = new Clock();
  readonly random: Random;
  readonly ends: SimEnd[] = [];
  /** Above this a send is refused with EMSGSIZE, as by an Ethernet interface. */
  interfaceMtu = 1500;
  /** Rewrites the source of what an end sends, as a NAT does. */
  nat: (from: Uint8Array) => Uint8Array = (from) => from;
  /** Whether a datagram vanishes, whatever its path says. */
  isDropped: (from: SimEnd, bytes: Uint8Array) => boolean = () => false;
  /** Sees every datagram where it is sent. Both are valid during the call. */
  onSent: (from: SimEnd, bytes: Uint8Array, to: Uint8Array) => void = () => {};
  /** Where a datagram to `to` goes: an end, or undefined. The inverse of `nat`. */
  route: (to: Uint8Array) => SimEnd | undefined = (to) =>
    this.ends.find((end) => isSameRemote(end.address, 0, to, 0));
  private readonly paths = new Map<SimEnd, Path>();

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  add(address: string, port: number, outward: Path): SimEnd {
    const end = new SimEnd(this, address, port);
    this.ends.push(end);
    this.paths.set(end, outward);
    return end;
  }

  pathOf(end: SimEnd): Path {
    return this.paths.get(end)!;
  }

  send(from: SimEnd, bytes: Uint8Array, to: Uint8Array): void {
    const source = this.nat(from.address);
    if (from.keepsSent) from.sent.push({ bytes, from: source.slice() });
    this.onSent(from, bytes, to);
    const outward = this.pathOf(from);
    if (this.isDropped(from, bytes)) return;
    if (outward.isDown || bytes.length + UDP_IPV4_BYTES > outward.mtu) return;
    if (this.random.next() < outward.lossRatio) return;
    const copies = this.random.next() < outward.duplicateRatio ? 2 : 1;
    const target = to.slice();
    for (let copy = 0; copy < copies; copy++) {
      const delayMs = outward.delayMs + outward.jitterMs * this.random.next();
      this.clock.at(this.clock.nowMs + delayMs, () => this.route(target)?.arrive(bytes, source));
    }
  }
}
