/** What a configuration means for the host and for the tunnel. Looks at names only (`firstEndpoints`). */
import { formatIp, formatRemote, parseIp } from './address.ts';
import type { DaemonConfig } from './conf/config.ts';
import type { CipherChoice, Config } from './config.ts';
import { MAX_TUN_MTU, MIN_TUN_MTU } from './constants.ts';
import type { Network } from './inner.ts';
import { MOST_LINKS } from './linkconfig.ts';
import type { LinkConfig } from './linkconfig.ts';
import { Cipher, type Native } from './native.ts';
import { thisPlatform } from './os.ts';
import { PLAIN_LINK, type LinkSettings, type TunnelConfig } from './peering.ts';
import { Failure } from './report.ts';
import { resolveName } from './resolve.ts';
import type { HostSettings, HostSetup } from './setup.ts';
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

/** `daemon` is what only a configuration file has, if there is one. */
export function innerAddresses(
  config: Config,
  daemon: DaemonConfig | undefined,
  key: Uint8Array,
): InnerAddresses {
  const isServer = config.role === 'server';
  const serverIp = parseIp(isServer ? config.localIp : config.peerIp)!;
  const clientIp = parseIp(isServer ? config.peerIp : config.localIp)!;
  const { server, client } = innerIpv6(key, serverIp, clientIp);
  const local = parseIp(daemon?.innerIpv6.local ?? '');
  const peer = parseIp(daemon?.innerIpv6.peer ?? '');
  if (local === undefined || peer === undefined) {
    return { serverIp, clientIp, serverIp6: server, clientIp6: client };
  }
  return isServer
    ? { serverIp, clientIp, serverIp6: local, clientIp6: peer }
    : { serverIp, clientIp, serverIp6: peer, clientIp6: local };
}

export function hostSettings(
  config: Config,
  daemon: DaemonConfig | undefined,
  inner: InnerAddresses,
  tun: string,
): HostSettings {
  const isServer = config.role === 'server';
  const server = formatIp(inner.serverIp6);
  const client = formatIp(inner.clientIp6);
  const mtu = config.mtu === 0 ? MIN_TUN_MTU : config.mtu;
  const isByScript = daemon?.setsAddresses === false;
  return {
    role: config.role,
    tun,
    localIp: isByScript ? '' : config.localIp,
    peerIp: isByScript ? '' : config.peerIp,
    localIp6: isByScript ? '' : isServer ? server : client,
    peerIp6: isByScript ? '' : isServer ? client : server,
    mtu,
    defaultRoutes: config.defaultRoutes,
    routes: config.routes,
    mark: config.mark,
    table: config.table,
    externalIp: config.role === 'server' ? config.externalIp : '',
    gateway: config.role === 'client' ? config.gateway : '',
    port: config.port,
    ...(config.role === 'client' ? hostLinks(config.links, daemon !== undefined) : {}),
  };
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
  daemon: DaemonConfig | undefined,
  uplinks: readonly LinkConfig[],
): readonly LinkSettings[] {
  if (daemon !== undefined) return daemon.links;
  // The client says what its links are called.
  return config.role === 'client' ? uplinks : config.listen.map(() => PLAIN_LINK);
}

export function tunnelConfig(
  config: Config,
  daemon: DaemonConfig | undefined,
  native: Native,
  key: Uint8Array,
  setup: HostSetup,
  links: readonly LinkSettings[],
): TunnelConfig {
  const inner = innerAddresses(config, daemon, key);
  const networks = config.routes.map((route): Network => {
    const [address, bits] = route.split('/');
    return { address: parseIp(address)!, bits: Number(bits) };
  });
  // A client has packets from anywhere behind its server; what is behind a script nobody knows.
  const isAnywhere = config.role === 'client' || daemon?.setsAddresses === false;
  return {
    role: config.role,
    keys: sharedKeys(key),
    serverIp: inner.serverIp,
    clientIp: inner.clientIp,
    modes: (config.isCleartext ? Mode.cleartext : 0) | (config.tuntap === 'tap' ? Mode.ethernet : 0),
    ciphers: cipherBits(config.cipher, native),
    ipv6: setup.ipv6Leaves,
    mtu: config.mtu,
    mostMtu: daemon === undefined || daemon.mostMtu === 0 ? MAX_TUN_MTU : daemon.mostMtu,
    rekeyAfterMs: config.rekeyAfterMs,
    sources: isAnywhere
      ? undefined
      : [
          { address: inner.clientIp, bits: 32 },
          { address: inner.clientIp6, bits: 128 },
          ...networks,
        ],
    links,
    realtime: config.realtime,
  };
}

/** Where a link finds the server: `host port`. */
export function remoteOf(config: Config, { remote }: LinkConfig): string {
  if (remote !== undefined) return `${remote.host} ${remote.port}`;
  return config.role === 'client' ? `${config.server} ${config.port}` : '';
}

/**
 * The endpoints of each remote. At the very start nothing is in the way of the system's resolver, and a
 * name that does not resolve is mistyped more often than not: a `Failure`.
 */
export async function firstEndpoints(
  config: Config,
): Promise<ReadonlyMap<string, readonly Uint8Array[]>> {
  const known = new Map<string, readonly Uint8Array[]>();
  if (config.role === 'server') return known;
  for (const remote of new Set(config.links.map((link) => remoteOf(config, link)))) {
    const [host, port] = remote.split(' ');
    const endpoints = await resolveName(host, Number(port));
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
