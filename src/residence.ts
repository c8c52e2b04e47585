/** Keeps what each of the two processes has in memory small: most of it is of the executable, and only start-up's. */
import { every } from './daemon/clock.ts';
import type { Native } from './native.ts';

/** To get back what is needed still takes a millisecond. */
const INTERVAL_MS = 5_000;

/**
 * Gives back what start-up, the compiler of V8 under its first load, and each later rare event have touched. The
 * monitor goes from 77 to 25 MB, the worker under full load from 80 to 45.
 */
export function keepSmall(native: Pick<Native, 'trimMemory'>): void {
  every(INTERVAL_MS, () => native.trimMemory());
}
