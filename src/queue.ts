/**
 * Bulk that waits for a link: one queue per flow bucket, served in turn (deficit round robin, RFC 8290
 * §4 without its dropping: the caller refuses by `hasRoomFor`). A bucket that was empty goes before those that
 * have waited, so that a lone packet never stands behind somebody's download.
 */
import type { PacketStore } from './store.ts';

const BUCKETS = 512;
/** Bytes a bucket may send in its turn: two full packets. */
const QUANTUM = 3_000;
const NONE = -1;
/** Packets that `pick` looks at: 50 ms of 140 Mbit/s; beyond that the packet may come early. */
const MOST_STEPS = 512;

export class FairQueue {
  /** Bytes and packets of all buckets. */
  bytes = 0;
  count = 0;
  private readonly store: PacketStore;
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly heads = new Int32Array(BUCKETS).fill(NONE);
  private readonly tails = new Int32Array(BUCKETS).fill(NONE);
  private readonly waiting = new Uint32Array(BUCKETS);
  private readonly deficits = new Int32Array(BUCKETS);
  /** Two lists of buckets that wait for their turn, as rings. */
  private readonly fresh = new Ring(BUCKETS);
  private readonly served = new Ring(BUCKETS);
  private readonly isListed = new Uint8Array(BUCKETS);

  constructor(store: PacketStore) {
    this.store = store;
    this.next = new Int32Array(store.lengths.length);
    this.previous = new Int32Array(store.lengths.length);
  }

  /** Buckets that have something waiting. */
  get buckets(): number {
    return this.fresh.count + this.served.count;
  }

  /** Bytes that wait in one bucket. */
  bytesOf(bucket: number): number {
    return this.waiting[bucket];
  }

  push(row: number): void {
    const bucket = this.store.buckets[row];
    const tail = this.tails[bucket];
    this.next[row] = NONE;
    this.previous[row] = tail;
    if (tail === NONE) this.heads[bucket] = row;
    else this.next[tail] = row;
    this.tails[bucket] = row;
    const length = this.store.lengths[row];
    this.waiting[bucket] += length;
    this.bytes += length;
    this.count++;
    if (this.isListed[bucket] === 1) return;
    this.isListed[bucket] = 1;
    this.deficits[bucket] = QUANTUM;
    this.fresh.push(bucket);
  }

  /** The packet whose turn it is, −1 when nothing waits. */
  shift(): number {
    for (;;) {
      const isFresh = this.fresh.count > 0;
      const list = isFresh ? this.fresh : this.served;
      if (list.count === 0) return NONE;
      const bucket = list.first();
      const row = this.heads[bucket];
      if (row === NONE) {
        list.shift();
        // One that was fresh waits its turn once more: else a flow that comes and goes is always fresh.
        if (isFresh && this.served.count > 0) this.served.push(bucket);
        else this.isListed[bucket] = 0;
      } else if (this.deficits[bucket] <= 0) {
        list.shift();
        this.deficits[bucket] += QUANTUM;
        this.served.push(bucket);
      } else {
        this.deficits[bucket] -= this.store.lengths[row];
        this.remove(row);
        return row;
      }
    }
  }

  /**
   * A packet of the bucket in which most waits, such that the quicker links would come to it only after
   * `ahead` bytes of all that wait: what a slow link carries meanwhile. −1 when nothing waits.
   */
  pick(ahead: number): number {
    let fullest = NONE;
    let most = 0;
    for (const list of [this.fresh, this.served]) {
      for (let i = 0; i < list.count; i++) {
        const bucket = list.at(i);
        if (this.waiting[bucket] > most) {
          most = this.waiting[bucket];
          fullest = bucket;
        }
      }
    }
    if (fullest === NONE) return NONE;
    let row = this.tails[fullest];
    // All buckets are served at once, so this one's share of those bytes is in front of its packet.
    let surplus = most * (1 - ahead / this.bytes);
    for (let steps = 0; steps < MOST_STEPS; steps++) {
      surplus -= this.store.lengths[row];
      const previous = this.previous[row];
      if (surplus <= 0 || previous === NONE) break;
      row = previous;
    }
    this.remove(row);
    return row;
  }

  clear(): void {
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      this.heads[bucket] = NONE;
      this.tails[bucket] = NONE;
    }
    this.waiting.fill(0);
    this.isListed.fill(0);
    this.fresh.count = 0;
    this.served.count = 0;
    this.bytes = 0;
    this.count = 0;
  }

  private remove(row: number): void {
    const bucket = this.store.buckets[row];
    const next = this.next[row];
    const previous = this.previous[row];
    if (previous === NONE) this.heads[bucket] = next;
    else this.next[previous] = next;
    if (next === NONE) this.tails[bucket] = previous;
    else this.previous[next] = previous;
    const length = this.store.lengths[row];
    this.waiting[bucket] -= length;
    this.bytes -= length;
    this.count--;
  }
}

/** Numbers first in, first out; as many as there are buckets. */
class Ring {
  count = 0;
  private readonly items: Uint16Array;
  private start = 0;

  constructor(size: number) {
    this.items = new Uint16Array(size);
  }

  push(item: number): void {
    this.items[(this.start + this.count) % this.items.length] = item;
    this.count++;
  }

  first(): number {
    return this.items[this.start];
  }

  at(index: number): number {
    return this.items[(this.start + index) % this.items.length];
  }

  shift(): void {
    this.start = (this.start + 1) % this.items.length;
    this.count--;
  }
}
