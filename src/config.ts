/**
 * Turns the words of a command line into one complete, frozen `Config`, and refuses what cannot be
 * meant. Nothing here looks at the host, the network or a file: what depends on them stays "auto"
 * ('' or 0) and is decided where it is used.
 */
import { listOf, numberOf, textOf } from './conf/keyed.ts';
import { widerNetwork } from './conf/values.ts';
import {
  parseAddress,
  parseCipher,
  parseFilter,
  parseFolder,
  parseMark,
  parseMtu,
  parsePort,
  parseRoute,
  parseServer,
  parseTable,
  parseTun,
  parseTunnelIp,
} from './configwords.ts';
import { REKEY_AFTER_MS } from './constants.ts';
import { REALTIME_TARGETS } from './filters.ts';
import { parseLinks, parseListen, parseRealtime } from './linkconfig.ts';
import type { LinkConfig, ListenConfig } from './linkconfig.ts';
import type { Arguments, OptionName } from './options.ts';
import type { RealtimeRule } from './peering.ts';
import { UsageFailure } from './report.ts';
import { AUTO } from './words.ts';

export type CipherChoice = 'auto' | 'aes-256-gcm' | 'chacha20-poly1305';

interface CommonConfig {
  readonly keyFile: string;
  /** UDP port of the server; of the first where it has several. */
  readonly port: number;
  /** '' lets the kernel choose. */
  readonly tun: string;
  readonly localIp: string;
  readonly peerIp: string;
  /** A client's default route, a server's NAT and forwarding. */
  readonly defaultRoutes: boolean;
  /** Networks behind the peer, as CIDR. */
  readonly routes: readonly string[];
  /** 0: what fits the link. */
  readonly mtu: number;
  /** 0: a free one. */
  readonly mark: number;
  /** 0: a free one. */
  readonly table: number;
  readonly cipher: CipherChoice;
  readonly offload: boolean;
  readonly dryRun: boolean;
  readonly rekeyAfterMs: number;
  readonly stateDir: string;
  readonly realtime: readonly RealtimeRule[];
  /** Client: while the tunnel is down, and after the end until `vpn cleanup`, nothing else leaves. */
  readonly killSwitch: boolean;
  /** Client: name servers while the tunnel is up. */
  readonly dns: readonly string[];
  /** Whether this end answers for the other in its local network. */
  readonly proxyArp: boolean;
  /** The only networks, as CIDR, that the peer reaches through this end; empty: see `routes`. */
  readonly allow: readonly string[];
  /** Packets go authenticated, but in the clear. */
  readonly isCleartext: boolean;
  readonly tuntap: 'tun' | 'tap';
  /** Who runs the worker; '' for the one that is found. */
  readonly user: string;
  readonly log: 'text' | 'json';
}

export interface ServerConfig extends CommonConfig {
  readonly role: 'server';
  /** One at least. */
  readonly listen: readonly ListenConfig[];
  /** Address of this host that the peer's traffic leaves from; '' for what its default route says. */
  readonly externalIp: string;
}

export interface ClientConfig extends CommonConfig {
  readonly role: 'client';
  /** Name or address of the server. */
  readonly server: string;
  /** The next hop towards the server; '' for the host's own. */
  readonly gateway: string;
  /** One at least. */
  readonly links: readonly LinkConfig[];
}

export type Config = ServerConfig | ClientConfig;

/** What `cleanup` needs to know. */
export interface CleanupConfig {
  readonly dryRun: boolean;
  readonly stateDir: string;
}

export const SERVER_IP = '192.168.192.254';
export const CLIENT_IP = '192.168.192.1';

/** `words` are those after `server`. Throws a `UsageFailure`. */
export function serverConfig({ words, options }: Arguments): ServerConfig {
  const usage = 'vpn server KEYFILE [ADDRESS] [PORT] [TUN] [LOCAL] [REMOTE] [EXTERNAL]';
  checkCount(words, 1, 7, usage);
  const [keyFile, address, port, tun, local, remote, external] = words;
  const listen = parseListen(options.get('listen') ?? []);
  const place = [address, port].find((word) => word !== undefined && word !== AUTO);
  if (listen.length > 0 && place !== undefined) {
    throw new UsageFailure(`"${place}"`, 'not beside --listen', 'write auto for address and port');
  }
  const first = { address: parseAddress('address', address), port: parsePort(port) };
  return Object.freeze({
    role: 'server',
    keyFile,
    listen: Object.freeze(listen.length > 0 ? listen : [Object.freeze(first)]),
    port: listen[0]?.port ?? first.port,
    externalIp: parseAddress('external ip', external),
    defaultRoutes: hasDefaultRoutes(options),
    ...tunnelWords(tun, local ?? AUTO, remote ?? AUTO, SERVER_IP, CLIENT_IP),
    ...commonOptions(options),
  });
}

/** `words` are those after `client`. Throws a `UsageFailure`. */
export function clientConfig({ words, options }: Arguments): ClientConfig {
  const usage = 'vpn client KEYFILE SERVER [PORT] [TUN] [LOCAL] [REMOTE] [GATEWAY]';
  checkCount(words, 2, 7, usage);
  const [keyFile, server, portWord, tun, local, remote, gatewayWord] = words;
  const port = parsePort(portWord);
  const gateway = parseAddress('gateway ip', gatewayWord);
  const links = options.get('link') ?? [];
  const timeoutMs = numberOf(options, 'timeout') * 1000;
  const parsed = Object.freeze(
    parseLinks(links, port).map((link) => Object.freeze({ ...link, timeoutMs })),
  );
  checkFilters(options, parsed);
  checkKillSwitch(options);
  if (links.length > 0 && gateway !== '') {
    const remedy = `write --link ${links[0]},gateway=${gateway}`;
    throw new UsageFailure(`gateway ip "${gateway}"`, 'each link has its own', remedy);
  }
  return Object.freeze({
    role: 'client',
    keyFile,
    server: parseServer(server),
    port,
    gateway,
    links: parsed,
    // Asked for some networks only, everything else stays where it is.
    defaultRoutes: hasDefaultRoutes(options) && !options.has('route'),
    ...tunnelWords(tun, local ?? AUTO, remote ?? AUTO, CLIENT_IP, SERVER_IP),
    ...commonOptions(options),
  });
}

/** Throws a `UsageFailure`. */
export function cleanupConfig({ words, options }: Arguments): CleanupConfig {
  checkCount(words, 0, 0, 'vpn cleanup');
  return Object.freeze({
    dryRun: options.has('dry-run'),
    stateDir: parseFolder(last(options, 'state-dir')),
  });
}

/** The `--rekey-after` of `selftest`; undefined when not given. */
export function rekeyAfterMs(options: Arguments['options']): number | undefined {
  const text = last(options, 'rekey-after');
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && seconds >= 0.1 && seconds <= 120) return seconds * 1000;
  throw new UsageFailure(`--rekey-after "${text}"`, 'not a time', 'give 0.1 to 120 seconds');
}

/** Throws a `UsageFailure` that shows how the command is used. */
export function checkCount(
  words: readonly string[],
  least: number,
  most: number,
  usage: string,
): void {
  if (words.length < least) {
    throw new UsageFailure('too few words', '', `write ${usage}`);
  }
  if (words.length > most) {
    throw new UsageFailure(`unknown word "${words[most]}"`, 'one too many', `write ${usage}`);
  }
  if (words.includes('')) {
    throw new UsageFailure('empty word', 'every word needs a value', `write auto, or ${usage}`);
  }
}

type TunnelWords = Pick<CommonConfig, 'tun' | 'localIp' | 'peerIp'>;

function tunnelWords(
  tun: string | undefined,
  local: string,
  remote: string,
  defaultLocal: string,
  defaultRemote: string,
): TunnelWords {
  const localIp = local === AUTO ? defaultLocal : parseTunnelIp('local tun ip', local);
  const peerIp = remote === AUTO ? defaultRemote : parseTunnelIp('remote tun ip', remote);
  if (localIp === peerIp) {
    const what = `local and remote tun ip "${localIp}"`;
    throw new UsageFailure(what, 'both ends have the same address', 'give each end its own');
  }
  return { tun: parseTun(tun), localIp, peerIp };
}

function commonOptions(
  options: Arguments['options'],
): Omit<CommonConfig, keyof TunnelWords | 'keyFile' | 'port' | 'defaultRoutes'> {
  return {
    routes: routesOf(options),
    mtu: parseMtu(last(options, 'mtu')),
    mark: parseMark(last(options, 'mark')),
    table: parseTable(last(options, 'table')),
    cipher: parseCipher(last(options, 'cipher')),
    offload: !options.has('no-offload'),
    dryRun: options.has('dry-run'),
    rekeyAfterMs: rekeyAfterMs(options) ?? REKEY_AFTER_MS,
    stateDir: parseFolder(last(options, 'state-dir')),
    realtime: Object.freeze(parseRealtime(options.get('realtime') ?? [])),
    killSwitch: options.has('kill-switch'),
    dns: listOf(options, 'dns'),
    proxyArp: options.has('proxy-arp'),
    allow: listOf(options, 'allow'),
    isCleartext: options.has('cleartext-data'),
    tuntap: textOf(options, 'tuntap') === 'tap' ? 'tap' : 'tun',
    user: textOf(options, 'user'),
    log: textOf(options, 'log') === 'json' ? 'json' : 'text',
  };
}

/** As in a file, the network of the inner IPv6 address is one. */
function routesOf(options: Arguments['options']): readonly string[] {
  const beyond = widerNetwork(textOf(options, 'ip6'));
  const given = (options.get('route') ?? []).map(parseRoute);
  return Object.freeze([...new Set([...(beyond === undefined ? [] : [beyond]), ...given])]);
}

function hasDefaultRoutes(options: Arguments['options']): boolean {
  // A constant in a build: the point-to-point variant can never have them (build.mjs).
  return process.env.NO_DEFAULT_ROUTES !== '1' && !options.has('no-default-routes');
}

function last(options: Arguments['options'], name: OptionName): string | undefined {
  return options.get(name)?.at(-1);
}

/** Without the default route there is no tunnel to keep everything in. */
function checkKillSwitch(options: Arguments['options']): void {
  if (!options.has('kill-switch')) return;
  const what = '--kill-switch';
  if (process.env.NO_DEFAULT_ROUTES === '1') {
    throw new UsageFailure(what, 'not in the variant without default routes', 'leave it out');
  }
  for (const other of ['route', 'no-default-routes'] as const) {
    if (!options.has(other)) continue;
    const why = `beside --${other} other traffic is to go past the tunnel`;
    throw new UsageFailure(what, why, 'leave one of them out');
  }
}

/** A server hears from the client what its links are called, and "auto" finds them later. */
function checkFilters(options: Arguments['options'], links: readonly LinkConfig[]): void {
  if (links.some((link) => link.isAuto)) return;
  const targets = [...links.map(({ name }) => name), ...REALTIME_TARGETS.keys()];
  for (const text of options.get('filter') ?? []) {
    const { target } = parseFilter(text);
    if (targets.includes(target)) continue;
    const known = targets.filter((name) => name !== '').join(', ');
    throw new UsageFailure(`--filter "${text}"`, 'no such link', `they are ${known}`);
  }
}
