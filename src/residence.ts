/** Keeps what each of the two processes has in memory small: most of it is of the executable, and only start-up's. */
import { every } from './daemon/clock.ts';
import type { Native } from './native.ts';

/** To get back what is needed still takes a millisecond. */
const INTERVAL_MS = 5_000;

/**
 * Gives back what start-up, the compiler of V8 under its first load, and each later rare event have touched. One
 * process goes from 77 to 31 MB, the other under full load from 80 to 62.
 */
export function keepSmall(native: Pick<Native, 'trimMemory'>): void {
  every(INTERVAL_MS, () => native.trimMemory());
}
