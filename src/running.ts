/**
 * The tunnel of a host that is set up: the worker that runs it, and what it needs of the host, given by the
 * monitor, which this is part of.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatRemote } from './address.ts';
import type { DaemonConfig } from './conf/config.ts';
import { Reload } from './conf/reload.ts';
import type { ConfigFile } from './conf/start.ts';
import type { Config } from './config.ts';
import { after, wallMs } from './daemon/clock.ts';
import { KEPT_EVENTS } from './daemon/eventlog.ts';
import type { LoggedEvent } from './daemon/eventlog.ts';
import { Hooks } from './daemon/hooks.ts';
import { removeInstance } from './daemon/instances.ts';
import { say, waitingFor, warnAtStart } from './events.ts';
import type { CompiledEntry } from './filters.ts';
import type { TunnelEvent } from './host.ts';
import { LinkLog } from './linklog.ts';
import type { Listeners } from './listeners.ts';
import type { Handle, Native } from './native.ts';
import { statusAfter } from './notify.ts';
import type { Notifier } from './notify.ts';
import type { Request, Word } from './privsep/messages.ts';
import { WorkerProcess } from './privsep/process.ts';
import { RemoteTunnel } from './privsep/remote.ts';
import { ToldHooks } from './privsep/toldhooks.ts';
import { workerUser } from './privsep/user.ts';
import type { WorkerUser } from './privsep/user.ts';
import { fail, Failure, log, reason, verbose, warn } from './report.ts';
import { ServerNames } from './servernames.ts';
import type { Runner } from './rules.ts';
import { interfaceMtu } from './runtime.ts';
import type { HostSetup } from './setup.ts';
import {
  hookSettings,
  hostSettings,
  innerAddresses,
  instanceName,
  linkSettings,
  remoteOf,
} from './startup.ts';
import { Uplinks } from './uplinks.ts';
import { bindingOf, waysOf } from './ways.ts';

export interface RunningParts {
  readonly native: Native;
  readonly config: Config;
  readonly daemon: DaemonConfig;
  /** undefined: there is none to read again. */
  readonly file: ConfigFile | undefined;
  /** Borrowed until `close` has resolved. */
  readonly key: Uint8Array;
  readonly device: { readonly handle: Handle; readonly name: string };
  readonly setup: HostSetup;
  readonly filters: readonly CompiledEntry[];
  readonly runner: Runner;
  /** The endpoints of each remote (startup.ts). */
  readonly known: ReadonlyMap<string, readonly Uint8Array[]>;
  readonly notifier: Notifier;
  /** Ends it, as a signal does. */
  readonly stop: () => void;
}

/** Before a worker that has died is started again: longer each time, up to the last. */
const RESTART_MS = [0, 1_000, 5_000, 30_000];

export class Running {
  /** Rejects when the tunnel cannot go on. */
  readonly failed: Promise<never>;
  private readonly parts: RunningParts;
  private readonly ways: Uplinks | Listeners;
  private readonly tunnel: RemoteTunnel;
  private readonly names: ServerNames;
  private readonly startedMs = wallMs();
  private readonly earlier: LoggedEvent[] = [];
  private worker: WorkerProcess | undefined = undefined;
  private hooks: ToldHooks | undefined = undefined;
  private reload: Reload | undefined = undefined;
  private readonly linkLog = new LinkLog();
  /** What comes before we have said that we started. */
  private early: TunnelEvent[] | undefined = [];
  private restarts = 0;
  private hasAnswered = true;
  private isClosing = false;
  private stopWaiting = (): void => {};
  private fail: (error: unknown) => void = () => undefined;
  private started: (error: Failure | undefined) => void = () => undefined;

  constructor(parts: RunningParts) {
    const { config, daemon, filters } = parts;
    this.parts = parts;
    this.ways = waysOf(parts.native, config, parts.setup);
    this.tunnel = new RemoteTunnel(
      {
        open: (index) => this.ways.open(index),
        bindingOf: (index) => bindingOf(this.ways, index),
      },
      { filters, realtime: config.realtime, daemon },
    );
    const { native, setup } = parts;
    const changed = { inside: config.dns, before: setup.nameServers };
    this.names = new ServerNames(native, setup.mark, changed);
    this.failed = new Promise((_, reject) => {
      this.fail = reject;
    });
    // Whoever waits for it may not do so yet.
    this.failed.catch(() => undefined);
  }

  /** The host is set up; starts what is to run. Throws a `Failure`; `close` is due all the same. */
  async start(): Promise<void> {
    const { config, daemon, file, device, runner, notifier } = this.parts;
    const { ways, tunnel } = this;
    if (!daemon.naturalTitle) process.title = `vpn: ${this.name} [priv]`;
    const hook = hookSettings(daemon, device.name);
    let script: Hooks | undefined;
    if (hook !== undefined) {
      const told = (line: string): void => verbose('privsep', line);
      script = new Hooks(hook, { warn, log: told });
      this.hooks = new ToldHooks(script);
    }
    tunnel.mtu = interfaceMtu(device.name) ?? 0;
    if (ways instanceof Uplinks) await ways.prepare();
    tunnel.setLinks(linkSettings(config, daemon, ways instanceof Uplinks ? ways.configs : []));
    const networks = this.changeNetworks.bind(this);
    const deps = { tunnel, ways, networks, hooks: script, runner };
    if (file !== undefined) this.reload = new Reload(file, deps);
    await this.launch('started by hand');
    ways.attach(tunnel);
    log(`${config.role} on ${device.name}: ${waitingFor(config)}`);
    warnAtStart(config);
    notifier.ready(waitingFor(config));
    const { early = [] } = this;
    this.early = undefined;
    for (const event of early) this.onEvent(event);
  }

  /** Whether the worker has answered what it was asked the last time; asks again. */
  get isWell(): boolean {
    const { hasAnswered } = this;
    if (!hasAnswered) return false;
    this.hasAnswered = false;
    void this.tunnel.settled().then(() => {
      this.hasAnswered = true;
    });
    return true;
  }

  private get name(): string {
    return instanceName(this.parts.daemon, this.parts.device.name);
  }

  /** Starts a worker, and waits until it runs. Throws a `Failure`. */
  private async launch(cause: string): Promise<void> {
    const { native, config } = this.parts;
    const user = workerUser(config.user, native, process.getuid?.(), process.pid);
    const root = user.uid === 0 ? '' : mkdtempSync(join(tmpdir(), 'vpn-'));
    try {
      await this.begin(cause, root, user);
    } finally {
      // It is in use still, and nothing can be put into it.
      if (root !== '') rmSync(root, { recursive: true, force: true });
    }
    const who = user.uid === 0 ? 'the same user' : `user ${user.uid}`;
    verbose('privsep', `worker runs as ${who}, pid ${this.worker?.pid ?? 0}`);
  }

  private async begin(cause: string, root: string, user: WorkerUser): Promise<void> {
    const { native, config, key, device, setup, known } = this.parts;
    const uplinks = this.ways instanceof Uplinks ? this.ways.configs : [];
    const isRunning = new Promise<Failure | undefined>((resolve) => {
      this.started = resolve;
    });
    const worker = new WorkerProcess(native, (word) => this.onWord(word));
    this.worker = worker;
    void worker.ended.then((why) => this.onEnd(worker, why));
    this.tunnel.begin(worker, device.handle, {
      config,
      device: device.name,
      pid: process.pid,
      endpoints: uplinks.map((link) => (known.get(remoteOf(config, link)) ?? []).map(hexOf)),
      ipv6Leaves: setup.ipv6Leaves,
      hasHooks: this.hooks !== undefined,
      cause,
      earlier: this.earlier,
      startedMs: this.startedMs,
      root,
      ...user,
    });
    worker.sendKey(key);
    const failure = await isRunning;
    if (failure !== undefined) throw failure;
  }

  private onWord(word: Word): void {
    switch (word.word) {
      case 'running':
        this.started(undefined);
        return;
      case 'failed': {
        const [what, why] = word.line === '' ? ['worker', 'could not start'] : [word.line, ''];
        this.started(new Failure(what, why, ''));
        return;
      }
      case 'event':
        this.onEvent(word.event);
        return;
      case 'logged':
        this.linkLog.take(word.event);
        this.earlier.push(word.event);
        if (this.earlier.length > KEPT_EVENTS) this.earlier.shift();
        return;
      case 'mtu':
        this.setMtu(word.mtu);
        return;
      case 'names':
        void this.resolve(word.id, word.index);
        return;
      case 'hooks':
        this.hooks?.add(word.calls);
        return;
      case 'request':
        void this.answer(word.id, word.request);
        return;
      case 'reopen':
        this.tunnel.reopen();
        return;
      case 'settled':
        this.tunnel.hasSettled(word.id);
        return;
      case 'hang-up':
        // Without a file there is nothing to read again: it ends, as the monitor does.
        if (this.reload === undefined) this.parts.stop();
        else this.hangUp();
        return;
      case 'stop':
        this.parts.stop();
        return;
      case 'ended':
    }
  }

  /** A worker that was not told to end. */
  private onEnd(worker: WorkerProcess, why: string): void {
    this.started(new Failure('worker', why, 'see the lines before'));
    if (worker !== this.worker) return;
    this.worker = undefined;
    this.tunnel.left();
    this.hooks?.allDown();
    this.forget();
    if (this.isClosing) return;
    const { config, setup } = this.parts;
    if (!config.killSwitch) {
      this.fail(new Failure('worker', why, 'start vpn again'));
      return;
    }
    const waitMs = RESTART_MS[Math.min(this.restarts, RESTART_MS.length - 1)];
    this.restarts++;
    log(`worker ${why}; nothing leaves until the next one runs, in ${waitMs / 1000} s`);
    this.stopWaiting = after(waitMs, () => {
      this.launch(`worker ${why}`).catch((error: unknown) => {
        fail(error);
        // Its end has another one started.
        void this.worker?.end('could not start');
      });
    });
    void setup.refresh();
  }

  private onEvent(event: TunnelEvent): void {
    const { config, device, setup, notifier } = this.parts;
    if (this.early !== undefined) {
      this.early.push(event);
      return;
    }
    say(event, config);
    const status = statusAfter(event);
    if (status !== undefined) notifier.status(status);
    if (event.kind === 'tun-lost') {
      this.fail(new Failure(`tun device "${device.name}"`, 'gone', 'start vpn again'));
    } else if (event.kind === 'connected') {
      this.restarts = 0;
      setup.connected({ ipv6: event.ipv6 }).catch(this.fail);
    }
  }

  /** Makes the routes and what is allowed those of `config`. Throws a `Failure`. */
  private async changeNetworks(config: Config, daemon: DaemonConfig): Promise<void> {
    const { key, device, setup } = this.parts;
    const inner = innerAddresses(config, daemon, key);
    const { routes, allow = [] } = hostSettings(config, daemon, inner, device.name);
    await setup.changeNetworks({ routes, allow });
    this.tunnel.setRoutes(config.routes);
  }

  private setMtu(mtu: number): void {
    const { native, device } = this.parts;
    const script = this.scriptMtu();
    if (script !== undefined && script < mtu) {
      // It was quicker than the news of it. The worker answers with what it makes of the bound.
      this.tunnel.boundMtu(script);
      return;
    }
    this.tunnel.mtu = mtu;
    try {
      native.tunSetMtu(device.handle, mtu);
    } catch {
      // The device is gone; whoever reads it says so.
    }
  }

  /** The server's addresses may have changed since. Never rejects. */
  private async resolve(id: number, index: number): Promise<void> {
    const { config } = this.parts;
    const link = this.ways instanceof Uplinks ? this.ways.configs.at(index) : undefined;
    const found = link === undefined ? [] : await this.names.resolve(remoteOf(config, link));
    if (found.length > 0) this.parts.setup.reach(found.map(formatRemote)).catch(this.fail);
    this.worker?.send({ order: 'names', id, endpoints: found.map(hexOf) });
  }

  private async answer(id: number, request: Request): Promise<void> {
    try {
      const lines = await this.perform(request);
      this.worker?.send({ order: 'answer', id, answer: { lines } });
    } catch (error) {
      this.worker?.send({ order: 'answer', id, answer: { failure: reason(error) } });
    }
  }

  private async perform(request: Request): Promise<readonly string[]> {
    if (request.request === 'hold') {
      if (this.ways.configs.at(request.index) === undefined) {
        throw new Failure(`link ${request.index}`, 'no such link', 'see vpn status');
      }
      this.ways.hold(request.index, request.isHeld);
      await this.ways.settle();
      return [];
    }
    if (this.reload !== undefined) return await this.readAgain(this.reload);
    const why = 'this instance was started without a configuration file';
    throw new Failure('cannot reload', why, 'start it with --config, or restart it');
  }

  /** Interfaces, addresses or routes have just changed. */
  changed(): void {
    if (this.ways instanceof Uplinks) this.ways.changed();
    const script = this.scriptMtu();
    if (script !== undefined) this.tunnel.boundMtu(script);
  }

  /** The same a moment later. */
  follow(): void {
    void this.parts.setup.refresh();
    if (this.ways instanceof Uplinks) void this.ways.follow();
  }

  /** What the status script has made of the device's MTU: an upper bound of ours. */
  private scriptMtu(): number | undefined {
    const { daemon, device } = this.parts;
    if (daemon.setsAddresses || this.tunnel.mtu === 0) return undefined;
    const mtu = interfaceMtu(device.name);
    return mtu === this.tunnel.mtu ? undefined : mtu;
  }

  /** SIGHUP: reads the file again. Never rejects. */
  hangUp(): void {
    if (this.reload !== undefined) this.readAgain(this.reload).catch(fail);
  }

  /** Throws a `Failure`; then the old configuration stays. */
  private async readAgain(reload: Reload): Promise<readonly string[]> {
    const { notifier } = this.parts;
    notifier.reloading();
    try {
      return await reload.run();
    } finally {
      notifier.ready('configuration read again');
    }
  }

  /** `cause`: why it ends. Never rejects. */
  async close(cause: string): Promise<void> {
    this.isClosing = true;
    this.reload = undefined;
    this.stopWaiting();
    this.linkLog.close();
    await this.worker?.end(cause);
    await this.hooks?.close();
  }

  /** What a worker has made as root, and cannot take away as who it is. */
  private forget(): void {
    const { native, config, daemon } = this.parts;
    removeInstance(config.stateDir, native, this.name, daemon.controlPath);
  }
}

function hexOf(endpoint: Uint8Array): string {
  return Buffer.from(endpoint).toString('hex');
}
