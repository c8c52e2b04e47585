/**
 * The status script: told of every link that comes and goes, and of the tunnel as a whole, with MLVPN's words
 * and environment. One run at a time, in order, each with a time limit; nothing waits for it but the end.
 */
import { after } from './clock.ts';
import { isHeard } from './status.ts';
import type { TunnelStatus } from './status.ts';
import { runProgram } from './programs.ts';
import { trustedProgram } from './trusted.ts';
import { Failure } from '../report.ts';

export type HookEvent = 'tuntap_up' | 'tuntap_down' | 'rtun_up' | 'rtun_down';

/** One run of the script: `$1` is the device, `$2` the event, `$3` the link of the rtun events. */
export interface HookCall {
  readonly event: HookEvent;
  /** '' for the tuntap events. */
  readonly link: string;
}

export interface HookSettings {
  readonly command: string;
  readonly device: string;
  /** As in the configuration; '' for what it does not have. Networks are separated by spaces. */
  readonly ip4: string;
  readonly ip6: string;
  readonly ip4Gateway: string;
  readonly ip6Gateway: string;
  readonly ip4Routes: string;
  readonly ip6Routes: string;
  /** Upper bound of the tunnel's MTU: what a script is to set it to. */
  readonly mtu: number;
}

export interface HookDeps {
  readonly warn: (what: string, why: string, remedy: string) => void;
  readonly log: (line: string) => void;
}

/** Long enough for a DHCP client or a slow `ip route`, short enough that an end comes. */
export const HOOK_LIMIT_MS = 30_000;
/** At the end of the instance, for all that still waits. */
const LAST_LIMIT_MS = 60_000;
/** A script that always hangs must not collect work for days. */
const MOST_WAITING = 256;
/** A link is taken for down when it was not heard for so long: shorter gaps are nothing for scripts. */
const DOWN_AFTER_MS = 2_000;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Which calls follow from what the links are like, as MLVPN makes them. Pure; told the time. */
export class HookPlan {
  /** Links that the script believes to be up. */
  private readonly up = new Set<string>();
  private readonly silentSinceMs = new Map<string, number>();

  observe(tunnel: TunnelStatus, nowMs: number): readonly HookCall[] {
    const calls: HookCall[] = [];
    const present = new Set<string>();
    for (const link of tunnel.links) {
      const isUp = tunnel.hasSession && link.state === 'up' && isHeard(link);
      const isGone = !tunnel.hasSession || link.state === 'down';
      if (!isGone) present.add(link.name);
      if (isUp) {
        this.silentSinceMs.delete(link.name);
        calls.push(...this.raise(link.name));
      } else if (!this.silentSinceMs.has(link.name)) this.silentSinceMs.set(link.name, nowMs);
    }
    for (const name of [...this.up]) {
      const silentMs = nowMs - (this.silentSinceMs.get(name) ?? nowMs);
      if (!present.has(name) || silentMs >= DOWN_AFTER_MS) calls.push(...this.lower(name));
    }
    for (const name of this.silentSinceMs.keys()) {
      if (!tunnel.links.some((link) => link.name === name)) this.silentSinceMs.delete(name);
    }
    return calls;
  }

  /** The instance ends: everything goes down. */
  end(): readonly HookCall[] {
    return [...this.up].flatMap((name) => this.lower(name));
  }

  /** MLVPN tells of the first link before it tells of the tunnel. */
  private raise(link: string): readonly HookCall[] {
    if (this.up.has(link)) return [];
    this.up.add(link);
    const call: HookCall = { event: 'rtun_up', link };
    return this.up.size === 1 ? [call, { event: 'tuntap_up', link: '' }] : [call];
  }

  private lower(link: string): readonly HookCall[] {
    this.up.delete(link);
    const call: HookCall = { event: 'rtun_down', link };
    return this.up.size === 0 ? [call, { event: 'tuntap_down', link: '' }] : [call];
  }
}

/** Who makes the calls. */
export interface HookSink {
  /** After all that wait. Returns at once. */
  add(calls: readonly HookCall[]): void;
  /** Waits until everything was told, a while at most. Never rejects. */
  close(): Promise<void>;
}

/** Throws a `Failure` for a script that may not be run. Returns its path without symbolic links. */
export function checkScript(command: string): string {
  return trustedProgram(`statuscommand "${command}"`, command);
}

/** The queue in front of the script. */
export class Hooks implements HookSink {
  private settings: HookSettings;
  private readonly deps: HookDeps;
  private readonly limitMs: number;
  private readonly waiting: HookCall[] = [];
  private running: Promise<void> | undefined = undefined;
  private isOverflowSaid = false;

  /** Throws a `Failure` for a script that may not be run. */
  constructor(settings: HookSettings, deps: HookDeps, limitMs = HOOK_LIMIT_MS) {
    this.settings = settings;
    this.deps = deps;
    this.limitMs = limitMs;
    checkScript(settings.command);
  }

  /**
   * Another script, which `checkScript` takes, from the next call on; with the same variables, since it has to
   * take down what the one before has set up.
   */
  setCommand(command: string): void {
    this.settings = { ...this.settings, command };
  }

  private get what(): string {
    return `statuscommand "${this.settings.command}"`;
  }

  /** Runs the script for `calls` after all that wait. Returns at once. */
  add(calls: readonly HookCall[]): void {
    if (calls.length === 0) return;
    this.waiting.push(...calls);
    while (this.waiting.length > MOST_WAITING) {
      if (!this.isOverflowSaid) {
        this.deps.warn(this.what, 'too slow; some events are left out', 'make it quicker');
      }
      this.isOverflowSaid = true;
      // The device going up or down is never left out.
      const oldest = this.waiting.findIndex(({ link }) => link !== '');
      this.waiting.splice(Math.max(0, oldest), 1);
    }
    this.running ??= this.run();
  }

  /** Waits until everything was told, a minute at most and the run that is under way. Never rejects. */
  async close(): Promise<void> {
    const stopWaiting = after(LAST_LIMIT_MS, () => this.waiting.splice(0));
    await this.running;
    stopWaiting();
  }

  private async run(): Promise<void> {
    for (let call = this.waiting.shift(); call !== undefined; call = this.waiting.shift()) {
      await this.tell(call);
    }
    this.running = undefined;
  }

  private async tell({ event, link }: HookCall): Promise<void> {
    const { settings, deps } = this;
    const subject = `statuscommand ${event}${link === '' ? '' : ` ${link}`}`;
    try {
      // Checked each time: it may have been replaced since.
      const file = checkScript(settings.command);
      const words = [settings.device, event, ...(link === '' ? [] : [link])];
      const { limitMs } = this;
      const environment = environmentOf(settings);
      const { why } = await runProgram({ file, words, environment, limitMs, isRead: false });
      if (why === '') deps.log(`${subject}: done`);
      else deps.warn(subject, why, 'run it by hand to see what is wrong');
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      deps.warn(subject, error.message, '');
    }
  }
}

/** MLVPN's variables; nothing of our own environment. */
function environmentOf(settings: HookSettings): Readonly<Record<string, string>> {
  return {
    PATH,
    IP4: settings.ip4,
    IP6: settings.ip6,
    IP4_GATEWAY: settings.ip4Gateway,
    IP6_GATEWAY: settings.ip6Gateway,
    IP4_ROUTES: settings.ip4Routes,
    IP6_ROUTES: settings.ip6Routes,
    DEVICE: settings.device,
    MTU: String(settings.mtu),
  };
}
