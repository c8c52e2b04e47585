/**
 * Settings of a file to the `Config` and the `DaemonConfig` that a command line makes too (config.ts,
 * commandline.ts).
 */
import { CLIENT_IP, SERVER_IP, cleanupConfig, rekeyAfterMs } from '../config.ts';
import type { CipherChoice, Config } from '../config.ts';
import { REKEY_AFTER_MS } from '../constants.ts';
import type { FilterEntry } from '../filters.ts';
import { UNBOUND, parseRealtime } from '../linkconfig.ts';
import type { LinkConfig, ListenConfig } from '../linkconfig.ts';
import type { Arguments } from '../options.ts';
import { PLAIN_LINK } from '../peering.ts';
import type { LinkSettings } from '../peering.ts';
import { peerAddress } from './checks.ts';
import type { FileLink, Settings } from './settings.ts';
import { widerNetwork } from './values.ts';

/** What is configured of a link beside where it leads; in the order of the links of `Config`, or of `listen`. */
export interface DaemonLink extends LinkSettings {
  /** Routing table of its socket on FreeBSD and OpenBSD; 0: the process's own. */
  readonly fib: number;
}

/** The inner addresses as they are given; '' where they are derived. */
export interface InnerIpv6 {
  readonly local: string;
  readonly peer: string;
}

/** What of a configuration is neither the tunnel's nor the host's. Plain data, without functions or secrets. */
export interface DaemonConfig {
  /** Of the instance: process title, sockets, log. '' for that of its device. */
  readonly name: string;
  readonly naturalTitle: boolean;
  /** -1: errors only; 0: changes of state; above: more. */
  readonly verbosity: number;
  /** Log to stderr, and not to syslog. */
  readonly debug: boolean;
  readonly debugTokens: readonly string[];
  /** '' for none. */
  readonly statuscommand: string;
  /** MLVPN's variables for the script, without DEVICE; '' for what is not set. */
  readonly scriptEnvironment: Readonly<Record<string, string>>;
  /**
   * False when the script of a file does it, with routes and the MTU. Then packets may come from anywhere
   * behind the peer. The script of a command line is only told.
   */
  readonly setsAddresses: boolean;
  readonly innerIpv6: InnerIpv6;
  /** Upper bound of the MTU of the tunnel; 0: none. */
  readonly mostMtu: number;
  /** Packets to make room for at the start; 0: as measured. */
  readonly reorderPackets: number;
  /** '' for the default place. */
  readonly controlPath: string;
  readonly controlAddress: string;
  /** 0: no HTTP. */
  readonly controlPort: number;
  readonly filters: readonly FilterEntry[];
  /** Whether links may come while it runs: there is a file that can be read again. */
  readonly mayGrow: boolean;
  readonly links: readonly DaemonLink[];
}

/**
 * `options` are those of the command line that no file has (`COMMAND_LINE_ONLY`). Throws a
 * `UsageFailure` for one of them.
 */
export function fileConfig(
  settings: Settings,
  options: Arguments['options'],
): { readonly config: Config; readonly daemon: DaemonConfig } {
  return { config: configOf(settings, options), daemon: daemonConfig(settings) };
}

function configOf(settings: Settings, options: Arguments['options']): Config {
  const { general, mode, links } = settings;
  const { dryRun, stateDir } = cleanupConfig({ words: [], options });
  const own = general.text('ip4').split('/')[0];
  const peer = peerAddress(general.text('ip4'), general.text('ip4_gateway'));
  // Both or none: the server compares the pair, and one of each would be right on neither end.
  const isGiven = own !== '' && peer !== '';
  const isServer = mode === 'server';
  const common = {
    keyFile: general.text('key_file'),
    tun: general.text('interface_name'),
    localIp: isGiven ? own : isServer ? SERVER_IP : CLIENT_IP,
    peerIp: isGiven ? peer : isServer ? CLIENT_IP : SERVER_IP,
    defaultRoutes: general.flag('default_routes') && process.env.NO_DEFAULT_ROUTES !== '1',
    routes: Object.freeze(routesOf(settings)),
    // A bound and no fixed value, as the command line's.
    mtu: 0,
    mark: general.number('mark'),
    table: general.number('table'),
    cipher: cipherOf(general.text('cipher')),
    offload: general.flag('offload'),
    dryRun,
    rekeyAfterMs: rekeyAfterMs(options) ?? REKEY_AFTER_MS,
    stateDir,
    realtime: Object.freeze(parseRealtime(general.list('realtime'))),
    killSwitch: general.flag('kill_switch'),
    dns: general.list('dns'),
    proxyArp: general.flag('proxy_arp'),
    allow: general.list('allow'),
    isCleartext: general.flag('cleartext_data'),
    tuntap: general.text('tuntap') === 'tap' ? ('tap' as const) : ('tun' as const),
    user: general.text('user'),
    log: general.text('log') === 'json' ? ('json' as const) : ('text' as const),
  };
  if (isServer) {
    const listen = links.map(listenOf);
    const externalIp = general.text('external_ip');
    return Object.freeze({ role: 'server', ...common, listen, port: listen[0].port, externalIp });
  }
  return Object.freeze({
    role: 'client',
    ...common,
    server: links[0].values.text('remotehost'),
    port: links[0].values.number('remoteport'),
    gateway: '',
    links: links.map(linkOf),
  });
}

function daemonConfig(settings: Settings): DaemonConfig {
  const { general, links, filters } = settings;
  const ip6 = general.text('ip6').split('/')[0];
  return Object.freeze({
    name: general.text('name'),
    naturalTitle: general.flag('natural_title'),
    verbosity: verbosityOf(settings),
    debug: general.flag('debug'),
    debugTokens: general.list('debug_tokens'),
    statuscommand: general.text('statuscommand'),
    scriptEnvironment: scriptEnvironment(settings),
    setsAddresses: !general.has('statuscommand'),
    innerIpv6: { local: ip6, peer: general.text('ip6_gateway') },
    mostMtu: general.number('mtu'),
    reorderPackets: general.number('reorder_buffer_size'),
    controlPath: general.text('control_unix_path'),
    controlAddress: general.text('control_bind_host'),
    controlPort: general.number('control_bind_port'),
    filters: filters.map(({ target, expression }) => ({ target, expression })),
    mayGrow: true,
    links: links.map(daemonLinkOf),
  });
}

/** None where the script sets them; the network of ip4 or ip6 is one, as it was on MLVPN's interface. */
function routesOf({ general }: Settings): readonly string[] {
  if (general.has('statuscommand')) return [];
  const networks = ['ip4', 'ip6'].map((key) => widerNetwork(general.text(key)));
  return [
    ...new Set([
      ...networks.filter((network) => network !== undefined),
      ...general.list('ip4_routes'),
      ...general.list('ip6_routes'),
    ]),
  ];
}

function verbosityOf({ general }: Settings): number {
  return general.flag('quiet') ? -1 : general.number('verbose');
}

function cipherOf(text: string): CipherChoice {
  return text === 'aes-256-gcm' || text === 'chacha20-poly1305' ? text : 'auto';
}

function linkSettings({ name, values }: FileLink): LinkSettings {
  const loss = values.number('loss_tolerance');
  return {
    ...PLAIN_LINK,
    name,
    isBackup: values.flag('fallback_only'),
    // Bytes per second to bytes per millisecond.
    uploadRate: values.number('bandwidth_upload') / 1000,
    weight: values.number('weight'),
    latencyLimitMs: values.number('latency_tolerance'),
    // All of it lost is no limit, neither here nor in MLVPN.
    lossLimit: loss === 100 ? 0 : loss / 100,
    mtu: values.number('mtu'),
    timeoutMs: values.number('timeout') * 1000,
  };
}

function daemonLinkOf(link: FileLink): DaemonLink {
  return Object.freeze({ ...linkSettings(link), fib: link.values.number('bindfib') });
}

function linkOf(link: FileLink): LinkConfig {
  const { values } = link;
  return Object.freeze({
    ...UNBOUND,
    ...linkSettings(link),
    device: values.text('device'),
    address: boundAddress(link),
    gateways: values.list('gateway'),
    remote: { host: values.text('remotehost'), port: values.number('remoteport') },
    localPort: values.number('bindport'),
  });
}

function listenOf(link: FileLink): ListenConfig {
  return Object.freeze({ address: boundAddress(link), port: link.values.number('bindport') });
}

/** MLVPN's files write "any address" out. */
function boundAddress({ values }: FileLink): string {
  const address = values.text('bindhost');
  return address === '0.0.0.0' || address === '::' ? '' : address;
}

function scriptEnvironment({ general }: Settings): Readonly<Record<string, string>> {
  return {
    IP4: general.text('ip4'),
    IP6: general.text('ip6'),
    IP4_GATEWAY: general.text('ip4_gateway'),
    IP6_GATEWAY: general.text('ip6_gateway'),
    IP4_ROUTES: general.list('ip4_routes').join(' '),
    IP6_ROUTES: general.list('ip6_routes').join(' '),
    MTU: general.has('mtu') ? String(general.number('mtu')) : '',
  };
}
