/** The worker as the monitor sees it: a process, and the channel to it. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, existsSync } from 'node:fs';
import { isSea } from 'node:sea';
import { Channel } from './channel.ts';
import { WORKER_COMMAND } from './command.ts';
import { wordOf } from './messages.ts';
import type { Order, Word } from './messages.ts';
import type { Handle, Native } from '../native.ts';
import { after, nowMs } from '../daemon/clock.ts';

/** For its goodbye, its last answers and closing what it has; then it is killed. */
const END_LIMIT_MS = 5_000;
/** What a worker says in a second, and at once: far more than links that flap and users who ask make it say. */
const WORDS_PER_SECOND = 2_000;
const MOST_WORDS = 20_000;
/** A title takes the place of the words (setproctitle), so there must be room: 20 links of ten letters. */
const TITLE_ROOM = ' '.repeat(256);

export class WorkerProcess {
  /** Resolves once the process is gone: why, in words. */
  readonly ended: Promise<string>;
  private readonly child: ChildProcess;
  private readonly channel: Channel;
  private misbehaviour = '';
  private wordsLeft = MOST_WORDS;
  private countedMs = nowMs();
  private stopLimit: (() => void) | undefined = undefined;

  /** Throws what the system says. */
  constructor(native: Native, onWord: (word: Word) => void) {
    const { handle, descriptor } = native.channelPair();
    // A descriptor that comes from there is not taken: only the monitor opens things.
    this.channel = new Channel(native, handle, false, {
      message: (message) => {
        this.count();
        onWord(wordOf(message));
      },
      raw: () => this.stopAt('sent what is no message'),
      ended: (why) => this.stopAt(why),
    });
    this.child = startProcess(descriptor);
    closeSync(descriptor);
    this.ended = new Promise((resolve) => {
      this.child.on('error', (error) => resolve(`could not be started (${error.message})`));
      this.child.on('exit', (status, signal) => {
        const how = signal === null ? `with status ${status}` : `by ${signal}`;
        resolve(
          this.misbehaviour === '' ? `ended ${how}` : `${this.misbehaviour}, and ended ${how}`,
        );
      });
    });
    void this.ended.then(() => {
      this.stopLimit?.();
      this.channel.close();
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  send(order: Order, passed: Handle = 0, isLent = false): void {
    this.channel.send(order, passed, isLent);
  }

  /** `key` is copied, and the copy wiped when it is gone. */
  sendKey(key: Uint8Array): void {
    this.channel.sendRaw(key);
  }

  /** Lets it end in order; resolves when it has. `cause`: why the instance ends. */
  async end(cause: string): Promise<void> {
    this.send({ order: 'end', cause });
    this.stopLimit ??= after(END_LIMIT_MS, () => this.child.kill('SIGKILL'));
    await this.ended;
  }

  /** Each word may cost more here than there. Throws when there are too many. */
  private count(): void {
    const atMs = nowMs();
    const more = ((atMs - this.countedMs) * WORDS_PER_SECOND) / 1000;
    this.wordsLeft = Math.min(MOST_WORDS, this.wordsLeft + more) - 1;
    this.countedMs = atMs;
    if (this.wordsLeft < 0) throw new Error('talks too much');
  }

  /** What it says is not to be trusted, or it does not listen: it may do no more. */
  private stopAt(why: string): void {
    // The end of a process closes its channel a moment before we are told of it.
    if (why !== 'is gone') this.misbehaviour = why;
    if (why === 'is gone') this.stopLimit ??= after(END_LIMIT_MS, () => this.child.kill('SIGKILL'));
    else this.child.kill('SIGKILL');
  }
}

function startProcess(descriptor: number): ChildProcess {
  // This very executable, also where the file has been replaced since.
  const self = existsSync('/proc/self/exe') ? '/proc/self/exe' : process.execPath;
  const script = isSea() ? [] : [...process.execArgv, process.argv[1]];
  const { TMPDIR, JOURNAL_STREAM, TZ } = process.env;
  const known = Object.entries({ TMPDIR, JOURNAL_STREAM, TZ });
  return spawn(self, [...script, WORKER_COMMAND, TITLE_ROOM], {
    argv0: 'vpn',
    cwd: '/',
    env: Object.fromEntries(known.filter(([, value]) => value !== undefined)),
    stdio: ['ignore', 'ignore', 'inherit', descriptor],
    // In our session: another one would be a group of its own for the scheduler (sched(7), autogroup), which
    // costs a quarter of the small packets on a busy host. So ^C reaches both, and the worker ignores it.
    detached: false,
  });
}
