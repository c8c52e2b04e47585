/** What runs beside the tunnel (daemon/daemon.ts), as a configuration asks for it. */
import type { DaemonConfig } from './conf/config.ts';
import type { Config } from './config.ts';
import { MAX_TUN_MTU } from './constants.ts';
import { startDaemonServices } from './daemon/daemon.ts';
import type { ControlActions, DaemonServices } from './daemon/daemon.ts';
import type { HookSettings } from './daemon/hooks.ts';
import { snapshot } from './daemon/snapshot.ts';
import type { LinkBinding } from './daemon/status.ts';
import { Listeners } from './listeners.ts';
import type { Native } from './native.ts';
import type { Uplinks } from './uplinks.ts';
import { VERSION } from './version.ts';
import type { Tunnel } from './vpn.ts';

export interface ServiceOptions {
  readonly native: Native;
  readonly config: Config;
  /** undefined without a configuration file. */
  readonly daemon: DaemonConfig | undefined;
  readonly device: string;
  readonly tunnel: Tunnel;
  readonly ways: Uplinks | Listeners;
  readonly actions: ControlActions;
}

/** MLVPN's default, where nothing else is known. */
const TIMEOUT_SECONDS = 60;

/** Throws a `Failure`. */
export async function startServices(options: ServiceOptions): Promise<DaemonServices> {
  const { native, config, daemon, device, tunnel, ways, actions } = options;
  // The name of a device is free for no other instance here.
  const name = daemon?.name ?? (config.name || device);
  const setsAddresses = daemon?.setsAddresses !== false;
  if (daemon !== undefined && !daemon.naturalTitle) process.title = `vpn: ${name}`;
  return await startDaemonServices({
    native,
    stateDir: config.stateDir,
    about: {
      name,
      version: VERSION,
      pid: process.pid,
      device,
      deviceType: 'tun',
      localIp: setsAddresses ? config.localIp : '',
      peerIp: setsAddresses ? config.peerIp : '',
      isCleartext: false,
      timeoutSeconds: timeoutOf(daemon),
      bindingOf: (place) => bindingOf(ways, place),
    },
    controlPath: daemon?.controlPath ?? '',
    http: httpOf(daemon),
    hook: daemon === undefined ? undefined : hookOf(daemon, device),
    snapshot: () => snapshot(tunnel.parts, tunnel.host.nowMs()),
    actions,
    cause: 'started by hand',
  });
}

function timeoutOf(daemon: DaemonConfig | undefined): number {
  const longest = Math.max(0, ...(daemon?.links ?? []).map(({ timeoutMs }) => timeoutMs));
  return longest === 0 ? TIMEOUT_SECONDS : longest / 1000;
}

function httpOf(
  daemon: DaemonConfig | undefined,
): { readonly host: string; readonly port: number } | undefined {
  if (daemon === undefined || daemon.controlPort === 0) return undefined;
  return { host: daemon.controlAddress, port: daemon.controlPort };
}

function hookOf(daemon: DaemonConfig, device: string): HookSettings | undefined {
  if (daemon.statuscommand === '') return undefined;
  const { scriptEnvironment: variables } = daemon;
  return {
    command: daemon.statuscommand,
    device,
    ip4: variables.IP4,
    ip6: variables.IP6,
    ip4Gateway: variables.IP4_GATEWAY,
    ip6Gateway: variables.IP6_GATEWAY,
    ip4Routes: variables.IP4_ROUTES,
    ip6Routes: variables.IP6_ROUTES,
    mtu: daemon.mostMtu === 0 ? MAX_TUN_MTU : daemon.mostMtu,
  };
}

function bindingOf(ways: Uplinks | Listeners, place: number): LinkBinding {
  if (ways instanceof Listeners) {
    const { address = '', port = 0 } = ways.configs[place] ?? {};
    return { device: '', address, port };
  }
  const { device = '', address = '', localPort: port = 0 } = ways.configs[place] ?? {};
  return { device, address, port };
}
