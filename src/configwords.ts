/**
 * The words of `vpn server` and `vpn client`, and the values of options that may be "auto" or are written
 * otherwise than in a file; of the others see conf/keyed.ts. Each function throws a `UsageFailure`.
 */
import { isIPv4, isIP } from 'node:net';
import { formatIp, parseIp } from './address.ts';
import { networkOf } from './conf/values.ts';
import type { CipherChoice } from './config.ts';
import type { FilterEntry } from './filters.ts';
import type { OptionName } from './options.ts';
import { UsageFailure } from './report.ts';
import { AUTO, parseHost, parseInterface, portOf, withoutBrackets } from './words.ts';

export const DEFAULT_PORT = 443;
const STATE_DIR = '/var/lib/vpn';
/** Linux deletes the IPv6 addresses of a device below this (RFC 8200 §5). */
const LEAST_MTU = 1280;
const MOST_MTU = 1500;
const MOST_UINT32 = 2 ** 32 - 1;
/** rt_tables: default, main and local belong to the system. */
const SYSTEM_TABLES = [253, 254, 255];

/** '' for "auto", as of `parseTun`. */
export function parseAddress(name: string, word: string | undefined): string {
  if (word === undefined || word === AUTO) return '';
  const address = withoutBrackets(word);
  if (isIP(address) !== 0) return address;
  throw new UsageFailure(`${name} "${word}"`, 'not an IP address', 'give one, or auto');
}

export function parseTunnelIp(name: string, word: string): string {
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

export function parsePort(word: string | undefined): number {
  if (word === undefined || word === AUTO) return DEFAULT_PORT;
  const port = portOf(word);
  if (port !== undefined) return port;
  throw new UsageFailure(`port "${word}"`, 'not a UDP port', 'give 1 to 65535, or auto');
}

export function parseTun(word: string | undefined): string {
  if (word === undefined || word === AUTO) return '';
  return parseInterface(`tun "${word}"`, word, 'give one such as tun0, or auto');
}

export function parseServer(word: string): string {
  const what = `server "${word}"`;
  const withPort = /^\[?([^[\]]*?)\]?:(\d+)$/.exec(word);
  if (withPort !== null && isIP(withoutBrackets(word)) === 0) {
    const remedy = `write ${withPort[1]} ${withPort[2]}, in two words`;
    throw new UsageFailure(what, 'the port is a word of its own', remedy);
  }
  return parseHost(what, word);
}

/** A network with one spelling, so that two of them can be compared. */
export function parseRoute(text: string): string {
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
  const canonical = networkOf(`${address}/${prefix}`);
  if (canonical !== `${formatIp(bytes)}/${Number(prefix)}`) {
    throw new UsageFailure(what, 'bits set behind the prefix', `write ${canonical}`);
  }
  if (Number(prefix) === 0) {
    throw new UsageFailure(what, 'is the default route', 'leave --route away');
  }
  return canonical;
}

/** `LINK EXPR`; whether there is such a link is for those who know the links. */
export function parseFilter(text: string): FilterEntry {
  const [, target = '', expression = ''] = /^(\S+)\s+(.*\S)\s*$/s.exec(text) ?? [];
  if (target !== '') return Object.freeze({ target, expression });
  const remedy = "write one such as --filter 'eth0 udp port 5060'";
  throw new UsageFailure(`--filter "${text}"`, 'not a link and an expression', remedy);
}

/** 0 for "auto", as of the two that follow. */
export function parseMtu(text: string | undefined): number {
  return parseNumber('mtu', text, LEAST_MTU, MOST_MTU);
}

export function parseMark(text: string | undefined): number {
  return parseNumber('mark', text, 1, MOST_UINT32);
}

export function parseTable(text: string | undefined): number {
  const table = parseNumber('table', text, 1, MOST_UINT32);
  if (!SYSTEM_TABLES.includes(table)) return table;
  throw new UsageFailure(`--table "${text}"`, 'a table of the system', 'give another, or auto');
}

export function parseCipher(text: string | undefined): CipherChoice {
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

export function parseFolder(text: string | undefined): string {
  if (text === undefined) return STATE_DIR;
  if (text.startsWith('/')) return text;
  throw new UsageFailure(`--state-dir "${text}"`, 'not an absolute path', 'start it with /');
}

/** Marks and tables are often written in hexadecimal. */
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
