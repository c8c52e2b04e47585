/**
 * What a program may have changed on a host, in a form that can be compared: before equals after.
 *
 * Left aside, because nothing follows from it: counters, and the empty tables and chains that
 * iptables-nft makes when it is first asked.
 */
import { inPath, type Host } from './netns.ts';

export type HostState = Readonly<Record<string, string>>;

/** Sysctls that change by themselves. */
const RESTLESS = /conntrack_count|nf_conntrack_events|neigh\..*\.(gc|unres)|\.stat_|icmp.*token/;

const RESOLVER = ['sh', '-c', 'stat -Lc "%i %Y %a %u" /etc/resolv.conf; cat /etc/resolv.conf'];

export function hostState(host: Host): HostState {
  const state: Record<string, string> = {
    addresses: lines(host.run('ip -br address')),
    links: lines(host.run('ip -o link')).replaceAll(/ (group|state|mode) \S+/g, ''),
    'IPv4 rules': host.run('ip -4 rule'),
    'IPv6 rules': host.run('ip -6 rule'),
    'IPv4 routes': sorted(host.run('ip -4 route show table all')),
    'IPv6 routes': sorted(host.run('ip -6 route show table all')),
    iptables: tables(host.try(['iptables-save']).stdout),
    ip6tables: tables(host.try(['ip6tables-save']).stdout),
    sysctls: sorted(host.try(['sysctl', '-a', '--pattern', '^net\\.']).stdout, RESTLESS),
    // With what tells a file that was written anew from one that was left alone.
    'resolv.conf': host.try(RESOLVER).stdout,
  };
  for (const legacy of ['iptables-legacy', 'ip6tables-legacy'])
    if (inPath(legacy)) state[legacy] = tables(host.try([`${legacy}-save`]).stdout);
  if (inPath('nft')) state['nft'] = nft(host.try(['nft', '-j', 'list', 'ruleset']).stdout);
  return state;
}

const lines = (text: string): string => text.replaceAll(/ +$/gm, '');

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

function nft(json: string): string {
  if (json.trim() === '') return '';
  const { nftables } = JSON.parse(json) as { readonly nftables: readonly NftObject[] };
  const kept = nftables.filter((object) => {
    if (object.metainfo !== undefined || object.table !== undefined) return false;
    const { chain } = object;
    if (chain === undefined) return true;
    // Empty base chains that accept are what iptables-nft leaves behind; a chain with rules shows by them.
    return chain.type === undefined || chain.policy === 'drop';
  });
  return kept
    .map((object) =>
      JSON.stringify(object)
        .replaceAll(/"handle":\d+,?/g, '')
        .replaceAll(/"(packets|bytes)":\d+/g, '"$1":0'),
    )
    .join('\n');
}

/** What differs, one line per entry: "- " was there before, "+ " came. Empty when nothing differs. */
export function difference(before: HostState, after: HostState): string[] {
  return Object.keys({ ...before, ...after }).flatMap((part) => {
    const old = (before[part] ?? '').split('\n');
    const now = (after[part] ?? '').split('\n');
    return [
      ...old.filter((line) => !now.includes(line)).map((line) => `${part}: - ${line}`),
      ...now.filter((line) => !old.includes(line)).map((line) => `${part}: + ${line}`),
      ...(old.length !== now.length ? [`${part}: ${old.length} lines became ${now.length}`] : []),
    ];
  });
}
