/** What the kill switch of an instance (os/killswitch.ts) lets through, and whether this host can do it. */
import type { Facts } from './facts.ts';
import { contains } from './linkroutes.ts';
import { FIRST_NUMBER, MARKS_MASK } from './numbers.ts';
import type { Numbers } from './numbers.ts';
import type { ProbeName } from './os.ts';
import { Failure } from './report.ts';
import type { HostSettings } from './situation.ts';

const LAST_NUMBER = (FIRST_NUMBER | ~MARKS_MASK) >>> 0;
const MOST_MARK = 2 ** 32 - 1;
/** rt_tables. */
const TABLE_MAIN = 254;

/** The first that no journal names; not an instance's table, for it stays longer than that. */
export function chooseSwitchName(taken: readonly (string | undefined)[]): string {
  let number = 1;
  while (taken.includes(`vpn-switch-${number}`)) number += 1;
  return `vpn-switch-${number}`;
}

/**
 * The marks that pass, as `value/mask` and as `first-last`: those of all instances, so that one switch does not
 * hold up another tunnel's datagrams nor, left behind, the next start; and those that were asked for.
 */
export function switchMarks(
  ownMark: number,
  { mark, links }: Pick<Numbers, 'mark' | 'links'>,
): { readonly masked: readonly string[]; readonly ranges: readonly string[] } {
  const ranges: (readonly [first: number, last: number])[] = [[FIRST_NUMBER, LAST_NUMBER]];
  if (ownMark !== 0) ranges.push([mark, mark + links.length]);
  return {
    masked: ranges.flatMap(([first, last]) => maskedRange(first, last)),
    ranges: ranges.map(([first, last]) => `${hex(first)}-${hex(last)}`),
  };
}

const hex = (number: number): string => `0x${number.toString(16)}`;

/** The numbers from `first` to `last`, in as few aligned blocks as there are, as `value/mask`. */
export function maskedRange(first: number, last: number): readonly string[] {
  const blocks: string[] = [];
  for (let at = first; at <= last;) {
    let size = 1;
    while (at % (size * 2) === 0 && at + size * 2 - 1 <= last) size *= 2;
    blocks.push(`${hex(at)}/${hex(MOST_MARK - (size - 1))}`);
    at += size;
  }
  return blocks;
}

/** The words of `Row.need` that hold where a kill switch is wanted. Throws a `Failure`. */
export function switchNeeds(facts: Facts, isEverything: boolean): readonly string[] {
  const { present, reasons, hasIpv6 } = facts;
  const what = 'cannot set up the kill switch';
  if (!isEverything) {
    throw new Failure(what, 'the tunnel does not take everything', 'leave --kill-switch out');
  }
  if (present.has('nft-switch')) return ['switch-nft'];
  const wanted: readonly ProbeName[] = [
    ...(['filter4', 'mangle4'] as const),
    ...(hasIpv6 ? (['filter6', 'mangle6'] as const) : []),
  ];
  const missing = wanted.filter((name) => !present.has(name));
  if (missing.length === 0) return hasIpv6 ? ['switch4', 'switch6'] : ['switch4'];
  const why = [...new Set((['nft-switch', ...missing] as const).map((name) => reasons.get(name)))];
  const said = why.filter((line) => line !== undefined).join(', and ');
  throw new Failure(what, said, 'install nftables or iptables, or leave --kill-switch out');
}

/** Those of `addresses` that a route of the host leads to, which counts for more than the tunnel's. */
function onOwnNetworks(
  addresses: readonly string[],
  { routes4, routes6 }: Pick<Facts, 'routes4' | 'routes6'>,
  tun: string,
): readonly string[] {
  const networks = [...routes4, ...routes6].filter(
    ({ table, destination, device }) =>
      table === TABLE_MAIN && destination !== 'default' && ![tun, 'lo'].includes(device),
  );
  return addresses.filter((address) =>
    networks.some(({ destination }) => contains(destination, address)),
  );
}

/** Of name servers that are asked outside the tunnel, and of those that the switch makes dumb. */
export function nameServerWarnings(
  settings: HostSettings,
  facts: Pick<Facts, 'routes4' | 'routes6'>,
  isEverything: boolean,
): readonly string[] {
  const { tun, routes, peerIp, peerIp6, killSwitch, dns = [], naming } = settings;
  const behind = [...routes, peerIp, peerIp6].filter((network) => network !== '');
  const outside = isEverything
    ? onOwnNetworks(dns, facts, tun)
    : dns.filter((address) => !behind.some((network) => contains(network, address)));
  const warnings = outside.map((one) => `name server ${one}: not reached through the tunnel`);
  if (!killSwitch || dns.length > 0) return warnings;
  const held = onOwnNetworks(naming?.servers ?? [], facts, tun).join(', ');
  if (held === '') return warnings;
  return [`the kill switch holds up the name server ${held}: give another with --dns`];
}
