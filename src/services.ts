/** What runs beside the tunnel (daemon/daemon.ts), as a configuration asks for it: in the worker. */
import type { DaemonConfig } from './conf/config.ts';
import type { Config } from './config.ts';
import { startDaemonServices } from './daemon/daemon.ts';
import type { ControlActions, DaemonServices } from './daemon/daemon.ts';
import type { LoggedEvent } from './daemon/eventlog.ts';
import type { HookCall } from './daemon/hooks.ts';
import { snapshot } from './daemon/snapshot.ts';
import { mlvpnState } from './daemon/status.ts';
import type { About, LinkBinding, TunnelStatus } from './daemon/status.ts';
import type { Native } from './native.ts';
import type { Start } from './privsep/messages.ts';
import { instanceName } from './startup.ts';
import { VERSION } from './version.ts';
import type { Tunnel } from './vpn.ts';

export interface ServiceOptions {
  readonly native: Native;
  readonly start: Start;
  readonly tunnel: Tunnel;
  readonly bindingOf: (place: number) => LinkBinding;
  readonly actions: ControlActions;
  readonly onHooks: (calls: readonly HookCall[]) => void;
  readonly onLogged: (event: LoggedEvent) => void;
}

/** MLVPN's default, where nothing else is known. */
const TIMEOUT_SECONDS = 60;

/** Throws a `Failure`. */
export async function startServices(options: ServiceOptions): Promise<DaemonServices> {
  const { native, start, tunnel, bindingOf, actions, onHooks, onLogged } = options;
  const { config, daemon, device, pid } = start;
  const name = instanceName(daemon, device);
  let title = '';
  const showTitle = (status: TunnelStatus): void => {
    const shown = titleOf(name, status);
    if (shown !== title) process.title = shown;
    title = shown;
  };
  return await startDaemonServices({
    native,
    stateDir: config.stateDir,
    about: {
      name,
      version: VERSION,
      pid,
      device,
      deviceType: config.tuntap,
      ...innerAddresses(config, daemon),
      isCleartext: config.isCleartext,
      timeoutSeconds: timeoutOf(daemon),
      bindingOf,
    },
    controlPath: daemon.controlPath,
    http: httpOf(daemon),
    hooks: start.hasHooks ? { add: onHooks, close: () => Promise.resolve() } : undefined,
    snapshot: () => snapshot(tunnel.parts, tunnel.host.nowMs()),
    actions,
    cause: start.cause,
    earlier: start.earlier,
    startedMs: start.startedMs,
    onLogged,
    ...(daemon.naturalTitle ? {} : { onLook: showTitle }),
  });
}

/** Where a script sets them, those that the file hands it; '' for what it does not. */
function innerAddresses(
  { localIp, peerIp }: Config,
  { setsAddresses, scriptEnvironment }: DaemonConfig,
): Pick<About, 'localIp' | 'peerIp'> {
  if (setsAddresses) return { localIp, peerIp };
  const { IP4 = '', IP4_GATEWAY = '' } = scriptEnvironment;
  return { localIp: IP4.split('/')[0], peerIp: IP4_GATEWAY };
}

/** As MLVPN's: a link that works behind @, one that is slow or loses too much behind ~, another behind !. */
function titleOf(name: string, status: TunnelStatus): string {
  const marks = status.links.map((link) => {
    switch (mlvpnState(link, status)) {
      case 'connected':
        return ` @${link.name}`;
      case 'lossy link':
      case 'slow link':
        return ` ~${link.name}`;
      default:
        return ` !${link.name}`;
    }
  });
  return `vpn: ${name}${marks.join('')}`;
}

function timeoutOf(daemon: DaemonConfig): number {
  const longest = Math.max(0, ...daemon.links.map(({ timeoutMs }) => timeoutMs));
  return longest === 0 ? TIMEOUT_SECONDS : longest / 1000;
}

function httpOf(
  daemon: DaemonConfig,
): { readonly host: string; readonly port: number } | undefined {
  if (daemon.controlPort === 0) return undefined;
  return { host: daemon.controlAddress, port: daemon.controlPort };
}
