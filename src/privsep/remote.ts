/**
 * The tunnel as the monitor has it: what is configured of it, and the worker that runs it. Outlives a worker:
 * the next one is told everything anew.
 */
import type { CompiledEntry } from '../filters.ts';
import type { DaemonConfig } from '../conf/config.ts';
import type { Config } from '../config.ts';
import type { LinkBinding } from '../daemon/status.ts';
import type { Handle } from '../native.ts';
import type { LinkSettings, RealtimeRule } from '../peering.ts';
import type { LinkedTunnel } from '../uplinks.ts';
import type { Start } from './messages.ts';
import type { WorkerProcess } from './process.ts';

export interface RemoteDeps {
  /** The socket of a link; undefined if it is not there. Throws a `Failure`. */
  open(index: number): Handle | undefined;
  bindingOf(index: number): LinkBinding;
}

/** What changes while the tunnel runs. */
type Configured = Pick<Start, 'filters' | 'realtime' | 'daemon'>;

export class RemoteTunnel implements LinkedTunnel {
  private readonly deps: RemoteDeps;
  private links: (LinkSettings | null)[] = [];
  private filters: readonly CompiledEntry[];
  private realtime: readonly RealtimeRule[];
  private daemon: DaemonConfig;
  /** undefined: as at the start. */
  private routes: readonly string[] | undefined = undefined;
  private worker: WorkerProcess | undefined = undefined;
  private readonly settling = new Map<number, () => void>();
  private lastId = 0;
  /** Of the device, as it was last set; 0: not known. */
  mtu = 0;

  constructor(deps: RemoteDeps, configured: Configured) {
    this.deps = deps;
    this.filters = configured.filters;
    this.realtime = configured.realtime;
    this.daemon = configured.daemon;
  }

  /** Those at first, in order. */
  setLinks(links: readonly LinkSettings[]): void {
    this.links = [...links];
  }

  /** Hands a new worker the sockets that there are and `start`; the device is lent. */
  begin(
    worker: WorkerProcess,
    device: Handle,
    start: Omit<Start, 'links' | 'bindings' | keyof Configured>,
  ): void {
    const { links, filters, realtime, daemon, deps } = this;
    this.worker = worker;
    links.forEach((link, index) => {
      const socket = link === null ? undefined : deps.open(index);
      if (socket !== undefined) worker.send({ order: 'socket', index }, socket);
    });
    const bindings = links.map((_, index) => deps.bindingOf(index));
    const config = { ...start.config, routes: this.routes ?? start.config.routes };
    const now = { config, links: [...links], bindings, filters, realtime, daemon };
    const whole: Start = { ...start, ...now };
    worker.send({ order: 'start', start: whole }, device, true);
  }

  /** The worker is gone. */
  left(): void {
    this.worker = undefined;
    for (const done of this.settling.values()) done();
    this.settling.clear();
  }

  linkUp(index: number): void {
    // Without a worker nobody takes it; the next one gets all that there are.
    if (this.worker === undefined) return;
    const socket = this.deps.open(index);
    if (socket === undefined) return;
    this.worker.send({ order: 'link-up', index, binding: this.deps.bindingOf(index) }, socket);
  }

  linkDown(index: number): void {
    this.worker?.send({ order: 'link-down', index });
  }

  addLink(settings: LinkSettings): number {
    const index = this.links.push(settings) - 1;
    this.worker?.send({ order: 'link-add', settings });
    this.linkUp(index);
    return index;
  }

  dropLink(index: number): void {
    this.worker?.send({ order: 'link-drop', index });
  }

  removeLink(index: number): void {
    this.links[index] = null;
    this.worker?.send({ order: 'link-remove', index });
  }

  setLink(index: number, settings: LinkSettings): void {
    this.links[index] = settings;
    this.worker?.send({ order: 'link-set', index, settings });
  }

  setFilters(filters: readonly CompiledEntry[]): void {
    this.filters = filters;
    this.worker?.send({ order: 'filters', filters });
  }

  setRealtime(rules: readonly RealtimeRule[]): void {
    this.realtime = rules;
    this.worker?.send({ order: 'realtime', rules });
  }

  /** Networks behind the peer; whatever comes from elsewhere is dropped. */
  setRoutes(routes: readonly string[]): void {
    this.routes = routes;
    this.worker?.send({ order: 'routes', routes });
  }

  setLog(log: Config['log'], daemon: DaemonConfig): void {
    this.daemon = daemon;
    this.worker?.send({ order: 'log', log, daemon });
  }

  boundMtu(mtu: number): void {
    this.worker?.send({ order: 'bound-mtu', mtu });
  }

  /** The worker has closed all its sockets. */
  reopen(): void {
    this.links.forEach((link, index) => {
      if (link !== null) this.linkUp(index);
    });
  }

  /** Resolves when the worker has done all that it was told: a port that it had is free then. */
  settled(): Promise<void> {
    const { worker } = this;
    if (worker === undefined) return Promise.resolve();
    this.lastId++;
    const id = this.lastId;
    return new Promise((resolve) => {
      this.settling.set(id, resolve);
      worker.send({ order: 'settle', id });
    });
  }

  /** The worker's answer. */
  hasSettled(id: number): void {
    this.settling.get(id)?.();
    this.settling.delete(id);
  }
}
