/** What a configuration means for the host and for the tunnel. Looks at names only (`firstEndpoints`). */
import { formatIp, formatRemote, parseIp } from './address.ts';
import type { DaemonConfig } from './conf/config.ts';
import { networkOf } from './conf/values.ts';
import type { CipherChoice, Config } from './config.ts';
import { MAX_TUN_MTU, MIN_TUN_MTU, MOST_LINKS } from './constants.ts';
import type { HookSettings } from './daemon/hooks.ts';
import type { Network } from './inner.ts';
import type { LinkConfig } from './linkconfig.ts';
import { Cipher, type Native } from './native.ts';
import { onLink } from './onlink.ts';
import { FIRST_NUMBER } from './numbers.ts';
import { thisPlatform } from './os.ts';
import type { LinkSettings, TunnelConfig } from './peering.ts';
import { Failure } from './report.ts';
import { resolveOutside } from './resolve.ts';
import type { HostSettings } from './setup.ts';
import { Mode } from './wire.ts';
import { innerIpv6, sharedKeys } from './sharedkey.ts';

/** The ciphers of a choice, bit n − 1 for cipher n. AES is offered only where the processor has it. */
export function cipherBits(choice: CipherChoice, native: Native): number {
  const aes = 1 << (Cipher.aes256Gcm - 1);
  const chacha = 1 << (Cipher.chacha20Poly1305 - 1);
  if (choice === 'aes-256-gcm') return aes;
  if (choice === 'chacha20-poly1305') return chacha;
  return native.cpuHasAes() ? aes | chacha : chacha;
}

export interface InnerAddresses {
  readonly serverIp: Uint8Array;
  readonly clientIp: Uint8Array;
  readonly serverIp6: Uint8Array;
  readonly clientIp6: Uint8Array;
}

/** Of an end whose script sets them: it may set others than the other end was told, as in MLVPN. */
const UNTOLD: InnerAddresses = {
  serverIp: new Uint8Array(4),
  clientIp: new Uint8Array(4),
  serverIp6: new Uint8Array(16),
  clientIp6: new Uint8Array(16),
};

export function innerAddresses(
  config: Config,
  daemon: DaemonConfig,
  key: Uint8Array,
): InnerAddresses {
  if (daemon.setsAddresses === false) return UNTOLD;
  const isServer = config.role === 'server';
  const serverIp = parseIp(isServer ? config.localIp : config.peerIp)!;
  const clientIp = parseIp(isServer ? config.peerIp : config.localIp)!;
  const { server, client } = innerIpv6(key, serverIp, clientIp);
  const local = parseIp(daemon.innerIpv6.local ?? '');
  const peer = parseIp(daemon.innerIpv6.peer ?? '');
  if (local === undefined || peer === undefined) {
    return { serverIp, clientIp, serverIp6: server, clientIp6: client };
  }
  return isServer
    ? { serverIp, clientIp, serverIp6: local, clientIp6: peer }
    : { serverIp, clientIp, serverIp6: peer, clientIp6: local };
}

export function hostSettings(
  config: Config,
  daemon: DaemonConfig,
  inner: InnerAddresses,
  tun: string,
): HostSettings {
  const isServer = config.role === 'server';
  const server = formatIp(inner.serverIp6);
  const client = formatIp(inner.clientIp6);
  const mtu = fixedMtu(config, daemon) || MIN_TUN_MTU;
  const isByScript = daemon.setsAddresses === false;
  const localIp6 = isServer ? server : client;
  const peerIp6 = isServer ? client : server;
  return {
    role: config.role,
    tun,
    localIp: isByScript ? '' : config.localIp,
    peerIp: isByScript ? '' : config.peerIp,
    localIp6: isByScript ? '' : localIp6,
    peerIp6: isByScript ? '' : peerIp6,
    mtu,
    defaultRoutes: config.defaultRoutes,
    routes: config.routes,
    allow: config.allow,
    proxyArp: config.proxyArp,
    ...(config.tuntap === 'tap' ? ethernet(config, daemon, localIp6, peerIp6) : {}),
    mark: config.mark,
    table: config.table,
    externalIp: config.role === 'server' ? config.externalIp : '',
    gateway: config.role === 'client' ? config.gateway : '',
    port: config.port,
    killSwitch: config.killSwitch,
    dns: config.dns,
    ...(config.role === 'client' ? hostLinks(config.links, daemon.mayGrow) : {}),
  };
}

/** What is different for a tap: the network that an address brings along needs no route. */
function ethernet(
  { localIp, peerIp, routes }: Config,
  daemon: DaemonConfig,
  localIp6: string,
  peerIp6: string,
): Pick<HostSettings, 'onLink' | 'routes'> {
  if (daemon.setsAddresses === false) return { onLink: { ip4: '', ip6: '' }, routes };
  const { IP4 = '', IP6 = '' } = daemon.scriptEnvironment;
  const onLinkHere = { ip4: onLink(localIp, peerIp, IP4), ip6: onLink(localIp6, peerIp6, IP6) };
  const own = Object.values(onLinkHere).map(networkOf);
  return { onLink: onLinkHere, routes: routes.filter((route) => !own.includes(route)) };
}

/**
 * 0 where the MTU follows the links. Where a script makes a tap part of an Ethernet, nobody on it could be
 * told of a smaller one: what does not fit a link goes in two halves.
 */
function fixedMtu(config: Config, daemon: DaemonConfig): number {
  if (config.mtu !== 0 || config.tuntap === 'tun' || daemon.setsAddresses !== false) {
    return config.mtu;
  }
  return daemon.mostMtu || MAX_TUN_MTU;
}

/**
 * What the host has to do with links; nothing where none is bound to anything. A file may get more links
 * while the tunnel runs (`isGrowing`).
 */
function hostLinks(
  all: readonly LinkConfig[],
  isGrowing: boolean,
): Pick<HostSettings, 'links' | 'mostLinks' | 'isAuto'> {
  const isAuto = all.some((link) => link.isAuto);
  const isBound = all.some((link) => link.device !== '' || link.address !== '');
  const canGrow = isGrowing && thisPlatform()?.link !== undefined;
  if (!isAuto && !isBound && !canGrow) return { links: [], mostLinks: 0, isAuto };
  // All of them, so that a place here is a number of the tunnel's.
  const links = all.filter((link) => !link.isAuto);
  return { links, mostLinks: isAuto || canGrow ? MOST_LINKS : links.length, isAuto };
}

/** What the tunnel is told of each link that there is at first. */
export function linkSettings(
  config: Config,
  daemon: DaemonConfig,
  uplinks: readonly LinkConfig[],
): readonly LinkSettings[] {
  // Also those that "auto" has found.
  if (config.role === 'client') return uplinks;
  return daemon.links;
}

export function tunnelConfig(
  config: Config,
  daemon: DaemonConfig,
  native: Native,
  key: Uint8Array,
  ipv6Leaves: boolean,
  links: readonly LinkSettings[],
): TunnelConfig {
  const inner = innerAddresses(config, daemon, key);
  return {
    role: config.role,
    keys: sharedKeys(key),
    serverIp: inner.serverIp,
    clientIp: inner.clientIp,
    modes:
      (config.isCleartext ? Mode.cleartext : 0) | (config.tuntap === 'tap' ? Mode.ethernet : 0),
    ciphers: cipherBits(config.cipher, native),
    ipv6: ipv6Leaves,
    mtu: fixedMtu(config, daemon),
    mostMtu: daemon.mostMtu === 0 ? MAX_TUN_MTU : daemon.mostMtu,
    rekeyAfterMs: config.rekeyAfterMs,
    sources: sourcesOf(config, daemon, inner),
    links,
    realtime: config.realtime,
  };
}

/** Where packets of the peer's may come from; undefined: anywhere. */
export function sourcesOf(
  { role, tuntap, routes }: Config,
  daemon: DaemonConfig,
  inner: InnerAddresses,
): readonly Network[] | undefined {
  // A client has packets from anywhere behind its server; what is behind a script, or on an Ethernet, nobody
  // knows.
  if (role === 'client' || !daemon.setsAddresses || tuntap === 'tap') return undefined;
  const networks = routes.map((route): Network => {
    const [address, bits] = route.split('/');
    return { address: parseIp(address)!, bits: Number(bits) };
  });
  return [
    { address: inner.clientIp, bits: 32 },
    { address: inner.clientIp6, bits: 128 },
    ...networks,
  ];
}

/** Where a link finds the server: `host port`. */
export function remoteOf(config: Config, { remote }: LinkConfig): string {
  if (remote !== undefined) return `${remote.host} ${remote.port}`;
  return config.role === 'client' ? `${config.server} ${config.port}` : '';
}

/**
 * The endpoints of each remote. At the very start nothing is in the way of the resolver but the kill switch of an
 * earlier run, which lets our own queries through where `native` can mark them; so a name that does not resolve
 * is mistyped more often than not: a `Failure`.
 */
export async function firstEndpoints(
  config: Config,
  native: Native,
): Promise<ReadonlyMap<string, readonly Uint8Array[]>> {
  const known = new Map<string, readonly Uint8Array[]>();
  if (config.role === 'server') return known;
  for (const remote of new Set(config.links.map((link) => remoteOf(config, link)))) {
    const [host, port] = remote.split(' ');
    const mark = config.mark || FIRST_NUMBER;
    const endpoints = await resolveOutside(native, host, Number(port), mark);
    known.set(remote, endpoints);
    if (endpoints.length > 0) continue;
    const what = `cannot resolve "${host}"`;
    throw new Failure(what, 'no address found', 'check the name and the network connection');
  }
  return known;
}

export function addressesOf(known: ReadonlyMap<string, readonly Uint8Array[]>): readonly string[] {
  return [...new Set([...known.values()].flat().map(formatRemote))];
}

/** The name of a device is free for no other instance in its network namespace. */
export function instanceName(daemon: DaemonConfig, device: string): string {
  return daemon.name || device;
}

/** What the status script is told; undefined where there is none. */
export function hookSettings(daemon: DaemonConfig, device: string): HookSettings | undefined {
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
