/**
 * What macOS and the BSDs have in common: ifconfig(8), route(8), sysctl(8), and how they tell of
 * failures. Link sockets have no mark here: routes to the server's addresses keep them out of the
 * tunnel, and the tunnel has the two halves of everything, so that the default route stays as it is.
 */
import type { Facts } from '../facts.ts';
import type { Outcome, Runner } from '../rules.ts';
import { defaultsOf, parseIfconfig, parseNetstat, routeTo } from './netstat.ts';
import { SettingError, type Setting } from './pf.ts';
import { pointToPoint } from './platform.ts';
import type { Platform, ProbeName, Row } from './platform.ts';

/** A row that makes something. */
type Made = Extract<Row, { readonly up: string }> & { readonly down: string };

/** A route to a network by way of the peer, which is the other end of the device. */
function route(need: string, family: '-inet' | '-inet6', network: string, peer: string): Made {
  const words = `${family} -net ${network} ${peer}`;
  return { need, up: `route -n add ${words}`, down: `route -n delete ${words}` };
}

/** A network that cannot be reached. */
function refused(need: string, network: string): Made {
  const words = `-inet6 -net ${network} ::1`;
  return {
    need,
    up: `route -n add ${words} -reject`,
    down: `route -n delete ${words} -reject`,
    once: true,
  };
}

const reverted = (need: string, row: Made): Row => ({ need, revert: row.down });

/** `$LOCAL6` and `$PEER6` have one value each, or none. */
export const device: readonly Row[] = [
  { need: 'tun', up: 'ifconfig $TUN inet $LOCAL $PEER netmask 255.255.255.255 mtu $MTU up' },
  { need: 'ipv6 tun', up: 'ifconfig $TUN inet6 $LOCAL6 $PEER6 prefixlen 128' },
  { need: 'tap', up: 'ifconfig $TUN inet $ON_LINK4 mtu $MTU up' },
  { need: 'ipv6 tap', up: 'ifconfig $TUN inet6 $ON_LINK6' },
];

/** The device stays when its descriptor is closed; the addon then removes it (TunClose). */
export const ownDevice: readonly Row[] = [
  { down: 'ifconfig $TUN destroy', ifDead: true },
  ...device,
];

export const networksOfServer: readonly Row[] = [
  route('', '-inet', '$NET4', '$PEER'),
  route('ipv6', '-inet6', '$NET6', '$PEER6'),
];

export const forwarding: readonly Row[] = pointToPoint
  ? []
  : [
      { need: 'default ipv6-forward', sysctl: 'net/inet6/ip6/forwarding', value: '1' },
      { need: 'default', sysctl: 'net/inet/ip/forwarding', value: '1' },
    ];

/** More specific than the halves, so that one or the other is there at every moment. */
const QUARTERS = ['::/2', '4000::/2', '8000::/2', 'c000::/2'].map((network) =>
  refused('everything route6 blocked6', network),
);
const BLOCKED_NETWORKS = refused('split route6 blocked6', '$NET6');
const NETWORKS: Made = {
  ...route('split route6 through6', '-inet6', '$NET6', '$PEER6'),
  once: true,
};

const everySession: readonly Row[] = [
  ...(pointToPoint
    ? []
    : [...QUARTERS, ...QUARTERS.map((row) => reverted('everything route6 through6', row))]),
  // One and the same network: there is a moment between the two.
  reverted('split route6 through6', BLOCKED_NETWORKS),
  reverted('split route6 blocked6', NETWORKS),
  BLOCKED_NETWORKS,
  NETWORKS,
];

const enter: readonly Row[] = [
  route('split route4', '-inet', '$NET4', '$PEER'),
  ...(pointToPoint
    ? []
    : [
        route('everything route6 ipv6', '-inet6', '::/1', '$PEER6'),
        route('everything route6 ipv6', '-inet6', '8000::/1', '$PEER6'),
        route('everything', '-inet', '0.0.0.0/1', '$PEER'),
        route('everything', '-inet', '128.0.0.0/1', '$PEER'),
      ]),
];

/** `byDevice`: the word for a route that leads to a device and not to a gateway. */
function reach(byDevice: string): readonly Row[] {
  const row = (need: string, family: string, server: string, way: string): Row => ({
    need,
    up: `route -n add ${family} -host ${server} ${way}`,
    down: `route -n delete ${family} -host ${server}`,
    once: true,
  });
  return [
    row('route4', '-inet', '$SERVER4', '$VIA'),
    row('route4', '-inet', '$SERVER4', `${byDevice} $VIA_IF`),
    row('route6', '-inet6', '$SERVER6', '$VIA'),
    row('route6', '-inet6', '$SERVER6', `${byDevice} $VIA_IF`),
  ];
}

const parsed = (output: ReadonlyMap<ProbeName, string>, family: 4 | 6) =>
  parseNetstat(output.get(family === 4 ? 'routes4' : 'routes6') ?? '', family);

export function wayTo(
  server: string,
  tun: string,
  output: ReadonlyMap<ProbeName, string>,
): { readonly gateway: string; readonly device: string } | undefined {
  const found = routeTo(parsed(output, server.includes(':') ? 6 : 4), server, tun);
  // A network of this host's is more specific than the halves.
  if (found === undefined || (found.gateway === '' && found.bits > 0)) return undefined;
  return { gateway: found.gateway, device: found.device };
}

/** Whether a server can translate, and why not. */
interface Nat {
  readonly probe: string;
  /** What its output has in it where translation works. */
  readonly shows: RegExp;
  readonly remedy: string;
  readonly hasIpv6: boolean;
}

/** Which probes hold: that of `nat4` stands for all of the firewall; the rest is there wherever this is. */
function facts(
  output: ReadonlyMap<ProbeName, string>,
  reasons: ReadonlyMap<ProbeName, string>,
  nat: Nat,
): Partial<Facts> {
  const present = new Set<ProbeName>(output.keys());
  const why = new Map(reasons);
  for (const name of ['raw4', 'raw6', 'rules4'] as const) present.add(name);
  if (nat.shows.test(output.get('nat4') ?? '')) {
    for (const name of ['filter4', 'filter6'] as const) present.add(name);
    if (nat.hasIpv6) present.add('nat6');
    else why.set('nat6', 'this firewall has none');
  } else if (present.delete('nat4')) {
    why.set('nat4', `"${nat.probe}" does not say what it should`);
  }
  const addresses = parseIfconfig(output.get('addresses') ?? '');
  // A kernel without IPv6 has no address of it, not even on lo0.
  const hasIpv6 = [...addresses.keys()].some((address) => address.includes(':'));
  if (hasIpv6) present.add('rules6');
  return {
    addresses,
    present,
    defaults4: defaultsOf(parsed(output, 4)),
    defaults6: defaultsOf(parsed(output, 6)),
    hasIpv6,
    ipv6OnEveryDevice: true,
    oneTable: true,
    reasons: why,
    remedies: { addresses: 'check PATH', nat: nat.remedy },
  };
}

/** macOS' route(8) ends with 0 whatever happened (route.c, newroute); so did older ones of the BSDs. */
const REFUSAL = /^route: writing to routing socket: (.*)$/m;
/** What pfctl(8) says of itself before what it says of the failure. */
const REMARK =
  /^(No ALTQ support in kernel|ALTQ related functions disabled|pfctl: Use of -f option.*|present in the main ruleset.*|See \/etc\/pf\.conf.*)?$/;

function judged(outcome: Outcome): Outcome {
  const stderr = outcome.stderr
    .split('\n')
    .filter((line) => !REMARK.test(line.trim()))
    .map((line) => `${line}\n`)
    .join('');
  const [, why] = REFUSAL.exec(outcome.stderr) ?? [];
  if (outcome.status === 0 && why !== undefined) {
    return { ...outcome, stderr, status: 1, reason: `failed: ${why}`, refused: true };
  }
  const [said] = stderr.split('\n');
  const reason = outcome.reason.replace(/^(exited with \d+)(: .*)?$/, (_, exit: string) =>
    said === undefined || said === '' ? exit : `${exit}: ${said.trim()}`,
  );
  return { ...outcome, stderr, reason };
}

/** `settings`: what is no sysctl, but written as one in the tables. */
function adapt(runner: Runner, settings: Readonly<Record<string, Setting>>): Runner {
  const dotted = (name: string): string => name.replaceAll('/', '.');
  const adapted: Runner = {
    run: async (argv, io) => judged(await runner.run(argv, io)),
    runSync: (argv, io) => judged(runner.runSync(argv, io)),
    readSysctl: (name) => {
      const setting = settings[name];
      if (setting !== undefined) return setting.read(adapted);
      const { status, stdout } = runner.runSync(['sysctl', '-n', dotted(name)]);
      return status === 0 ? stdout.trim() : undefined;
    },
    writeSysctl: (name, value) => {
      const setting = settings[name];
      if (setting !== undefined) return setting.write(adapted, value);
      const outcome = adapted.runSync(['sysctl', '-w', `${dotted(name)}=${value}`]);
      if (outcome.status !== 0) throw new SettingError(outcome);
    },
    listSysctls: (pattern) => [pattern],
    sysctlLine: (name, value) =>
      settings[name]?.line(value) ?? `sysctl -w ${dotted(name)}=${value}`,
  };
  return adapted;
}

/** stderr of these tools when what they are to take back is not there. */
const ABSENT =
  /not in table|No such process|does not exist|No such (file|device)|Device not configured|Anchor .*not found|pf not enabled/;

interface System {
  readonly tun: Platform['tun'];
  readonly tap?: Platform['tun'];
  readonly bootId: string;
  /** route(8)'s word for a route to a device. */
  readonly byDevice: string;
  readonly device: readonly Row[];
  /** Between the device and forwarding. */
  readonly firewall: readonly Row[];
  readonly nat: Nat;
  readonly settings: Readonly<Record<string, Setting>>;
}

export function bsdPlatform(system: System): Platform {
  const { nat, settings } = system;
  return {
    tun: system.tun,
    ...(system.tap === undefined ? {} : { tap: system.tap }),
    hasOffload: false,
    probes: {
      addresses: 'ifconfig -a',
      routes4: 'netstat -rn -f inet',
      routes6: 'netstat -rn -f inet6',
      nat4: nat.probe,
    },
    instead: {},
    server: [
      ...system.device,
      ...networksOfServer,
      ...(pointToPoint ? [] : system.firewall),
      ...forwarding,
    ],
    client: system.device,
    connected: [],
    everySession,
    enter,
    refresh: [],
    reach: reach(system.byDevice),
    wayTo,
    facts: (output, reasons) => facts(output, reasons, nat),
    adapt: (runner) => adapt(runner, settings),
    bootId: system.bootId,
    absent: ABSENT,
  };
}
