/** Programs in the background and in the foreground, and waiting for what they do. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Output {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const POLL_MS = 50;
const RUN_TIMEOUT_MS = 20_000;
/** What the tests themselves are run with is not for what they test. */
const { NODE_OPTIONS: _, NODE_COMPILE_CACHE: _cache, ...INHERITED } = process.env;

/** Waits until `probe` returns something other than undefined or false, and returns that. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  withinMs = 20_000,
): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > deadline) throw new Error(`not within ${withinMs / 1000} s: ${what}`);
    await sleep(POLL_MS);
  }
}

/** Lets `ms` pass with the event loop running. For traffic that must flow a while, never for a result. */
export const pass = (ms: number): Promise<void> => sleep(ms);

/** The same as `until`, for what comes within milliseconds and needs no event loop. */
export function waitFor(what: string, isSo: () => boolean, withinMs = 20_000): void {
  const deadline = performance.now() + withinMs;
  while (!isSo()) {
    if (performance.now() > deadline) throw new Error(`not within ${withinMs / 1000} s: ${what}`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  }
}

export function words(command: readonly string[]): string[] {
  // One string is a line to be split; several are words already, and may hold spaces.
  return command.length === 1 ? command[0]!.split(' ') : [...command];
}

export function run(command: readonly string[], timeoutMs = RUN_TIMEOUT_MS): Output {
  const [file, ...rest] = words(command);
  const { status, stdout, stderr, error } = spawnSync(file!, rest, {
    encoding: 'utf8',
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    maxBuffer: 64 * 1024 * 1024,
    env: INHERITED,
  });
  const why = error === undefined ? '' : `${error.message}\n`;
  return { status, stdout: stdout ?? '', stderr: why + (stderr ?? '') };
}

export function mustRun(command: readonly string[], timeoutMs?: number): string {
  const { status, stdout, stderr } = run(command, timeoutMs);
  if (status !== 0)
    throw new Error(`"${words(command).join(' ')}" exited with ${status}: ${stderr}${stdout}`);
  return stdout;
}

/** A program running in a host. What it prints is kept in a file, so that it never has to wait for us. */
export class Daemon {
  private readonly child: ChildProcess;
  private readonly logFile: string;
  readonly command: string;
  /** Exit status, or the name of the signal that ended it; undefined while it runs. */
  exit: number | NodeJS.Signals | undefined;

  constructor(command: readonly string[], logFile: string, env: Readonly<Record<string, string>>) {
    this.command = command.join(' ');
    this.logFile = logFile;
    const log = openSync(logFile, 'a');
    this.child = spawn(command[0]!, command.slice(1), {
      stdio: ['ignore', log, log],
      env: { ...INHERITED, ...env },
    });
    closeSync(log);
    this.child.once('exit', (status, signal) => (this.exit = status ?? signal ?? -1));
    this.child.once('error', () => (this.exit = -1));
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`cannot start "${this.command}"`);
    return this.child.pid;
  }

  /** stdout and stderr so far. */
  get output(): string {
    return readFileSync(this.logFile, 'utf8');
  }

  kill(signal: NodeJS.Signals): void {
    if (this.exit === undefined) this.child.kill(signal);
  }

  /** Waits for the end of the program: its exit status, or the signal that ended it. */
  async ended(withinMs = 30_000): Promise<number | NodeJS.Signals> {
    try {
      return await until(`end of "${this.command}"`, () => this.exit, withinMs);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.output}`);
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | NodeJS.Signals> {
    this.kill(signal);
    return this.ended();
  }

  /** Waits for a line that matches, among those printed from `from` (an offset in `output`) on. */
  async line(pattern: RegExp, withinMs = 20_000, from = 0): Promise<string> {
    return until(
      `line ${pattern} of "${this.command}"; it printed:\n${this.output}`,
      () =>
        this.output
          .slice(from)
          .split('\n')
          .find((line) => pattern.test(line)),
      withinMs,
    );
  }

  /** The program itself, and the workers that it has started and that still run. */
  get family(): readonly number[] {
    const own = ofProcess(this.pid, 'cmdline');
    const isWorker = (pid: number): boolean => {
      const words = ofProcess(pid, 'cmdline');
      // A command that is about to be started still has the words of whoever starts it.
      return words.startsWith('vpn') && words !== own;
    };
    return [this.pid, ...childrenOf(this.pid).filter(isWorker)];
  }

  /** Resident memory of the family in MB; 0 when it is gone. */
  residentMb(): number {
    const sizes = this.family.map(
      (pid) => /VmRSS:\s+(\d+)/.exec(ofProcess(pid, 'status'))?.[1] ?? 0,
    );
    return sizes.reduce<number>((sum, size) => sum + Number(size), 0) / 1024;
  }

  /** CPU seconds that the family has used so far, with all threads. */
  cpuSeconds(): number {
    const seconds = this.family.map((pid) => {
      const stat = ofProcess(pid, 'stat');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return (Number(fields[11]) + Number(fields[12])) / 100;
    });
    return seconds.reduce((sum, one) => sum + one, 0);
  }
}

/** Processes that `pid` has started and not lost. */
export function childrenOf(pid: number): readonly number[] {
  return ofProcess(pid, `task/${pid}/children`).split(' ').filter(Boolean).map(Number);
}

/** A file of /proc; '' when the process is gone. */
export function ofProcess(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
