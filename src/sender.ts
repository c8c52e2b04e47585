/**
 * Numbers, seals and sends what bonding gives to a link: packets of the store that may lie anywhere in
 * it, batch by batch, each link from a slab of its own, so that none waits for another's socket.
 */
import { NONCE_BYTES, sealTable } from './batch.ts';
import { sendTime } from './control.ts';
import { TAG_BYTES } from './crypto.ts';
import type { Host } from './host.ts';
import type { Link, Output } from './link.ts';
import type { Session } from './session.ts';
import { Piece, type PacketStore } from './store.ts';
import {
  BULK_BUCKETS,
  CLEAR_BIT,
  Flag,
  HALF_INNER_BYTES,
  HEADER_BYTES,
  INNER_BYTES,
  Mode,
  OVERHEAD_BYTES,
  writeHeader,
  writeInner,
  writeNonce,
  writeSplit,
} from './wire.ts';

/** Packets of one link that are sealed at once: 4 runs of 64 (UDP_SEGMENT). */
const BATCH = 256;
/** Each may become two datagrams. */
const SLOTS = 2 * BATCH;
/** The largest packet TUN gives, and the headers around it twice. */
const PACKET_BYTES = 1_600;
/** Second halves are copied there, so that their inner header has a place. */
export const SECOND_HALVES_BYTES = BATCH * PACKET_BYTES;
/** A packet of this share of what fits makes it worth knowing that full-size datagrams still arrive. */
const LARGE_PACKET = 0.5;

/** What one link is about to send. */
class Batch implements Output {
  readonly slab = new Uint8Array(BATCH * (PACKET_BYTES + 2 * OVERHEAD_BYTES));
  readonly to = new Uint32Array(SLOTS);
  readonly sizes = new Uint16Array(SLOTS);
  readonly rows = new Uint16Array(BATCH);
  count = 0;
}

export class Sender {
  private readonly host: Host;
  private readonly store: PacketStore;
  private readonly isClear: boolean;
  private readonly sealing = sealTable(SLOTS);
  private readonly tickets = new Uint32Array(SLOTS);
  private readonly batches = new WeakMap<Link, Batch>();

  /** `modes` are `Mode` bits. */
  constructor(host: Host, store: PacketStore, modes: number) {
    this.host = host;
    this.store = store;
    this.isClear = (modes & Mode.cleartext) !== 0;
  }

  /** `row` goes out over `link` with the next `flush`, or now when the batch is full. */
  add(session: Session, link: Link, row: number, nowMs: number): void {
    let batch = this.batches.get(link);
    if (batch === undefined) {
      batch = new Batch();
      this.batches.set(link, batch);
    }
    batch.rows[batch.count++] = row;
    if (batch.count === BATCH) this.flush(session, link, nowMs);
  }

  flush(session: Session, link: Link, nowMs: number): void {
    const batch = this.batches.get(link);
    if (batch === undefined || batch.count === 0 || link.unsentCount > 0) return;
    const packets = batch.count;
    const count = this.number(link, batch, nowMs);
    batch.count = 0;
    link.pendingBytes = 0;
    if (!this.seal(session, link, batch, count, nowMs)) {
      for (let i = 0; i < packets; i++) this.store.release(batch.rows[i]);
      return;
    }
    link.output = batch;
    send(link);
  }

  /** Inner headers, in front of each packet; returns the datagrams. */
  private number(link: Link, batch: Batch, nowMs: number): number {
    const { store, sealing, tickets } = this;
    const { ring } = store;
    const time = sendTime(nowMs);
    const room = link.packetRoom;
    let slot = 0;
    let secondAt = store.extraAt;
    let largest = 0;
    for (let i = 0; i < batch.count; i++) {
      const row = batch.rows[i];
      const at = store.offsets[row];
      const length = store.lengths[row];
      const isRealtime = store.buckets[row] >= BULK_BUCKETS;
      const bucket = store.buckets[row] % BULK_BUCKETS;
      const flags = store.flags[row] | (isRealtime ? Flag.realtime : Flag.ordered);
      const sequence = store.sequences[row];
      store.attempts[row]++;
      if (length > largest) largest = length;
      if (length <= room) {
        tickets[slot] = store.sent(row, Piece.whole);
        writeInner(ring, at - INNER_BYTES, bucket, sequence, time, flags);
        sealing.from[slot] = at - INNER_BYTES;
        sealing.sizes[slot++] = INNER_BYTES + length;
        continue;
      }
      const split = (length + 1) >>> 1;
      tickets[slot] = store.sent(row, Piece.first);
      writeInner(ring, at - HALF_INNER_BYTES, bucket, sequence, time, flags | Flag.half);
      writeSplit(ring, at - HALF_INNER_BYTES, split);
      sealing.from[slot] = at - HALF_INNER_BYTES;
      sealing.sizes[slot++] = HALF_INNER_BYTES + split;
      ring.copyWithin(secondAt + HALF_INNER_BYTES, at + split, at + length);
      writeInner(ring, secondAt, bucket, sequence, time, flags | Flag.half | Flag.second);
      writeSplit(ring, secondAt, split);
      tickets[slot] = store.sent(row, Piece.second);
      sealing.from[slot] = secondAt;
      sealing.sizes[slot++] = HALF_INNER_BYTES + length - split;
      secondAt += HALF_INNER_BYTES + length - split;
    }
    if (largest > LARGE_PACKET * room) link.sentFullSize(nowMs);
    return slot;
  }

  /** False if the keys are worn out: then nothing went. New ones are being made (PROTOCOL §3.4). */
  private seal(session: Session, link: Link, batch: Batch, count: number, nowMs: number): boolean {
    const { sealing, tickets } = this;
    const epoch = session.current;
    const first = epoch.reserve(link.id, count);
    if (first === -1) return false;
    const { outerBytes, flight } = link;
    const epochBits = this.isClear ? epoch.number | CLEAR_BIT : epoch.number;
    let at = 0;
    for (let i = 0; i < count; i++) {
      const size = HEADER_BYTES + sealing.sizes[i] + TAG_BYTES;
      writeHeader(batch.slab, at, epochBits, link.id, session.peerId, first + i);
      writeNonce(sealing.nonces, i * NONCE_BYTES, link.id, first + i);
      flight.add(epoch.number, first + i, tickets[i], size + outerBytes, true, nowMs);
      sealing.to[i] = at;
      batch.to[i] = at;
      batch.sizes[i] = size;
      at += size;
    }
    const { authenticate, seal } = this.host.aead;
    const protect = this.isClear ? authenticate : seal;
    protect(epoch.sealKey, this.store.ring, batch.slab, HEADER_BYTES, sealing, count);
    link.unsentFirst = 0;
    link.unsentCount = count;
    return true;
  }
}

/** Hands the kernel of what was sealed for `link` what it takes; the rest stays counted there. */
export function send(link: Link): void {
  const { output } = link;
  if (output === undefined) return;
  const { unsentFirst: first, unsentCount: count } = link;
  const { slab, to, sizes } = output;
  const sent = link.socket.send(slab, to, sizes, first, count, link.endpoint, 0);
  link.unsentFirst += sent;
  link.unsentCount -= sent;
  link.sentPackets += sent;
  let bytes = sent * link.outerBytes;
  for (let i = first; i < first + sent; i++) bytes += sizes[i];
  link.sentBytes += bytes;
}
