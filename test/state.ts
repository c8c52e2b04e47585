/**
 * What a program may have changed on a host, in a form that can be compared: before equals after.
 *
 * Left aside, because nothing follows from it: counters, and the tables and empty chains that iptables-nft
 * makes when it is first asked. A table of anybody else counts, also an empty one.
 */
import type { Host } from './netns.ts';

export type HostState = Readonly<Record<string, string>>;

/** Sysctls that change by themselves. */
const RESTLESS = /conntrack_count|nf_conntrack_events|neigh\..*\.(gc|unres)|\.stat_|icmp.*token/;

/** What is looked at, as lines of sh(1). All in one go: a state is taken several times by most tests. */
const MUST = {
  addresses: 'ip -br address',
  links: 'ip -o link',
  'IPv4 rules': 'ip -4 rule',
  'IPv6 rules': 'ip -6 rule',
  'IPv4 routes': 'ip -4 route show table all',
  'IPv6 routes': 'ip -6 route show table all',
} as const;
/** The same, which not every host can tell. */
const MAY = {
  iptables: 'iptables-save',
  ip6tables: 'ip6tables-save',
  'iptables-legacy': 'iptables-legacy-save',
  'ip6tables-legacy': 'ip6tables-legacy-save',
  nft: 'nft -j list ruleset',
  // What sysctl -a prints, in half of its time.
  sysctls: 'grep -r "" /proc/sys/net',
  // With what tells a file that was written anew from one that was left alone.
  'resolv.conf': 'stat -Lc "%i %Y %a %u" /etc/resolv.conf; cat /etc/resolv.conf',
} as const;
const SCRIPT = [
  'set -e',
  ...Object.values(MUST).map((line) => `${line}; printf "\\0"`),
  ...Object.values(MAY).map((line) => `{ ${line}; } 2>/dev/null || :; printf "\\0"`),
].join('\n');
const PARTS = [...Object.keys(MUST), ...Object.keys(MAY)];

type Part = keyof typeof MUST | keyof typeof MAY;
const READ: Readonly<Record<Part, (text: string) => string>> = {
  addresses: lines,
  links: (text) => lines(text).replaceAll(/ (group|state|mode) \S+/g, ''),
  'IPv4 rules': (text) => text,
  'IPv6 rules': (text) => text,
  'IPv4 routes': sorted,
  'IPv6 routes': sorted,
  iptables: tables,
  ip6tables: tables,
  'iptables-legacy': tables,
  'ip6tables-legacy': tables,
  nft,
  sysctls: (text) => sorted(sysctls(text), RESTLESS),
  'resolv.conf': (text) => text,
};

export function hostState(host: Host): HostState {
  const texts = host.run('sh', '-c', SCRIPT).split('\0');
  return Object.fromEntries(PARTS.map((part, i) => [part, READ[part as Part](texts[i]!)]));
}

/** `/proc/sys/net/ipv4/conf/eth0.5/rp_filter:1` as sysctl(8) has it, `net.ipv4.conf.eth0/5.rp_filter = 1`. */
function sysctls(text: string): string {
  return text.replaceAll(/^\/proc\/sys\/([^:]*):/gm, (_, path: string) => {
    const name = path.replaceAll(/[./]/g, (letter) => (letter === '/' ? '.' : '/'));
    return `${name} = `;
  });
}

function lines(text: string): string {
  return text.replaceAll(/ +$/gm, '');
}

function sorted(text: string, without = /^$/): string {
  return text
    .split('\n')
    .filter((line) => line !== '' && !without.test(line))
    .map((line) => line.replace(/ expires \S+/, '').trim())
    .sort()
    .join('\n');
}

/** iptables-save without comments, counters, and tables in which nothing is set. */
function tables(text: string): string {
  const kept: string[] = [];
  let table: string[] = [];
  for (const raw of text.split('\n')) {
    const line = raw.replace(/ ?\[\d+:\d+\]/, '');
    if (line.startsWith('*')) table = [line];
    // A built-in chain with policy ACCEPT is there as soon as anybody looked.
    else if (line === 'COMMIT') kept.push(...(table.length > 1 ? table : []));
    else if (line !== '' && !line.startsWith('#') && !/^:[A-Z]+ ACCEPT$/.test(line))
      table.push(line);
  }
  return kept.join('\n');
}

interface NftObject {
  readonly table?: { readonly family: string; readonly name: string };
  readonly chain?: {
    readonly family: string;
    readonly table: string;
    readonly name: string;
    readonly type?: string;
    readonly policy?: string;
    handle?: number;
  };
  readonly rule?: { readonly chain: string; readonly table: string; handle?: number };
  readonly set?: unknown;
  readonly metainfo?: unknown;
}

/** As iptables(8) names them. */
const IPTABLES = ['filter', 'nat', 'mangle', 'raw', 'security'];

function isOfIptables(family: string, table: string): boolean {
  return ['ip', 'ip6'].includes(family) && IPTABLES.includes(table);
}

function nft(json: string): string {
  if (json.trim() === '') return '';
  const { nftables } = JSON.parse(json) as { readonly nftables: readonly NftObject[] };
  const kept = nftables.filter(({ metainfo, table, chain }) => {
    if (table !== undefined) return !isOfIptables(table.family, table.name);
    // One with rules shows by them.
    if (chain !== undefined && isOfIptables(chain.family, chain.table))
      return chain.type === undefined || chain.policy === 'drop';
    return metainfo === undefined;
  });
  return kept
    .map((object) =>
      JSON.stringify(object)
        .replaceAll(/"handle":\d+,?/g, '')
        .replaceAll(/"(packets|bytes)":\d+/g, '"$1":0'),
    )
    .join('\n');
}

/**
 * What differs, one line per entry: "- " was there before, "+ " came, "~ " is at another place among those
 * that stayed. Empty when nothing differs.
 */
export function difference(before: HostState, after: HostState): string[] {
  return Object.keys({ ...before, ...after }).flatMap((part) =>
    changes(entries(before[part]), entries(after[part])).map((line) => `${part}: ${line}`),
  );
}

function entries(text = ''): readonly string[] {
  return text.split('\n').filter((line) => line !== '');
}

function changes(old: readonly string[], now: readonly string[]): string[] {
  const stayed = without(old, without(old, now));
  const order = without(now, without(now, old));
  const moved = order.find((line, place) => line !== stayed[place]);
  return [
    ...without(old, now).map((line) => `- ${line}`),
    ...without(now, old).map((line) => `+ ${line}`),
    ...(moved === undefined ? [] : [`~ ${moved}`]),
  ];
}

/** What `others` do not have, each as often as they lack it. */
function without(all: readonly string[], others: readonly string[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const line of others) counts.set(line, (counts.get(line) ?? 0) + 1);
  return all.filter((line) => {
    const count = counts.get(line) ?? 0;
    counts.set(line, count - 1);
    return count <= 0;
  });
}
