/**
 * The path MTU of one link in one direction, found with padded probes alone (PROTOCOL §6, after
 * RFC 8899). Sizes here are whole IP packets, outer headers included. Told the time; sends nothing:
 * `due` says which size to probe, `answered` says what arrived.
 *
 *  1. ladder   all usual sizes above the best known, at once, up to three rounds
 *  2. halve    the gap between the best and the smallest that was not answered
 *  3. settled  a full-size probe now and then while there is traffic; three lost ones: from the start
 */
import { BASE_PATH_MTU } from './constants.ts';

/**
 * Usual sizes: Ethernet, PPPoE (1492), tunnels (1480, 1476, 1460, 1420), DSL and mobile networks. The two above 1500 let a
 * 1500-byte packet pass whole where the link can (our overhead is 60 on IPv4, 80 on IPv6).
 */
const LADDER: readonly number[] = [
  1580, 1560, 1500, 1492, 1480, 1476, 1460, 1440, 1420, 1400, 1380, 1360, 1340, 1320, 1300,
];
const TRIES = 3;
/** Closer than this is not worth another probe (§6). */
const RESOLUTION = 8;
const MIN_WAIT_MS = 200;
/** RFC 8899 §5.1.1, PMTU_RAISE_TIMER. */
const RAISE_AFTER_MS = 600_000;
const FULL_PROBE_MS = 500;

type Phase = 'ladder' | 'halve' | 'settled';

export class PathMtu {
  /** The largest size known to pass. What is sent must not be larger. */
  current = BASE_PATH_MTU;
  private phase: Phase = 'ladder';
  private best = BASE_PATH_MTU;
  /** Smallest size held not to pass. */
  private ceiling = LADDER[0] + RESOLUTION;
  private tries = 0;
  /** Next of the ladder to probe in this round; LADDER.length when the round is out. */
  private rung = 0;
  /** Size being probed by halves; 0 when none is under way. */
  private probing = 0;
  private waitUntilMs = Number.NEGATIVE_INFINITY;
  private fullAtMs = Number.NEGATIVE_INFINITY;
  /** When the full-size probe that waits for its answer went out; Infinity: none waits. */
  private fullSentMs = Number.POSITIVE_INFINITY;
  private fullLost = 0;

  /** Whether the first search is over, so that `current` is more than an assumption. */
  isKnown = false;

  /**
   * The size to probe now, 0 for none; to be asked until it says 0. `rttMs` bounds how soon an answer
   * can be expected; `hasTraffic`: full-size packets went out lately; `heardMs`: when anything last
   * came over the link, since in an outage a lost full-size probe proves nothing about its size.
   */
  due(nowMs: number, rttMs: number, hasTraffic: boolean, heardMs = nowMs): number {
    const waitMs = Math.max(MIN_WAIT_MS, 3 * rttMs);
    if (this.phase === 'ladder') return this.ladderDue(nowMs, waitMs);
    if (this.phase === 'halve') return this.halveDue(nowMs, waitMs);
    if (nowMs >= this.waitUntilMs) {
      this.search(this.current, nowMs);
      return this.ladderDue(nowMs, waitMs);
    }
    if (hasTraffic && nowMs >= this.fullAtMs) {
      if (heardMs > this.fullSentMs) this.fullLost++;
      if (this.fullLost >= TRIES) {
        this.current = BASE_PATH_MTU;
        this.search(BASE_PATH_MTU, nowMs);
        return this.ladderDue(nowMs, waitMs);
      }
      this.fullAtMs = nowMs + Math.max(FULL_PROBE_MS, waitMs);
      this.fullSentMs = nowMs;
      return this.current;
    }
    return 0;
  }

  /** A probe of `size` was answered. */
  answered(size: number, nowMs: number): void {
    if (size >= this.current) {
      this.fullLost = 0;
      this.fullSentMs = Number.POSITIVE_INFINITY;
    }
    if (size <= this.best) return;
    if (this.phase === 'settled') {
      // Later than all our patience, as over a full queue: it has passed nevertheless.
      this.current = size;
      this.search(size, nowMs);
      return;
    }
    this.best = size;
    // An answer later than our patience: what was held impossible is possible.
    if (this.ceiling <= size) this.ceiling = LADDER[0] + RESOLUTION;
    if (this.phase === 'halve' || this.nextRung() === 0) this.waitUntilMs = nowMs;
  }

  /** Our own interface refused a datagram of `size` (EMSGSIZE): a local fact, no forged message. */
  refused(size: number, nowMs: number): void {
    if (size <= this.best && size > BASE_PATH_MTU) {
      this.current = BASE_PATH_MTU;
      this.search(BASE_PATH_MTU, nowMs);
    } else if (size <= this.current && size > this.best) {
      this.current = this.best;
    }
    if (size < this.ceiling && size > this.best) this.ceiling = size;
    if (this.phase === 'settled') return;
    if (this.probing >= this.ceiling || this.nextRung() === 0) this.waitUntilMs = nowMs;
  }

  /** When `due` wants to be asked again. */
  deadlineMs(hasTraffic: boolean): number {
    if (this.phase === 'settled' && hasTraffic) return Math.min(this.waitUntilMs, this.fullAtMs);
    return this.waitUntilMs;
  }

  /** Starts over, e.g. after the endpoint changed. `from` is held to pass. */
  search(from: number, nowMs: number): void {
    this.phase = 'ladder';
    this.best = from;
    this.ceiling = LADDER[0] + RESOLUTION;
    this.tries = 0;
    this.rung = 0;
    this.fullLost = 0;
    this.fullSentMs = Number.POSITIVE_INFINITY;
    this.waitUntilMs = nowMs;
  }

  private ladderDue(nowMs: number, waitMs: number): number {
    while (this.rung < LADDER.length) {
      const size = LADDER[this.rung++];
      if (size <= this.best || size >= this.ceiling) continue;
      this.waitUntilMs = nowMs + waitMs;
      return size;
    }
    if (nowMs < this.waitUntilMs) return 0;
    this.publish();
    this.tries++;
    const next = this.nextRung();
    if (next !== 0 && this.tries < TRIES) {
      // Lost, perhaps: the next two above the best once more. What is above them was lost as well.
      this.rung = Math.max(0, LADDER.indexOf(next) - 1);
      return this.ladderDue(nowMs, waitMs);
    }
    if (next !== 0) this.ceiling = next;
    this.phase = 'halve';
    this.probing = 0;
    return this.halveDue(nowMs, waitMs);
  }

  /** The smallest size of the ladder between best and ceiling, 0 if there is none. */
  private nextRung(): number {
    return LADDER.findLast((size) => size > this.best && size < this.ceiling) ?? 0;
  }

  private halveDue(nowMs: number, waitMs: number): number {
    if (nowMs < this.waitUntilMs) return 0;
    if (this.probing !== 0) {
      if (this.best >= this.probing || this.ceiling <= this.probing) {
        this.probing = 0;
      } else if (++this.tries >= TRIES) {
        this.ceiling = this.probing;
        this.probing = 0;
      }
    }
    if (this.probing === 0) {
      if (this.ceiling - this.best < RESOLUTION) return this.settle(nowMs);
      this.probing = (this.best + this.ceiling) >> 1;
      this.tries = 0;
    }
    this.waitUntilMs = nowMs + waitMs;
    return this.probing;
  }

  private settle(nowMs: number): 0 {
    this.phase = 'settled';
    this.publish();
    this.waitUntilMs = nowMs + RAISE_AFTER_MS;
    this.fullAtMs = nowMs + FULL_PROBE_MS;
    return 0;
  }

  private publish(): void {
    this.current = this.best;
    this.isKnown = true;
  }
}
