/** The receiving end of the TCP model: what has arrived, and acknowledgements for it. */
import { isOutdated, MOST_RANGES, type Ack, type Range, type Segment } from './segment.ts';

const DELAYED_ACK_MS = 40;
const DUPLICATE_THRESHOLD = 3;
const MOST_QUICK = 16;
const MOST_COMPRESSED = 44;
const COMPRESSION_MS = 1;
const NEVER = Number.POSITIVE_INFINITY;

export class TcpReceiver {
  /** Segments that arrived in order: what the application got. */
  next = 0;
  private ranges: [number, number][] = [];
  private recent: number[] = [];
  private echoMs = 0;
  /** What was acknowledged last. */
  private acknowledged = 0;
  /** Acknowledgements saved since, and those sent at once for which gap. */
  private compressed = 0;
  private compressedAt = 0;
  private sentAtOnce = 0;
  /** How many to send without delay: at the start and when the sender repeats itself. */
  private quick = MOST_QUICK;
  private duplicate: Range | undefined = undefined;
  private ackAtMs = NEVER;

  get wakeAtMs(): number {
    return this.ackAtMs;
  }

  receive({ sequence, stampMs }: Segment, nowMs: number): void {
    if (isOutdated(stampMs, this.echoMs)) {
      if (sequence < this.next) {
        this.duplicate = [sequence, sequence + 1];
        this.quick = MOST_QUICK;
      }
      this.ackAtMs = nowMs;
      return;
    }
    // RFC 7323 §4.3: only a segment next to what was acknowledged is echoed.
    const distance = this.acknowledged - sequence;
    if (distance === 0 || distance === 1) this.echoMs = Math.max(this.echoMs, stampMs);
    const hadGap = this.ranges.length > 0;
    const isOld =
      sequence < this.next || this.ranges.some(([a, b]) => sequence >= a && sequence < b);
    if (isOld) this.duplicate = [sequence, sequence + 1];
    else if (sequence === this.next) this.advance();
    else this.insert(sequence);
    const hasGap = this.ranges.length > 0;
    // RFC 5681 §4.2; but several gaps are not filled by filling one.
    const isFilled = hadGap && !hasGap;
    if (isOld) this.quick = MOST_QUICK;
    if (this.quick > 0 || isFilled || this.next - this.acknowledged >= 2) this.ackAtMs = nowMs;
    else
      this.ackAtMs = Math.min(this.ackAtMs, hasGap ? this.compress(nowMs) : nowMs + DELAYED_ACK_MS);
  }

  /**
   * Behind a gap Linux acknowledges three times at once, then only once in a while (tcp_comp_sack_nr,
   * tcp_comp_sack_delay_ns): under heavy reordering the sender does not hear of every range.
   */
  private compress(nowMs: number): number {
    if (this.compressedAt !== this.next) {
      this.compressedAt = this.next;
      this.sentAtOnce = 0;
    }
    if (this.sentAtOnce < DUPLICATE_THRESHOLD) {
      this.sentAtOnce++;
      return nowMs;
    }
    return ++this.compressed >= MOST_COMPRESSED ? nowMs : nowMs + COMPRESSION_MS;
  }

  /** At most one acknowledgement. Call it after each segment. */
  take(nowMs: number): Ack[] {
    if (nowMs < this.ackAtMs) return [];
    const room = MOST_RANGES - (this.duplicate === undefined ? 0 : 1);
    const latest = this.recent
      .map((at) => this.ranges.find(([a, b]) => at >= a && at < b))
      .filter((range) => range !== undefined);
    const selective = [...new Set(latest)].slice(0, room).map(([a, b]): Range => [a, b]);
    const ack: Ack = {
      isAck: true,
      next: this.next,
      stampMs: nowMs,
      echoMs: this.echoMs,
      selective,
      duplicate: this.duplicate,
    };
    this.duplicate = undefined;
    this.acknowledged = this.next;
    this.compressed = 0;
    if (this.quick > 0) this.quick--;
    this.ackAtMs = NEVER;
    return [ack];
  }

  private advance(): void {
    this.next++;
    if (this.ranges[0]?.[0] !== this.next) return;
    this.next = this.ranges.shift()![1];
    this.recent = this.recent.filter((at) => at >= this.next);
  }

  private insert(sequence: number): void {
    let i = this.ranges.length;
    while (i > 0 && this.ranges[i - 1]![0] > sequence) i--;
    const [before, after] = [this.ranges[i - 1], this.ranges[i]];
    const joinsAfter = after?.[0] === sequence + 1;
    if (before?.[1] === sequence) {
      before[1] = joinsAfter ? after[1] : sequence + 1;
      if (joinsAfter) this.ranges.splice(i, 1);
    } else if (joinsAfter) after[0] = sequence;
    else this.ranges.splice(i, 0, [sequence, sequence + 1]);
    // RFC 2018 §4: the range of the latest first, then those reported last.
    this.recent = [sequence, ...this.recent.slice(0, 4 * MOST_RANGES)];
  }
}
