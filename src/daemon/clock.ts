/** The clocks and timers of status and control. None of the timers keeps the process alive. */

/** Milliseconds of a monotonic clock. */
export function nowMs(): number {
  return performance.now();
}

/** The wall clock, ms since 1970: for what people read, never for differences. */
export function wallMs(): number {
  return Date.now();
}

/** CLOCK_MONOTONIC in microseconds, for other programs that read the same clock. */
export function monotonicUs(): bigint {
  return process.hrtime.bigint() / 1000n;
}

/** Calls `tick` again and again until the returned function is called. */
export function every(intervalMs: number, tick: () => void): () => void {
  const timer = setInterval(tick, intervalMs).unref();
  return () => clearInterval(timer);
}

/** Calls `late` once after `delayMs`, unless the returned function is called before. */
export function after(delayMs: number, late: () => void): () => void {
  const timer = setTimeout(late, delayMs).unref();
  return () => clearTimeout(timer);
}

/** For commands, which have nothing else to do meanwhile. */
export function sleep(delayMs: number): Promise<void> {
  return new Promise((done) => setTimeout(done, delayMs));
}
