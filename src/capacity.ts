/**
 * What one link carries in one direction, and so how much may be under way. After BBR
 * (draft-ietf-ccwg-bbr): a windowed maximum of the delivery rate, a windowed minimum of the time in flight, a
 * quarter more in one round of eight to see whether there is more to be had. Told the time; sends nothing.
 */
import type { Section } from './feedback.ts';
import type { Flight } from './flight.ts';
import { LEAST_SPAN_MS, Measurements, type Sample } from './measurements.ts';

const PACKET_BYTES = 1_500;
/** Rounds that the maximum is taken over (BBR: 10). */
const ROUNDS = 10;
/** What is sent in each round of a cycle, in parts of the rate (BBR's ProbeBW). */
const GAINS: readonly number[] = [1.25, 0.8, 1.02, 1.02, 1.02, 1.02, 1.02, 1.02];
/** A round that brought so much more is followed by one that asks for more still. */
const RISE = 1.08;
const RISE_GAIN = 1.6;
/** With jitter a burst looks like a queue: what ends the search for the rate has to be more. */
const SURE_QUEUE_MS = 30;
/** Of a link that carries little a few late datagrams make a queue of any length: it has to hold something. */
const SURE_QUEUE_BYTES = 6 * PACKET_BYTES;
/** Loss in one round that ends the search for the rate also without a queue. */
const HEAVY_LOSS = 0.12;
const HEAVY_SAMPLE = 100;
/** A link that brings so much more than a round trip ago is not full (BBR's startup). */
const GROWTH = 1.25;
/** While the rate is searched for: what may be under way at first (RFC 6928 has 10), and later (BBR's startup). */
const SEARCH_BYTES = 24 * PACKET_BYTES;
const SEARCH_GAIN = 2.5;
/** No link takes longer; a sum that has no value yet does. */
const MOST_FULL_MS = 10_000;
/** A gigabit per second, in bytes per millisecond: what waits there waits for a processor. */
const HOST_RATE = 125_000;
/** Credit that may lie unused: what goes out at once. More when it was waited for and the timer came late. */
const BURST_MS = 2.5;
const LATE_MS = 25;
/** Sums of credit are not exact: a timer must come after they have grown. */
const LEAST_WAIT_MS = 0.05;

export class Capacity extends Measurements {
  /** Outer bytes per millisecond; 0 while it is not known, and nothing limits the link. */
  rate = 0;
  /** Upper bound from the configuration; 0: none. */
  maxRate = 0;
  /** How much of the rate may be used, 0 to 1. */
  share = 1;
  /** The most that was seen since the search began. */
  private mostDelivered = 0;
  private readonly best = new Float64Array(ROUNDS);
  private round = 0;
  private roundAtMs = 0;
  private isRoundFull = false;
  /** Something waited for this link in this round. */
  private isWanted = false;
  private phase = 2;
  private gain = 1;
  private rateBefore = 0;
  private credit = 0;
  private creditMs = 0;
  /** Something waits for credit now. */
  private isWaiting = false;
  /** When the link last had room and nothing to send. */
  private idleMs = 0;
  /** When the link last showed no queue. */
  private queuedMs = 0;

  /** A link whose rate was found before starts from there. */
  assume(rate: number, nowMs: number): void {
    this.rate = rate;
    this.best.fill(0);
    this.best[this.round] = rate;
    this.creditMs = nowMs;
    this.roundAtMs = nowMs;
  }

  /** Forgets the rate: it is searched for anew. */
  restart(): void {
    this.rate = 0;
    this.mostDelivered = 0;
    this.gain = 1;
    this.best.fill(0);
  }

  /** What is sent per millisecond now, 0 for no limit. */
  get limit(): number {
    const rate = this.rate * this.gain * this.share;
    return this.maxRate > 0 && (rate === 0 || rate > this.maxRate) ? this.maxRate : rate;
  }

  /** Whether another packet may go out, with `flying` bytes under way. */
  hasRoom(flying: number, nowMs: number): boolean {
    const { limit } = this;
    if (flying >= this.window) return false;
    if (limit === 0) return true;
    this.earn(nowMs);
    return this.credit > 0;
  }

  /** Bytes that may be under way. */
  get window(): number {
    const isKnown = this.rate > 0;
    const rate = isKnown ? this.rate * Math.max(1, this.gain) : SEARCH_GAIN * this.mostDelivered;
    const least = isKnown ? 2 * PACKET_BYTES : SEARCH_BYTES;
    // Before the first report nothing is known of the delay either.
    const { fullMs } = this;
    // The peer may say what it likes of how long its reports have waited.
    return rate > 0 && fullMs > 0 && fullMs < MOST_FULL_MS ? rate * fullMs + least : least;
  }

  /** When there will be credit again, were nothing under way. */
  creditAtMs(nowMs: number): number {
    const { limit } = this;
    if (limit === 0) return nowMs;
    this.earn(nowMs);
    return this.credit > 0 ? nowMs : nowMs + LEAST_WAIT_MS + (1 - this.credit) / limit;
  }

  private earn(nowMs: number): void {
    const { limit } = this;
    const most = limit * (this.isWaiting ? LATE_MS : BURST_MS) + PACKET_BYTES;
    this.credit = Math.min(most, this.credit + limit * (nowMs - this.creditMs));
    this.creditMs = nowMs;
  }

  spend(bytes: number): void {
    if (this.limit > 0) this.credit -= bytes;
  }

  /** The link had no room, and something waited. */
  blocked(): void {
    this.isWanted = true;
    this.isWaiting = true;
  }

  /** The link could take more than there was: what arrives now says nothing about its rate. */
  idle(nowMs: number): void {
    this.idleMs = nowMs;
    this.isWaiting = false;
  }

  /** A report arrived: see `measure`. */
  report(
    section: Section,
    ackMs: number,
    flight: Pick<Flight, 'lost' | 'flown' | 'flownMs'> | undefined,
    lostProbes: number,
    nowMs: number,
  ): void {
    const sample = this.measure(section, ackMs, flight, lostProbes, nowMs);
    if (sample === undefined) return;
    const { rate, spanMs } = sample;
    if (rate > this.mostDelivered) this.mostDelivered = rate;
    // What is in this sample was sent a round trip ago and earlier.
    const isFull = this.idleMs < nowMs - this.ackMs - spanMs;
    if (isFull) this.isRoundFull = true;
    if (rate > this.best[this.round]) {
      if (isFull || this.rate === 0 || rate > this.rate) this.best[this.round] = rate;
    }
    if (this.rate === 0) this.search(sample, nowMs);
    else this.follow(nowMs);
  }

  /** While the rate is not known, the link takes what comes, until it queues or loses a lot. */
  private search({ loss, sent }: Sample, nowMs: number): void {
    const before = this.best[(this.round + ROUNDS - 1) % ROUNDS];
    const isGrowing = this.deliveredRate > before * GROWTH;
    const isQueue = this.isQueueing && this.queueMs > (this.isDisordered ? SURE_QUEUE_MS : 0);
    const isSure =
      isQueue &&
      this.mostDelivered < HOST_RATE &&
      this.queueMs * this.deliveredRate > SURE_QUEUE_BYTES;
    if (!isSure || isGrowing) this.queuedMs = nowMs;
    if (nowMs - this.roundAtMs >= Math.max(this.ackMs, LEAST_SPAN_MS)) {
      this.roundAtMs = nowMs;
      this.round = (this.round + 1) % ROUNDS;
      this.best[this.round] = 0;
    }
    const isHeavy = loss > HEAVY_LOSS && loss > 3 * this.loss && sent > HEAVY_SAMPLE;
    // Means of the same round trip say the same thing twice.
    const patienceMs = this.isDisordered ? 1.5 * Math.max(this.ackMs, LEAST_SPAN_MS) : 20;
    if (nowMs - this.queuedMs < patienceMs && !isHeavy) return;
    let best = this.deliveredRate;
    for (let back = 0; back < 4; back++) {
      best = Math.max(best, this.best[(this.round + ROUNDS - back) % ROUNDS]);
    }
    this.assume(best, nowMs);
    this.phase = 2;
    this.gain = 0.8;
  }

  private follow(nowMs: number): void {
    this.rate = Math.max(...this.best);
    if (nowMs - this.roundAtMs < Math.max(this.ackMs, LEAST_SPAN_MS)) return;
    this.roundAtMs = nowMs;
    if (!this.isWanted) {
      this.gain = 1;
      return;
    }
    this.isWanted = false;
    // What the link could not show for lack of demand is not forgotten.
    if (this.isRoundFull) {
      this.isRoundFull = false;
      this.round = (this.round + 1) % ROUNDS;
      this.best[this.round] = this.deliveredRate;
    }
    this.rate = Math.max(...this.best);
    // What a probe has brought shows a round trip later.
    if (this.phase === 1 && this.rate > this.rateBefore * RISE && !this.isQueueing) {
      this.phase = 0;
      this.gain = RISE_GAIN;
    } else {
      this.phase = (this.phase + 1) % GAINS.length;
      // What waits there may be the doing of others: little less than the rate is sent.
      const isOurs = this.isQueueing && this.rate < HOST_RATE;
      this.gain = isOurs ? Math.min(0.95, GAINS[this.phase]) : GAINS[this.phase];
    }
    if (this.phase === 0) this.rateBefore = this.rate;
  }
}
