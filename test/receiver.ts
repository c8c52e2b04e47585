/** The receiving end of the TCP model: what has arrived, and acknowledgements for it. */
import { MOST_RANGES, type Ack, type Range, type Segment } from './segment.ts';

const DELAYED_ACK_MS = 40;
const NEVER = Number.POSITIVE_INFINITY;

export class TcpReceiver {
  /** Segments that arrived in order: what the application got. */
  next = 0;
  private ranges: [number, number][] = [];
  private recent: number[] = [];
  private echoMs = 0;
  private unacknowledged = 0;
  private duplicate: Range | undefined = undefined;
  private ackAtMs = NEVER;

  get wakeAtMs(): number {
    return this.ackAtMs;
  }

  receive({ sequence, stampMs }: Segment, nowMs: number): void {
    // RFC 7323 §4.3: only a segment that is not beyond a gap is echoed.
    if (sequence <= this.next) this.echoMs = stampMs;
    const hadGap = this.ranges.length > 0;
    const isOld =
      sequence < this.next || this.ranges.some(([a, b]) => sequence >= a && sequence < b);
    if (isOld) this.duplicate = [sequence, sequence + 1];
    else if (sequence === this.next) this.advance();
    else this.insert(sequence);
    this.unacknowledged++;
    const isUrgent = isOld || hadGap || this.ranges.length > 0 || this.unacknowledged >= 2;
    this.ackAtMs = isUrgent ? nowMs : Math.min(this.ackAtMs, nowMs + DELAYED_ACK_MS);
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
      echoMs: this.echoMs,
      selective,
      duplicate: this.duplicate,
    };
    this.duplicate = undefined;
    this.unacknowledged = 0;
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
