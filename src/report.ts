/**
 * What the user reads. The rules are:
 *
 * - A failure or warning is one line, `vpn: WHAT: WHY; WHAT TO DO`: lower-case start, no full stop, the
 *   user's own words in double quotes.
 * - Running lines are state changes only, subject first.
 * - stdout is for results (a key, help, a version); everything else goes to stderr, and from here only.
 * - `-v` adds lines and the stack trace of a failure. Keys never appear.
 *
 * This module formats and prints. Whether the program goes on is decided elsewhere.
 */
import { writeSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';

/** A failure the user can act on. Anything else that is thrown is a bug. */
export class Failure extends Error {
  /** `why` may be empty where `what` says it all; so may `remedy` where there is none. */
  constructor(what: string, why: string, remedy: string) {
    const reason = why === '' ? what : `${what}: ${why}`;
    super(remedy === '' ? reason : `${reason}; ${remedy}`);
  }
}

/** The command line itself is wrong: the only failure that ends with exit status 2. */
export class UsageFailure extends Failure {}

export const EXIT_SUCCESS = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

let isVerbose = false;
let isQuiet = false;

export function setVerbose(verbose: boolean): void {
  isVerbose = verbose;
}

/** Only failures are shown from now on. */
export function setQuiet(quiet: boolean): void {
  isQuiet = quiet;
}

/** What the system says of an error, in words: 'permission denied'. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const errno = 'errno' in error && typeof error.errno === 'number' ? error.errno : 0;
  // libuv counts downwards, errno itself upwards; the addon gives the latter.
  return getSystemErrorMap().get(-Math.abs(errno))?.[1] ?? error.message;
}

/** A running line: a change of state, subject first. */
export function log(line: string): void {
  if (!isQuiet) writeLine(`vpn: ${line}`);
}

/** A line that only `-v` shows. Lines that show a command start with `[#] `. */
export function verbose(line: string): void {
  if (isVerbose) writeLine(line.startsWith('[#] ') ? line : `vpn: ${line}`);
}

/** Something the user should look at, while the program goes on. */
export function warn(what: string, why: string, remedy: string): void {
  log(`warning: ${new Failure(what, why, remedy).message}`);
}

/** Prints the line of whatever was thrown, and returns the exit status that belongs to it. */
export function fail(error: unknown): number {
  if (error instanceof Failure) {
    writeLine(`vpn: ${error.message}`);
  } else {
    const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    const line = what.replaceAll(/\s+/g, ' ');
    writeLine(`vpn: internal error: ${line}; please report it with the output of vpn -v`);
  }
  if (isVerbose && error instanceof Error && error.stack !== undefined) writeLine(error.stack);
  return error instanceof UsageFailure ? EXIT_USAGE : EXIT_FAILURE;
}

/** Prints a result. */
export function print(text: string | Uint8Array): void {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  try {
    for (let written = 0; written < bytes.length;) {
      written += writeSync(1, bytes, written);
    }
  } catch (error) {
    throw new Failure('cannot write to standard output', reason(error), 'nothing else was done');
  }
}

function writeLine(line: string): void {
  process.stderr.write(`${line}\n`);
}
