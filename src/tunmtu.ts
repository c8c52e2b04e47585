/**
 * The MTU of the tun device: what fits the smallest link in use, lowered at once, raised when it has
 * been larger for a minute (PROTOCOL §6). Told the time.
 */
import { MAX_TUN_MTU, MIN_TUN_MTU, RAISE_MTU_AFTER_MS } from './constants.ts';

export class TunMtu {
  /** What the device has now. */
  current: number;
  /** 0 for automatic. */
  private readonly fixed: number;
  private most = MAX_TUN_MTU;
  private isMeasured = false;
  private largerSinceMs = Number.POSITIVE_INFINITY;

  /** `configured` is 0 for automatic. */
  constructor(configured: number) {
    this.fixed = configured;
    this.current = configured === 0 ? MIN_TUN_MTU : configured;
  }

  /** Never more than `most` from now on, whatever fits or is fixed. */
  bound(most: number): void {
    this.most = Math.min(MAX_TUN_MTU, Math.max(MIN_TUN_MTU, most));
    if (this.fixed !== 0) this.current = Math.min(this.fixed, this.most);
  }

  /** Packets of up to `room` bytes fit the smallest link. Whether `current` changed. */
  offer(room: number, nowMs: number): boolean {
    if (this.fixed !== 0) return false;
    const wanted = Math.min(this.most, Math.max(MIN_TUN_MTU, room));
    if (wanted <= this.current) this.largerSinceMs = Number.POSITIVE_INFINITY;
    if (wanted === this.current) {
      this.isMeasured = true;
      return false;
    }
    if (wanted > this.current && this.isMeasured) {
      this.largerSinceMs = Math.min(this.largerSinceMs, nowMs);
      if (nowMs - this.largerSinceMs < RAISE_MTU_AFTER_MS) return false;
      this.largerSinceMs = Number.POSITIVE_INFINITY;
    }
    this.isMeasured = true;
    this.current = wanted;
    return true;
  }
}
