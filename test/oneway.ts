/**
 * One direction of one link under a virtual clock: a sender that has as much to send as it is told, a
 * queue with a rate, a delay with jitter, loss, and a receiver that reports. What `Link` and `Reception`
 * make of each other, without sockets, keys and packets.
 */
import { SEND_TIME_UNITS_PER_MS } from '../src/constants.ts';
import { section } from '../src/feedback.ts';
import type { LinkSocket } from '../src/host.ts';
import { Link } from '../src/link.ts';
import { PLAIN_LINK } from '../src/peering.ts';
import { Reception } from '../src/reception.ts';
import { ReplayWindow } from '../src/replay.ts';
import { Random } from './random.ts';

export const DATAGRAM_BYTES = 1_488;
const STEP_MS = 0.25;
/** What a flow starts with (RFC 6928). */
const INITIAL_WINDOW = 10 * DATAGRAM_BYTES;

const SOCKET: LinkSocket = {
  receive: () => 0,
  send: () => 0,
  errno: () => 0,
  watch: () => undefined,
  close: () => undefined,
};

export interface OneWayPath {
  /** Bytes per millisecond. */
  rate: number;
  delayMs: number;
  /** Standard deviation of the delay; datagrams may overtake each other. */
  jitterMs: number;
  queueMs: number;
  loss: number;
}

/** A link as `Links.add` makes it, whose socket leads nowhere. */
export function lonelyLink(id = 3, settings = PLAIN_LINK): Link {
  return new Link(id, SOCKET, settings, (bytes) => bytes.fill(1));
}

export class OneWay {
  readonly link = lonelyLink();
  readonly path: OneWayPath;
  /** Bytes per millisecond that there are to send; Infinity: always more than the link takes. */
  offered = Number.POSITIVE_INFINITY;
  nowMs = 1_000;
  /** Bytes that have arrived. */
  received = 0;
  private readonly random: Random;
  private readonly reception = new Reception();
  private readonly window = new ReplayWindow();
  private counter = 0;
  private busyUntilMs = 0;
  private credit = 0;
  private flowWindow = INITIAL_WINDOW;
  private grownMs = 0;
  private reportedMs = 0;
  private readonly onWay = new Calendar<{ readonly counter: number; readonly stamp: number }>();
  private readonly reports = new Calendar<ReturnType<typeof section>>();

  constructor(seed: number, path: OneWayPath) {
    this.random = new Random(seed);
    this.path = { ...path };
  }

  /** Runs for so long; `onStep` may look at everything. */
  run(ms: number, onStep: () => void = () => undefined): void {
    const endMs = this.nowMs + ms;
    while (this.nowMs < endMs) {
      this.nowMs += STEP_MS;
      this.send();
      for (const { counter, stamp } of this.onWay.due(this.nowMs)) this.arrive(counter, stamp);
      this.report();
      for (const part of this.reports.due(this.nowMs)) {
        this.link.reported(part, this.nowMs);
        this.link.flight.settled();
      }
      this.watch();
      onStep();
    }
  }

  private send(): void {
    const { link, nowMs } = this;
    this.credit = Math.min(this.credit + this.offered * STEP_MS, 100 * DATAGRAM_BYTES);
    this.growFlow();
    while (this.credit >= DATAGRAM_BYTES && link.hasRoom(nowMs)) {
      // Nothing limits a link whose rate is not known but the flows themselves.
      if (link.capacity.limit === 0 && link.flight.bytes >= this.flowWindow) break;
      link.capacity.spend(DATAGRAM_BYTES);
      link.flight.add(0, this.counter, this.counter + 1, DATAGRAM_BYTES, true, nowMs);
      this.credit -= DATAGRAM_BYTES;
      this.carry(this.counter++);
    }
    if (link.hasRoom(nowMs)) link.capacity.idle(nowMs);
    else if (this.credit >= DATAGRAM_BYTES) link.capacity.blocked();
  }

  /** What no report will speak of, as the tunnel's timer finds it. */
  private watch(): void {
    const { link, nowMs } = this;
    if (nowMs < link.overdueMs()) return;
    link.flight.detect(link.reorderingMs, nowMs - link.reportMs + STEP_MS);
    link.flight.settled();
  }

  /** Slow start: the window doubles with each round trip. */
  private growFlow(): void {
    const { ackMs } = this.link.capacity;
    if (ackMs === 0 || this.nowMs < this.grownMs + ackMs) return;
    this.grownMs = this.nowMs;
    this.flowWindow *= 2;
  }

  private carry(counter: number): void {
    const { rate, delayMs, jitterMs, queueMs, loss } = this.path;
    const waitMs = Math.max(0, this.busyUntilMs - this.nowMs);
    if (waitMs > queueMs) return;
    this.busyUntilMs = this.nowMs + waitMs + DATAGRAM_BYTES / rate;
    if (this.random.next() < loss) return;
    const delay = Math.max(0, delayMs + jitterMs * this.normal());
    const stamp = Math.floor(this.nowMs * SEND_TIME_UNITS_PER_MS) & 0xffff;
    this.onWay.add(this.busyUntilMs + delay, { counter, stamp });
  }

  private arrive(counter: number, stamp: number): void {
    const { window, reception, nowMs } = this;
    if (!window.accept(counter)) return;
    this.received += DATAGRAM_BYTES;
    reception.arrived(0, window, counter, stamp, DATAGRAM_BYTES, true, false, nowMs);
  }

  private report(): void {
    const { reception, nowMs } = this;
    if (!reception.isDue || nowMs < this.reportedMs + this.link.capacity.intervalMs) return;
    const part = section();
    if (!reception.report(part, 3, nowMs)) return;
    this.reportedMs = nowMs;
    this.reports.add(nowMs + this.path.delayMs, part);
  }

  /** Box and Muller 1958. */
  private normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.random.next()));
    return radius * Math.cos(2 * Math.PI * this.random.next());
  }
}

/** What happens when, in steps of the clock. */
class Calendar<Event> {
  private readonly steps = new Map<number, Event[]>();

  add(atMs: number, event: Event): void {
    const step = Math.ceil(atMs / STEP_MS);
    const events = this.steps.get(step);
    if (events === undefined) this.steps.set(step, [event]);
    else events.push(event);
  }

  due(nowMs: number): readonly Event[] {
    const step = Math.round(nowMs / STEP_MS);
    const events = this.steps.get(step) ?? [];
    this.steps.delete(step);
    return events;
  }
}
