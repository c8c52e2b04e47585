/**
 * The order of delivery to TUN, per flow bucket: the only module that keeps whole packets. It knows
 * nothing of links, keys and clocks. Sequences are modulo 2²⁴ (PROTOCOL §5.2) and compared by their
 * signed difference from the next expected one of their bucket.
 *
 * 1. A packet in order passes where it lies: no copy. What was held behind it follows.
 * 2. One behind the next expected sequence is late: it passes if it did not before, and lies within
 *    the window. TCP prefers a late packet to a lost one.
 * 3. One ahead of it is copied and held. If it is ahead of all seen so far, it opens a gap, which has
 *    a deadline from then on: no later packet moves it.
 * 4. At its deadline, or when the sender says that nothing will come, a gap is given up and what
 *    was held behind it is released, up to the next gap.
 * 5. A packet whose sender does not order, and any of the realtime class, is never held: it passes,
 *    and gives up whatever gaps are in front of it.
 *
 * The memory is given at the start and divided into places; a released packet stays in its place
 * until `endBatch`, so that it can be written from there. Allocates nothing after construction.
 */
import { packetTable, TABLE_SLOTS, type PacketTable } from './batch.ts';
import { Delivered, WINDOW } from './delivered.ts';
import { Gaps, NO_GAP } from './gaps.ts';

/** Those below are of bulk; from here on they are of the realtime class, which is never held. */
const ORDERED_BUCKETS = 256;
export const BUCKETS = 2 * ORDERED_BUCKETS;
/** Sequences per bucket: how far ahead a packet is held, and how far back a late one is known. */
export { WINDOW };
/** A place holds one packet: the tun device carries at most 1500 bytes, and this many are whole cache lines. */
export const REORDER_PLACE_BYTES = 1_536;

const SEQUENCE_MASK = 0xff_ffff;
/** Bits above a sequence: shifted out and back, a difference gets its sign. */
const SIGN_SHIFT = 8;
/**
 * No loss explains a jump of a quarter of all sequences: the peer numbers the bucket anew. Holding
 * would only delay it.
 */
const RESTART_AHEAD = 2 ** 22;
/** What `heldAt` says of a sequence: nothing came, it will never come, or (others) its place plus one. */
const MISSING = 0;
const NEVER = 0xffff;
const MAX_PLACES = NEVER - 1;

/** What happened to packets, summed up since the start. */
export interface ReorderCounters {
  /** Came early and were copied. */
  held: number;
  /** Came after their sequence was given up, and were delivered still. */
  late: number;
  /** Dropped: delivered before, or held already. */
  duplicate: number;
  /** Dropped: so far behind that nobody knows whether they were delivered. */
  tooOld: number;
  /** Sequences given up: not there when those behind them were released. Late ones count here too. */
  abandoned: number;
  /** Times that a gap was given up early, or a packet passed out of order, since places ran out. */
  overflow: number;
}

export class Reorder {
  /**
   * What may be written to TUN now, in order: rows 0 to `count` − 1 (buckets and flows are unused).
   * Has room for `TABLE_SLOTS` calls of `add` between two of `endBatch`, whatever they release.
   */
  readonly out: PacketTable;
  /** Rows in `out`. */
  count = 0;
  /** Packets that are held now. */
  waiting = 0;
  readonly counters: ReorderCounters = {
    held: 0,
    late: 0,
    duplicate: 0,
    tooOld: 0,
    abandoned: 0,
    overflow: 0,
  };
  private readonly bytes: Uint8Array;
  private readonly start: number;
  private readonly maxWaiting: number;

  /* Per bucket. */
  /** The next expected sequence: all below it were delivered or given up. */
  private readonly expected = new Uint32Array(BUCKETS);
  /** For the `WINDOW` sequences below `expected`. */
  private readonly delivered = new Delivered(BUCKETS);
  /** Entries of `heldAt` that are not MISSING. */
  private readonly entries = new Uint16Array(BUCKETS);
  /** One for each of the `WINDOW` sequences from `expected` on. */
  private readonly heldAt = new Uint16Array(ORDERED_BUCKETS * WINDOW);
  /** The sequence after the highest seen; means nothing while there is no gap. */
  private readonly ends = new Uint32Array(ORDERED_BUCKETS);

  /* Per place. */
  private readonly sequences: Uint32Array;
  private readonly lengths: Uint16Array;
  private readonly flags: Uint8Array;
  /** Gaps in ascending order, each named by the place of the packet behind it, which opened it. */
  private readonly gaps: Gaps;
  /** Free places, the one used last on top, so that memory never needed is never touched. */
  private readonly free: Uint16Array;
  private freeCount: number;
  /** Places of this batch's `out`. */
  private readonly released: Uint16Array;
  private releasedCount = 0;

  /**
   * Uses `places` × `REORDER_PLACE_BYTES` of `bytes` from `start` on; 1 to 65534 places. A part of
   * them, `TABLE_SLOTS` or half of all, is kept for packets held while others wait to be written.
   */
  constructor(bytes: Uint8Array, start: number, places: number) {
    if (places < 1 || places > MAX_PLACES) throw new RangeError(`${places} places`);
    if (start + places * REORDER_PLACE_BYTES > bytes.length) {
      throw new RangeError(`${bytes.length} bytes have no room for ${places} places`);
    }
    this.bytes = bytes;
    this.start = start;
    this.maxWaiting = places - Math.min(TABLE_SLOTS, places >> 1);
    this.out = packetTable(places + TABLE_SLOTS);
    this.sequences = new Uint32Array(places);
    this.lengths = new Uint16Array(places);
    this.flags = new Uint8Array(places);
    this.gaps = new Gaps(ORDERED_BUCKETS, places);
    this.free = Uint16Array.from({ length: places }, (_, i) => places - 1 - i);
    this.freeCount = places;
    this.released = new Uint16Array(places);
  }

  /** The next time at which `expire` has something to do; Infinity if nothing is held. */
  deadlineMs(): number {
    return this.gaps.deadlineMs();
  }

  /**
   * Takes the whole packet of `length` bytes at `at` of the memory, which must stay there until
   * `endBatch`: it passes, at once or later, or is dropped (false). `bucket` is below `BUCKETS`,
   * `sequence` below 2²⁴; a gap that this packet opens is given up after `holdMs`, which is finite.
   */
  add(
    bucket: number,
    sequence: number,
    isOrdered: boolean,
    at: number,
    length: number,
    flags: number,
    holdMs: number,
    nowMs: number,
  ): boolean {
    // Also here, since under continuous traffic the loop may come to its timers too late.
    if (this.gaps.mayBeDue(nowMs)) this.expire(nowMs);
    const ahead = ((sequence - this.expected[bucket]) << SIGN_SHIFT) >> SIGN_SHIFT;
    if (ahead === 0) {
      this.pass(bucket, sequence, at, length, flags);
      return true;
    }
    if (ahead < 0) return this.addLate(bucket, sequence, ahead, at, length, flags);
    const isHeld =
      isOrdered &&
      bucket < ORDERED_BUCKETS &&
      ahead <= RESTART_AHEAD &&
      length <= REORDER_PLACE_BYTES;
    if (isHeld) return this.addEarly(bucket, sequence, ahead, at, length, flags, holdMs, nowMs);
    return this.passAhead(bucket, sequence, at, length, flags);
  }

  /** Gives up the gaps whose deadline has come and releases what was held behind them. */
  expire(nowMs: number): void {
    if (nowMs < this.gaps.deadlineMs()) return;
    for (let bucket = 0; bucket < ORDERED_BUCKETS; bucket++) {
      while (this.gaps.isDue(bucket, nowMs)) this.giveUpFirstGap(bucket);
    }
  }

  /** `out` was written: the places of its packets are free again. */
  endBatch(): void {
    for (let i = this.releasedCount - 1; i >= 0; i--) {
      this.free[this.freeCount++] = this.released[i];
    }
    this.releasedCount = 0;
    this.count = 0;
  }

  /**
   * The sender says that `count` sequences from `sequence` on will never come: nothing is held for
   * them. `WINDOW` of them are heeded, and none so far ahead that it could not be held. One that comes
   * nevertheless is delivered.
   */
  giveUp(bucket: number, sequence: number, nowMs: number, count = 1): void {
    this.expire(nowMs);
    if (bucket >= ORDERED_BUCKETS) return;
    const first = ((sequence - this.expected[bucket]) << SIGN_SHIFT) >> SIGN_SHIFT;
    const end = Math.min(first + Math.min(count, WINDOW), WINDOW);
    for (let ahead = Math.max(first, 0); ahead < end; ahead++) {
      const entry = this.entryOf(bucket, this.expected[bucket] + ahead);
      if (this.heldAt[entry] !== MISSING) continue;
      this.heldAt[entry] = NEVER;
      this.entries[bucket]++;
    }
    this.drain(bucket);
  }

  /** Forgets everything but `out`: a new session numbers its packets anew. */
  clear(): void {
    for (let bucket = 0; bucket < ORDERED_BUCKETS; bucket++) {
      for (let ahead = 0; this.entries[bucket] > 0; ahead++) {
        const entry = this.entryOf(bucket, this.expected[bucket] + ahead);
        const held = this.heldAt[entry];
        if (held === MISSING) continue;
        this.heldAt[entry] = MISSING;
        this.entries[bucket]--;
        if (held !== NEVER) this.free[this.freeCount++] = held - 1;
      }
    }
    this.waiting = 0;
    this.expected.fill(0);
    this.delivered.clear();
    this.gaps.clear();
  }

  /** Delivers the expected sequence, and what is held directly behind it. */
  private pass(bucket: number, sequence: number, at: number, length: number, flags: number): void {
    this.append(at, length, flags);
    this.delivered.set(bucket, sequence);
    this.expected[bucket] = (sequence + 1) & SEQUENCE_MASK;
    if (this.entries[bucket] !== 0) this.drain(bucket);
  }

  /** Delivers a sequence ahead of the expected one without waiting for those between. */
  private passAhead(
    bucket: number,
    sequence: number,
    at: number,
    length: number,
    flags: number,
  ): boolean {
    this.advance(bucket, sequence);
    if (this.isHeld(bucket, sequence)) {
      this.counters.duplicate++;
      this.drain(bucket);
      return false;
    }
    this.takeEntry(bucket, sequence);
    this.pass(bucket, sequence, at, length, flags);
    return true;
  }

  private addLate(
    bucket: number,
    sequence: number,
    ahead: number,
    at: number,
    length: number,
    flags: number,
  ): boolean {
    if (ahead < -WINDOW) {
      this.counters.tooOld++;
      return false;
    }
    if (this.delivered.has(bucket, sequence)) {
      this.counters.duplicate++;
      return false;
    }
    this.delivered.set(bucket, sequence);
    this.counters.late++;
    this.append(at, length, flags);
    return true;
  }

  /** Holds a packet, or delivers it if making room for it has brought its turn. */
  private addEarly(
    bucket: number,
    sequence: number,
    ahead: number,
    at: number,
    length: number,
    flags: number,
    holdMs: number,
    nowMs: number,
  ): boolean {
    if (ahead >= WINDOW) {
      this.advance(bucket, (sequence - WINDOW + 1) & SEQUENCE_MASK);
      this.drain(bucket);
      return this.add(bucket, sequence, true, at, length, flags, holdMs, nowMs);
    }
    if (this.isHeld(bucket, sequence)) {
      this.counters.duplicate++;
      return false;
    }
    if (this.waiting >= this.maxWaiting) {
      this.counters.overflow++;
      // The one with the least left to hope for.
      this.giveUpFirstGap(this.gaps.nextDue());
      return this.add(bucket, sequence, true, at, length, flags, holdMs, nowMs);
    }
    if (this.freeCount === 0) {
      // Everything is in `out`; what was just received needs no place there.
      this.counters.overflow++;
      return this.passAhead(bucket, sequence, at, length, flags);
    }
    this.hold(bucket, sequence, at, length, flags, nowMs + holdMs);
    return true;
  }

  private hold(
    bucket: number,
    sequence: number,
    at: number,
    length: number,
    flags: number,
    deadlineMs: number,
  ): void {
    const place = this.free[--this.freeCount];
    this.bytes.copyWithin(this.start + place * REORDER_PLACE_BYTES, at, at + length);
    this.sequences[place] = sequence;
    this.lengths[place] = length;
    this.flags[place] = flags;
    const entry = this.entryOf(bucket, sequence);
    if (this.heldAt[entry] === MISSING) this.entries[bucket]++;
    this.heldAt[entry] = place + 1;
    this.waiting++;
    this.counters.held++;
    const isFirst = this.gaps.firstOf(bucket) === NO_GAP;
    const end = isFirst ? this.expected[bucket] : this.ends[bucket];
    const beyond = ((sequence - end) << SIGN_SHIFT) >> SIGN_SHIFT;
    if (beyond < 0) return;
    this.ends[bucket] = (sequence + 1) & SEQUENCE_MASK;
    if (beyond > 0) this.gaps.open(bucket, place, deadlineMs);
  }

  private giveUpFirstGap(bucket: number): void {
    this.advance(bucket, this.sequences[this.gaps.firstOf(bucket)]);
    this.drain(bucket);
  }

  /** Releases what is held below `target` and gives up the rest; `target` is the next expected. */
  private advance(bucket: number, target: number): void {
    let sequence = this.expected[bucket];
    while (sequence !== target && this.entries[bucket] > 0) {
      this.leave(bucket, sequence);
      sequence = (sequence + 1) & SEQUENCE_MASK;
    }
    this.expected[bucket] = target;
    const count = (target - sequence) & SEQUENCE_MASK;
    this.counters.abandoned += count;
    this.delivered.unset(bucket, sequence, count);
  }

  /** Goes on over all that need not be waited for. */
  private drain(bucket: number): void {
    let sequence = this.expected[bucket];
    while (this.entries[bucket] > 0 && this.heldAt[this.entryOf(bucket, sequence)] !== MISSING) {
      this.leave(bucket, sequence);
      sequence = (sequence + 1) & SEQUENCE_MASK;
    }
    this.expected[bucket] = sequence;
  }

  /** Releases one sequence if it is held, and gives it up if not. */
  private leave(bucket: number, sequence: number): void {
    const held = this.takeEntry(bucket, sequence);
    if (held === MISSING || held === NEVER) {
      this.delivered.unset(bucket, sequence, 1);
      this.counters.abandoned++;
      return;
    }
    this.delivered.set(bucket, sequence);
    this.release(bucket, held - 1);
  }

  private release(bucket: number, place: number): void {
    this.append(this.start + place * REORDER_PLACE_BYTES, this.lengths[place], this.flags[place]);
    this.released[this.releasedCount++] = place;
    this.waiting--;
    // Behind the packet that opened the first gap the bucket waits for the second.
    if (this.gaps.firstOf(bucket) === place) this.gaps.endFirst(bucket);
  }

  private append(at: number, length: number, flags: number): void {
    const row = this.count++;
    this.out.offsets[row] = at;
    this.out.lengths[row] = length;
    this.out.flags[row] = flags;
  }

  /** Empties the entry of a sequence that is passed now, and returns what it said. */
  private takeEntry(bucket: number, sequence: number): number {
    if (this.entries[bucket] === 0) return MISSING;
    const entry = this.entryOf(bucket, sequence);
    const held = this.heldAt[entry];
    if (held === MISSING) return MISSING;
    this.heldAt[entry] = MISSING;
    this.entries[bucket]--;
    return held;
  }

  private isHeld(bucket: number, sequence: number): boolean {
    if (this.entries[bucket] === 0) return false;
    const held = this.heldAt[this.entryOf(bucket, sequence)];
    return held !== MISSING && held !== NEVER;
  }

  private entryOf(bucket: number, sequence: number): number {
    return bucket * WINDOW + (sequence & (WINDOW - 1));
  }
}
