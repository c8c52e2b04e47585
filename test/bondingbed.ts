/**
 * A `Bonding` between packets and a peer under a virtual clock: sealed, carried over links that delay,
 * reorder and lose, opened, joined, counted and reported.
 */
import assert from 'node:assert/strict';
import { Random } from './random.ts';
import { endpoint, parseIp } from '../src/address.ts';
import { datagramTable, NONCE_BYTES, type PacketTable } from '../src/batch.ts';
import { Bonding } from '../src/bonding.ts';
import { Classifier } from '../src/classes.ts';
import { decodeSection, encodeSection, REPORT_BYTES, section } from '../src/feedback.ts';
import type { Host, LinkSocket } from '../src/host.ts';
import { Link } from '../src/link.ts';
import { loadNative } from '../src/native.ts';
import { PLAIN_LINK } from '../src/peering.ts';
import { Reception } from '../src/reception.ts';
import { ReplayWindow } from '../src/replay.ts';
import { Epoch, Session } from '../src/session.ts';
import {
  BULK_BUCKETS,
  Flag,
  HALF_INNER_BYTES,
  HEADER_BYTES,
  headerCounter,
  headerLink,
  INNER_BYTES,
  innerFlags,
  innerSendTime,
  innerSequence,
  writeNonce,
} from '../src/wire.ts';

const native = loadNative(new URL('../build/vpn.node', import.meta.url).pathname);
const CHACHA = 2;
const TAG_BYTES = 16;
const PEER = endpoint(parseIp('192.0.2.1')!, 443);
const REALTIME_PORT = 5_004;
/** How long the peer takes to report. */
const REPORT_MS = 5;

export interface Way {
  /** Bytes per millisecond; 0: no limit. */
  readonly rate: number;
  readonly delayMs: number;
  readonly jitterMs: number;
  loss: number;
  isCut: boolean;
}

export const wayOf = (options: Partial<Way> = {}): Way => ({
  rate: 0,
  delayMs: 10,
  jitterMs: 0,
  loss: 0,
  isCut: false,
  ...options,
});

function newEpoch(role: 'client' | 'server', number: number): Epoch {
  const keys = { k1: new Uint8Array(32).fill(number), k2: new Uint8Array(32).fill(9) };
  return new Epoch(native, role, number, CHACHA, keys, 0);
}

/** An IPv4 UDP packet: its number is in front of its payload, and the rest follows from that. */
function packetOf(number: number, length: number, port: number): Uint8Array {
  const packet = new Uint8Array(length).fill(number & 0xff);
  packet.set([0x45, 0, length >> 8, length & 0xff, 0, 0, 0, 0, 64, 17, 0, 0]);
  packet.set([10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, port >> 8, port & 0xff], 12);
  new DataView(packet.buffer).setUint32(28, number);
  return packet;
}

interface Sent {
  readonly packet: Uint8Array;
  readonly bucket: number;
  readonly isRealtime: boolean;
}

/** A `Bonding` whose links lead to a peer that opens, counts and reports what comes. */
export class Bed {
  readonly bonding: Bonding;
  readonly links: Link[] = [];
  readonly ways: Way[] = [];
  readonly session = new Session(new Uint8Array(8), 1, 2, newEpoch('client', 0));
  readonly random: Random;
  nowMs = 1_000;
  /** What TUN still has, and all that it gave. */
  readonly toRead: Sent[] = [];
  readonly given: Sent[] = [];
  /** Per number, what came of it: over which links, and under which sequences. */
  readonly delivered = new Map<number, { sequence: number; links: Set<number>; times: number }>();
  /** Datagrams over each link. */
  readonly counts: number[] = [];
  private readonly peerEpochs = [newEpoch('server', 0)];
  private readonly receptions: Reception[] = [];
  private readonly windows: Map<number, ReplayWindow>[] = [];
  private readonly halves = new Map<string, Map<boolean, Uint8Array>>();
  private busyMs: number[] = [];
  private onWay: { readonly atMs: number; readonly link: number; readonly bytes: Uint8Array }[] =
    [];
  private reports: { readonly atMs: number; readonly body: Uint8Array }[] = [];
  private readonly nonces = new Set<string>();
  /** How often there were new keys: the numbers of epochs come again. */
  private keys = 0;

  constructor(seed: number, ways: readonly Way[]) {
    this.random = new Random(seed);
    const classifier = new Classifier(false);
    const rule = { protocol: 'udp', port: REALTIME_PORT, isDuplicated: true } as const;
    classifier.setRules([rule], []);
    const host: Host = {
      nowMs: () => this.nowMs,
      wakeAt: () => undefined,
      randomBytes: (bytes) => this.random.fill(bytes),
      aead: native,
      tun: {
        read: (ring, start, headroom, table) => this.read(ring, start, headroom, table),
        write: () => 0,
        setMtu: () => undefined,
        onReadable: () => undefined,
      },
      openLink: () => undefined,
      resolve: () => Promise.resolve([]),
      report: () => undefined,
    };
    this.bonding = new Bonding(host, new Uint8Array(16), classifier, 0);
    ways.forEach((way, id) => this.addLink(id, way));
    this.bonding.scheduler.order(this.links);
  }

  private addLink(id: number, way: Way): void {
    const socket: LinkSocket = {
      receive: () => 0,
      send: (slab, to, sizes, first, count) => {
        for (let i = first; i < first + count; i++)
          this.carry(id, slab.slice(to[i], to[i] + sizes[i]));
        return count;
      },
      errno: () => 0,
      watch: () => undefined,
      close: () => undefined,
    };
    const link = new Link(id, socket, PLAIN_LINK, (bytes) => bytes.fill(1));
    link.place = id;
    link.moveTo(PEER, 0);
    this.links.push(link);
    this.ways.push(way);
    this.receptions.push(new Reception());
    this.windows.push(new Map());
    this.busyMs.push(0);
    this.counts.push(0);
  }

  inject(length: number, bucket: number, isRealtime = false): void {
    const port = isRealtime ? REALTIME_PORT : 80;
    const packet = packetOf(this.given.length, length, port);
    const sent = { packet, bucket, isRealtime };
    this.toRead.push(sent);
    this.given.push(sent);
  }

  private read(ring: Uint8Array, start: number, headroom: number, table: PacketTable): number {
    let at = start;
    let count = 0;
    while (this.toRead.length > 0 && count < 64) {
      const { packet, bucket, isRealtime } = this.toRead.shift()!;
      ring.set(packet, at + headroom);
      table.offsets[count] = at + headroom;
      table.lengths[count] = packet.length;
      table.flags[count] = 0;
      table.buckets[count] = bucket;
      table.flows[count++] = isRealtime ? 1 : 0;
      at += headroom + packet.length;
    }
    return count;
  }

  /** New keys at both ends. */
  rekey(): void {
    const number = (this.session.current.number + 1) % 4;
    this.keys++;
    this.session.rekey(newEpoch('client', number));
    this.peerEpochs[number] = newEpoch('server', number);
    for (const windows of this.windows) windows.delete(number);
  }

  private carry(id: number, bytes: Uint8Array): void {
    const way = this.ways[id];
    this.counts[id]++;
    const header = Buffer.from(bytes.subarray(0, HEADER_BYTES)).toString('hex');
    assert.ok(!this.nonces.has(`${this.keys} ${header}`), 'no link and counter twice under a key');
    this.nonces.add(`${this.keys} ${header}`);
    const transmitMs = way.rate === 0 ? 0 : (bytes.length + 28) / way.rate;
    if (this.busyMs[id] - this.nowMs > 60) return;
    this.busyMs[id] = Math.max(this.busyMs[id], this.nowMs) + transmitMs;
    if (way.isCut || this.random.next() < way.loss) return;
    const atMs = this.busyMs[id] + way.delayMs + this.random.next() * way.jitterMs;
    this.onWay.push({ atMs, link: id, bytes });
  }

  /** Runs for so long; `onStep` once in each millisecond. */
  run(ms: number, onStep: () => void = () => undefined): void {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      this.nowMs++;
      onStep();
      while (this.toRead.length > 0 && !this.bonding.isFull)
        this.bonding.read(this.session, this.nowMs);
      const due = this.onWay.filter(({ atMs }) => atMs <= this.nowMs);
      this.onWay = this.onWay.filter(({ atMs }) => atMs > this.nowMs);
      due.sort((a, b) => a.atMs - b.atMs);
      for (const { link, bytes } of due) this.receive(link, bytes);
      if (this.nowMs % REPORT_MS === 0) this.report();
      for (const { body } of this.reports.filter(({ atMs }) => atMs <= this.nowMs)) this.hear(body);
      this.reports = this.reports.filter(({ atMs }) => atMs > this.nowMs);
      this.watch();
      this.bonding.pump(this.session, this.nowMs);
    }
  }

  private receive(id: number, bytes: Uint8Array): void {
    const epoch = this.peerEpochs[bytes[0] & 3];
    let window = this.windows[id].get(epoch.number);
    if (window === undefined) this.windows[id].set(epoch.number, (window = new ReplayWindow()));
    const counter = headerCounter(bytes, 0);
    const table = datagramTable(1);
    table.lengths[0] = bytes.length;
    table.keys[0] = epoch.openKey;
    writeNonce(table.nonces, 0, headerLink(bytes, 0), counter);
    assert.equal(table.nonces.length, NONCE_BYTES);
    assert.equal(native.open(bytes, HEADER_BYTES, table, 1), 0, 'sealed as the peer opens it');
    assert.ok(window.accept(counter));
    const stamp = innerSendTime(bytes, HEADER_BYTES);
    const size = bytes.length + 28;
    this.receptions[id].arrived(
      epoch.number,
      window,
      counter,
      stamp,
      size,
      true,
      false,
      this.nowMs,
    );
    this.take(id, bytes.subarray(0, bytes.length - TAG_BYTES));
  }

  private take(id: number, bytes: Uint8Array): void {
    const flags = innerFlags(bytes, HEADER_BYTES);
    const isRealtime = (flags & Flag.realtime) !== 0;
    assert.notEqual((flags & Flag.ordered) !== 0, isRealtime, 'ordered, or realtime');
    const bucket = bytes[HEADER_BYTES] + (isRealtime ? BULK_BUCKETS : 0);
    const sequence = innerSequence(bytes, HEADER_BYTES);
    const isHalf = (flags & Flag.half) !== 0;
    const part = bytes.subarray(HEADER_BYTES + (isHalf ? HALF_INNER_BYTES : INNER_BYTES));
    if (!isHalf) {
      this.deliver(id, bucket, sequence, part);
      return;
    }
    const key = `${bucket} ${sequence}`;
    const halves = this.halves.get(key) ?? new Map<boolean, Uint8Array>();
    this.halves.set(key, halves.set((flags & Flag.second) !== 0, part));
    if (halves.size < 2) return;
    const whole = Uint8Array.from([...halves.get(false)!, ...halves.get(true)!]);
    this.deliver(id, bucket, sequence, whole);
  }

  private deliver(id: number, bucket: number, sequence: number, packet: Uint8Array): void {
    const number = new DataView(packet.buffer, packet.byteOffset).getUint32(28);
    const sent = this.given[number];
    assert.ok(Buffer.compare(packet, sent.packet) === 0, `${number}: not as it was sent`);
    assert.equal(bucket, sent.bucket + (sent.isRealtime ? BULK_BUCKETS : 0));
    const known = this.delivered.get(number);
    if (known === undefined) {
      this.delivered.set(number, { sequence, links: new Set([id]), times: 1 });
      return;
    }
    assert.equal(sequence, known.sequence, 'a repair has the same sequence');
    known.links.add(id);
    known.times++;
  }

  private report(): void {
    const body = new Uint8Array(2 * REPORT_BYTES);
    const part = section();
    let end = 0;
    this.receptions.forEach((reception, id) => {
      if (reception.reportFormer(part, id, this.nowMs)) end = encodeSection(body, end, part);
      if (reception.report(part, id, this.nowMs)) end = encodeSection(body, end, part);
    });
    if (end > 0) this.reports.push({ atMs: this.nowMs + 10, body: body.slice(0, end) });
  }

  private hear(body: Uint8Array): void {
    const part = section();
    for (let at = 0; at < body.length;) {
      at = decodeSection(body, at, part);
      const link = this.links[part.link];
      link.reported(part, this.nowMs);
      this.bonding.settle(link);
      if (link.state === 'suspect' && link.flight.progressMs === this.nowMs) link.state = 'up';
    }
    this.bonding.scheduler.order(this.links);
  }

  /** As the tunnel's timer does. */
  private watch(): void {
    for (const link of this.links) {
      if (this.nowMs < link.overdueMs()) continue;
      if (link.isSilent(this.nowMs) && this.links.length > 1) {
        link.state = 'suspect';
        link.flight.abandon();
      } else {
        link.flight.detect(link.reorderingMs, this.nowMs - link.reportMs + 0.01);
      }
      this.bonding.settle(link);
      this.bonding.scheduler.order(this.links);
    }
  }

  /** Packets that are kept. */
  get kept(): number {
    return (this.bonding as unknown as { store: { count: number } }).store.count;
  }

  /** Nothing waits or flies any more, and all that is missing was given up, or refused in the first place. */
  checkEnd(what: string): void {
    const { queue, counters } = this.bonding;
    assert.deepEqual([this.toRead.length, queue.count, queue.bytes], [0, 0, 0], what);
    const missing = this.given.length - this.delivered.size;
    assert.ok(missing <= counters.abandoned + counters.refusedBulk, `${what}: ${missing} missing`);
    assert.equal(this.kept, 0, `${what}: rows are kept for ever`);
    for (const { flight } of this.links) assert.equal(flight.bytes, 0, what);
  }
}
