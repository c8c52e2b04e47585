/**
 * CUBIC congestion control (RFC 9438) with HyStart, in segments, with the choices of Linux
 * (net/ipv4/tcp_cubic.c): that is what the streams of the measurements run on.
 */

/** RFC 9438 §4.6, and its constant of §5. */
const BETA = 717 / 1024;
const C = 0.4;
/** RFC 9438 §4.3: what Reno would gain per round trip. */
const RENO_GAIN = (3 * (1 - BETA)) / (1 + BETA);

const HYSTART_LEAST_WINDOW = 16;
const HYSTART_SAMPLES = 8;
const HYSTART_TRAIN_GAP_MS = 2;
const HYSTART_LEAST_RISE_MS = 4;
const HYSTART_MOST_RISE_MS = 16;

export class Cubic {
  window = 10;
  threshold = Number.POSITIVE_INFINITY;
  private lastMax = 0;
  private epochStartMs = 0;
  private kSeconds = 0;
  private origin = 0;
  /** Reno's window, and acknowledgements towards its next segment. */
  private renoWindow = 0;
  private renoCount = 0;
  /** Acknowledgements towards the next segment of the window. */
  private count = 0;

  private roundEnd = 0;
  private roundStartMs = 0;
  private lastAckMs = 0;
  private roundRttMs = Number.POSITIVE_INFINITY;
  private samples = 0;

  get isSlowStart(): boolean {
    return this.window < this.threshold;
  }

  /** `acked` segments were delivered while the window limited what was sent. */
  grow(acked: number, nowMs: number, minRttMs: number): void {
    let left = acked;
    if (this.isSlowStart) {
      const grown = Math.min(this.window + left, this.threshold);
      left -= grown - this.window;
      this.window = grown;
      if (left <= 0) return;
    }
    this.addUp(this.segmentsPerStep(left, nowMs, minRttMs), left);
  }

  /** How many acknowledged segments add one to the window. */
  private segmentsPerStep(acked: number, nowMs: number, minRttMs: number): number {
    this.renoCount += acked;
    if (this.epochStartMs === 0) {
      this.epochStartMs = nowMs;
      this.renoCount = acked;
      this.renoWindow = this.window;
      const missing = Math.max(0, this.lastMax - this.window);
      this.kSeconds = Math.cbrt(missing / C);
      this.origin = Math.max(this.lastMax, this.window);
    }
    // RFC 9438 §4.2: the window of one round trip later.
    const seconds = (nowMs - this.epochStartMs + minRttMs) / 1000;
    const target = this.origin + C * (seconds - this.kSeconds) ** 3;
    let step = target > this.window ? this.window / (target - this.window) : 100 * this.window;
    if (this.lastMax === 0) step = Math.min(step, 20);
    const perRenoSegment = this.renoWindow / RENO_GAIN;
    while (this.renoCount > perRenoSegment) {
      this.renoCount -= perRenoSegment;
      this.renoWindow++;
    }
    if (this.renoWindow > this.window)
      step = Math.min(step, this.window / (this.renoWindow - this.window));
    // Never faster than half as fast as slow start.
    return Math.max(step, 2);
  }

  private addUp(step: number, acked: number): void {
    if (this.count >= step) {
      this.count = 0;
      this.window++;
    }
    this.count += acked;
    if (this.count < step) return;
    const grown = Math.floor(this.count / step);
    this.count -= grown * step;
    this.window += grown;
  }

  /** A loss: returns the new threshold. The window is left to the caller (RFC 6937). */
  reduce(): number {
    this.epochStartMs = 0;
    // RFC 9438 §4.7, fast convergence.
    this.lastMax =
      this.window < this.lastMax ? (this.window * (1 + BETA)) / 2 : Math.floor(this.window);
    this.threshold = Math.max(2, Math.floor(this.window * BETA));
    return this.threshold;
  }

  /** A timeout forgets everything but the threshold. */
  reset(): void {
    this.lastMax = 0;
    this.epochStartMs = 0;
    this.count = 0;
    this.startRound(0, 0);
  }

  /** HyStart (Ha, Rhee 2011): ends slow start when the queue grows. `next` is the next new segment. */
  watch(acked: number, next: number, rttMs: number, minRttMs: number, nowMs: number): void {
    if (!this.isSlowStart) return;
    if (acked > this.roundEnd) this.startRound(next, nowMs);
    if (this.window < HYSTART_LEAST_WINDOW) return;
    if (nowMs - this.lastAckMs <= HYSTART_TRAIN_GAP_MS) {
      this.lastAckMs = nowMs;
      // Half, as the sender does not pace.
      if (nowMs - this.roundStartMs > minRttMs / 2) this.threshold = this.window;
    }
    this.roundRttMs = Math.min(this.roundRttMs, rttMs);
    if (this.samples < HYSTART_SAMPLES) {
      this.samples++;
      return;
    }
    const rise = Math.min(HYSTART_MOST_RISE_MS, Math.max(HYSTART_LEAST_RISE_MS, minRttMs / 8));
    if (this.roundRttMs > minRttMs + rise) this.threshold = this.window;
  }

  private startRound(end: number, nowMs: number): void {
    this.roundEnd = end;
    this.roundStartMs = nowMs;
    this.lastAckMs = nowMs;
    this.roundRttMs = Number.POSITIVE_INFINITY;
    this.samples = 0;
  }
}
