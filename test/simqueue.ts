/** Memory for packets of the simulated network, and where they wait for whoever reads them. */
import type { Clock } from './sim.ts';

const CHUNK_BYTES = 1024 * 1024;
/** A program that is told to read and does not is told again. */
const IGNORED_MS = 1;

/** Packets in few large pieces of memory: an allocation for each would cost more than what is done to it. */
export class Arena {
  private chunk = new Uint8Array(CHUNK_BYTES);
  private used = 0;

  /** Zeros. */
  take(length: number): Uint8Array {
    if (this.used + length > CHUNK_BYTES) {
      this.chunk = new Uint8Array(CHUNK_BYTES);
      this.used = 0;
    }
    this.used += length;
    return this.chunk.subarray(this.used - length, this.used);
  }

  copy(bytes: Uint8Array, from: number, length: number): Uint8Array {
    const copy = this.take(length);
    copy.set(bytes.subarray(from, from + length));
    return copy;
  }
}

/** First in, first out, and tells whoever reads it that there is something, as a level-triggered poll does. */
export class Inbox<T> {
  onReadable: (() => void) | undefined = undefined;
  private readonly clock: Clock;
  private readonly awakeAt: (atMs: number) => number;
  private items: T[] = [];
  private taken = 0;
  private isDue = false;

  /** `awakeAt`: when its reader runs that is to run at a time. */
  constructor(clock: Clock, awakeAt = (atMs: number): number => atMs) {
    this.clock = clock;
    this.awakeAt = awakeAt;
  }

  get length(): number {
    return this.items.length - this.taken;
  }

  push(item: T): void {
    this.items.push(item);
    this.tell(this.clock.nowMs);
  }

  first(): T | undefined {
    return this.items[this.taken];
  }

  take(): void {
    this.taken++;
    if (this.taken < this.items.length) return;
    this.items = [];
    this.taken = 0;
  }

  watch(callback: (() => void) | undefined): void {
    this.onReadable = callback;
    this.tell(this.clock.nowMs);
  }

  private tell(atMs: number): void {
    if (this.isDue || this.onReadable === undefined || this.length === 0) return;
    this.isDue = true;
    this.clock.at(this.awakeAt(atMs), this.told);
  }

  private readonly told = (): void => {
    this.isDue = false;
    if (this.onReadable === undefined || this.length === 0) return;
    const before = this.length;
    this.onReadable();
    this.tell(this.clock.nowMs + (this.length === before ? IGNORED_MS : 0));
  };
}
