/**
 * What the user reads. The rules are:
 *
 * - A failure or warning is one line, `vpn: WHAT: WHY; WHAT TO DO`: lower-case start, no full stop, the
 *   user's own words in double quotes.
 * - Running lines are state changes only, subject first.
 * - stdout is for results (a key, help, a version); everything else goes to stderr, and from here only.
 * - `-v` adds lines, each about a subject, and the stack trace of a failure. Keys never appear.
 * - Programs read the same as JSON, and under systemd each line has its priority (logline.ts).
 *
 * This module formats and prints. Whether the program goes on is decided elsewhere.
 */
import { fstatSync, writeSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';
import { wallMs } from './daemon/clock.ts';
import { logLines } from './logline.ts';
import type { LogForm, LogRecord, Parts } from './logline.ts';

/** A failure the user can act on. Anything else that is thrown is a bug. */
export class Failure extends Error implements Parts {
  readonly what: string;
  readonly why: string;
  readonly remedy: string;

  /** `why` may be empty where `what` says it all; so may `remedy` where there is none. */
  constructor(what: string, why: string, remedy: string) {
    const reason = why === '' ? what : `${what}: ${why}`;
    super(remedy === '' ? reason : `${reason}; ${remedy}`);
    this.what = what;
    this.why = why;
    this.remedy = remedy;
  }
}

/** The command line itself is wrong: the only failure that ends with exit status 2. */
export class UsageFailure extends Failure {}

export const EXIT_SUCCESS = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

/** What detail is about: MLVPN's tokens. The rest of a file's tokens are other names of these. */
export const SUBJECTS = [
  /** What holds at the start. */
  'config',
  /** Who asks what over the control socket and HTTP. */
  'control',
  /** What names resolve to. */
  'dns',
  /** Sockets, and what fits through the path of each link. */
  'net',
  /** What is done with privileges: commands, scripts, sockets and devices handed over. */
  'privsep',
  /** Handshakes, and the keys that come of them. */
  'protocol',
  /** Packets that are held, and sent again. */
  'reorder',
  'rtt',
  /** What each link can carry, and what it is given. */
  'scheduler',
  /** The device. */
  'tuntap',
] as const;
export type Subject = (typeof SUBJECTS)[number];

let isVerbose = false;
let isQuiet = false;
let subjects: readonly string[] = [];
let form: LogForm | undefined = undefined;

// Whoever read our lines is gone (EPIPE): the tunnel goes on without.
process.stderr.on('error', () => undefined);

export function setVerbose(verbose: boolean): void {
  isVerbose = verbose;
}

/** Detail of these subjects is shown from now on, also without `-v`, which shows all. */
export function setSubjects(shown: readonly string[]): void {
  subjects = shown;
}

/** Only failures are shown from now on. */
export function setQuiet(quiet: boolean): void {
  isQuiet = quiet;
}

/**
 * What lines look like from now on. `instance` is '' while it has no name. With `isPlain` they are as on a
 * terminal, without priorities, also where standard error is systemd's journal.
 */
export function setLogFormat(kind: LogForm['kind'], instance: string, isPlain: boolean): void {
  form = { kind, instance, isJournal: !isPlain && isJournal() };
}

/** Whether standard error is systemd's journal (systemd.exec(5), $JOURNAL_STREAM). */
function isJournal(): boolean {
  const { JOURNAL_STREAM: stream } = process.env;
  if (stream === undefined) return false;
  try {
    const { dev, ino } = fstatSync(2, { bigint: true });
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** What the system says of an error, in words: 'permission denied'. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const errno = 'errno' in error && typeof error.errno === 'number' ? error.errno : 0;
  // libuv counts downwards, errno itself upwards; the addon gives the latter.
  return getSystemErrorMap().get(-Math.abs(errno))?.[1] ?? error.message;
}

/** A running line: a change of state, subject first; or what somebody should look at. */
export function log(line: string, level: 'notice' | 'warning' | 'error' = 'notice'): void {
  if (!isQuiet || level === 'error') write({ level, message: line });
}

/**
 * A line of detail, which `-v` shows, and `-D` for its subject. Never for each packet: a few in a second at
 * most. Lines that show a command start with `[#] `.
 */
export function verbose(subject: Subject, line: string): void {
  if (isDetailed(subject)) write({ level: 'debug', message: line, subject });
}

/** Whether `verbose` shows lines about it: for what costs more than a line to make. */
export function isDetailed(subject: Subject): boolean {
  return isVerbose || subjects.includes(subject);
}

/** Something the user should look at, while the program goes on. */
export function warn(what: string, why: string, remedy: string): void {
  if (isQuiet) return;
  const parts = { what, why, remedy };
  write({ level: 'warning', message: new Failure(what, why, remedy).message, parts });
}

/** Prints the line of whatever was thrown, and returns the exit status that belongs to it. */
export function fail(error: unknown): number {
  const stack = isVerbose && error instanceof Error ? error.stack : undefined;
  if (error instanceof Failure) {
    const { message, what, why, remedy } = error;
    write({ level: 'error', message, parts: { what, why, remedy }, stack });
  } else {
    const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    const line = what.replaceAll(/\s+/g, ' ');
    const message = `internal error: ${line}; please report it with the output of vpn -v`;
    write({ level: 'error', message, stack });
  }
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

function write(record: LogRecord): void {
  form ??= { kind: 'text', instance: '', isJournal: isJournal() };
  process.stderr.write(logLines(record, form, wallMs()));
}
