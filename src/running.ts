/** The tunnel of a host that is set up, with its links and what runs beside it. */
import { controlActions } from './actions.ts';
import { formatRemote } from './address.ts';
import type { DaemonConfig } from './conf/config.ts';
import { Reload } from './conf/reload.ts';
import type { ConfigFile } from './conf/start.ts';
import type { Config } from './config.ts';
import type { DaemonServices } from './daemon/daemon.ts';
import { say, waitingFor } from './events.ts';
import type { FilterSet } from './filters.ts';
import type { Host, TunnelEvent } from './host.ts';
import { Listeners } from './listeners.ts';
import type { Handle, Native } from './native.ts';
import { fail, Failure, log } from './report.ts';
import { resolveOutside } from './resolve.ts';
import type { Runner } from './rules.ts';
import {
  interfaceMtu,
  interfaceState,
  makeHost,
  nativeTun,
  observeInterfaces,
  openLinkSocket,
} from './runtime.ts';
import { startServices } from './services.ts';
import type { HostSetup } from './setup.ts';
import { linkSettings, remoteOf, tunnelConfig } from './startup.ts';
import { Uplinks } from './uplinks.ts';
import { Tunnel } from './vpn.ts';

/** What `vpn --config` has beside its `Config`. */
export interface FromFile {
  readonly daemon: DaemonConfig;
  readonly file: ConfigFile;
}

export interface RunningParts {
  readonly native: Native;
  readonly config: Config;
  readonly fromFile: FromFile | undefined;
  /** Borrowed for `start`. */
  readonly key: Uint8Array;
  readonly device: { readonly handle: Handle; readonly name: string };
  readonly setup: HostSetup;
  readonly filters: FilterSet;
  readonly runner: Runner;
  /** The endpoints of each remote (startup.ts). */
  readonly known: ReadonlyMap<string, readonly Uint8Array[]>;
  /** Ends it, as a signal does. */
  readonly stop: () => void;
}

export class Running {
  /** Rejects when the tunnel cannot go on. */
  readonly failed: Promise<never>;
  private readonly parts: RunningParts;
  private readonly ways: Uplinks | Listeners;
  private tunnel: Tunnel | undefined = undefined;
  private services: DaemonServices | undefined = undefined;
  private reload: Reload | undefined = undefined;
  private fail: (error: unknown) => void = () => undefined;

  constructor(parts: RunningParts) {
    this.parts = parts;
    this.ways = waysOf(parts);
    this.failed = new Promise((_, reject) => {
      this.fail = reject;
    });
    // Whoever waits for it may not do so yet.
    this.failed.catch(() => undefined);
  }

  /** The host is set up; starts what is to run. Throws a `Failure`; `close` is due all the same. */
  async start(): Promise<void> {
    const { native, config, fromFile, device, key, setup, filters, runner } = this.parts;
    const daemon = fromFile?.daemon;
    const { ways } = this;
    if (ways instanceof Uplinks) await ways.prepare();
    const uplinks = ways instanceof Uplinks ? ways.configs : [];
    const endpoints = uplinks.map((link) => this.parts.known.get(remoteOf(config, link)) ?? []);
    const links = linkSettings(config, daemon, uplinks);
    const tunnel = new Tunnel(
      tunnelConfig(config, daemon, native, key, setup, links),
      this.makeHost(),
      endpoints,
    );
    this.tunnel = tunnel;
    tunnel.setFilters(filters.filters, filters.links);
    if (fromFile !== undefined) this.reload = new Reload(fromFile.file, { tunnel, ways, runner });
    const { reload } = this;
    const actions = controlActions({
      tunnel,
      ways,
      reload: reload === undefined ? undefined : () => reload.run(),
      stop: this.parts.stop,
    });
    const options = { native, config, daemon, device: device.name, tunnel, ways, actions };
    this.services = await startServices(options);
    tunnel.start();
    ways.attach(tunnel);
    log(`${config.role} on ${device.name}: ${waitingFor(config)}`);
  }

  private makeHost(): Host {
    const { native, device } = this.parts;
    const options = {
      native,
      tun: nativeTun(native, device.handle),
      openSocket: (index: number) => this.ways.open(index),
      resolve: this.resolver(),
      report: (event: TunnelEvent) => this.onEvent(event),
    };
    return makeHost(options, () => this.tunnel?.onTimer());
  }

  private onEvent(event: TunnelEvent): void {
    const { config, device, setup } = this.parts;
    say(event, config);
    this.services?.event(event);
    if (event.kind === 'tun-lost') {
      this.fail(new Failure(`tun device "${device.name}"`, 'gone', 'start vpn again'));
    } else if (event.kind === 'connected') {
      setup.connected({ ipv6: event.ipv6 }).catch(this.fail);
    }
  }

  /** Of a client. Links that ask for the same at the same time share the answer. */
  private resolver(): Host['resolve'] {
    const { native, config, setup } = this.parts;
    const asked = new Map<string, Promise<readonly Uint8Array[]>>();
    return async (index) => {
      if (!(this.ways instanceof Uplinks)) return [];
      const remote = remoteOf(config, this.ways.configs[index]);
      const [host, port] = remote.split(' ');
      const answer =
        asked.get(remote) ??
        resolveOutside(native, host, Number(port), setup.mark).finally(() => asked.delete(remote));
      asked.set(remote, answer);
      const found = await answer;
      setup.reach(found.map(formatRemote)).catch(this.fail);
      return found;
    };
  }

  /** Interfaces, addresses or routes have just changed. */
  changed(): void {
    if (this.ways instanceof Uplinks) this.ways.changed();
    if (this.parts.fromFile?.daemon.setsAddresses === false) this.adoptScriptMtu();
  }

  /** The same a moment later. */
  follow(): void {
    void this.parts.setup.refresh();
    if (this.ways instanceof Uplinks) void this.ways.follow();
  }

  /** An MTU that the status script has given the device is an upper bound of ours. */
  private adoptScriptMtu(): void {
    const mtu = interfaceMtu(this.parts.device.name);
    if (this.tunnel === undefined || mtu === undefined || mtu === this.tunnel.deviceMtu) return;
    this.tunnel.boundMtu(mtu);
  }

  /** SIGHUP: reads the file again. Never rejects. */
  hangUp(): void {
    this.reload?.run().catch(fail);
  }

  /** `cause`: why it ends. Never rejects. */
  async close(cause: string): Promise<void> {
    this.reload = undefined;
    this.tunnel?.close();
    await this.services?.close(cause);
  }
}

/** The links of this end, and how their sockets are opened. */
function waysOf({ config, native, setup }: RunningParts): Uplinks | Listeners {
  const { offload } = config;
  if (config.role === 'server') {
    return new Listeners(config.listen, (listen) =>
      openLinkSocket(native, { ...listen, device: '', mark: 0, offload }),
    );
  }
  return new Uplinks(config.links, {
    setup,
    observe: observeInterfaces,
    stateOf: interfaceState,
    openSocket: (bound) => openLinkSocket(native, { ...bound, offload }),
  });
}
