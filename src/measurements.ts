/**
 * What the peer's reports say of one link in one direction: delay, jitter, queue, loss, rate as delivered. Rate
 * and delay are the receiver's own measurements, so that neither the way back of the reports nor jitter on
 * it is taken for congestion. Told the time; decides nothing (capacity.ts does).
 */
import { SEND_TIME_UNITS_PER_MS } from './constants.ts';
import { difference16, type Section } from './feedback.ts';
import type { Flight } from './flight.ts';

/** Reports remembered, for samples of the rate and the least delay of the last round trip. */
const POINTS = 64;
/** A sample of the rate spans at least this, and jitter has to be short against it; and at most this. */
export const LEAST_SPAN_MS = 30;
const MOST_SPAN_MS = 250;
const JITTER_SPAN = 6;
const JITTER_SPAN_MS = 300;
/** The least delay is believed for twice this long. */
const BASE_MS = 5_000;
/** A queue at the link: so much more than the least delay, beside what jitter makes. */
const QUEUE_MS = 6;
const QUEUE_SHARE = 1 / 8;
/** What may be under way beside rate × delay: the interval of reports, and a little for their wake-ups. */
const SLACK_MS = 5;
/** The mean that is filled varies: a little more than it may be under way. */
const FLIGHT_GAIN = 1.1;
/** The least of many means is below their mean by this part of the jitter (reordering), as measured. */
const FLIGHT_NOISE = 0.3;
/** Datagrams that make a sample worth drawing conclusions from. */
const LEAST_SAMPLE = 24;
const MEAN_SAMPLE = 96;
/** Reordering (250 µs) that is jitter, and not two queues of one interface. */
const LEAST_REORDERING = 4;
/**
 * Four deviations of a mean pass for noise, since two means are compared, one of them the least of many; the
 * furthest that 99 in 100 datagrams are overtaken is about 2.3 deviations.
 */
const NOISE = 4 / 2.3;
/** RFC 6298 §2.3. */
const RTT_GAIN = 1 / 8;
const VARIANCE_GAIN = 1 / 4;

/** What was delivered in the last span, and of what was sent in it. */
export interface Sample {
  /** Bytes per millisecond. */
  readonly rate: number;
  readonly spanMs: number;
  /** Datagrams, and the share of them that was lost. */
  readonly sent: number;
  readonly loss: number;
}

export class Measurements {
  /** From a datagram's sending to the report of it, less what the report waited: smoothed, and its deviation. */
  ackMs = 0;
  ackVarianceMs = 0;
  /** Arrival less send time, 16 bits in 250 µs: comparable between links of one session only. */
  delay = 0;
  /** What waits at the link, as far as the delay shows. */
  queueMs = 0;
  /** How much more the mean delay is than the least: the link's jitter. */
  spreadMs = 0;
  /** Loss in the last rounds, 0 to 1, smoothed. */
  loss = 0;
  /** The last sample of the rate. */
  deliveredRate = 0;
  private count = 0;
  private readonly arrivals = new Float64Array(POINTS);
  private readonly bytes = new Float64Array(POINTS);
  private readonly packets = new Float64Array(POINTS);
  private readonly sent = new Float64Array(POINTS);
  private readonly lost = new Float64Array(POINTS);
  private readonly means = new Float64Array(POINTS);
  private readonly flown = new Float64Array(POINTS);
  private readonly flownMs = new Float64Array(POINTS);
  private reorderingMs = 0;
  /** Mean less least delay of the last report. */
  private aboveMs = 0;
  /** Datagrams overtake each other: the least delay of a few of them says little. */
  protected isDisordered = false;
  private queueNoiseMs = 0;
  private readonly least = new Float64Array(POINTS);
  private readonly atMs = new Float64Array(POINTS);
  private lastArrival = 0;
  private lastBytes = 0;
  private lastPackets = 0;
  private lastLeast = 0;
  private lastHighest = 0;
  private lastEpoch = 0;
  /** Datagrams sent up to the newest reported one. */
  private sentUpTo = 0;
  /** Unwrapped sums of the three above. */
  private arrival = 0;
  private received = 0;
  private receivedPackets = 0;
  private leastDelayMs = 0;
  /** Least delay and least acknowledgement time of this period and the last. */
  private readonly baseDelay = new WindowedLeast(BASE_MS);
  private readonly baseMean = new WindowedLeast(BASE_MS);
  private readonly baseFlight = new WindowedLeast(BASE_MS);
  private readonly baseAck = new WindowedLeast(BASE_MS);

  /** The time in flight that fills the link and no queue. */
  get fullMs(): number {
    const { value } = this.baseFlight;
    if (value !== Number.POSITIVE_INFINITY) {
      return FLIGHT_GAIN * value + SLACK_MS + FLIGHT_NOISE * this.reorderingMs;
    }
    return this.baseAck.value + 2 * this.spreadMs + this.intervalMs + SLACK_MS;
  }

  /** How often reports come: a quarter of a round trip, 1 to 10 ms (PROTOCOL §5.5). */
  get intervalMs(): number {
    return Math.min(10, Math.max(1, this.ackMs / 4));
  }

  /** Whether more waits at the link than jitter explains. */
  get isQueueing(): boolean {
    return this.queueMs > QUEUE_MS + QUEUE_SHARE * this.ackMs + this.queueNoiseMs;
  }

  /**
   * A report arrived. `ackMs`: since its newest datagram was sent, less its age; NaN if unknown.
   * `flight`: the sums of what was sent over the link; undefined if nobody counts them: then what is
   * missing counts as lost, but for `lostProbes`: probes for the path MTU are meant to be lost.
   */
  measure(
    section: Section,
    ackMs: number,
    flight: Pick<Flight, 'lost' | 'flown' | 'flownMs'> | undefined,
    lostProbes: number,
    nowMs: number,
  ): Sample | undefined {
    // One that a later report has overtaken knows nothing new.
    if (this.count > 0 && forward(section.packets, this.lastPackets) <= 0) return undefined;
    this.unwrap(section);
    if (!Number.isNaN(ackMs)) this.learnAck(ackMs, nowMs);
    this.learnDelay(section);
    const place = this.count++ % POINTS;
    this.arrivals[place] = this.arrival;
    this.bytes[place] = this.received;
    this.packets[place] = this.receivedPackets;
    this.sent[place] = this.sentUpTo;
    const missing = this.sentUpTo - lostProbes - this.receivedPackets;
    this.lost[place] = flight === undefined ? missing : flight.lost;
    this.flown[place] = flight?.flown ?? 0;
    this.flownMs[place] = flight?.flownMs ?? 0;
    this.reorderingMs = section.reordering / SEND_TIME_UNITS_PER_MS;
    this.means[place] = this.leastDelayMs + this.aboveMs;
    this.isDisordered = section.reordering > LEAST_REORDERING;
    this.least[place] = this.leastDelayMs;
    this.atMs[place] = nowMs;
    this.learnQueue(nowMs);
    return this.sampleRate();
  }

  private unwrap(section: Section): void {
    if (this.count === 0) {
      this.lastArrival = section.arrival;
      this.lastBytes = section.bytes;
      this.lastPackets = section.packets;
      this.lastLeast = section.leastDelay;
      this.lastHighest = section.highest;
      this.lastEpoch = section.epoch;
      this.delay = section.meanDelay;
    }
    // Counters start again with each epoch; what was lost at its end is not worth knowing.
    this.sentUpTo +=
      section.epoch === this.lastEpoch
        ? forward(section.highest, this.lastHighest)
        : forward(section.packets, this.lastPackets);
    this.lastHighest = section.highest;
    this.lastEpoch = section.epoch;
    this.arrival += forward(section.arrival, this.lastArrival) / SEND_TIME_UNITS_PER_MS;
    this.received += forward(section.bytes, this.lastBytes);
    this.receivedPackets += forward(section.packets, this.lastPackets);
    this.leastDelayMs += difference16(section.leastDelay, this.lastLeast) / SEND_TIME_UNITS_PER_MS;
    this.lastArrival = section.arrival;
    this.lastBytes = section.bytes;
    this.lastPackets = section.packets;
    this.lastLeast = section.leastDelay;
  }

  private learnAck(ackMs: number, nowMs: number): void {
    this.baseAck.offer(ackMs, nowMs);
    if (this.ackMs === 0) {
      this.ackMs = ackMs;
      this.ackVarianceMs = ackMs / 2;
      return;
    }
    const deviation = Math.abs(this.ackMs - ackMs);
    this.ackVarianceMs += VARIANCE_GAIN * (deviation - this.ackVarianceMs);
    this.ackMs += RTT_GAIN * (ackMs - this.ackMs);
  }

  private learnDelay(section: Section): void {
    const above = difference16(section.meanDelay, section.leastDelay) / SEND_TIME_UNITS_PER_MS;
    this.aboveMs = above;
    this.spreadMs += (above - this.spreadMs) / 16;
    this.delay =
      (this.delay + Math.round(difference16(section.meanDelay, this.delay) / 4)) & 0xffff;
  }

  /**
   * The delay of the last round trip against the least there was: the least delay where datagrams keep
   * their order, so that bursts do not count; the mean of enough of them where they do not.
   */
  private learnQueue(nowMs: number): void {
    const sinceMs = nowMs - this.meanSpanMs;
    const last = (this.count - 1) % POINTS;
    let least = this.least[last];
    let sum = 0;
    let weights = 0;
    for (let back = 1; back < Math.min(this.count, POINTS); back++) {
      const place = (this.count - back) % POINTS;
      const samples = this.packets[place] - this.packets[(this.count - back - 1) % POINTS];
      if (this.atMs[place] < sinceMs && (!this.isDisordered || weights >= MEAN_SAMPLE)) break;
      if (this.least[place] < least) least = this.least[place];
      sum += this.means[place] * samples;
      weights += samples;
    }
    if (weights < (this.isDisordered ? LEAST_SAMPLE : 1)) return;
    const delayMs = this.isDisordered ? sum / weights : least;
    this.queueNoiseMs = this.isDisordered ? (NOISE * this.reorderingMs) / Math.sqrt(weights) : 0;
    this.learnFlight(nowMs);
    const base = this.isDisordered ? this.baseMean : this.baseDelay;
    base.offer(delayMs, nowMs);
    this.queueMs = Math.max(0, delayMs - base.value);
  }

  /** What means are taken over: with jitter there are few reports in a round trip, each late in its own way. */
  private get meanSpanMs(): number {
    return Math.max(this.ackMs, this.isDisordered ? JITTER_SPAN_MS : LEAST_SPAN_MS);
  }

  /** How long a datagram of the last round trip took until it was reported, against the least there was. */
  private learnFlight(nowMs: number): void {
    const last = (this.count - 1) % POINTS;
    for (let back = 1; back < Math.min(this.count, POINTS); back++) {
      const place = (this.count - back - 1) % POINTS;
      const flown = this.flown[last] - this.flown[place];
      if (this.atMs[place] > nowMs - this.meanSpanMs || flown < LEAST_SAMPLE) continue;
      this.baseFlight.offer((this.flownMs[last] - this.flownMs[place]) / flown, nowMs);
      return;
    }
  }

  /** The place of the report that lies a span back; −1 if there is none. */
  private spanStart(): number {
    const spanMs = Math.min(
      MOST_SPAN_MS,
      Math.max(LEAST_SPAN_MS, this.ackMs, JITTER_SPAN * this.spreadMs),
    );
    for (let back = 2; back <= Math.min(this.count, POINTS); back++) {
      const place = (this.count - back) % POINTS;
      // Of a few datagrams one lost, or one more, says little: a slow link takes longer.
      if (this.sentUpTo - this.sent[place] < LEAST_SAMPLE) continue;
      if (this.arrival - this.arrivals[place] >= spanMs) return place;
    }
    return -1;
  }

  private sampleRate(): Sample | undefined {
    const start = this.spanStart();
    if (start === -1) return undefined;
    const spanMs = this.arrival - this.arrivals[start];
    const rate = (this.received - this.bytes[start]) / spanMs;
    this.deliveredRate = rate;
    const last = (this.count - 1) % POINTS;
    const sent = this.sent[last] - this.sent[start];
    const lost = this.lost[last] - this.lost[start];
    const loss = Math.min(1, Math.max(0, lost / sent));
    this.loss += (loss - this.loss) / 16;
    return { rate, spanMs, sent, loss };
  }
}

/** How far one 32-bit sum is ahead of another. */
function forward(now: number, before: number): number {
  return (now - before) | 0;
}

/** The least of what was offered in this period and the last. */
class WindowedLeast {
  value = Number.POSITIVE_INFINITY;
  private readonly periodMs: number;
  private present = Number.POSITIVE_INFINITY;
  private former = Number.POSITIVE_INFINITY;
  private endMs = Number.NEGATIVE_INFINITY;

  constructor(periodMs: number) {
    this.periodMs = periodMs;
  }

  offer(value: number, nowMs: number): void {
    if (nowMs >= this.endMs) {
      this.endMs = nowMs + this.periodMs;
      this.former = this.present;
      this.present = value;
    } else if (value < this.present) {
      this.present = value;
    }
    this.value = Math.min(this.present, this.former);
  }
}
