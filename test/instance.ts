/** The set-up of a host by a process of its own (hostchild.ts), ordered about line by line. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { HostSettings } from '../src/setup.ts';
import type { Host } from './netns.ts';

export const ADDON = resolve(
  process.env['VPN_ADDON'] ?? resolve(import.meta.dirname, '../build/vpn.node'),
);
const CHILD = resolve(import.meta.dirname, 'hostchild.ts');

export interface Answer {
  readonly result?: unknown;
  readonly error?: string;
  readonly warnings: readonly string[];
  readonly changes: number;
  readonly log: readonly string[];
}

/** A process that sets a host up (hostchild.ts). */
export class Instance {
  readonly process: ChildProcess;
  readonly #answers: string[] = [];
  readonly #waiting: ((line: string | undefined) => void)[] = [];
  readonly #ended: Promise<void>;

  constructor(
    host: Host,
    journalDir: string,
    settings: HostSettings,
    killAt = 0,
    killAfter = false,
  ) {
    const orders = JSON.stringify({ addon: ADDON, journalDir, settings, killAt, killAfter });
    this.process = spawn('ip', ['netns', 'exec', host.namespace, process.execPath, CHILD, orders], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#ended = new Promise((resolve) => this.process.on('close', () => resolve()));
    this.process.stdin?.on('error', () => undefined);
    if (this.process.stdout === null) throw new Error('no stdout');
    const lines = createInterface({ input: this.process.stdout });
    lines.on('line', (line) => {
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#answers.push(line);
      else waiting(line);
    });
    lines.on('close', () => this.#waiting.splice(0).forEach((waiting) => waiting(undefined)));
  }

  /** Undefined when it died over it. */
  async order(line: string): Promise<Answer | undefined> {
    this.process.stdin?.write(`${line}\n`);
    const answer =
      this.#answers.shift() ??
      (await new Promise<string | undefined>((resolve) => {
        this.#waiting.push(resolve);
        if (this.process.exitCode !== null || this.process.signalCode !== null) resolve(undefined);
      }));
    return answer === undefined ? undefined : (JSON.parse(answer) as Answer);
  }

  /** Like `order`, and it must go well. */
  async must(line: string): Promise<Answer> {
    const answer = await this.order(line);
    assert.equal(answer?.error, undefined);
    if (answer === undefined) throw new Error(`died over ${line}`);
    return answer;
  }

  async kill(): Promise<void> {
    this.process.kill('SIGKILL');
    await this.#ended;
  }

  async end(): Promise<void> {
    this.process.stdin?.end();
    await this.#ended;
  }
}
