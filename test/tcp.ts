/**
 * One TCP stream as a model, for simulated networks: a bulk sender with cubic, and its receiver. It is
 * told the time and hands over segments; who carries them, and the clock, are not its business.
 *
 *   for (const segment of sender.take(nowMs)) …      what is to be sent now
 *   for (const ack of receiver.take(nowMs)) …
 *   receiver.receive(segment, nowMs); sender.receive(ack, nowMs);
 *   at sender.wakeAtMs and receiver.wakeAtMs: take again
 *
 * It follows Linux where that differs from the RFCs, for that is what it is compared with: RACK with a
 * window that adapts to reordering (RFC 8985, tcp_recovery.c), undoing of what was reduced without need
 * (RFC 3522, RFC 3708), proportional rate reduction (RFC 6937), a probe for lost tails (RFC 8985 §7).
 * Left out: pacing, F-RTO, ECN. The receiver's window and the sender's buffer are one number.
 */
import { Cubic } from './cubic.ts';
import { isOutdated, type Ack, type Range, type Segment } from './segment.ts';

export { TcpReceiver } from './receiver.ts';

const LEAST_RTO_MS = 200;
const MOST_RTO_MS = 120_000;
const DUPLICATE_THRESHOLD = 3;
const MOST_REORDERING = 300;
/** Recoveries for which a widened reordering window lasts (tcp_recovery.c). */
const REORDERING_MEMORY = 16;
const MOST_REORDERING_STEPS = 255;
const NEVER = Number.POSITIVE_INFINITY;

interface Sent {
  /** Of the last transmission, and which transmission of all it was. */
  sentMs: number;
  order: number;
  /** What had been delivered when it was sent. */
  deliveredBefore: number;
  times: number;
  isSacked: boolean;
  isLost: boolean;
  /** Sent again, and neither acknowledged nor lost since. */
  isResent: boolean;
}

type Phase = 'open' | 'recovery' | 'loss';

export class TcpSender {
  readonly cubic = new Cubic();
  /** Segments from the first that is not acknowledged on: the receiver's window, or the sender's buffer. */
  mostOutstanding = NEVER;
  /** All before this is acknowledged. */
  acknowledged = 0;
  retransmissions = 0;
  timeouts = 0;
  undone = 0;
  private phase: Phase = 'open';
  private next = 0;
  /** Those from `acknowledged` on; the first `gone` are no longer. */
  private segments: Sent[] = [];
  private gone = 0;
  private sacked = 0;
  private lost = 0;
  private resent = 0;
  private order = 0;
  private delivered = 0;
  private latestAckMs = 0;
  private highestSacked = 0;
  private readonly lostQueue: number[] = [];

  /** RFC 6298; 0 until the first acknowledgement. */
  srttMs = 0;
  private deviationMs = 0;
  private minRttMs = NEVER;
  private rtoAtMs = NEVER;
  private probeAtMs = NEVER;
  /** Once until something is heard. */
  private isProbed = false;
  /** Not the congestion window was what ended the last `take`: it does not grow (RFC 9438 §4.2). */
  private isCapped = false;
  private backoff = 1;

  /** RACK: of the segments delivered, the one sent last, and a round trip. */
  private rackOrder = 0;
  private rackRttMs = 0;
  private rackAtMs = NEVER;
  /** All transmissions in their order, for RACK to look at from the oldest on. */
  private timeline: { sequence: number; order: number }[] = [];
  private timelineAt = 0;
  private isReorderingSeen = false;
  private reordering = DUPLICATE_THRESHOLD;
  private reorderingSteps = 1;
  private reorderingMemory = 0;
  private isDuplicateSeen = false;
  private stepsSetAt = 0;

  private highSequence = 0;
  private priorWindow = 0;
  private priorThreshold = 0;
  private prrDelivered = 0;
  private prrSent = 0;
  /** Undone as soon as as many duplicates are reported as were sent since; undefined: not any more. */
  private undoFrom: number | undefined = undefined;
  private undoLeft = 0;
  private firstResentMs = 0;

  get wakeAtMs(): number {
    return Math.min(this.rtoAtMs, this.probeAtMs, this.rackAtMs);
  }

  get inFlight(): number {
    return this.next - this.acknowledged - this.sacked - this.lost + this.resent;
  }

  /** Runs what is due, and returns what is to be sent. */
  take(nowMs: number): Segment[] {
    if (nowMs >= this.rackAtMs) this.onReorderingTimer(nowMs);
    if (nowMs >= this.rtoAtMs) this.onTimeout(nowMs);
    const out: Segment[] = [];
    if (nowMs >= this.probeAtMs) {
      this.probeAtMs = NEVER;
      this.isProbed = true;
      out.push(this.transmit(this.next, nowMs));
    }
    this.isCapped = false;
    while (this.inFlight < Math.floor(this.cubic.window)) {
      const sequence = this.nextLost() ?? this.next;
      this.isCapped = sequence >= this.acknowledged + this.mostOutstanding;
      if (this.isCapped) break;
      out.push(this.transmit(sequence, nowMs));
    }
    if (out.length > 0) this.armProbe(nowMs);
    return out;
  }

  receive(ack: Ack, nowMs: number): void {
    // Linux lets an outdated one pass if it repeats the last (tcp_disordered_ack).
    if (isOutdated(ack.stampMs, this.latestAckMs) && ack.next !== this.acknowledged) return;
    this.latestAckMs = Math.max(this.latestAckMs, ack.stampMs);
    const before = { delivered: this.delivered, lost: this.lost, acknowledged: this.acknowledged };
    const priorDelivered = this.countDelivered(ack, nowMs);
    const hasAdvanced = this.acknowledged > before.acknowledged;
    this.isProbed = false;
    if (ack.duplicate !== undefined) this.onDuplicate(ack.duplicate);
    this.adaptReordering(priorDelivered);
    if (hasAdvanced) {
      this.backoff = 1;
      this.rtoAtMs = this.next > this.acknowledged ? nowMs + this.rtoMs : NEVER;
    }
    if (!this.isUndoPending(ack, hasAdvanced)) this.detectLoss(nowMs);
    if (this.lost > 0 && this.phase === 'open') this.enterRecovery();
    const delivered = this.delivered - before.delivered;
    if (this.phase === 'recovery') this.reduceProportionally(delivered, hasAdvanced, before.lost);
    else if (
      delivered > 0 &&
      !this.isCapped &&
      (hasAdvanced || this.reordering > DUPLICATE_THRESHOLD)
    )
      this.cubic.grow(delivered, nowMs, this.minRttMs);
    this.armProbe(nowMs);
  }

  private at(sequence: number): Sent {
    return this.segments[this.gone + sequence - this.acknowledged]!;
  }

  private transmit(sequence: number, nowMs: number): Segment {
    const order = ++this.order;
    const fresh = { sentMs: nowMs, order, deliveredBefore: this.delivered };
    if (sequence === this.next) {
      this.next++;
      this.segments.push({ ...fresh, times: 1, isSacked: false, isLost: false, isResent: false });
    } else {
      const sent = this.at(sequence);
      Object.assign(sent, fresh, { times: sent.times + 1, isResent: true });
      this.resent++;
      this.retransmissions++;
      if (this.undoFrom !== undefined) this.undoLeft = Math.max(0, this.undoLeft) + 1;
      if (this.firstResentMs === 0) this.firstResentMs = nowMs;
    }
    if (this.phase === 'recovery') this.prrSent++;
    this.timeline.push({ sequence, order });
    if (this.rtoAtMs === NEVER) this.rtoAtMs = nowMs + this.rtoMs;
    return { isAck: false, sequence, stampMs: nowMs };
  }

  private nextLost(): number | undefined {
    for (;;) {
      const sequence = this.lostQueue[0];
      if (sequence === undefined) return undefined;
      this.lostQueue.shift();
      if (sequence < this.acknowledged) continue;
      const { isLost, isResent, isSacked } = this.at(sequence);
      if (isLost && !isResent && !isSacked) return sequence;
    }
  }

  /* What an acknowledgement says */

  /** Returns what had been delivered when the latest of the delivered segments was sent. */
  private countDelivered({ next, selective, echoMs }: Ack, nowMs: number): number | undefined {
    const deliveredAlready = this.highestSacked;
    let lowestLate = NEVER;
    let latest: Sent | undefined = undefined;
    let rttMs: number | undefined = undefined;
    const note = (sequence: number, sent: Sent): void => {
      if (latest === undefined || sent.order > latest.order) latest = { ...sent };
      this.deliver(sent, nowMs);
      if (sent.times > 1) return;
      if (sequence < deliveredAlready) lowestLate = Math.min(lowestLate, sequence);
      rttMs = nowMs - sent.sentMs;
    };
    const hasAdvanced = next > this.acknowledged;
    while (this.acknowledged < next) {
      const sent = this.at(this.acknowledged);
      if (sent.isSacked) this.sacked--;
      else note(this.acknowledged, sent);
      this.acknowledged++;
      this.gone++;
    }
    this.forget();
    for (const [from, to] of selective) {
      for (let sequence = Math.max(from, this.acknowledged); sequence < to; sequence++) {
        const sent = this.at(sequence);
        if (sent.isSacked) continue;
        note(sequence, sent);
        sent.isSacked = true;
        this.sacked++;
        this.highestSacked = Math.max(this.highestSacked, sequence);
      }
    }
    if (lowestLate !== NEVER) this.onLate(deliveredAlready - lowestLate);
    if (rttMs === undefined && hasAdvanced) rttMs = nowMs - echoMs;
    if (rttMs !== undefined) this.measure(rttMs, nowMs);
    return (latest as Sent | undefined)?.deliveredBefore;
  }

  private deliver(sent: Sent, nowMs: number): void {
    this.delivered++;
    if (sent.isLost) this.lost--;
    if (sent.isResent) this.resent--;
    sent.isLost = sent.isResent = false;
    const rttMs = nowMs - sent.sentMs;
    // Too early for the last transmission: an earlier one arrived (RFC 8985 §6.2, step 2).
    if (sent.times > 1 && rttMs < this.minRttMs) return;
    this.rackRttMs = rttMs;
    if (sent.order <= this.rackOrder) return;
    this.rackOrder = sent.order;
  }

  private forget(): void {
    if (this.gone < 4096) return;
    this.segments.splice(0, this.gone);
    this.gone = 0;
    this.timeline.splice(0, this.timelineAt);
    this.timelineAt = 0;
  }

  private onLate(distance: number): void {
    this.isReorderingSeen = true;
    this.reordering = Math.min(MOST_REORDERING, Math.max(this.reordering, distance));
  }

  private measure(rttMs: number, nowMs: number): void {
    this.minRttMs = Math.min(this.minRttMs, rttMs);
    if (this.srttMs === 0) {
      this.srttMs = rttMs;
      this.deviationMs = rttMs / 2;
    } else {
      // RFC 6298 §2.3.
      this.deviationMs += (Math.abs(this.srttMs - rttMs) - this.deviationMs) / 4;
      this.srttMs += (rttMs - this.srttMs) / 8;
    }
    this.cubic.watch(this.acknowledged, this.next, rttMs, this.minRttMs, nowMs);
  }

  private onDuplicate([sequence]: Range): void {
    if (this.isReorderingSeen) this.isDuplicateSeen = true;
    if (this.undoFrom !== undefined && sequence >= this.undoFrom && this.undoLeft > 0)
      this.undoLeft--;
  }

  /** The window of RACK is widened once per round trip with a duplicate (RFC 8985 §6.2, step 4). */
  private adaptReordering(priorDelivered: number | undefined): void {
    if (priorDelivered === undefined) return;
    if (priorDelivered < this.stepsSetAt) this.isDuplicateSeen = false;
    if (this.isDuplicateSeen) {
      this.reorderingSteps = Math.min(MOST_REORDERING_STEPS, this.reorderingSteps + 1);
      this.isDuplicateSeen = false;
      this.stepsSetAt = this.delivered;
      this.reorderingMemory = REORDERING_MEMORY;
    } else if (this.reorderingMemory === 0) this.reorderingSteps = 1;
  }

  /* Loss */

  private get reorderingMs(): number {
    if (!this.isReorderingSeen) {
      if (this.phase !== 'open' || this.sacked >= this.reordering) return 0;
    }
    return Math.min((this.minRttMs / 4) * this.reorderingSteps, this.srttMs);
  }

  private detectLoss(nowMs: number): void {
    this.rackAtMs = NEVER;
    const allowedMs = this.rackRttMs + this.reorderingMs;
    for (; this.timelineAt < this.timeline.length; this.timelineAt++) {
      const { sequence, order } = this.timeline[this.timelineAt]!;
      if (sequence < this.acknowledged) continue;
      const sent = this.at(sequence);
      if (sent.order !== order || sent.isSacked) continue;
      if (order > this.rackOrder) return;
      if (sent.isLost && !sent.isResent) continue;
      const leftMs = sent.sentMs + allowedMs - nowMs;
      if (leftMs > 0) {
        this.rackAtMs = nowMs + leftMs;
        return;
      }
      this.markLost(sequence, sent);
    }
  }

  private markLost(sequence: number, sent: Sent): void {
    if (sent.isResent) {
      sent.isResent = false;
      this.resent--;
    }
    if (!sent.isLost) {
      sent.isLost = true;
      this.lost++;
    }
    this.lostQueue.push(sequence);
  }

  private onReorderingTimer(nowMs: number): void {
    this.detectLoss(nowMs);
    if (this.lost === 0 || this.phase !== 'open') return;
    this.enterRecovery();
    this.cubic.window = this.inFlight + 1;
  }

  private rememberForUndo(): void {
    this.undoFrom = this.acknowledged;
    this.undoLeft = this.resent > 0 ? this.resent : -1;
    this.firstResentMs = 0;
    this.priorWindow = this.cubic.window;
    this.priorThreshold = this.cubic.threshold;
  }

  private enterRecovery(): void {
    this.rememberForUndo();
    this.cubic.reduce();
    this.phase = 'recovery';
    this.highSequence = this.next;
    this.prrDelivered = 0;
    this.prrSent = 0;
  }

  /** RFC 6937, with the slow-start reduction bound. */
  private reduceProportionally(delivered: number, hasAdvanced: boolean, lostBefore: number): void {
    if (delivered <= 0) return;
    this.prrDelivered += delivered;
    const { threshold } = this.cubic;
    const room = threshold - this.inFlight;
    let more = 0;
    if (room < 0)
      more = Math.ceil((threshold * this.prrDelivered) / this.priorWindow) - this.prrSent;
    else {
      more = Math.max(this.prrDelivered - this.prrSent, delivered);
      if (hasAdvanced && this.lost <= lostBefore) more++;
      more = Math.min(room, more);
    }
    this.cubic.window = this.inFlight + Math.max(more, this.prrSent > 0 ? 0 : 1);
  }

  /**
   * Ends a recovery that is over, or one that was for nothing. Returns true when it looks as if it were,
   * but what was sent again is still under way: then nothing else is taken for lost.
   */
  private isUndoPending({ echoMs }: Ack, hasAdvanced: boolean): boolean {
    const isOver = this.acknowledged >= this.highSequence;
    // RFC 3522: the acknowledgement is for a segment sent before any was sent again.
    const isForFirst =
      hasAdvanced && this.firstResentMs > 0 && Math.floor(echoMs) < Math.floor(this.firstResentMs);
    const canUndo = this.undoFrom !== undefined && this.phase !== 'open';
    if (canUndo && isForFirst && !isOver && this.phase === 'recovery' && this.resent > 0)
      return true;
    const isRefuted = this.undoFrom !== undefined && this.undoLeft === 0;
    if (isRefuted) this.reorderingMemory = Math.min(REORDERING_MEMORY, this.reorderingMemory + 1);
    if ((canUndo && isForFirst) || isRefuted) this.undo();
    if (this.phase === 'open' || !isOver) return false;
    if (this.phase === 'recovery') this.cubic.window = this.cubic.threshold;
    if (this.reorderingMemory > 0) this.reorderingMemory--;
    this.phase = 'open';
    return false;
  }

  private undo(): void {
    this.undone++;
    this.undoFrom = undefined;
    this.phase = 'open';
    this.cubic.window = Math.max(this.cubic.window, this.priorWindow);
    this.cubic.threshold = Math.max(this.cubic.threshold, this.priorThreshold);
    for (let sequence = this.acknowledged; sequence < this.next; sequence++) {
      const sent = this.at(sequence);
      if (!sent.isLost || sent.isResent) continue;
      sent.isLost = false;
      this.lost--;
    }
  }

  /* Timers */

  private get rtoMs(): number {
    const rtoMs =
      this.srttMs === 0 ? 1000 : this.srttMs + Math.max(LEAST_RTO_MS, 4 * this.deviationMs);
    return Math.min(MOST_RTO_MS, rtoMs * this.backoff);
  }

  private onTimeout(nowMs: number): void {
    this.timeouts++;
    if (this.phase !== 'loss') {
      this.rememberForUndo();
      this.cubic.reduce();
    }
    this.cubic.reset();
    this.phase = 'loss';
    this.highSequence = this.next;
    this.lostQueue.length = 0;
    for (let sequence = this.acknowledged; sequence < this.next; sequence++) {
      const sent = this.at(sequence);
      if (!sent.isSacked) this.markLost(sequence, sent);
    }
    this.cubic.window = this.inFlight + 1;
    this.backoff *= 2;
    this.probeAtMs = NEVER;
    this.rtoAtMs = nowMs + this.rtoMs;
  }

  /** RFC 8985 §7.2: a segment more when nothing is heard, sooner than the timeout. */
  private armProbe(nowMs: number): void {
    this.probeAtMs = NEVER;
    if (this.isProbed || this.phase !== 'open' || this.sacked > 0 || this.srttMs === 0) return;
    const outstanding = this.next - this.acknowledged;
    if (outstanding === 0) return;
    const waitMs = 2 * this.srttMs + (outstanding === 1 ? LEAST_RTO_MS : 2);
    if (nowMs + waitMs < this.rtoAtMs) this.probeAtMs = nowMs + waitMs;
  }
}
