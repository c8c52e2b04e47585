/**
 * What netstat(1) and ifconfig(8) of macOS and the BSDs print, as facts. All five print the same shape
 * with other columns; test/standins and bsd.test.ts have output of each.
 */
import { isIPv4, isIPv6 } from 'node:net';
import type { DefaultRoute } from '../facts.ts';

/** A line of `netstat -rn`. */
export interface BsdRoute {
  /** The address of the network, without zone, and its bits. */
  readonly network: string;
  readonly bits: number;
  /** '' where there is none but an interface (`link#1`, a name, a hardware address). */
  readonly gateway: string;
  readonly device: string;
  readonly flags: string;
}

const withoutZone = (address: string): string => address.replace(/%[^/]*/, '');

/** `10.10.10/24`, `169.254`, `10.0.0.1`, `fe80::%lo0/64`, `default`: network and bits. */
function parseDestination(
  text: string,
  family: 4 | 6,
): { readonly network: string; readonly bits: number } | undefined {
  if (text === 'default') return { network: family === 4 ? '0.0.0.0' : '::', bits: 0 };
  const [address = '', length] = withoutZone(text).split('/');
  if (family === 6) {
    return isIPv6(address) ? { network: address, bits: Number(length ?? 128) } : undefined;
  }
  const parts = address.split('.');
  // Trailing zeros are left out, and then so is a length that follows from what is left.
  const network = [...parts, '0', '0', '0'].slice(0, 4).join('.');
  return isIPv4(network) ? { network, bits: Number(length ?? parts.length * 8) } : undefined;
}

/** Parses `netstat -rn -f inet` or `-f inet6`: the header says in which column the interface is. */
export function parseNetstat(text: string, family: 4 | 6): readonly BsdRoute[] {
  const routes: BsdRoute[] = [];
  let columns: readonly string[] = [];
  for (const line of text.split('\n')) {
    const words = line.trim().split(/\s+/);
    if (words[0] === 'Destination') columns = words;
    const at = columns.findIndex((one) => /^(Netif|Iface|Interface)$/.test(one));
    const destination = parseDestination(words[0] ?? '', family);
    if (at < 0 || destination === undefined) continue;
    const flags = words[columns.indexOf('Flags')] ?? '';
    const device = words[at] ?? '';
    const gateway = words[1] ?? '';
    const isAddress = isIPv4(gateway) || isIPv6(withoutZone(gateway));
    routes.push({
      ...destination,
      // Not of a route that somebody made unreachable.
      gateway: isAddress && flags.includes('G') ? gateway : '',
      device,
      flags,
    });
  }
  return routes;
}

/** The default routes that lead somewhere, in the order of the table. */
export function defaultsOf(routes: readonly BsdRoute[]): readonly DefaultRoute[] {
  return (
    routes
      .filter((route) => route.bits === 0 && !/[RB]/.test(route.flags))
      // macOS has one more for each further interface, for sockets bound to it (RTF_IFSCOPE).
      .filter((route) => !route.flags.includes('I'))
      .map(({ device, gateway }) => ({ device, gateway, metric: 0, advertised: false }))
  );
}

function bitsOf(address: string): bigint {
  if (isIPv4(address)) {
    return address.split('.').reduce((sum, part) => (sum << 8n) | BigInt(Number(part)), 0n);
  }
  const [before = '', after] = withoutZone(address).split('::');
  const groups = (part: string | undefined): readonly string[] =>
    part === undefined || part === '' ? [] : part.split(':');
  const tail = groups(after);
  const head = groups(before);
  const zeros = Array.from({ length: 8 - head.length - tail.length }, () => '0');
  return [...head, ...zeros, ...tail].reduce(
    (sum, group) => (sum << 16n) | BigInt(Number.parseInt(group, 16)),
    0n,
  );
}

/**
 * The route that leads to `address` when those through `tun` and those to a single host are left out;
 * undefined when there is none.
 */
export function routeTo(
  routes: readonly BsdRoute[],
  address: string,
  tun: string,
): BsdRoute | undefined {
  const width = isIPv4(address) ? 32 : 128;
  const wanted = bitsOf(address);
  return routes
    .filter((route) => route.device !== tun && route.bits < width && !/[RBI]/.test(route.flags))
    .filter((route) => {
      const shift = BigInt(width - route.bits);
      return bitsOf(route.network) >> shift === wanted >> shift;
    })
    .sort((a, b) => b.bits - a.bits)[0];
}

/** Parses `ifconfig -a`: address, without zone, to the interface that holds it. */
export function parseIfconfig(text: string): ReadonlyMap<string, string> {
  const holders = new Map<string, string>();
  let device = '';
  for (const line of text.split('\n')) {
    [, device = device] = /^([A-Za-z][\w.]*): flags=/.exec(line) ?? [];
    // NetBSD writes the length behind the address.
    const [, address] = /^\s+inet6? (?:alias )?([\da-fA-F.:]+)/.exec(line) ?? [];
    if (address !== undefined) holders.set(address, device);
  }
  return holders;
}
