/** Runs other programs without a shell and without waiting for them: the loop goes on. */
import { spawn } from 'node:child_process';
import { after } from './clock.ts';
import { reason } from '../report.ts';

/** Between the request to end and the end, ms: time for a script to remove its own lock. */
const GRACE_MS = 1_000;
/** Of what a program prints; the rest is thrown away. */
const MOST_OUTPUT_BYTES = 64 * 1024;

export interface Program {
  /** The file itself, or a name that is looked up in PATH of `environment`. */
  readonly file: string;
  readonly words: readonly string[];
  /** The whole environment: nothing of our own is passed on. */
  readonly environment: Readonly<Record<string, string>>;
  readonly limitMs: number;
  /** Whether its output is wanted; if not, it goes to our standard error. */
  readonly isRead: boolean;
}

export interface Outcome {
  /** −1 if it did not end by itself. */
  readonly status: number;
  /** Why it counts as failed, in words; '' if it does not. */
  readonly why: string;
  /** False: there is no such program, or it cannot be run. */
  readonly isStarted: boolean;
  /** What it printed on its standard output; '' unless `isRead`. */
  readonly output: string;
}

/**
 * Runs a program to its end, or to the time limit: then it and what it has started get SIGTERM, and SIGKILL
 * a second later. Never rejects.
 */
export function runProgram(program: Program): Promise<Outcome> {
  const { file, words, environment, limitMs, isRead } = program;
  return new Promise((done) => {
    const chunks: Buffer[] = [];
    let size = 0;
    let isLate = false;
    // A process group of its own: Ctrl-C in our terminal is not for it, and killing it leaves no child.
    const child = spawn(file, words, {
      cwd: '/',
      env: environment,
      detached: true,
      stdio: isRead ? ['ignore', 'pipe', 'ignore'] : ['ignore', 2, 2],
    });
    let stopKilling = (): void => {};
    const stopWaiting = after(limitMs, () => {
      isLate = true;
      signalGroup(child.pid, 'SIGTERM');
      stopKilling = after(GRACE_MS, () => signalGroup(child.pid, 'SIGKILL'));
    });
    const finish = (status: number, why: string): void => {
      stopWaiting();
      stopKilling();
      // What it left behind in its group must not outlive the limit either.
      if (isLate) signalGroup(child.pid, 'SIGKILL');
      const output = Buffer.concat(chunks).toString();
      done({ status, why, isStarted: child.pid !== undefined, output });
    };
    child.stdout?.on('data', (chunk: Buffer) => {
      if (size < MOST_OUTPUT_BYTES) chunks.push(chunk.subarray(0, MOST_OUTPUT_BYTES - size));
      size += chunk.length;
    });
    child.on('error', (error) => finish(-1, reason(error)));
    child.on(isRead ? 'close' : 'exit', (status: number | null, signal: string | null) => {
      if (isLate) finish(-1, `not done after ${limitMs / 1000} s`);
      else if (signal !== null) finish(-1, `ended by ${signal}`);
      else finish(status ?? -1, status === 0 ? '' : `exit status ${status}`);
    });
  });
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // Nobody is left in it.
  }
}
