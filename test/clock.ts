/** A wall clock that a test steps, for the processes that are started with it (clock.cc). */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { mustRun, ofProcess } from './daemon.ts';
import type { Bed } from './netns.ts';

/** The memory that clock.cc shares: the step and the number of processes, then of each its pid and its step. */
const BYTES = 8 * 2 * 4096;

export class Clock {
  /** For LD_PRELOAD to work in, and in the workers of whoever has it. */
  readonly env: Readonly<Record<string, string>>;
  private readonly library: string;
  private readonly file: string;

  constructor(bed: Bed) {
    this.library = preloaded(bed, 'clock');
    this.file = bed.file('step');
    bed.write(this.file, new Uint8Array(BYTES));
    this.env = { LD_PRELOAD: this.library, CLOCK_STEP_FILE: this.file };
  }

  /** From now on the clock is off by so many seconds. */
  step(seconds: number): void {
    // In place: a file that became shorter for a moment would kill who has it in memory.
    const file = openSync(this.file, 'r+');
    writeSync(file, Buffer.from(BigInt64Array.of(BigInt(seconds)).buffer), 0, 8, 0);
    closeSync(file);
  }

  /** By how many seconds the last answer to a process was off; undefined where it does not have this clock. */
  seenBy(pid: number): number | undefined {
    if (!ofProcess(pid, 'maps').includes(this.library)) return undefined;
    const memory = readFileSync(this.file);
    const at = (word: number): number => Number(memory.readBigInt64LE(8 * word));
    // The last with this pid: before a program became this one, it had a place as well.
    for (let place = at(1) - 1; place >= 0; place--)
      if (at(2 + 2 * place) === pid) return at(3 + 2 * place);
    return undefined;
  }
}

/** Compiles `name`.cc of this directory for LD_PRELOAD, and returns its file. */
export function preloaded(bed: Bed, name: string): string {
  const library = bed.file(`${name}.so`);
  const source = resolve(import.meta.dirname, `${name}.cc`);
  mustRun(['g++', '-shared', '-fPIC', '-O1', '-o', library, source, '-ldl'], 60_000);
  return library;
}
