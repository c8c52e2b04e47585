/**
 * What runs beside a tunnel: its control socket, its status over HTTP, the status script, the log of what
 * happened. Looks at the tunnel a few times a second and when it is told of an event; the tunnel knows nothing
 * of it. Everything is read at most ten times a second, however many ask.
 */
import type { TunnelEvent } from '../host.ts';
import type { Native } from '../native.ts';
import { reason, verbose, warn } from '../report.ts';
import { every, nowMs, wallMs } from './clock.ts';
import { Detail } from './detail.ts';
import { EventLog, newsOf, newsOfLink } from './eventlog.ts';
import type { LoggedEvent } from './eventlog.ts';
import { LinkHistory } from './history.ts';
import { HookPlan } from './hooks.ts';
import type { HookSink } from './hooks.ts';
import { HttpServer } from './http.ts';
import {
  announce,
  claimName,
  defaultSocket,
  ownNamespace,
  tokenPath,
  withdraw,
} from './instances.ts';
import type { InstanceFile } from './instances.ts';
import { metrics } from './metrics.ts';
import type { ControlAction, ControlAnswer, LinkRequest } from './protocol.ts';
import { ControlServer } from './socket.ts';
import { publish } from './status.ts';
import type { About, Status, TunnelStatus } from './status.ts';
import { Turns } from './turns.ts';

/** A link that fails is seen by a script or a monitor this soon. */
const LOOK_EVERY_MS = 250;
/** Answers are this old at most. */
const CACHE_MS = 100;

/** What a user may do to the running tunnel. Each throws a `Failure`; returns lines to show, if any. */
export interface ControlActions {
  /** A new handshake, and all links built anew. */
  reset(): Promise<readonly string[]>;
  /** `name` is that of a link in the status. */
  link(name: string, change: LinkRequest): Promise<readonly string[]>;
  /** Reads the configuration again; a line for each thing that changed or needs a restart. */
  reload(): Promise<readonly string[]>;
  /** Ends the instance, after the answer. */
  stop(): void;
}

export interface DaemonOptions {
  readonly native: Pick<Native, 'netnsCookie'>;
  /** Folder of the journal. */
  readonly stateDir: string;
  readonly about: About;
  /** '' for one in the state folder. */
  readonly controlPath: string;
  /** undefined: no HTTP. */
  readonly http: { readonly host: string; readonly port: number } | undefined;
  /** Who runs the status script; undefined: there is none. */
  readonly hooks: HookSink | undefined;
  /** `Tunnel.snapshot`. */
  readonly snapshot: () => TunnelStatus;
  readonly actions: ControlActions;
  /** Why it starts: 'started by hand', 'worker ended by SIGSEGV' … */
  readonly cause: string;
  /** Of a worker that this one takes the place of. */
  readonly earlier?: readonly LoggedEvent[];
  /** Told of every later one. */
  readonly onLogged?: (event: LoggedEvent) => void;
  /** Told a few times a second what the tunnel is doing. */
  readonly onLook?: (tunnel: TunnelStatus) => void;
  /** When the instance started, ms since 1970; now if left out. */
  readonly startedMs?: number;
}

export interface DaemonServices {
  /** To be called with every event of the tunnel. */
  event(event: TunnelEvent): void;
  /** What has happened so far. */
  readonly events: readonly LoggedEvent[];
  /** Of the control socket. */
  readonly controlPath: string;
  /** TCP port of the status over HTTP; 0: none. */
  readonly httpPort: number;
  /**
   * Before the device and its addresses go: tells the script that everything is down and waits for it,
   * ends all connections, removes the socket. `cause`: why the instance ends. Never rejects.
   */
  close(cause: string): Promise<void>;
}

/** Starts them; the tunnel need not have started. Leaves nothing behind when it throws a `Failure`. */
export async function startDaemonServices(options: DaemonOptions): Promise<DaemonServices> {
  const daemon = new Daemon(options);
  try {
    await daemon.open();
  } catch (error) {
    await daemon.closeServers();
    throw error;
  }
  return daemon;
}

class Daemon implements DaemonServices {
  httpPort = 0;
  readonly controlPath: string;
  private readonly options: DaemonOptions;
  private readonly instance: InstanceFile;
  private readonly log: EventLog;
  private readonly history = new LinkHistory();
  private readonly detail = new Detail();
  private readonly plan = new HookPlan();
  private readonly turns = new Turns();
  private readonly startedMs: number;
  private reloadedMs: number;
  private control: ControlServer | undefined = undefined;
  private http: HttpServer | undefined = undefined;
  private stopLooking = (): void => {};
  private isAnnounced = false;
  private isClosing = false;
  private cached: Cached | undefined = undefined;
  private cachedMs = Number.NEGATIVE_INFINITY;

  constructor(options: DaemonOptions) {
    const { about, stateDir, controlPath, native, earlier } = options;
    const netns = ownNamespace(native);
    this.options = options;
    this.controlPath =
      controlPath === '' ? defaultSocket(stateDir, netns, about.name) : controlPath;
    const { name, device, pid } = about;
    this.instance = { name, netns, device, pid, socket: this.controlPath };
    this.log = new EventLog(earlier);
    if (options.onLogged !== undefined) this.log.follow(options.onLogged);
    this.startedMs = options.startedMs ?? wallMs();
    this.reloadedMs = this.startedMs;
  }

  async open(): Promise<void> {
    const { options, instance, turns } = this;
    const { stateDir, http } = options;
    await claimName(stateDir, instance.netns, instance.name);
    this.control = await ControlServer.open(this.controlPath, {
      statusLine: () => this.texts().statusLine,
      plainStatusLine: () => this.texts().plainLine,
      events: this.log,
      turns,
      act: (action) => this.act(action),
    });
    announce(stateDir, instance);
    this.isAnnounced = true;
    if (http !== undefined) {
      const tokenFile = tokenPath(stateDir, instance.netns, instance.name);
      this.http = await HttpServer.open(
        { ...http, tokenFile },
        {
          statusText: () => this.texts().plainLine,
          metricsText: () => this.texts().metrics,
          turns,
        },
      );
      this.httpPort = this.http.port;
      if (this.http.tokenFile !== '') {
        warn(
          `the status on ${http.host}`,
          'not only for this host',
          `its token is in ${tokenFile}`,
        );
      }
    }
    this.log.add({ event: 'started', cause: options.cause }, wallMs());
    this.stopLooking = every(LOOK_EVERY_MS, () => this.look());
  }

  get events(): readonly LoggedEvent[] {
    return this.log.all;
  }

  event(event: TunnelEvent): void {
    const news = newsOf(event);
    if (news !== undefined) this.log.add(news, wallMs());
    // What it says of links is to be seen when the tunnel has dealt with it.
    this.turns.add(() => this.look());
  }

  /** What links have done since, to the log and the script. */
  private look(): void {
    if (this.isClosing) return;
    const tunnel = this.options.snapshot();
    const atMs = nowMs();
    for (const change of this.history.observe(tunnel, atMs)) {
      this.log.add(newsOfLink(change), wallMs());
    }
    this.options.hooks?.add(this.plan.observe(tunnel, atMs));
    for (const { subject, line } of this.detail.observe(tunnel, this.history, atMs)) {
      verbose(subject, line);
    }
    this.options.onLook?.(tunnel);
  }

  private texts(): Cached {
    const atMs = nowMs();
    if (this.cached !== undefined && atMs - this.cachedMs < CACHE_MS) return this.cached;
    this.cached = new Cached(this.status(atMs));
    this.cachedMs = atMs;
    return this.cached;
  }

  private status(atMs: number): Status {
    const tunnel = this.options.snapshot();
    this.history
      .observe(tunnel, atMs)
      .forEach((change) => this.log.add(newsOfLink(change), wallMs()));
    return publish(tunnel, this.history, this.options.about, {
      nowMs: wallMs(),
      startedMs: this.startedMs,
      reloadedMs: this.reloadedMs,
    });
  }

  private async act(action: ControlAction): Promise<ControlAnswer> {
    try {
      const lines = await this.perform(action);
      // Whoever asks next sees what has changed.
      this.cachedMs = Number.NEGATIVE_INFINITY;
      return { ok: true, lines };
    } catch (error) {
      return { ok: false, error: reason(error) };
    }
  }

  private async perform(action: ControlAction): Promise<readonly string[]> {
    const { actions } = this.options;
    const cause = 'asked for over the control socket';
    switch (action.command) {
      case 'reset':
        this.log.add({ event: 'reset', cause }, wallMs());
        return await actions.reset();
      case 'reload': {
        const lines = await actions.reload();
        this.reloadedMs = wallMs();
        this.log.add({ event: 'reloaded', cause: lines.join('; ') }, wallMs());
        return lines;
      }
      case 'stop':
        this.log.add({ event: 'stopping', cause }, wallMs());
        actions.stop();
        return [];
      case 'link': {
        const lines = await actions.link(action.name, action.change);
        const what = Object.entries(action.change).map(([key, value]) => `${key} ${value}`);
        const news = { event: 'link-set', link: action.name, cause: what.join(', ') };
        this.log.add(news, wallMs());
        return lines;
      }
    }
  }

  async close(cause: string): Promise<void> {
    if (this.isClosing) return;
    this.isClosing = true;
    this.stopLooking();
    this.log.add({ event: 'ended', cause }, wallMs());
    this.options.hooks?.add(this.plan.end());
    await this.closeServers();
    await this.options.hooks?.close();
  }

  async closeServers(): Promise<void> {
    if (this.isAnnounced) withdraw(this.options.stateDir, this.instance);
    this.isAnnounced = false;
    await Promise.all([this.control?.close(), this.http?.close()]);
    this.turns.close();
  }
}

/** One status in all its forms, each made when it is first asked for. */
class Cached {
  private readonly status: Status;
  private json = '';
  private bytes: Partial<Record<'statusLine' | 'plainLine' | 'metrics', Buffer>> = {};

  constructor(status: Status) {
    this.status = status;
  }

  get statusLine(): Buffer {
    return (this.bytes.statusLine ??= Buffer.from(`{"ok":true,"status":${this.text}}\n`));
  }

  get plainLine(): Buffer {
    return (this.bytes.plainLine ??= Buffer.from(`${this.text}\n`));
  }

  get metrics(): Buffer {
    return (this.bytes.metrics ??= Buffer.from(metrics(this.status)));
  }

  private get text(): string {
    if (this.json === '') this.json = JSON.stringify(this.status);
    return this.json;
  }
}
