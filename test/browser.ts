/**
 * A headless Chromium, told what to do over a pipe by the DevTools protocol: file descriptors 3 and 4 of
 * `--remote-debugging-pipe`, messages of JSON with a zero byte behind each.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** Debian's name for it. */
export const BROWSER = 'chromium';

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Look extends Size {
  readonly isDark: boolean;
}

interface Answer {
  readonly id?: number;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
  /** Of an event. */
  readonly method?: string;
}

export function hasBrowser(): boolean {
  return spawnSync(BROWSER, ['--version']).status === 0;
}

/** One browser with one page. Its profile is its own, and is removed when it ends. */
export class Browser {
  private readonly child: ChildProcess;
  private readonly profile: string;
  private readonly ended: Promise<void>;
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private sent = 0;
  private windUp: () => void = () => undefined;
  private session = '';

  private constructor(prefix: readonly string[]) {
    this.profile = mkdtempSync(join(tmpdir(), 'vpn-chromium-'));
    // Root may not use the sandbox; nothing but our own page is loaded.
    const root = process.geteuid?.() === 0 ? ['--no-sandbox'] : [];
    const words = ['--headless', '--disable-gpu', '--hide-scrollbars', '--no-first-run', ...root];
    // It would ask its maker for updates and lists.
    words.push('--disable-background-networking', '--disable-component-update', '--disable-sync');
    words.push(`--user-data-dir=${this.profile}`, '--remote-debugging-pipe', 'about:blank');
    const [program, ...rest] = [...prefix, BROWSER, ...words];
    this.child = spawn(program, rest, {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
      // It leaves a folder of its own there when it is killed.
      env: { ...process.env, TMPDIR: this.profile },
    });
    this.ended = new Promise((done) => {
      this.child.once('error', () => done());
      this.child.once('close', () => done());
    });
    void this.ended.then(() => {
      for (const done of this.waiting.values()) done({ error: { message: 'the browser ended' } });
      this.windUp();
    });
    const input = this.child.stdio[4] as Readable;
    let text = '';
    input.setEncoding('utf8').on('data', (piece: string) => {
      const messages = (text + piece).split('\0');
      text = messages.pop() ?? '';
      for (const message of messages) this.receive(JSON.parse(message) as Answer);
    });
    this.output.on('error', () => undefined);
  }

  /** `prefix`: words in front of its command, such as those that put it into a network namespace. */
  static async start(prefix: readonly string[] = []): Promise<Browser> {
    const browser = new Browser(prefix);
    try {
      const { targetId } = await browser.ask('Target.createTarget', { url: 'about:blank' });
      const words = { targetId, flatten: true };
      const { sessionId } = await browser.ask('Target.attachToTarget', words);
      browser.session = String(sessionId);
    } catch (error) {
      await browser.close();
      throw error;
    }
    return browser;
  }

  private get output(): Writable {
    return this.child.stdio[3] as Writable;
  }

  private receive(answer: Answer): void {
    if (answer.method === 'Emulation.virtualTimeBudgetExpired') this.windUp();
    if (answer.id === undefined) return;
    this.waiting.get(answer.id)?.(answer);
    this.waiting.delete(answer.id);
  }

  private async ask(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.sent;
    const of = this.session === '' ? {} : { sessionId: this.session };
    const answer = await new Promise<Answer>((done) => {
      this.waiting.set(id, done);
      this.output.write(`${JSON.stringify({ id, method, params, ...of })}\0`);
    });
    if (answer.error !== undefined) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result ?? {};
  }

  async open(url: string): Promise<void> {
    await this.ask('Page.navigate', { url });
  }

  /** Size and colours, from now on. */
  async look({ width, height, isDark }: Look): Promise<void> {
    const size = { width, height, deviceScaleFactor: 1, mobile: false };
    await this.ask('Emulation.setDeviceMetricsOverride', size);
    const features = [{ name: 'prefers-color-scheme', value: isDark ? 'dark' : 'light' }];
    await this.ask('Emulation.setEmulatedMedia', { features });
  }

  /** The value of an expression on the page; a promise is waited for. Plain data only. */
  async value(expression: string): Promise<unknown> {
    const words = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.ask('Runtime.evaluate', words);
    if (exceptionDetails !== undefined) throw new Error(`"${expression}" threw`);
    return (result as { readonly value?: unknown }).value;
  }

  /** Winds the page's own clock on by so much, as fast as it goes; it stands while answers are awaited. */
  async pass(ms: number): Promise<void> {
    const isOver = new Promise<void>((done) => (this.windUp = done));
    const policy = 'pauseIfNetworkFetchesPending';
    await this.ask('Emulation.setVirtualTimePolicy', { policy, budget: ms });
    await isOver;
  }

  /** What is seen of the page, as a PNG. */
  async picture(): Promise<Buffer> {
    const { data } = await this.ask('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(String(data), 'base64');
  }

  async close(): Promise<void> {
    // Asked to, it ends its own processes; one that cannot be asked is killed.
    await this.ask('Browser.close').catch(() => this.child.kill('SIGKILL'));
    await this.ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
