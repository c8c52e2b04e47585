/**
 * The types of values: text of a configuration file or of an option to a value, and back. What a key
 * means, and what its default is, stands in schema.ts.
 */
import { isIP } from 'node:net';
import { formatIp, parseIp } from '../address.ts';
import { UsageFailure } from '../report.ts';
import { parseHost, parseInterface, portOf, withoutBrackets } from '../words.ts';

export type Value = string | number | boolean | readonly string[];

/** `text` is not empty. Throws a `UsageFailure`, in which `what` names the value. */
type Parse<T extends Value = Value> = (text: string, what: string) => T;

export interface ValueType {
  /** What it is called in the manual. */
  readonly is: string;
  readonly parse: Parse;
  /** As it would be written in a file: `parse` makes the same value of it. */
  readonly format: (value: Value) => string;
  /** Values that are accepted and changed, as in MLVPN: why, and what is taken instead. */
  readonly adjust?: (value: Value) => { readonly why: string; readonly value: Value } | undefined;
}

const MOST_UINT32 = 2 ** 32 - 1;
/** rt_tables: default, main and local belong to the system. */
const SYSTEM_TABLES = [253, 254, 255];
/** MLVPN takes whole seconds, and none shorter. */
const LEAST_TIMEOUT_SECONDS = 5;
const MOST_TIMEOUT_SECONDS = 3600;
/** 64 kbit/s, in bytes: below this not even handshakes and reports pass in time. */
const LEAST_RATE = 8000;
/** 1 Tbit/s. */
const MOST_RATE = 125e9;
/** /30 and /126. */
const POINT_TO_POINT_HOST_BITS = 2;
const UNITS: Readonly<Record<string, number>> = { '': 1, kbit: 125, mbit: 125e3, gbit: 125e6 };

function type(is: string, parse: Parse, format: ValueType['format'] = String): ValueType {
  return { is, parse, format };
}

function formatList(value: Value): string {
  return Array.isArray(value) ? value.join(' ') : String(value);
}

function words(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '');
}

function listOf(is: string, parse: Parse<string>): ValueType {
  const parseAll: Parse = (text, what) => [
    ...new Set(words(text).map((word) => parse(word, what))),
  ];
  return type(is, parseAll, formatList);
}

/** Also in hexadecimal, as marks and tables are often written. */
export function wholeNumber(least: number, most: number, is = 'number'): ValueType {
  return type(is, (text, what) => {
    const number = Number(text);
    if (/^(0x[\da-f]+|\d+)$/i.test(text) && number >= least && number <= most) return number;
    throw new UsageFailure(what, `not within ${least} to ${most}`, 'correct it');
  });
}

function oneOf(known: readonly string[]): Parse<string> {
  return (text, what) => {
    if (known.includes(text)) return text;
    throw new UsageFailure(what, `"${text}" is none of its words`, `they are ${known.join(', ')}`);
  };
}

export function choice(...known: readonly string[]): ValueType {
  return type(known.join(' or '), oneOf(known));
}

/** Several of `known`, between spaces or commas. */
export function choices(known: readonly string[]): ValueType {
  return listOf('list of words', oneOf(known));
}

export const TEXT = type('text', (text) => text);

/** MLVPN writes 0 and 1. */
export const FLAG = type(
  'yes or no',
  (text, what) => {
    const word = text.toLowerCase();
    if (['1', 'yes', 'true', 'on'].includes(word)) return true;
    if (['0', 'no', 'false', 'off'].includes(word)) return false;
    throw new UsageFailure(what, 'neither yes nor no', 'write 1 or 0');
  },
  (value) => (value === true ? 'yes' : 'no'),
);

/** The daemon's working folder is not the user's. */
export const PATH = type('absolute path', (text, what) => {
  if (text.startsWith('/')) return text;
  throw new UsageFailure(what, 'not an absolute path', 'start it with /');
});

export const PORT = type('port', (text, what) => {
  const port = portOf(text);
  if (port !== undefined) return port;
  throw new UsageFailure(what, 'not a port', 'give 1 to 65535');
});

const parseAddress: Parse<string> = (text, what) => {
  const address = withoutBrackets(text);
  const bytes = address.includes('%') ? undefined : parseIp(address);
  if (bytes !== undefined) return formatIp(bytes);
  throw new UsageFailure(what, `"${text}" is no IP address`, 'give one such as 192.0.2.1');
};

export const ADDRESS = type('IP address', parseAddress);
export const ADDRESSES = listOf('list of IP addresses', parseAddress);

/** The server's. */
export const HOST = type('host name or IP address', (text, what) => parseHost(what, text));

export const INTERFACE = type('interface name', (text, what) =>
  parseInterface(what, text, 'give one such as tun0'),
);

/** Of a user or an instance; it stands in paths, process titles and log lines. */
export const NAME_PATTERN = /^[A-Za-z0-9_][\w.-]{0,31}$/;

export const NAME = type('name', (text, what) => {
  if (NAME_PATTERN.test(text)) return text;
  throw new UsageFailure(what, 'not a name', 'give up to 32 letters, digits, dots and dashes');
});

export const TUNNEL_IP4 = type('IPv4 address', (text, what) => hostAddress(text, what, 4));
export const TUNNEL_IP6 = type('IPv6 address', (text, what) => hostAddress(text, what, 6));

/** An address of this end, with the prefix length of its network. */
export const TUNNEL_CIDR4 = type('IPv4 address/prefix length', (text, what) =>
  hostWithPrefix(text, what, 4),
);

export const TUNNEL_CIDR6 = type('IPv6 address/prefix length', (text, what) =>
  hostWithPrefix(text, what, 6),
);

export const NETWORKS4 = listOf('list of IPv4 networks', (text, what) => network(text, what, [4]));
export const NETWORKS6 = listOf('list of IPv6 networks', (text, what) => network(text, what, [6]));
export const NETWORKS = listOf('list of networks', (text, what) => network(text, what, [4, 6]));

/** MLVPN raises shorter ones, with a warning. */
export const TIMEOUT: ValueType = {
  ...wholeNumber(0, MOST_TIMEOUT_SECONDS, 'seconds'),
  adjust: (value) =>
    Number(value) < LEAST_TIMEOUT_SECONDS
      ? { why: `shorter than ${LEAST_TIMEOUT_SECONDS} s`, value: LEAST_TIMEOUT_SECONDS }
      : undefined,
};

/** MLVPN takes more than 100 for 100, with a warning. */
export const PERCENT: ValueType = {
  ...type('percent', (text, what) => {
    if (/^\d+(\.\d+)?%?$/.test(text)) return Number(text.replace('%', ''));
    throw new UsageFailure(what, 'not a percentage', 'give 0 to 100');
  }),
  adjust: (value) => (Number(value) > 100 ? { why: 'more than 100', value: 100 } : undefined),
};

export const MILLISECONDS = type('milliseconds', (text, what) => {
  const number = Number(text.replace(/ms$/, ''));
  if (/^\d+(ms)?$/.test(text) && number >= 1 && number <= 60_000) return number;
  throw new UsageFailure(what, 'not within 1 to 60000 ms', 'correct it');
});

/**
 * Bytes per second, as MLVPN counts; or bits per second with a unit, as providers and `max=` do. In
 * MLVPN it is a share, so that some files have small numbers that only compare links.
 */
export const RATE: ValueType = {
  ...type('bytes per second', (text, what) => {
    const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([kmg]bit)?$/i.exec(text) ?? [];
    const rate = Math.round(Number(number) * UNITS[unit.toLowerCase()]);
    if (rate <= MOST_RATE) return rate;
    throw new UsageFailure(what, 'not a rate', 'give bytes per second, or a rate such as 20mbit');
  }),
  adjust: (value) =>
    value !== 0 && Number(value) < LEAST_RATE
      ? { why: 'below 64 kbit/s, so no limit of a link but a share', value: 0 }
      : undefined,
};

export const WEIGHT = type('number', (text, what) => {
  const weight = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && weight >= 0.01 && weight <= 100) return weight;
  throw new UsageFailure(what, 'not within 0.01 to 100', 'correct it');
});

/** As `--realtime`; commas belong to the words. */
export const REALTIME = type(
  'list of PROTOCOL:PORT[,duplicate]',
  (text, what) => {
    const rules = text.split(/\s+/);
    for (const rule of rules) {
      const port = /^(?:udp|tcp):(\d+)(?:,duplicate)?$/.exec(rule)?.[1];
      if (port !== undefined && portOf(port) !== undefined) continue;
      const remedy = 'give one such as udp:5004 or udp:5004,duplicate';
      throw new UsageFailure(what, `"${rule}" is no class`, remedy);
    }
    return rules;
  },
  formatList,
);

export const MARK = wholeNumber(1, MOST_UINT32);

export const TABLE = type('number', (text, what) => {
  const table = MARK.parse(text, what);
  if (!SYSTEM_TABLES.some((system) => system === table)) return table;
  throw new UsageFailure(what, 'a table of the system', 'give another');
});

/** The network that an address with a prefix length is in, both of them valid. */
export function networkOf(cidr: string): string {
  const [address, prefix] = cidr.split('/');
  const bytes = parseIp(address) ?? new Uint8Array(4);
  const bits = Number(prefix);
  const mask = (i: number): number => (0xff00 >> Math.min(8, Math.max(0, bits - 8 * i))) & 0xff;
  return `${formatIp(bytes.map((byte, i) => byte & mask(i)))}/${bits}`;
}

/** The network of an address with a prefix length; undefined where only the two ends fit into it. */
export function widerNetwork(cidr: string): string | undefined {
  const [address, prefix] = cidr.split('/');
  const bits = isIP(address) === 4 ? 32 : 128;
  return bits - Number(prefix) > POINT_TO_POINT_HOST_BITS ? networkOf(cidr) : undefined;
}

/** An address that a host can have: not loopback, multicast or unspecified. */
function hostAddress(text: string, what: string, family: 4 | 6): string {
  const bytes = isIP(text) === family && !text.includes('%') ? parseIp(text) : undefined;
  const isHost =
    bytes !== undefined &&
    (family === 4
      ? bytes[0] !== 0 && bytes[0] !== 127 && bytes[0] < 224
      : bytes[0] !== 0xff && bytes.subarray(0, 15).some((byte) => byte !== 0));
  if (isHost) return formatIp(bytes);
  const remedy = `give one such as ${family === 4 ? '10.42.43.2' : 'fd00::2'}`;
  throw new UsageFailure(what, `not an IPv${family} address of a host`, remedy);
}

function hostWithPrefix(text: string, what: string, family: 4 | 6): string {
  const [word, ...rest] = text.split('/');
  const address = hostAddress(word, what, family);
  return `${address}/${prefixLength(rest, what, address, family === 4 ? 32 : 128)}`;
}

/** A network other than everything, without bits behind its prefix. */
function network(text: string, list: string, families: readonly number[]): string {
  const what = `${list}: network "${text}"`;
  const [address, ...rest] = text.split('/');
  const bytes = address.includes('%') ? undefined : parseIp(address);
  if (bytes === undefined || !families.includes(isIP(address))) {
    const examples = families.map((family) => (family === 4 ? '10.0.0.0/8' : 'fd00::/8'));
    throw new UsageFailure(what, 'not a network', `give one such as ${examples.join(' or ')}`);
  }
  const bits = prefixLength(rest, what, address, bytes.length * 8);
  if (bits === 0) {
    throw new UsageFailure(what, 'is the default route', 'write default_routes = yes');
  }
  const found = networkOf(`${address}/${bits}`);
  if (found === `${formatIp(bytes)}/${bits}`) return found;
  throw new UsageFailure(what, 'bits set behind the prefix', `write ${found}`);
}

/** `parts` are those behind the slashes. */
function prefixLength(
  parts: readonly string[],
  what: string,
  address: string,
  most: number,
): number {
  if (parts.length === 0) {
    const remedy = `write ${address}/${most} for one host`;
    throw new UsageFailure(what, 'prefix length missing', remedy);
  }
  const [bits] = parts;
  if (parts.length === 1 && /^\d{1,3}$/.test(bits) && Number(bits) <= most) return Number(bits);
  throw new UsageFailure(what, `prefix length not within 0 to ${most}`, 'correct it');
}
