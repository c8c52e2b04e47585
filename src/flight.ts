/**
 * What one link has sent and not heard of yet: told of every datagram with its counter, and of the peer's
 * reports (feedback.ts), it says what arrived and what is lost (RFC 8985: by what was sent later and has
 * arrived, not by a timer). Numbers here run on across epochs, in which counters start again.
 */
import { EPOCHS } from './constants.ts';

/** Datagrams that can be in flight; older ones count as lost. 100 Mbit/s over a second are 8 600. */
const PLACES = 16_384;
const MASK = PLACES - 1;
/** A datagram that carries no packet. */
export const NO_TICKET = 0;

const State = { none: 0, flying: 1, arrived: 2, lost: 3 } as const;

export class Flight {
  /** Outer bytes that are under way. */
  bytes = 0;
  /** When the latest of what has arrived was sent; when a report last said anything new. */
  newestArrivedMs = Number.NEGATIVE_INFINITY;
  progressMs = Number.NEGATIVE_INFINITY;
  /** Datagrams that are waited for: sent, found lost, and those of the lost that came after all. */
  sent = 0;
  lost = 0;
  spurious = 0;
  /** Datagrams that a report has covered, and how long it took from sending them, in all. */
  flown = 0;
  flownMs = 0;
  /** What was found since `settled` was last called: tickets. */
  readonly arrivedTickets = new Uint32Array(2 * PLACES);
  arrivedCount = 0;
  readonly lostTickets = new Uint32Array(2 * PLACES);
  lostCount = 0;
  private next = 0;
  /** Everything before this is decided. */
  private oldest = 0;
  /** Number of the newest that has arrived. */
  highest = -1;
  private epoch = -1;
  /** Per epoch: the number of counter 0, and the numbers it was counted from and up to. */
  private readonly bases = new Float64Array(EPOCHS).fill(Number.NaN);
  private readonly firsts = new Float64Array(EPOCHS);
  private readonly ends = new Float64Array(EPOCHS);
  private readonly states = new Uint8Array(PLACES);
  private readonly tickets = new Uint32Array(PLACES);
  private readonly sizes = new Uint16Array(PLACES);
  private readonly sentMs = new Float64Array(PLACES);

  /** A datagram went out under `counter`; one that asks for no report is not waited for. */
  add(
    epoch: number,
    counter: number,
    ticket: number,
    size: number,
    isAwaited: boolean,
    nowMs: number,
  ): void {
    // Counters never go back: those that do are of new keys, which took the number of forgotten ones.
    if (epoch !== this.epoch || this.bases[epoch] + counter < this.next) {
      this.epoch = epoch;
      this.bases[epoch] = this.next - counter;
      this.firsts[epoch] = this.next;
    }
    const number = this.bases[epoch] + counter;
    // Counters used while nobody counted.
    while (this.next < number) this.place(State.none, 0, 0, nowMs);
    if (isAwaited) this.sent++;
    this.place(isAwaited ? State.flying : State.none, ticket, size, nowMs);
    this.ends[epoch] = this.next;
  }

  private place(state: number, ticket: number, size: number, nowMs: number): void {
    if (this.next - this.oldest >= PLACES) this.lose(this.oldest++);
    const place = this.next++ & MASK;
    this.states[place] = state;
    this.tickets[place] = ticket;
    this.sizes[place] = size;
    this.sentMs[place] = nowMs;
    if (state === State.flying) this.bytes += size;
  }

  /** What was found is dealt with. */
  settled(): void {
    this.arrivedCount = 0;
    this.lostCount = 0;
  }

  /**
   * The number of the newest counter of `epoch` that ends in `low` (32 bits); NaN if none was counted.
   */
  expand(epoch: number, low: number): number {
    const end = this.ends[epoch] - this.bases[epoch];
    const back = (((end - low) % 2 ** 32) + 2 ** 32) % 2 ** 32 || 2 ** 32;
    const number = this.ends[epoch] - back;
    return number >= this.firsts[epoch] ? number : Number.NaN;
  }

  /** The number of the first counter of `epoch` that was counted. */
  firstOf(epoch: number): number {
    return this.firsts[epoch];
  }

  /** All from `first` to `last` (numbers) have arrived. */
  arrived(first: number, last: number, nowMs: number): void {
    const from = Math.max(first, this.next - PLACES, 0);
    const to = Math.min(last, this.next - 1);
    if (to < from) return;
    for (let number = from; number <= to; number++) {
      const place = number & MASK;
      const state = this.states[place];
      if (state === State.arrived || state === State.none) continue;
      this.states[place] = State.arrived;
      this.arrivedTickets[this.arrivedCount++] = this.tickets[place];
      if (state === State.lost) {
        this.lost--;
        this.spurious++;
        continue;
      }
      this.bytes -= this.sizes[place];
      this.flownMs += nowMs - this.sentMs[place];
      this.flown++;
      this.progressMs = nowMs;
      if (this.sentMs[place] > this.newestArrivedMs) this.newestArrivedMs = this.sentMs[place];
    }
    if (to > this.highest) this.highest = to;
  }

  /** When the datagram of this number was sent; NaN if that is not known any more. */
  sentAtMs(number: number): number {
    if (number < 0 || number >= this.next || number < this.next - PLACES) return Number.NaN;
    return this.sentMs[number & MASK];
  }

  /**
   * Finds what is lost: sent more than `allowanceMs` before the latest that has arrived, and overtaken
   * by it; or sent before `deadlineMs` at all.
   */
  detect(allowanceMs: number, deadlineMs: number): void {
    const overtakenMs = this.newestArrivedMs - allowanceMs;
    let number = this.oldest;
    let isDecided = true;
    for (; number < this.next; number++) {
      const place = number & MASK;
      if (this.states[place] === State.flying) {
        const atMs = this.sentMs[place];
        const isOvertaken = number < this.highest && atMs <= overtakenMs;
        if (isOvertaken || atMs <= deadlineMs) this.lose(number);
        else if (atMs > overtakenMs && atMs > deadlineMs) break;
        else isDecided = false;
      }
      if (isDecided) this.oldest = number + 1;
    }
  }

  /** Everything under way counts as lost: the link is dead. */
  abandon(): void {
    for (; this.oldest < this.next; this.oldest++) this.lose(this.oldest);
  }

  /** When the oldest that is under way was sent; Infinity if nothing is. */
  oldestMs(): number {
    while (this.oldest < this.next && this.states[this.oldest & MASK] !== State.flying)
      this.oldest++;
    return this.oldest < this.next ? this.sentMs[this.oldest & MASK] : Number.POSITIVE_INFINITY;
  }

  private lose(number: number): void {
    const place = number & MASK;
    if (this.states[place] !== State.flying) return;
    this.states[place] = State.lost;
    this.bytes -= this.sizes[place];
    this.lost++;
    this.lostTickets[this.lostCount++] = this.tickets[place];
  }
}
