/**
 * Turns the words of a command line into one complete, frozen `Config`, and refuses what cannot be
 * meant. Nothing here looks at the host, the network or a file: what depends on them stays "auto"
 * ('' or 0) and is decided where it is used.
 */
import { isIPv4, isIP } from 'node:net';
import { formatIp, parseIp } from './address.ts';
import { KEYS } from './conf/schema.ts';
import type { Value } from './conf/values.ts';
import { REKEY_AFTER_MS } from './constants.ts';
import { REALTIME_TARGETS } from './filters.ts';
import type { FilterEntry } from './filters.ts';
import { parseLinks, parseListen, parseRealtime } from './linkconfig.ts';
import type { LinkConfig, ListenConfig } from './linkconfig.ts';
import type { Arguments, OptionName } from './options.ts';
import type { RealtimeRule } from './peering.ts';
import { UsageFailure } from './report.ts';
import { AUTO, parseHost, parseInterface, portOf, withoutBrackets } from './words.ts';

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
  readonly verbose: boolean;
  readonly rekeyAfterMs: number;
  readonly stateDir: string;
  readonly realtime: readonly RealtimeRule[];
  /** Of the command line; in the order in which they are tried. */
  readonly filters: readonly FilterEntry[];
  /** Of this instance; '' for that of its device. */
  readonly name: string;
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
  readonly verbose: boolean;
  readonly stateDir: string;
}

export const DEFAULT_PORT = 443;
export const SERVER_IP = '192.168.192.254';
export const CLIENT_IP = '192.168.192.1';
const STATE_DIR = '/var/lib/vpn';
/** Linux deletes the IPv6 addresses of a device below this (RFC 8200 §5). */
const LEAST_MTU = 1280;
const MOST_MTU = 1500;
const MOST_UINT32 = 2 ** 32 - 1;
/** rt_tables: default, main and local belong to the system. */
const SYSTEM_TABLES = [253, 254, 255];

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
  return freeze({
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
  const parsed = Object.freeze(parseLinks(links, port));
  checkFilters(options, parsed);
  if (links.length > 0 && gateway !== '') {
    const remedy = `write --link ${links[0]},gateway=${gateway}`;
    throw new UsageFailure(`gateway ip "${gateway}"`, 'each link has its own', remedy);
  }
  return freeze({
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
    verbose: options.has('verbose'),
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
    routes: [...new Set((options.get('route') ?? []).map(parseRoute))],
    mtu: parseNumber('mtu', last(options, 'mtu'), LEAST_MTU, MOST_MTU),
    mark: parseNumber('mark', last(options, 'mark'), 1, MOST_UINT32),
    table: parseTable(last(options, 'table')),
    cipher: parseCipher(last(options, 'cipher')),
    offload: !options.has('no-offload'),
    dryRun: options.has('dry-run'),
    verbose: options.has('verbose'),
    rekeyAfterMs: rekeyAfterMs(options) ?? REKEY_AFTER_MS,
    stateDir: parseFolder(last(options, 'state-dir')),
    realtime: Object.freeze(parseRealtime(options.get('realtime') ?? [])),
    filters: Object.freeze((options.get('filter') ?? []).map(parseFilter)),
    name: parseName(last(options, 'name')),
    killSwitch: options.has('kill-switch'),
    dns: Object.freeze(listOf(options, 'dns')),
    proxyArp: options.has('proxy-arp'),
    allow: Object.freeze(listOf(options, 'allow')),
    isCleartext: options.has('cleartext-data'),
    tuntap: keyed(options, 'tuntap') === 'tap' ? 'tap' : 'tun',
    user: String(keyed(options, 'user') ?? ''),
    log: keyed(options, 'log') === 'json' ? 'json' : 'text',
  };
}

/** The value of an option that is a key of a file too, as the file would have it. Throws a `UsageFailure`. */
function keyed(options: Arguments['options'], name: OptionName): Value | undefined {
  const values = options.get(name);
  const key = KEYS.find(
    ({ section, commandLine }) =>
      section === 'general' && 'option' in commandLine && commandLine.option === name,
  );
  if (values === undefined || key === undefined) return undefined;
  const text = values.join(' ');
  return key.type.parse(text, `--${name} "${text}"`);
}

function listOf(options: Arguments['options'], name: OptionName): readonly string[] {
  const value = keyed(options, name);
  return Array.isArray(value) ? value : [];
}

function hasDefaultRoutes(options: Arguments['options']): boolean {
  // A constant in a build: the point-to-point variant can never have them (build.mjs).
  return process.env.NO_DEFAULT_ROUTES !== '1' && !options.has('no-default-routes');
}

function freeze<T extends Config>(config: T): T {
  Object.freeze(config.routes);
  return Object.freeze(config);
}

function last(options: Arguments['options'], name: OptionName): string | undefined {
  return options.get(name)?.at(-1);
}

function parseAddress(name: string, word: string | undefined): string {
  if (word === undefined || word === AUTO) return '';
  const address = withoutBrackets(word);
  if (isIP(address) !== 0) return address;
  throw new UsageFailure(`${name} "${word}"`, 'not an IP address', 'give one, or auto');
}

function parseTunnelIp(name: string, word: string): string {
  const what = `${name} "${word}"`;
  if (!isIPv4(word)) {
    throw new UsageFailure(what, 'not an IPv4 address', 'give one such as 192.168.192.1, or auto');
  }
  const first = Number(word.split('.')[0]);
  if (first === 0 || first === 127 || first >= 224) {
    throw new UsageFailure(what, 'no host can have it', 'give one such as 192.168.192.1, or auto');
  }
  return word;
}

function parsePort(word: string | undefined): number {
  if (word === undefined || word === AUTO) return DEFAULT_PORT;
  const port = portOf(word);
  if (port !== undefined) return port;
  throw new UsageFailure(`port "${word}"`, 'not a UDP port', 'give 1 to 65535, or auto');
}

function parseTun(word: string | undefined): string {
  if (word === undefined || word === AUTO) return '';
  return parseInterface(`tun "${word}"`, word, 'give one such as tun0, or auto');
}

function parseServer(word: string): string {
  const what = `server "${word}"`;
  const withPort = /^\[?([^[\]]*?)\]?:(\d+)$/.exec(word);
  if (withPort !== null && isIP(withoutBrackets(word)) === 0) {
    const remedy = `write ${withPort[1]} ${withPort[2]}, in two words`;
    throw new UsageFailure(what, 'the port is a word of its own', remedy);
  }
  return parseHost(what, word);
}

function parseRoute(text: string): string {
  const [address, prefix, ...rest] = text.split('/');
  const what = `--route "${text}"`;
  const bytes = address.includes('%') ? undefined : parseIp(address);
  if (bytes === undefined || rest.length > 0) {
    throw new UsageFailure(what, 'not a network', 'give one such as 10.0.0.0/8 or fd00::/8');
  }
  const most = bytes.length * 8;
  if (prefix === undefined) {
    throw new UsageFailure(what, 'prefix length missing', `write ${address}/${most} for one host`);
  }
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > most) {
    throw new UsageFailure(what, `prefix length not within 0 to ${most}`, 'correct it');
  }
  const network = bytes.map((byte, i) => byte & networkMask(Number(prefix) - 8 * i));
  const canonical = `${formatIp(network)}/${Number(prefix)}`;
  if (network.some((byte, i) => byte !== bytes[i])) {
    throw new UsageFailure(what, 'bits set behind the prefix', `write ${canonical}`);
  }
  if (Number(prefix) === 0) {
    throw new UsageFailure(what, 'is the default route', 'leave --route away');
  }
  return canonical;
}

function parseFilter(text: string): FilterEntry {
  const [, target = '', expression = ''] = /^(\S+)\s+(.*\S)\s*$/s.exec(text) ?? [];
  if (target !== '') return Object.freeze({ target, expression });
  const remedy = "write one such as --filter 'eth0 udp port 5060'";
  throw new UsageFailure(`--filter "${text}"`, 'not a link and an expression', remedy);
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

function parseName(text: string | undefined): string {
  if (text === undefined || /^[A-Za-z0-9_][\w.-]{0,31}$/.test(text)) return text ?? '';
  const remedy = 'give up to 32 letters, digits, dots and dashes';
  throw new UsageFailure(`--name "${text}"`, 'not a name', remedy);
}

/** The byte of a network mask in which `bits` more bits are to come, however many or few. */
function networkMask(bits: number): number {
  return (0xff00 >> Math.min(8, Math.max(0, bits))) & 0xff;
}

function parseTable(text: string | undefined): number {
  const table = parseNumber('table', text, 1, MOST_UINT32);
  if (!SYSTEM_TABLES.includes(table)) return table;
  throw new UsageFailure(`--table "${text}"`, 'a table of the system', 'give another, or auto');
}

/** 0 for "auto". Marks and tables are often written in hexadecimal. */
function parseNumber(
  name: OptionName,
  text: string | undefined,
  least: number,
  most: number,
): number {
  if (text === undefined || text === AUTO) return 0;
  const number = Number(text);
  if (/^(0x[\da-f]+|\d+)$/i.test(text) && number >= least && number <= most) return number;
  const what = `--${name} "${text}"`;
  throw new UsageFailure(what, `not within ${least} to ${most}`, 'correct it, or give auto');
}

function parseCipher(text: string | undefined): CipherChoice {
  switch (text) {
    case undefined:
      return AUTO;
    case 'auto':
    case 'aes-256-gcm':
    case 'chacha20-poly1305':
      return text;
    default: {
      const remedy = 'give auto, aes-256-gcm or chacha20-poly1305';
      throw new UsageFailure(`--cipher "${text}"`, 'no such cipher', remedy);
    }
  }
}

function parseFolder(text: string | undefined): string {
  if (text === undefined) return STATE_DIR;
  if (text.startsWith('/')) return text;
  throw new UsageFailure(`--state-dir "${text}"`, 'not an absolute path', 'start it with /');
}
