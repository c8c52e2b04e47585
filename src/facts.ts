/**
 * Facts about the host, read before anything is changed: what is there, what is taken.
 *
 * Commands are those of `Platform.probes`; a probe that fails counts as "not there". Only reading
 * and parsing here: what follows from a fact is decided in situation.ts.
 */
import { readFileSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { PROBES } from './os.ts';
import type { Platform, ProbeName } from './os.ts';
import { commandLine } from './rules.ts';
import type { Runner } from './rules.ts';

/** A default route of table main. */
export interface DefaultRoute {
  readonly device: string;
  /** '' on a point-to-point device. */
  readonly gateway: string;
  readonly metric: number;
  /** Learnt from a router advertisement by the kernel. */
  readonly advertised: boolean;
}

/** A way to some addresses. */
export interface Route {
  readonly table: number;
  /** 'default', or an address with or without a prefix length. */
  readonly destination: string;
  readonly device: string;
  /** '' where the destination is on the device's own network. */
  readonly gateway: string;
  /** The gateway need not be on a network of the device. */
  readonly isOnlink: boolean;
  readonly metric: number;
  /** The address packets leave from; '' where the kernel chooses. */
  readonly source: string;
}

/** A base chain of nft through which forwarded packets go. */
export interface ForwardChain {
  /** 'ip', 'ip6' or 'inet'. */
  readonly family: string;
  readonly table: string;
  readonly chain: string;
}

export interface PolicyRule {
  /** Holds for what does not match. */
  readonly isInverted: boolean;
  readonly preference: number;
  readonly mark: number;
  readonly mask: number;
  readonly table: number;
  /** An address with or without a prefix length; '' for any. */
  readonly source: string;
  /** Looks at nothing but the source, and leads to the whole table. */
  readonly isPlain: boolean;
}

export interface Facts {
  /** Address, without prefix length, to the interface that holds it. */
  readonly addresses: ReadonlyMap<string, string>;
  readonly rules: readonly PolicyRule[];
  readonly chains: readonly ForwardChain[];
  /** iptables writes into nft's table "filter" (iptables-nft). */
  readonly isIptablesNft: boolean;
  /** Tables with at least one route, either family. */
  readonly tables: ReadonlySet<number>;
  /** Best first. */
  readonly defaults4: readonly DefaultRoute[];
  readonly defaults6: readonly DefaultRoute[];
  /** Of all tables, a line for each next hop. */
  readonly routes4: readonly Route[];
  readonly routes6: readonly Route[];
  /** Which probes succeeded: 'raw4', 'nat6', … */
  readonly present: ReadonlySet<ProbeName>;
  /** Why the others did not, for a warning. */
  readonly reasons: ReadonlyMap<ProbeName, string>;
  /** The kernel has IPv6 at all (not ipv6.disable=1). */
  readonly hasIpv6: boolean;
  /** IPv6 forwarding is off, and cannot be switched on. */
  readonly cannotForward6?: boolean;
  /** Interfaces on which the kernel takes router advertisements and has a default route from one. */
  readonly advertisedInterfaces: readonly string[];
  /** A system that never takes IPv6 away from a single device. */
  readonly ipv6OnEveryDevice?: true;
  /** It has one routing table: what is forwarded leaves by the default route. */
  readonly oneTable?: true;
  /** What to do where a probe failed, if it is not to install Linux's tools. */
  readonly remedies?: { readonly addresses: string; readonly nat: string };
}

const NOTHING: Omit<Facts, 'present' | 'reasons'> = {
  addresses: new Map(),
  rules: [],
  chains: [],
  isIptablesNft: false,
  tables: new Set(),
  defaults4: [],
  defaults6: [],
  routes4: [],
  routes6: [],
  hasIpv6: false,
  advertisedInterfaces: [],
};

type Json = Readonly<Record<string, unknown>>;

/** The objects of a JSON array, [] for anything else: ip(8) prints nothing for an empty list. */
function objects(text: string): readonly Json[] {
  try {
    const parsed: unknown = JSON.parse(text);
    if (!Array.isArray(parsed)) return [];
    return parsed.filter((one): one is Json => typeof one === 'object' && one !== null);
  } catch {
    return [];
  }
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const number = (value: unknown, otherwise: number): number => {
  const result = typeof value === 'number' ? value : Number(text(value) === '' ? NaN : value);
  return Number.isInteger(result) ? result : otherwise;
};

/** RT_TABLE_MAIN, RTPROT_RA, RTN_UNICAST (rtnetlink(7)): the probes ask ip(8) for numbers. */
const TABLE_MAIN = 254;
const PROTOCOL_ADVERTISEMENT = 9;
const UNICAST = 1;

/** What else a policy rule may look at, or lead to, as ip-rule(8) prints it; the mark is told apart. */
const CONDITIONS = [
  ...['not', 'iif', 'oif', 'tos', 'ipproto', 'sport', 'sport_start', 'dport', 'dport_start'],
  ...['uid_start', 'tun_id', 'l3mdev', 'goto', 'action', 'suppress_prefixlen'],
];

/** Parses `ip -N -j rule show`. */
export function parseRules(json: string): readonly PolicyRule[] {
  return objects(json).map((rule) => {
    const source = text(rule.src);
    const isAny = source === '' || source === 'all';
    return {
      isInverted: 'not' in rule,
      preference: number(rule.priority, 0),
      mark: number(rule.fwmark, 0),
      mask: number(rule.fwmask, 0xffffffff),
      table: number(rule.table, 0),
      source: isAny ? '' : `${source}${'srclen' in rule ? `/${number(rule.srclen, 0)}` : ''}`,
      isPlain:
        number(rule.fwmark, 0) === 0 &&
        ['', 'all'].includes(text(rule.dst)) &&
        CONDITIONS.every((name) => !(name in rule)),
    };
  });
}

/** Parses `ip -N -j route show table all`. */
export function parseRoutes(json: string): {
  readonly tables: ReadonlySet<number>;
  readonly defaults: readonly DefaultRoute[];
  readonly routes: readonly Route[];
} {
  const tables = new Set<number>();
  const defaults: DefaultRoute[] = [];
  const routes: Route[] = [];
  for (const route of objects(json)) {
    const table = number(route.table, TABLE_MAIN);
    tables.add(table);
    if (number(route.type, UNICAST) !== UNICAST) continue;
    const hops = Array.isArray(route.nexthops) ? objects(JSON.stringify(route.nexthops)) : [route];
    const found = hops.map((hop) => hopOf(table, route, hop));
    routes.push(...found);
    if (table !== TABLE_MAIN || text(route.dst) !== 'default') continue;
    // Several next hops (multipath): any of them says that there is a way out.
    const [{ device, gateway, metric } = { device: '', gateway: '', metric: 0 }] = found;
    const advertised = number(route.protocol, 0) === PROTOCOL_ADVERTISEMENT;
    defaults.push({ device, gateway, metric, advertised });
  }
  defaults.sort((a, b) => a.metric - b.metric);
  return { tables, defaults, routes };
}

function hopOf(table: number, route: Json, hop: Json): Route {
  const via = typeof hop.via === 'object' && hop.via !== null ? (hop.via as Json) : undefined;
  return {
    table,
    destination: text(route.dst),
    device: text(hop.dev),
    gateway: text(hop.gateway) || text(via?.host),
    isOnlink: Array.isArray(hop.flags) && hop.flags.includes('onlink'),
    metric: number(route.metric, 0),
    source: text(route.prefsrc),
  };
}

/** Accepting in front of these could skip what others do there (MSS clamps, marks). */
const PRIORITY_MANGLE = -150;

/** Parses `nft -y list chains` (text, for not every nft has JSON): where forwarded packets may be dropped. */
export function parseChains(text: string): readonly ForwardChain[] {
  const chains: ForwardChain[] = [];
  let [family, table, chain] = ['', '', ''];
  for (const line of text.split('\n')) {
    [, family = family, table = table] = /^table (\w+) (\S+)/.exec(line) ?? [];
    [, chain = chain] = /^\tchain (\S+)/.exec(line) ?? [];
    const [, priority] = /^\t\ttype filter hook forward priority (-?\d+);/.exec(line) ?? [];
    if (priority === undefined || Number(priority) <= PRIORITY_MANGLE) continue;
    if (['ip', 'ip6', 'inet'].includes(family)) chains.push({ family, table, chain });
  }
  return chains;
}

/** Parses `ip -N -j address show`. */
export function parseAddresses(json: string): ReadonlyMap<string, string> {
  const holders = new Map<string, string>();
  for (const device of objects(json)) {
    for (const address of objects(JSON.stringify(device.addr_info ?? []))) {
      holders.set(text(address.local), text(device.ifname));
    }
  }
  return holders;
}

/** One spelling for each address, so that they can be compared: RFC 5952. */
export function canonicalAddress(address: string): string {
  if (!isIPv6(address)) return address;
  return new URL(`http://[${address.split('%')[0] ?? ''}]/`).hostname.slice(1, -1);
}

const FORWARDING6 = 'net/ipv6/conf/all/forwarding';

/** Reads everything, one command after the other; with `isSwitched` what a kill switch depends on, too. */
export async function readFacts(
  platform: Platform,
  runner: Runner,
  isSwitched = false,
): Promise<Facts> {
  const probes = isSwitched ? { ...platform.probes, ...platform.switchProbes } : platform.probes;
  const output = new Map<ProbeName, string>();
  const reasons = new Map<ProbeName, string>();
  for (const name of PROBES) {
    const command = probes[name];
    if (command === undefined) continue;
    const first = platform.instead[name];
    if (first !== undefined && output.has(first)) continue;
    const argv = command.split(' ');
    const outcome = await runner.run(argv);
    if (outcome.status === 0) output.set(name, outcome.stdout);
    else reasons.set(name, `"${commandLine(argv)}" ${outcome.reason}`);
  }
  const of = (name: ProbeName): string => output.get(name) ?? '';
  const present = new Set(output.keys());
  if (platform.facts !== undefined) {
    return { ...NOTHING, present, reasons, ...platform.facts(output, reasons) };
  }
  const four = parseRoutes(of('routes4'));
  const six = parseRoutes(of('routes6'));
  const value = (name: string): number => Number(runner.readSysctl(name) ?? 0);
  return {
    addresses: parseAddresses(of('addresses')),
    rules: [...parseRules(of('rules4')), ...parseRules(of('rules6'))],
    chains: parseChains(of('chains')),
    isIptablesNft: of('iptables').includes('nf_tables'),
    tables: new Set([...four.tables, ...six.tables]),
    defaults4: four.defaults,
    defaults6: six.defaults,
    routes4: four.routes,
    routes6: six.routes,
    present,
    reasons,
    hasIpv6: runner.readSysctl('net/ipv6/conf/all/disable_ipv6') !== undefined,
    cannotForward6:
      value(FORWARDING6) === 0 &&
      runner.canWriteSysctl !== undefined &&
      !runner.canWriteSysctl(FORWARDING6),
    advertisedInterfaces: [
      ...new Set(six.defaults.filter((route) => route.advertised).map((route) => route.device)),
    ].filter((device) => value(`net/ipv6/conf/${device}/accept_ra`) === 1),
  };
}

/** What of the facts the ways of links follow from, as it is now. Failing commands find nothing. */
export async function readWays(
  { probes }: Platform,
  runner: Runner,
): Promise<Pick<Facts, 'addresses' | 'rules' | 'routes4' | 'routes6'>> {
  const ask = async (name: ProbeName): Promise<string> => {
    const command = probes[name];
    if (command === undefined) return '';
    const outcome = await runner.run(command.split(' '));
    return outcome.status === 0 ? outcome.stdout : '';
  };
  const rules = async (name: ProbeName) => parseRules(await ask(name));
  return {
    addresses: parseAddresses(await ask('addresses')),
    rules: [...(await rules('rules4')), ...(await rules('rules6'))],
    routes4: parseRoutes(await ask('routes4')).routes,
    routes6: parseRoutes(await ask('routes6')).routes,
  };
}

/** The policy rules of both families as they are now. */
export async function readRules(
  platform: Platform,
  runner: Runner,
): Promise<readonly PolicyRule[]> {
  const rules: PolicyRule[] = [];
  for (const name of ['rules4', 'rules6'] as const) {
    const command = platform.probes[name];
    if (command === undefined) continue;
    const outcome = await runner.run(command.split(' '));
    if (outcome.status === 0) rules.push(...parseRules(outcome.stdout));
  }
  return rules;
}

/** Whether addresses can be given to `tun`: IPv6 can be off for new devices only, or for all. */
export function isIpv6Usable(runner: Runner, tun: string): boolean {
  const own = runner.readSysctl(`net/ipv6/conf/${tun}/disable_ipv6`);
  return (own ?? runner.readSysctl('net/ipv6/conf/default/disable_ipv6') ?? '1') === '0';
}

/** The inode of this process's network namespace, 0 where there are no namespaces. */
export function netnsInode(): number {
  try {
    return statSync('/proc/self/ns/net').ino;
  } catch {
    return 0;
  }
}

/** '' where the system has none: then no journal is taken for one from before a reboot. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}

/** The first PID namespace (PROC_PID_INIT_INO): from elsewhere not all processes are seen. */
const FIRST_PID_NAMESPACE = 0xeffffffc;

/**
 * Whether a network namespace is certainly gone: no process is in it, none holds it open, and it is
 * mounted nowhere (`ip netns`, containers). Cookies cannot be listed without entering each
 * namespace, so this goes by inode: one that is used again looks alive, and its journal is kept.
 */
export function isNamespaceGone(inode: number): boolean {
  try {
    if (statSync('/proc/self/ns/pid').ino !== FIRST_PID_NAMESPACE) return false;
    if (process.geteuid?.() !== 0) return false;
  } catch {
    return false;
  }
  const name = `net:[${inode}]`;
  // What ends meanwhile holds nothing any more; what may not be read might.
  const holds = (read: () => boolean): boolean => {
    try {
      return read();
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : '';
      return !['ENOENT', 'ESRCH', 'EINVAL'].includes(code);
    }
  };
  return !readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .some(
      (pid) =>
        holds(() => readlinkSync(`/proc/${pid}/ns/net`) === name) ||
        holds(() => readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes(` ${name} `)) ||
        holds(() =>
          readdirSync(`/proc/${pid}/fd`).some((fd) =>
            holds(() => readlinkSync(`/proc/${pid}/fd/${fd}`) === name),
          ),
        ),
    );
}
