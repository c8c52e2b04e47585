/**
 * Single words of a command line that several options and arguments share: addresses, ports, names of
 * hosts and of interfaces. Each throws a `UsageFailure`, in which `what` names the word.
 */
import { isIP } from 'node:net';
import { UsageFailure } from './report.ts';

export const AUTO = 'auto';
/** IFNAMSIZ of <linux/if.h>, without the terminator. */
const MOST_NAME_BYTES = 15;

/** Where datagrams go, before the name is resolved. */
export interface Remote {
  /** A name, or an address without brackets. */
  readonly host: string;
  readonly port: number;
}

/** An IPv6 address may stand in brackets, as in a URL. */
export function withoutBrackets(word: string): string {
  return word.startsWith('[') && word.endsWith(']') ? word.slice(1, -1) : word;
}

/** Undefined for what is no port of UDP or TCP. */
export function portOf(word: string): number | undefined {
  const port = Number(word);
  return /^\d+$/.test(word) && port >= 1 && port <= 65535 ? port : undefined;
}

/**
 * The name of an interface; `remedy` is for a wrong one. Fewer than the kernel takes: these names also stand in firewall rules, where
 * + and ! mean more, in paths below /proc/sys, and in rule templates, where $ does.
 */
export function parseInterface(what: string, word: string, remedy: string): string {
  if (Buffer.byteLength(word) > MOST_NAME_BYTES) {
    throw new UsageFailure(what, `longer than ${MOST_NAME_BYTES} bytes`, 'give a shorter name');
  }
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(word) || ['all', 'default'].includes(word)) {
    throw new UsageFailure(what, 'not an interface name', remedy);
  }
  return word;
}

/** A name or an address, without its brackets. */
export function parseHost(what: string, word: string): string {
  const host = withoutBrackets(word);
  if (isIP(host) !== 0) return host;
  // RFC 1123 §2.1; a name of digits and dots only would be a mistyped address.
  const label = '[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?';
  const isName = new RegExp(`^${label}(\\.${label})*\\.?$`).test(host) && host.length <= 253;
  if (isName && !/^[\d.]+$/.test(host) && host !== AUTO) return host;
  throw new UsageFailure(what, 'neither a host name nor an IP address', 'give the server');
}

/**
 * Takes `HOST:PORT`, `[IPV6]:PORT` or either part alone apart; a part that is missing is ''. An IPv6 address without brackets has
 * no port.
 */
export function splitPort(word: string): readonly [host: string, port: string] {
  if (isIP(word) === 6) return [word, ''];
  const [, host = '', port = ''] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(word) ?? ['', word];
  return [host, port];
}
