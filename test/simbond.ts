/**
 * A client and a server joined by several links, under a virtual clock: a `Host` for the `Tunnel` of each
 * end, and a `SimLink` for each way of each link.
 *
 *              address i ── links[i].up ──▶
 *     client                                 one address   server
 *              address i ◀── links[i].down ─
 *
 *   const net = new SimBond({ figures: [a, b], seed: 1 });
 *   await net.connect();
 *   net.client.inject(packet, bucket, flow); net.server.onPacket = (packet) => …
 *   net.clock.at(5000, () => net.links[1].set({ isCut: true }));
 *
 * Deterministic from the seed. What programs do takes no time.
 */
import { constants as os } from 'node:os';
import { endpoint as makeEndpoint, isSameRemote, parseIp } from '../src/address.ts';
import { ENDPOINT_BYTES, type DatagramTable, type PacketTable } from '../src/batch.ts';
import type { Host, LinkSocket, TunnelEvent } from '../src/host.ts';
import { loadNative } from '../src/native.ts';
import { PLAIN_LINK, type TunnelConfig } from '../src/peering.ts';
import { Tunnel } from '../src/vpn.ts';
import { Random } from './random.ts';
import { Clock } from './sim.ts';
import { config } from './simends.ts';
import { SimLink } from './simlink.ts';
import { Arena, Inbox } from './simqueue.ts';
import type { Figures } from './wan.ts';

const native = loadNative(new URL('../build/vpn.node', import.meta.url).pathname);

export type Aead = Host['aead'];

const copy: Aead['seal'] = (_key, ring, slab, headerBytes, table, count) => {
  for (let i = 0; i < count; i++) {
    const from = table.from[i];
    slab.set(ring.subarray(from, from + table.sizes[i]), table.to[i] + headerBytes);
  }
};

/** Leaves the packets as they are: a fifth of the time of a long run is sealing. */
const COPYING: Aead = {
  aeadCreate: () => 1,
  aeadFree: () => {},
  seal: copy,
  authenticate: copy,
  open: () => 0,
};
const UDP_IPV4_BYTES = 28;
/** Of the interfaces below: a longer datagram is refused with EMSGSIZE. */
const INTERFACE_MTU = 1500;
/** TUN_READQ_SIZE of drivers/net/tun.c: the queue length of a device unless it is changed. */
const TUN_QUEUE_ENTRIES = 500;
/** An entry is what TCP hands down at once: up to 64 KiB of one flow's full segments (GSO). */
const GSO_BYTES = 64 * 1024;
const LEAST_SEGMENT = 1_000;
/** What `tunRead` takes at once (native.ts). */
const TUN_READ_BYTES = 256 * 1024;
/** Node's timers are set in whole milliseconds and looked at once per turn of the loop: at least 1 ms. */
const TIMER_TICK_MS = 1;
const STALL_PERIOD_MS = 100;
const UNTIL_MTU_MS = 5_000;

interface Datagram {
  readonly bytes: Uint8Array;
  /** Who sent it; on its way to the client, whom it is for. */
  readonly peer: Uint8Array;
}

interface Packet {
  readonly bytes: Uint8Array;
  readonly bucket: number;
  readonly flow: number;
  readonly opensEntry: boolean;
}

/** One end: its tun device and its sockets. */
export class BondEnd {
  readonly host: Host;
  readonly events: TunnelEvent[] = [];
  tunMtu = 0;
  /** Packets that came while the queue of the tun device was full. */
  tunDrops = 0;
  /** Gets each packet that is written to TUN; valid during the call. */
  onPacket: (packet: Uint8Array) => void = () => {};
  tunnel: Tunnel | undefined = undefined;
  /** Links whose interface is not there. */
  readonly missing = new Set<number>();
  readonly tunQueue: Inbox<Packet>;
  /** Entries of the tun device's queue, and the last of them. */
  private entries = 0;
  private entry = { atMs: -1, flow: -1, segment: 0, bytes: 0 };
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly arena: Arena;
  private readonly endpoints: readonly Uint8Array[];
  private readonly sockets = new Map<number, Inbox<Datagram>>();
  private readonly carry: Carry;
  /** How long the program may not run at a time, since others do: at most `STALL_PERIOD_MS`. */
  stallMs = 0;
  private timerAtMs = Number.POSITIVE_INFINITY;

  constructor(net: SimBond, endpoints: readonly Uint8Array[], carry: Carry) {
    this.clock = net.clock;
    this.random = net.random;
    this.arena = net.arena;
    this.endpoints = endpoints;
    this.carry = carry;
    this.tunQueue = new Inbox(net.clock, (atMs) => this.awakeAt(atMs));
    this.host = this.makeHost(net.aead);
  }

  /** Starts a tunnel here. */
  start(config: TunnelConfig): void {
    const ofLinks = config.links.map(() => this.endpoints);
    this.tunnel = new Tunnel(config, this.host, ofLinks);
    this.tunnel.start();
  }

  /** Puts a packet into TUN, which owns it from now on. `flow` and `bucket` are hashes of its flow. */
  inject(bytes: Uint8Array, bucket: number, flow: number): void {
    const { nowMs } = this.clock;
    const isPart =
      this.entry.atMs === nowMs &&
      this.entry.flow === flow &&
      this.entry.segment === bytes.length &&
      bytes.length >= LEAST_SEGMENT &&
      this.entry.bytes + bytes.length <= GSO_BYTES;
    if (isPart) {
      this.entry.bytes += bytes.length;
    } else if (this.entries >= TUN_QUEUE_ENTRIES) {
      this.tunDrops++;
      return;
    } else {
      this.entry = { atMs: nowMs, flow, segment: bytes.length, bytes: bytes.length };
      this.entries++;
    }
    this.tunQueue.push({ bytes, bucket, flow, opensEntry: !isPart });
  }

  /** A datagram arrives at the socket of a link; `bytes` is not changed. */
  arrive(link: number, datagram: Datagram): void {
    this.sockets.get(link)?.push(datagram);
  }

  private makeHost(aead: Aead): Host {
    return {
      nowMs: () => this.clock.nowMs,
      wakeAt: (atMs) => this.wakeAt(atMs),
      randomBytes: (bytes) => this.random.fill(bytes),
      aead,
      tun: {
        read: (ring, start, headroom, table) => this.tunRead(ring, start, headroom, table),
        write: (bytes, table, count) => this.tunWrite(bytes, table, count),
        setMtu: (mtu) => {
          this.tunMtu = mtu;
        },
        onReadable: (callback) => this.tunQueue.watch(callback),
      },
      openLink: (index, onReadable) => this.openLink(index, onReadable),
      resolve: () => {
        this.clock.settle();
        return Promise.resolve(this.endpoints);
      },
      report: (event) => void this.events.push(event),
    };
  }

  /** The end of the stall that a time lies in: in each period one, of any length up to `stallMs`. */
  private awakeAt(atMs: number): number {
    if (this.stallMs === 0) return atMs;
    const period = Math.floor(atMs / STALL_PERIOD_MS);
    const endMs = period * STALL_PERIOD_MS + new Random(period).next() * this.stallMs;
    return Math.max(atMs, endMs);
  }

  /** As in runtime.ts: a timer is only ever made earlier, and not before its time. */
  private wakeAt(atMs: number): void {
    if (atMs >= this.timerAtMs && atMs !== Number.POSITIVE_INFINITY) return;
    this.timerAtMs = atMs;
    if (atMs === Number.POSITIVE_INFINITY) return;
    const { nowMs } = this.clock;
    const tick = Math.max(Math.ceil(atMs / TIMER_TICK_MS), Math.floor(nowMs / TIMER_TICK_MS) + 1);
    this.clock.at(this.awakeAt(tick * TIMER_TICK_MS), () => {
      if (this.timerAtMs !== atMs) return;
      this.timerAtMs = Number.POSITIVE_INFINITY;
      this.tunnel?.onTimer();
    });
  }

  private openLink(link: number, onReadable: () => void): LinkSocket | undefined {
    if (this.missing.has(link)) return undefined;
    const inbox = new Inbox<Datagram>(this.clock, (atMs) => this.awakeAt(atMs));
    inbox.watch(onReadable);
    this.sockets.set(link, inbox);
    let errno = 0;
    return {
      receive: (slab, start, end, table) => receive(inbox, slab, start, end, table),
      send: (slab, to, sizes, first, count, endpoint, at) => {
        for (let i = first; i < first + count; i++) {
          if (sizes[i] + UDP_IPV4_BYTES > INTERFACE_MTU) errno = os.errno.EMSGSIZE;
          else
            errno = this.carry(link, this.arena.copy(slab, to[i], sizes[i]), endpoint, at) || errno;
        }
        return count;
      },
      errno: () => {
        const last = errno;
        errno = 0;
        return last;
      },
      watch: (readable) => inbox.watch(readable ? onReadable : undefined),
      close: () => {
        inbox.watch(undefined);
        if (this.sockets.get(link) === inbox) this.sockets.delete(link);
      },
    };
  }

  private tunRead(ring: Uint8Array, start: number, headroom: number, table: PacketTable): number {
    const end = Math.min(ring.length, start + TUN_READ_BYTES);
    let at = start;
    let count = 0;
    for (;;) {
      const packet = this.tunQueue.first();
      if (packet === undefined || count === table.lengths.length) return count;
      const { length } = packet.bytes;
      if (at + headroom + length > end) return count;
      this.tunQueue.take();
      if (packet.opensEntry) this.entries--;
      at += headroom;
      table.offsets[count] = at;
      table.lengths[count] = length;
      table.flags[count] = 0;
      table.buckets[count] = packet.bucket;
      table.flows[count] = packet.flow;
      ring.set(packet.bytes, at);
      at += length;
      count++;
    }
  }

  private tunWrite(bytes: Uint8Array, table: PacketTable, count: number): number {
    for (let i = 0; i < count; i++) {
      if (table.lengths[i] === 0) continue;
      const at = table.offsets[i];
      this.onPacket(bytes.subarray(at, at + table.lengths[i]));
    }
    return 0;
  }
}

/** Takes a datagram that the socket of `link` sends to `endpoint[at]`; returns an errno, or 0. */
type Carry = (link: number, bytes: Uint8Array, endpoint: Uint8Array, at: number) => number;

function receive(
  inbox: Inbox<Datagram>,
  slab: Uint8Array,
  start: number,
  end: number,
  table: DatagramTable,
): number {
  let at = start;
  let count = 0;
  for (;;) {
    const datagram = inbox.first();
    if (datagram === undefined || count === table.lengths.length) return count;
    const { bytes, peer } = datagram;
    if (at + bytes.length > end) return count;
    inbox.take();
    table.offsets[count] = at;
    table.lengths[count] = bytes.length;
    table.sources[count] = count;
    table.endpoints.set(peer, count * ENDPOINT_BYTES);
    slab.set(bytes, at);
    at += bytes.length;
    count++;
  }
}

/** Both ways of one link. */
export class BondLink {
  readonly up: SimLink<Datagram>;
  readonly down: SimLink<Datagram>;
  /** The client's address as the server sees it. A NAT that forgets gives another. */
  outside: Uint8Array;
  /** What the client's socket gets for a datagram instead of sending it, e.g. ENETDOWN; 0: it is sent. */
  errno = 0;

  constructor(net: SimBond, index: number, figures: Figures, seed: number) {
    this.outside = makeEndpoint(parseIp(`198.51.100.${index + 2}`)!, 40_000);
    this.up = new SimLink(net.clock, 2 * seed, figures, (datagram) =>
      net.server.arrive(0, datagram),
    );
    this.down = new SimLink(net.clock, 2 * seed + 1, figures, ({ bytes, peer }) => {
      if (peer === this.outside) net.client.arrive(index, { bytes, peer: net.serverEndpoint });
    });
  }

  /** Changes both ways. */
  set(figures: Figures): void {
    this.up.set(figures);
    this.down.set(figures);
  }

  /** The NAT in front of the client forgets: from now on its datagrams come from another port. */
  rebind(port: number): void {
    const outside = this.outside.slice();
    new DataView(outside.buffer).setUint16(2, port);
    this.outside = outside;
  }
}

export interface BondOptions {
  /** Of each link; the same both ways. */
  readonly figures: readonly Figures[];
  readonly seed: number;
  /** Whether datagrams are sealed and opened, by the addon. Yes, unless it is the speed that matters. */
  readonly isSealed?: boolean;
  /** What seals and opens instead, at both ends. */
  readonly aead?: Aead;
  /** What is different from the plain configuration. */
  readonly client?: Partial<TunnelConfig> | undefined;
  readonly server?: Partial<TunnelConfig> | undefined;
}

export class SimBond {
  readonly clock = new Clock();
  readonly random: Random;
  readonly arena = new Arena();
  readonly aead: Aead;
  readonly links: readonly BondLink[];
  readonly client: BondEnd;
  readonly server: BondEnd;
  readonly serverEndpoint = makeEndpoint(parseIp('203.0.113.1')!, 443);
  private readonly options: BondOptions;

  constructor(options: BondOptions) {
    const { figures, seed } = options;
    this.options = options;
    this.random = new Random(seed);
    this.aead = options.aead ?? (options.isSealed === false ? COPYING : native);
    // Seeds of the links lie apart, as each way of a link uses three of them.
    this.links = figures.map((ofLink, i) => new BondLink(this, i, ofLink, 1000 * seed + i));
    this.client = new BondEnd(this, [this.serverEndpoint], (index, bytes, endpoint, at) => {
      const link = this.links[index];
      if (link.errno !== 0) return link.errno;
      if (isSameRemote(endpoint, at, this.serverEndpoint, 0)) send(link.up, link, bytes);
      return 0;
    });
    this.server = new BondEnd(this, [], (_index, bytes, endpoint, at) => {
      const link = this.linkTo(endpoint, at);
      if (link !== undefined) send(link.down, link, bytes);
      return 0;
    });
  }

  /** Starts both tunnels, and ends when each has found the MTU of its tun device, or after five seconds. */
  async connect(): Promise<void> {
    const { clock, client, server } = this;
    const endMs = clock.nowMs + UNTIL_MTU_MS;
    this.startServer();
    this.startClient();
    while (clock.nowMs < endMs && (client.tunMtu === 0 || server.tunMtu === 0)) await clock.run(50);
  }

  /** Starts the server, or another in its place. */
  startServer(): void {
    this.server.start(config('server', this.options.server));
  }

  startClient(): void {
    const plain = this.links.map((_link, i) => ({ ...PLAIN_LINK, name: `link${i}` }));
    this.client.start(config('client', { links: plain, ...this.options.client }));
  }

  /** The link that leads to the client's address `endpoint[at]`. */
  private linkTo(endpoint: Uint8Array, at: number): BondLink | undefined {
    return this.links.find(({ outside }) => isSameRemote(outside, 0, endpoint, at));
  }
}

function send(way: SimLink<Datagram>, { outside }: BondLink, bytes: Uint8Array): void {
  way.send({ bytes, peer: outside }, bytes.length + UDP_IPV4_BYTES);
}
