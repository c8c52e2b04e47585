/**
 * What the service manager is told: ready, reloading, stopping, still alive (sd_notify(3), the unit's
 * Type=notify). Where none listens, nothing is sent.
 *
 * RELOADING=1 comes with the time that Type=notify-reload asks for, but the unit does not rely on it: systemd
 * has that type since 253, and Debian 12 has 252, which ignores the time.
 */
import { every, monotonicUs } from './daemon/clock.ts';
import type { TunnelEvent } from './host.ts';
import type { Native } from './native.ts';
import { reason, warn } from './report.ts';

/** Longest delay of a timer, ms; a longer one would fire at once (node:timers). */
const MOST_DELAY_MS = 2 ** 31 - 1;

type Environment = Record<string, string | undefined>;

/**
 * Takes what the service manager wants out of `environment`, so that no program we run speaks in our name.
 * `pid` is this process.
 */
export function takeNotifier(
  native: Pick<Native, 'unixSend'>,
  environment: Environment,
  pid: number,
): Notifier {
  const {
    NOTIFY_SOCKET: socket = '',
    WATCHDOG_USEC: limit = '',
    WATCHDOG_PID: watched,
  } = environment;
  delete environment.NOTIFY_SOCKET;
  delete environment.WATCHDOG_USEC;
  delete environment.WATCHDOG_PID;
  // sd_watchdog_enabled(3): a parent of ours may be the one that is watched.
  const isOurs = watched === undefined || watched === String(pid);
  const limitMs = isOurs && /^[0-9]+$/.test(limit) ? Number(limit) / 1000 : 0;
  return new Notifier(native, socket, limitMs);
}

export class Notifier {
  private readonly native: Pick<Native, 'unixSend'>;
  private readonly socket: string;
  private readonly limitMs: number;
  private shown: string | undefined = undefined;
  private isBroken = false;

  /** `socket` is '' where nobody listens; `limitMs` is how long a silence counts as hanging, 0 for ever. */
  constructor(native: Pick<Native, 'unixSend'>, socket: string, limitMs: number) {
    this.native = native;
    this.socket = socket;
    this.limitMs = limitMs;
  }

  /** What was to be started is; also the end of a reload. `status` is shown unless there is a later one. */
  ready(status: string): void {
    this.send('READY=1', statusLine(this.shown ?? status));
  }

  /** The configuration is being read again; `ready` ends it, also when the old one stays. */
  reloading(): void {
    this.send('RELOADING=1', `MONOTONIC_USEC=${monotonicUs()}`);
  }

  /** Everything is being undone. */
  stopping(status: string): void {
    this.send('STOPPING=1', statusLine(status));
  }

  /** What `systemctl status` shows. */
  status(status: string): void {
    this.shown = status;
    this.send(statusLine(status));
  }

  /**
   * Says twice in each limit that we do not hang, as long as `isWell`, until the returned function is called.
   */
  watch(isWell: () => boolean): () => void {
    if (this.socket === '' || this.limitMs === 0) return () => undefined;
    const beat = (): void => {
      if (isWell()) this.send('WATCHDOG=1');
    };
    beat();
    return every(Math.min(this.limitMs / 2, MOST_DELAY_MS), beat);
  }

  private send(...lines: readonly string[]): void {
    if (this.socket === '') return;
    try {
      this.native.unixSend(this.socket, lines.join('\n'));
    } catch (error) {
      // Once: it will not get better, and the tunnel does not depend on it.
      if (!this.isBroken) warn(`socket "${this.socket}"`, reason(error), 'unset NOTIFY_SOCKET');
      this.isBroken = true;
    }
  }
}

/** One line, whatever is in it: the next would be another assignment. */
function statusLine(status: string): string {
  return `STATUS=${status.replaceAll(/\s+/g, ' ')}`;
}

/** What `systemctl status` shows from an event on; undefined: the same as before. */
export function statusAfter(event: TunnelEvent): string | undefined {
  switch (event.kind) {
    case 'connected':
    case 'moved':
      return `connected to ${event.endpoint}`;
    case 'silent':
      return `nothing heard for ${Math.round(event.forMs / 1000)} s`;
    case 'back':
      return 'connected';
    case 'busy':
      return 'waiting: the server has another client';
    case 'closed':
      return 'closed by the other end';
    default:
      return undefined;
  }
}
