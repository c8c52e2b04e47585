/**
 * Packets that came in two datagrams (PROTOCOL §5.3) until both halves are there. The memory is given
 * at the start and divided into places; a joined packet stays in its place until `endBatch`, so that
 * it can be written from there. Allocates nothing after construction.
 */
import { HALVES_MS } from './constants.ts';

/** A place holds one packet: the tun device carries at most 1500 bytes. */
export const PLACE_BYTES = 2_048;
/** Chains of the index: a power of two, about as many as places. */
const CHAINS = 1_024;

export class Halves {
  /** Halves that were dropped: no room, too long, or their other half never came. */
  dropped = 0;
  private readonly bytes: Uint8Array;
  private readonly start: number;
  private readonly maxWaiting: number;
  private readonly buckets: Uint16Array;
  private readonly sequences: Uint32Array;
  private readonly splits: Uint16Array;
  /** Length of the half that waits, and which it is. */
  private readonly lengths: Uint16Array;
  private readonly isSecond: Uint8Array;
  private readonly sinceMs: Float64Array;
  /** Chains of places in use; −1 ends one. Free places are a chain of their own. */
  private readonly heads = new Int16Array(CHAINS).fill(-1);
  private readonly next: Int16Array;
  private free = 0;
  /** Those that wait, in the order they came; −1 ends the list. */
  private readonly older: Int16Array;
  private readonly newer: Int16Array;
  private oldest = -1;
  private newest = -1;
  private readonly joined: Int16Array;
  private joinedCount = 0;
  private waiting = 0;

  /**
   * Uses `bytes` from `start` to its end: as many places as fit (at most 32767), of which
   * `maxWaiting` may wait. The rest are for packets joined within one batch.
   */
  constructor(bytes: Uint8Array, start: number, maxWaiting: number) {
    const places = Math.floor((bytes.length - start) / PLACE_BYTES);
    this.bytes = bytes;
    this.start = start;
    this.maxWaiting = maxWaiting;
    this.buckets = new Uint16Array(places);
    this.sequences = new Uint32Array(places);
    this.splits = new Uint16Array(places);
    this.lengths = new Uint16Array(places);
    this.isSecond = new Uint8Array(places);
    this.sinceMs = new Float64Array(places);
    this.next = Int16Array.from({ length: places }, (_, i) => (i + 1 < places ? i + 1 : -1));
    this.older = new Int16Array(places);
    this.newer = new Int16Array(places);
    this.joined = new Int16Array(places);
  }

  /** Halves that wait for their other half. */
  get count(): number {
    return this.waiting;
  }

  /**
   * Takes the half of `length` bytes at `at` of the memory. Returns the place of the whole packet
   * (`offsetOf`, `lengthOf`), valid until `endBatch`, or −1 if it is not whole yet.
   */
  add(
    bucket: number,
    sequence: number,
    split: number,
    second: boolean,
    at: number,
    length: number,
    nowMs: number,
  ): number {
    const isFirstRight = second || length === split;
    const end = second ? split + length : split;
    if (!isFirstRight || length === 0 || end > PLACE_BYTES) {
      this.dropped++;
      return -1;
    }
    const chain = this.chainOf(bucket, sequence);
    let place = this.find(chain, bucket, sequence);
    if (place !== -1 && this.splits[place] === split && (this.isSecond[place] === 1) !== second) {
      this.copy(place, split, second, at, length);
      this.lengths[place] += length;
      this.forget(chain, place);
      this.joined[this.joinedCount++] = place;
      return place;
    }
    if (place !== -1) {
      // The same half again keeps what is there; another split replaces it: the sender split anew.
      if (this.splits[place] === split) return -1;
      this.drop(place);
    }
    // The oldest has waited in vain for the longest: on a lossy link its other half is lost.
    if (this.waiting >= this.maxWaiting) this.drop(this.oldest);
    if (this.free === -1) {
      this.dropped++;
      return -1;
    }
    place = this.free;
    this.free = this.next[place];
    this.next[place] = this.heads[chain];
    this.heads[chain] = place;
    this.older[place] = this.newest;
    this.newer[place] = -1;
    if (this.newest === -1) this.oldest = place;
    else this.newer[this.newest] = place;
    this.newest = place;
    this.buckets[place] = bucket;
    this.sequences[place] = sequence;
    this.splits[place] = split;
    this.isSecond[place] = second ? 1 : 0;
    this.lengths[place] = length;
    this.sinceMs[place] = nowMs;
    this.copy(place, split, second, at, length);
    this.waiting++;
    return -1;
  }

  /** Where a joined packet starts in the memory. */
  offsetOf(place: number): number {
    return this.start + place * PLACE_BYTES;
  }

  lengthOf(place: number): number {
    return this.lengths[place];
  }

  /** A whole packet came: a half of it that still waits is not needed. */
  replaced(bucket: number, sequence: number): void {
    if (this.waiting === 0) return;
    const chain = this.chainOf(bucket, sequence);
    const place = this.find(chain, bucket, sequence);
    if (place !== -1) this.drop(place);
  }

  /** Joined packets are written: their places are free again. */
  endBatch(): void {
    for (let i = 0; i < this.joinedCount; i++) this.release(this.joined[i]);
    this.joinedCount = 0;
  }

  /** Drops halves whose time is over. */
  expire(nowMs: number): void {
    while (this.oldest !== -1 && nowMs - this.sinceMs[this.oldest] >= HALVES_MS) {
      this.drop(this.oldest);
    }
  }

  /** Forgets everything: a new session numbers its packets anew. */
  clear(): void {
    while (this.oldest !== -1) this.drop(this.oldest);
  }

  private chainOf(bucket: number, sequence: number): number {
    return (sequence + bucket * 37) & (CHAINS - 1);
  }

  private find(chain: number, bucket: number, sequence: number): number {
    let place = this.heads[chain];
    while (place !== -1 && (this.sequences[place] !== sequence || this.buckets[place] !== bucket)) {
      place = this.next[place];
    }
    return place;
  }

  private copy(place: number, split: number, second: boolean, at: number, length: number): void {
    this.bytes.copyWithin(this.offsetOf(place) + (second ? split : 0), at, at + length);
  }

  private drop(place: number): void {
    this.forget(this.chainOf(this.buckets[place], this.sequences[place]), place);
    this.dropped++;
    this.release(place);
  }

  /** Takes a place out of the index and out of those that wait. */
  private forget(chain: number, place: number): void {
    this.unchain(chain, place);
    const older = this.older[place];
    const newer = this.newer[place];
    if (older === -1) this.oldest = newer;
    else this.newer[older] = newer;
    if (newer === -1) this.newest = older;
    else this.older[newer] = older;
    this.waiting--;
  }

  private unchain(chain: number, place: number): void {
    if (this.heads[chain] === place) {
      this.heads[chain] = this.next[place];
      return;
    }
    let before = this.heads[chain];
    while (this.next[before] !== place) before = this.next[before];
    this.next[before] = this.next[place];
  }

  private release(place: number): void {
    this.next[place] = this.free;
    this.free = place;
  }
}
