/**
 * What one link brings in, as this end sees it: how much, how late against the sender's stamps, how far
 * out of order; and the section of the next report that says so. Knows counters and times, no packet.
 */
import { SEND_TIME_UNITS_PER_MS } from './constants.ts';
import { difference16, MOST_RANGES, type Section } from './feedback.ts';
import type { ReplayWindow } from './replay.ts';

/** How far back a report goes: so many reports may be lost before a gap is misread. */
const LEAST_COVERED = 4;
/** Reports remembered, to know how far back a time is. */
const REMEMBERED = 64;
const LEAST_COVERED_MS = 50;
/** One in so many delays is looked at while nobody waits for reports. */
const SAMPLED = 8;
/** In so long the memory of reordering halves. */
const FORGET_MS = 20_000;
/**
 * A quantile without a memory of samples (stochastic approximation, Robbins and Monro 1951): up by most of a
 * step for the few above it, down by little for the many below.
 */
const QUANTILE_REST = 0.01;
const QUANTILE_STEP = 0.05;
const QUANTILE_GRAIN_MS = 20;

export class Reception {
  /** Datagrams and outer bytes received, of all epochs. */
  packets = 0;
  bytes = 0;
  /** How far a datagram was overtaken at most, ms by the sender's clock; forgotten slowly. */
  reorderingMs = 0;
  /** How far all but one in a hundred were: what is later counts as lost for its sender. */
  usualReorderingMs = 0;
  /** Since the last report: whether packets came at all, such as ask for a report, and a new gap. */
  hasNews = false;
  isDue = false;
  isUrgent = false;
  /** Delay against the sender's stamps, smoothed, ms with no common zero; NaN before the first. */
  delayMs = Number.NaN;
  /** Mean deviation of that. */
  jitterMs = 0;
  private epoch = -1;
  private window: ReplayWindow | undefined = undefined;
  /** The epoch before: what came of it since the last report is still to be said, so often. */
  private formerEpoch = -1;
  private formerWindow: ReplayWindow | undefined = undefined;
  private formerMs = 0;
  private formerFloor = 0;
  private formerReports = 0;
  /** The highest counter, its stamp, and when it came. */
  private newest = -1;
  private newestStamp = 0;
  private newestMs = 0;
  /** When anything last came. */
  lastMs = Number.NEGATIVE_INFINITY;
  private forgottenMs = 0;
  private leastDelay = 0;
  /** Sum of the delays since the last report, relative to the least of the last one. */
  private origin = 0;
  private sum = 0;
  private samples = 0;
  /** The highest counter at each of the last reports of this epoch, and when that was. */
  private readonly covered = new Float64Array(REMEMBERED);
  private readonly coveredMs = new Float64Array(REMEMBERED);
  private reports = 0;

  /**
   * A datagram passed the window of its epoch. `isAwaited`: its sender waits to hear of it; `isReport`:
   * it tells of others, and asks for no answer (else two idle ends would go on for ever).
   */
  arrived(
    epoch: number,
    window: ReplayWindow,
    counter: number,
    stamp: number,
    size: number,
    isAwaited: boolean,
    isReport: boolean,
    nowMs: number,
  ): void {
    this.packets++;
    this.bytes += size;
    this.lastMs = nowMs;
    if (!isReport) this.hasNews = true;
    if (isAwaited) this.isDue = true;
    // Over one clean link at full speed one delay in some says enough.
    if (isAwaited || this.packets % SAMPLED === 0 || this.samples === 0) {
      this.learnDelay(difference16(Math.floor(nowMs * SEND_TIME_UNITS_PER_MS), stamp));
    }
    if (window === this.formerWindow) {
      this.formerReports = LEAST_COVERED;
      if (counter === window.highest) this.formerMs = nowMs;
    } else if (window !== this.window) {
      this.begin(epoch, window, nowMs);
    }
    if (window === this.window && counter === window.highest) {
      // On a link that keeps the order a gap is a loss, and worth saying at once.
      if (isAwaited && counter > this.newest + 1 && this.reorderingMs < 1) this.isUrgent = true;
      this.newest = counter;
      this.newestStamp = stamp;
      this.newestMs = nowMs;
      if (this.usualReorderingMs > 0) this.usualReorderingMs *= 1 - QUANTILE_STEP * QUANTILE_REST;
      return;
    }
    const overtakenMs = difference16(this.newestStamp, stamp) / SEND_TIME_UNITS_PER_MS;
    if (overtakenMs > this.reorderingMs) this.reorderingMs = overtakenMs;
    const step = QUANTILE_STEP * Math.max(QUANTILE_GRAIN_MS, this.usualReorderingMs);
    const isAbove = overtakenMs > this.usualReorderingMs;
    this.usualReorderingMs += isAbove ? step * (1 - QUANTILE_REST) : -step * QUANTILE_REST;
  }

  /** Windows tell keys apart: the numbers of epochs come again. */
  private begin(epoch: number, window: ReplayWindow, nowMs: number): void {
    if (this.window !== undefined) {
      this.formerEpoch = this.epoch;
      this.formerWindow = this.window;
      this.formerMs = this.newestMs;
      this.formerFloor = this.floor(nowMs);
      // The peer would take old keys of the same number for the new ones.
      this.formerReports = this.epoch === epoch ? 0 : LEAST_COVERED;
    }
    this.epoch = epoch;
    this.window = window;
    this.newest = window.highest;
    this.reports = 0;
    if (this.forgottenMs === 0) this.forgottenMs = nowMs;
  }

  private learnDelay(delay: number): void {
    if (this.samples === 0) {
      this.origin = delay;
      this.leastDelay = delay;
      this.sum = 0;
    }
    const relative = difference16(delay, this.origin);
    this.sum += relative;
    this.samples++;
    if (difference16(delay, this.leastDelay) < 0) this.leastDelay = delay;
    const delayMs = delay / SEND_TIME_UNITS_PER_MS;
    if (Number.isNaN(this.delayMs)) this.delayMs = delayMs;
    const deviation =
      difference16(delay, Math.round(this.delayMs * SEND_TIME_UNITS_PER_MS)) /
      SEND_TIME_UNITS_PER_MS;
    this.delayMs += deviation / 16;
    this.jitterMs += (Math.abs(deviation) - this.jitterMs) / 16;
  }

  /**
   * Fills the section on the epoch before this one, of a report sent now; false when there is nothing to
   * say. To be asked for before `report`, and to be sent in front of its section: there the datagrams of
   * the former epoch would already count as overtaken.
   */
  reportFormer(to: Section, link: number, nowMs: number): boolean {
    const { formerWindow: window } = this;
    if (window === undefined || this.samples === 0 || this.formerReports === 0) return false;
    this.formerReports--;
    this.fill(to, link, this.formerEpoch, window, this.formerMs, this.formerFloor, nowMs);
    return true;
  }

  /** Fills the section of a report sent now; false when there is nothing to say. */
  report(to: Section, link: number, nowMs: number): boolean {
    const { window } = this;
    if (window === undefined || this.samples === 0) return false;
    this.forget(nowMs);
    this.fill(to, link, this.epoch, window, this.newestMs, this.floor(nowMs), nowMs);
    this.samples = 0;
    this.hasNews = false;
    this.isDue = false;
    this.isUrgent = false;
    const place = this.reports++ % REMEMBERED;
    this.covered[place] = window.highest;
    this.coveredMs[place] = nowMs;
    return true;
  }

  private fill(
    to: Section,
    link: number,
    epoch: number,
    window: ReplayWindow,
    newestMs: number,
    floor: number,
    nowMs: number,
  ): void {
    const units = (ms: number): number => Math.floor(ms * SEND_TIME_UNITS_PER_MS);
    to.link = link;
    to.epoch = epoch;
    to.highest = window.highest % 2 ** 32;
    to.age = Math.min(0xffff, units(nowMs - newestMs));
    to.arrival = units(this.lastMs) % 2 ** 32;
    to.packets = this.packets % 2 ** 32;
    to.bytes = this.bytes % 2 ** 32;
    to.leastDelay = this.leastDelay & 0xffff;
    to.meanDelay = (this.origin + Math.round(this.sum / this.samples)) & 0xffff;
    to.reordering = Math.min(0xffff, Math.ceil(this.usualReorderingMs * SEND_TIME_UNITS_PER_MS));
    to.runCount = window.runs(floor, to.runs, 2 * MOST_RANGES);
  }

  /** From which counter on this report speaks: so far back that what was late is in it. */
  private floor(nowMs: number): number {
    const sinceMs = nowMs - Math.max(LEAST_COVERED_MS, 2 * this.reorderingMs);
    const known = Math.min(this.reports, REMEMBERED);
    for (let back = LEAST_COVERED; back <= known; back++) {
      const place = (this.reports - back) % REMEMBERED;
      if (this.coveredMs[place] < sinceMs) return this.covered[place];
    }
    // Too few reports for that, or too many: as far back as anything is known.
    return this.reports < REMEMBERED ? 0 : this.covered[this.reports % REMEMBERED];
  }

  private forget(nowMs: number): void {
    const ms = nowMs - this.forgottenMs;
    if (ms < 1_000) return;
    this.forgottenMs = nowMs;
    this.reorderingMs *= 2 ** (-ms / FORGET_MS);
  }
}
