/**
 * The options that describe links and what goes over them: `--link`, `--listen`, `--realtime`. Each is a
 * word with options of its own after commas. Nothing here looks at the host: whether an interface
 * is there, and which gateway it has, is found out while the tunnel runs (linkroutes.ts).
 */
import { isIP } from 'node:net';
import { formatIp, parseIp } from './address.ts';
import { MOST_LINKS } from './constants.ts';
import { nearest } from './nearest.ts';
import { PLAIN_LINK, type LinkSettings, type RealtimeRule } from './peering.ts';
import { UsageFailure } from './report.ts';
import { AUTO, parseHost, parseInterface, portOf, splitPort, withoutBrackets } from './words.ts';
import type { Remote } from './words.ts';

/** One local way to the peer: bound to a device or an address, or to neither. */
export interface LinkConfig extends LinkSettings {
  /** '' for a link that is not bound to one. */
  readonly device: string;
  readonly address: string;
  /** Stands for every interface with a default route that no other link has. */
  readonly isAuto: boolean;
  /** Next hops, one of each family at most; the host's own for a family without. */
  readonly gateways: readonly string[];
  /** In place of the server; undefined for the server itself. */
  readonly remote: Remote | undefined;
  /** The UDP port to send from; 0: any. */
  readonly localPort: number;
}

/** Where a server waits. */
export interface ListenConfig {
  /** '' for any. */
  readonly address: string;
  readonly port: number;
}

/** What a link carries when nothing is limited; path MTUs are searched between these (PROTOCOL §6). */
const LEAST_MTU = 1280;
const MOST_MTU = 1580;
const BITS: Readonly<Record<string, number>> = { kbit: 1e3, mbit: 1e6, gbit: 1e9 };
/** Below this not even handshakes and reports pass in time. */
const LEAST_RATE = 64e3;
const MOST_RATE = 1e12;

/** A client without `--link`: one, which follows the routes of the host. */
export const UNBOUND: LinkConfig = Object.freeze({
  ...PLAIN_LINK,
  device: '',
  address: '',
  isAuto: false,
  gateways: [],
  remote: undefined,
  localPort: 0,
});

type Changes = { -readonly [K in keyof LinkConfig]?: LinkConfig[K] };
/** `value` is undefined where the option stands alone; `fail` makes the failure. */
type Parser = (value: string, link: LinkConfig, fail: Fail) => Changes;
type Fail = (why: string, remedy: string) => UsageFailure;

/** The options of `--link`: how each is written, and what it changes. */
const LINK_OPTIONS: Readonly<Record<string, { readonly write: string; readonly parse: Parser }>> = {
  name: { write: 'name=NAME', parse: parseName },
  backup: { write: 'backup', parse: () => ({ isBackup: true }) },
  max: { write: 'max=20mbit', parse: parseRate },
  weight: { write: 'weight=1', parse: parseWeight },
  latency: { write: 'latency=300ms', parse: parseLatency },
  loss: { write: 'loss=20%', parse: parseLoss },
  gateway: { write: 'gateway=ADDRESS', parse: parseGateway },
  remote: { write: 'remote=HOST:PORT', parse: parseRemote },
  mtu: { write: 'mtu=1500', parse: parseMtu },
};
const FLAGS = ['backup'];

/**
 * The links of `--link`, in order; without any the unbound one. `serverPort`: of a `remote=` that names
 * none. Throws a `UsageFailure`.
 */
export function parseLinks(texts: readonly string[], serverPort: number): readonly LinkConfig[] {
  if (texts.length === 0) return [UNBOUND];
  if (texts.length > MOST_LINKS) {
    throw new UsageFailure(`${texts.length} links`, `at most ${MOST_LINKS}`, 'leave some out');
  }
  const links = texts.map((text) => parseLink(text, serverPort));
  const names = new Set<string>();
  for (const { name, device, address, isAuto } of links) {
    if (names.has(name)) {
      const word = isAuto ? AUTO : device + address;
      throw new UsageFailure(
        `link "${name}"`,
        'given twice',
        isAuto ? 'give it once' : `give each a name: --link ${word},name=NAME`,
      );
    }
    names.add(name);
  }
  return links;
}

function parseLink(text: string, serverPort: number): LinkConfig {
  const [word, ...options] = text.split(',');
  const what = `--link "${text}"`;
  let link: LinkConfig = { ...UNBOUND, ...boundTo(what, word) };
  const seen = new Set<string>();
  for (const option of options) {
    const [key, ...rest] = option.split('=');
    const value = rest.join('=');
    const known = Object.hasOwn(LINK_OPTIONS, key) ? LINK_OPTIONS[key] : undefined;
    if (known === undefined) {
      const meant = nearest(key, Object.keys(LINK_OPTIONS));
      const all = `the options of a link are ${Object.keys(LINK_OPTIONS).join(', ')}`;
      const remedy = meant === undefined ? all : `did you mean ${meant}?`;
      throw new UsageFailure(what, `unknown option "${key}"`, remedy);
    }
    // One gateway of each family may be given.
    if (seen.has(key) && key !== 'gateway') {
      throw new UsageFailure(what, `${key} given twice`, 'give it once');
    }
    seen.add(key);
    const isFlag = FLAGS.includes(key);
    if (isFlag !== (rest.length === 0) || (!isFlag && value === '')) {
      const why = isFlag ? `${key} takes no value` : `${key}: value missing`;
      throw new UsageFailure(what, why, `write ${known.write}`);
    }
    const fail: Fail = (why, remedy) => new UsageFailure(what, `${key} "${value}" ${why}`, remedy);
    link = { ...link, ...known.parse(value, link, fail) };
  }
  const { remote } = link;
  if (remote?.port === 0) link = { ...link, remote: { ...remote, port: serverPort } };
  return Object.freeze(link);
}

function boundTo(what: string, word: string): Changes {
  if (word === AUTO) return { name: AUTO, isAuto: true };
  const text = withoutBrackets(word);
  if (isIP(text) !== 0) {
    if (/^fe[89ab]/i.test(text)) {
      const remedy = 'give the interface instead';
      throw new UsageFailure(what, 'a link-local address is no way out', remedy);
    }
    // One spelling, so that it can be compared with what the system says.
    const address = formatIp(parseIp(text)!);
    return { name: address, address };
  }
  if (word === '') {
    throw new UsageFailure(what, 'no interface', 'give an interface, an address, or auto');
  }
  const device = parseInterface(what, word, 'give one such as eth0, an address, or auto');
  return { name: device, device };
}

function parseName(value: string, link: LinkConfig, fail: Fail): Changes {
  if (link.isAuto) throw fail('is for one link only', 'leave it out');
  // It stands in tables and in lines of the log.
  if (/^[A-Za-z0-9_][\w.:%-]{0,31}$/.test(value)) return { name: value };
  throw fail('is not a name', 'give up to 32 letters, digits, dots and dashes');
}

function parseRate(value: string, _: LinkConfig, fail: Fail): Changes {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([kmg]bit)$/i.exec(value) ?? [];
  const rate = Number(number) * (BITS[unit.toLowerCase()] ?? NaN);
  if (rate >= LEAST_RATE && rate <= MOST_RATE) return { maxRate: rate / 8 / 1000 };
  throw fail('is not a rate', 'give one such as 20mbit, 64kbit at least');
}

function parseWeight(value: string, _: LinkConfig, fail: Fail): Changes {
  const weight = Number(value);
  if (/^\d+(\.\d+)?$/.test(value) && weight >= 0.01 && weight <= 100) return { weight };
  throw fail('is not a weight', 'give 0.01 to 100');
}

function parseLatency(value: string, _: LinkConfig, fail: Fail): Changes {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s)$/.exec(value) ?? [];
  const latencyLimitMs = Number(number) * (unit === 's' ? 1000 : 1);
  if (latencyLimitMs >= 1 && latencyLimitMs <= 60_000) return { latencyLimitMs };
  throw fail('is not a time', 'give one such as 300ms, 1ms to 60s');
}

function parseLoss(value: string, _: LinkConfig, fail: Fail): Changes {
  const [, number] = /^(\d+(?:\.\d+)?)%$/.exec(value) ?? [];
  const lossLimit = Number(number) / 100;
  if (lossLimit > 0 && lossLimit <= 1) return { lossLimit };
  throw fail('is not a share', 'give one such as 20%');
}

function parseGateway(value: string, link: LinkConfig, fail: Fail): Changes {
  if (link.isAuto) throw fail('is for one link only', 'give the interface instead of auto');
  const text = withoutBrackets(value);
  const family = isIP(text);
  if (family === 0 || text.includes('%')) {
    throw fail('is not an IP address', 'give that of the router');
  }
  const { address, gateways } = link;
  if (address !== '' && isIP(address) !== family) {
    throw fail('is of the other family', `give one of IPv${isIP(address)}`);
  }
  if (gateways.some((other) => isIP(other) === family)) {
    throw fail('is the second of its family', 'give one, or make two links');
  }
  return { gateways: [...gateways, formatIp(parseIp(text)!)] };
}

function parseRemote(value: string, link: LinkConfig, fail: Fail): Changes {
  const [host, port] = splitPort(value);
  if (link.isAuto) throw fail('is for one link only', 'give the interface instead of auto');
  const number = port === '' ? 0 : portOf(port);
  if (number === undefined) throw fail(`has no UDP port "${port}"`, 'give 1 to 65535');
  return { remote: { host: parseHost(`remote "${value}" of --link`, host), port: number } };
}

function parseMtu(value: string, _: LinkConfig, fail: Fail): Changes {
  const mtu = Number(value);
  if (/^\d+$/.test(value) && mtu >= LEAST_MTU && mtu <= MOST_MTU) return { mtu };
  throw fail(`is not within ${LEAST_MTU} to ${MOST_MTU}`, 'correct it');
}

/** The addresses of `--listen`, in order. Throws a `UsageFailure`. */
export function parseListen(texts: readonly string[]): readonly ListenConfig[] {
  const listens = texts.map((text): ListenConfig => {
    const what = `--listen "${text}"`;
    const usage = 'write ADDRESS:PORT, [IPV6]:PORT or *:PORT';
    const [host, port] = splitPort(text);
    const number = portOf(port);
    if (number === undefined) {
      const why = port === '' ? 'port missing' : `"${port}" is not a UDP port`;
      throw new UsageFailure(what, why, usage);
    }
    const address = withoutBrackets(host);
    const isAny = address === '' || address === '*' || address === AUTO;
    if (!isAny && isIP(address) === 0) throw new UsageFailure(what, 'not an IP address', usage);
    return Object.freeze({ address: isAny ? '' : address, port: number });
  });
  const names = listens.map(listenName);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new UsageFailure(`--listen "${twice}"`, 'given twice', 'once does');
  if (listens.length > MOST_LINKS) {
    const what = `${listens.length} addresses to listen on`;
    throw new UsageFailure(what, `at most ${MOST_LINKS}`, 'leave some out');
  }
  return listens;
}

/** How a listening address is written. */
export function listenName({ address, port }: ListenConfig): string {
  if (address === '') return `*:${port}`;
  return isIP(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The rules of `--realtime`. Throws a `UsageFailure`. */
export function parseRealtime(texts: readonly string[]): readonly RealtimeRule[] {
  return texts.map((text): RealtimeRule => {
    const what = `--realtime "${text}"`;
    const [rule, ...options] = text.split(',');
    const [, protocol, port = ''] = /^(udp|tcp):(.*)$/.exec(rule) ?? [];
    if (protocol !== 'udp' && protocol !== 'tcp') {
      throw new UsageFailure(what, 'not a protocol and a port', 'give one such as udp:5004');
    }
    const unknown = options.find((option) => option !== 'duplicate');
    if (unknown !== undefined) {
      const remedy = 'the one option is duplicate';
      throw new UsageFailure(what, `unknown option "${unknown}"`, remedy);
    }
    const number = portOf(port);
    if (number === undefined) {
      throw new UsageFailure(what, `"${port}" is not a port`, 'give 1 to 65535');
    }
    return Object.freeze({ protocol, port: number, isDuplicated: options.length > 0 });
  });
}
