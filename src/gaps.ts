/**
 * The gaps of each ordered bucket, first in first out: a gap opens behind all others of its bucket, and
 * only the first can end. Each has a deadline that is fixed when it opens. A gap is named by a number
 * below a limit, which its owner chooses and must not use twice at a time. Allocates nothing after
 * construction.
 */

/** No gap. */
export const NO_GAP = -1;

export class Gaps {
  private readonly firsts: Int32Array;
  private readonly lasts: Int32Array;
  /** Of each bucket's first gap; Infinity without one. */
  private readonly firstDeadlines: Float64Array;
  /** Never later than the least of `firstDeadlines`, and earlier only until somebody asks. */
  private earliestMs = Infinity;
  /* Per gap. */
  private readonly deadlines: Float64Array;
  private readonly nexts: Int32Array;

  constructor(buckets: number, limit: number) {
    this.firsts = new Int32Array(buckets).fill(NO_GAP);
    this.lasts = new Int32Array(buckets);
    this.firstDeadlines = new Float64Array(buckets).fill(Infinity);
    this.deadlines = new Float64Array(limit);
    this.nexts = new Int32Array(limit);
  }

  /** The first gap of a bucket, or NO_GAP. */
  firstOf(bucket: number): number {
    return this.firsts[bucket];
  }

  /** `deadlineMs` is finite. */
  open(bucket: number, gap: number, deadlineMs: number): void {
    this.deadlines[gap] = deadlineMs;
    this.nexts[gap] = NO_GAP;
    if (this.firsts[bucket] === NO_GAP) this.setFirst(bucket, gap);
    else this.nexts[this.lasts[bucket]] = gap;
    this.lasts[bucket] = gap;
  }

  /** The first gap of a bucket is filled or given up. */
  endFirst(bucket: number): void {
    this.setFirst(bucket, this.nexts[this.firsts[bucket]]);
  }

  /** Whether a first gap may be due: the quick question, for each packet. False is certain. */
  mayBeDue(nowMs: number): boolean {
    return nowMs >= this.earliestMs;
  }

  isDue(bucket: number, nowMs: number): boolean {
    return this.firsts[bucket] !== NO_GAP && nowMs >= this.firstDeadlines[bucket];
  }

  /** When the next of all first gaps is due; Infinity if there is none. */
  deadlineMs(): number {
    if (this.earliestMs !== Infinity) this.earliestMs = this.firstDeadlines[this.nextDue()];
    return this.earliestMs;
  }

  /** The bucket whose first gap is due next; bucket 0 if there is no gap. */
  nextDue(): number {
    const { firstDeadlines } = this;
    let next = 0;
    for (let bucket = 1; bucket < firstDeadlines.length; bucket++) {
      if (firstDeadlines[bucket] < firstDeadlines[next]) next = bucket;
    }
    return next;
  }

  clear(): void {
    this.firsts.fill(NO_GAP);
    this.firstDeadlines.fill(Infinity);
    this.earliestMs = Infinity;
  }

  private setFirst(bucket: number, gap: number): void {
    const deadlineMs = gap === NO_GAP ? Infinity : this.deadlines[gap];
    this.firsts[bucket] = gap;
    this.firstDeadlines[bucket] = deadlineMs;
    if (deadlineMs < this.earliestMs) this.earliestMs = deadlineMs;
  }
}
