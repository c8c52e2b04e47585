/**
 * What differs from system to system, as data: how a tun device is made, what is changed on a host
 * and how each change is taken back, how facts are read. doc/host.md explains the tables.
 *
 * Nothing is run here (`rules.ts` does that) and nothing is decided: a row whose `need` is not met,
 * or whose list variable has no value, is left out. Adding a system is adding a `Platform`.
 */
import type { Handle, Native } from './native.ts';

/** One change to the host, and how it is taken back. */
export type Row =
  | {
      /** Facts (`Situation.needs`), all of which must hold, separated by spaces. */
      readonly need?: string;
      /** Words split at spaces, `$NAME` replaced within each word, run without a shell. */
      readonly up: string;
      /** Absent when the change disappears with the tun device or with a row above. */
      readonly down?: string;
    }
  | {
      readonly need?: string;
      /** Takes back what rows below do. */
      readonly down: string;
      readonly up?: never;
    }
  | {
      readonly need?: string;
      /** Set while an instance runs; the value found before is put back. Path below /proc/sys. */
      readonly sysctl: string;
      readonly value: string;
      /** What the kernel changes along with it (`*`: any one name), put back as well. */
      readonly beside?: readonly string[];
      /** A host that refuses this one still works, maybe: one warning. */
      readonly optional?: true;
    };

export interface Platform {
  /** Creates the tun device; '' lets the kernel choose its name. Throws. */
  tunCreate(
    native: Native,
    name: string,
    offload: boolean,
  ): { readonly handle: Handle; readonly name: string; readonly offload: boolean };
  /** Commands that read facts; facts.ts parses them. A failing one counts as "not there". */
  readonly probes: Readonly<Record<ProbeName, string>>;
  readonly server: readonly Row[];
  readonly client: readonly Row[];
  /** Client, once a session is up. */
  readonly connected: readonly Row[];
  /** Client, then and after every new session: safe to repeat, never a moment without a route of ours. */
  readonly everySession: readonly Row[];
  /** Client, last, once: from here on packets take the routes. */
  readonly enter: readonly Row[];
  /** stderr of an undo whose change is gone already. */
  readonly absent: RegExp;
}

export const PROBES = [
  'addresses',
  'rules4',
  'rules6',
  'routes4',
  'routes6',
  'filter4',
  'filter6',
  'raw4',
  'raw6',
  'mangle4',
  'mangle6',
  'nat4',
  'nat6',
] as const;
export type ProbeName = (typeof PROBES)[number];

/** The variables of the tables that have one value. */
export const SCALARS = [
  'TUN',
  'MTU',
  'LOCAL',
  'PEER',
  'MARK',
  'MARKS',
  'TABLE',
  'TABLE_OUT',
  'PREF',
  'PREF_MAIN',
  'PREF_OUT',
  'TAG',
] as const;
/** Those with any number of values: a row stands for one row each, none for none. */
export const LISTS = [
  'LOCAL6',
  'PEER6',
  'NET4',
  'NET6',
  'EXT_IF',
  'EXT_VIA',
  'EXT4',
  'EXT6',
  'GATEWAY4',
  'GATEWAY6',
  'RA_IF',
] as const;

/** Replaced by esbuild: the tables of the other variant are then not in the bundle. */
export const pointToPoint = process.env.NO_DEFAULT_ROUTES === '1';

/** An inserted firewall line; its undo is the same command with one word changed. */
function inserted(need: string, up: string): Row {
  return { need, up, down: up.replace(' -I ', ' -D ') };
}

const COMMENT = '-m comment --comment vpn:$TAG';
/** The xtables lock is waited for, but not longer than a command may take (rules.ts). */
const IPTABLES = 'iptables -w 4';
const IP6TABLES = 'ip6tables -w 4';
const SYN = '-p tcp --tcp-flags SYN,RST SYN';

const linuxDevice: readonly Row[] = [
  // CVE-2019-14899: whoever shares a network with this host could otherwise probe the inner address.
  inserted(
    'raw4',
    `${IPTABLES} -t raw -I PREROUTING ! -i $TUN -d $LOCAL -m addrtype ! --src-type LOCAL ${COMMENT} -j DROP`,
  ),
  inserted(
    'raw6 ipv6',
    `${IP6TABLES} -t raw -I PREROUTING ! -i $TUN -d $LOCAL6 -m addrtype ! --src-type LOCAL ${COMMENT} -j DROP`,
  ),
  // No link-local address: nothing in the tunnel uses it.
  { need: 'ipv6', up: 'ip link set dev $TUN addrgenmode none' },
  { up: 'ip address add $LOCAL peer $PEER dev $TUN' },
  { need: 'ipv6', up: 'ip -6 address add $LOCAL6 peer $PEER6 dev $TUN nodad' },
  { up: 'ip link set dev $TUN mtu $MTU up' },
];

/** For hosts behind this one: their SYNs learn the tunnel's MTU even where ICMP is lost. */
const linuxMss: readonly Row[] = pointToPoint
  ? []
  : [
      inserted(
        'default mangle4',
        `${IPTABLES} -t mangle -I FORWARD -o $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
      ),
      inserted(
        'default mangle4',
        `${IPTABLES} -t mangle -I FORWARD -i $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
      ),
      inserted(
        'default mangle6 ipv6',
        `${IP6TABLES} -t mangle -I FORWARD -o $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
      ),
      inserted(
        'default mangle6 ipv6',
        `${IP6TABLES} -t mangle -I FORWARD -i $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
      ),
    ];

const linuxForwarding: readonly Row[] = pointToPoint
  ? []
  : [
      // Whatever is inserted later stands above: the SNAT to a chosen address wins over MASQUERADE.
      inserted(
        'default',
        `${IPTABLES} -t nat -I POSTROUTING -s $PEER ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default',
        `${IPTABLES} -t nat -I POSTROUTING -s $NET4 ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default',
        `${IPTABLES} -t nat -I POSTROUTING -s $PEER -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT4`,
      ),
      inserted(
        'default',
        `${IPTABLES} -t nat -I POSTROUTING -s $NET4 -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT4`,
      ),
      inserted(
        'default ipv6-leaves',
        `${IP6TABLES} -t nat -I POSTROUTING -s $PEER6 ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default ipv6-leaves',
        `${IP6TABLES} -t nat -I POSTROUTING -s $NET6 ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default ipv6-leaves',
        `${IP6TABLES} -t nat -I POSTROUTING -s $PEER6 -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT6`,
      ),
      inserted(
        'default ipv6-leaves',
        `${IP6TABLES} -t nat -I POSTROUTING -s $NET6 -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT6`,
      ),
      // Answers go to the client; connections to it may be opened only for the networks behind it.
      inserted(
        'default',
        `${IPTABLES} -I FORWARD -o $TUN -d $PEER -m conntrack --ctstate RELATED,ESTABLISHED ${COMMENT} -j ACCEPT`,
      ),
      inserted('default', `${IPTABLES} -I FORWARD -i $TUN -s $PEER ${COMMENT} -j ACCEPT`),
      inserted('default', `${IPTABLES} -I FORWARD -o $TUN -d $NET4 ${COMMENT} -j ACCEPT`),
      inserted('default', `${IPTABLES} -I FORWARD -i $TUN -s $NET4 ${COMMENT} -j ACCEPT`),
      inserted(
        'default ipv6-forward',
        `${IP6TABLES} -I FORWARD -o $TUN -d $PEER6 -m conntrack --ctstate RELATED,ESTABLISHED ${COMMENT} -j ACCEPT`,
      ),
      inserted(
        'default ipv6-forward',
        `${IP6TABLES} -I FORWARD -i $TUN -s $PEER6 ${COMMENT} -j ACCEPT`,
      ),
      inserted(
        'default ipv6-forward',
        `${IP6TABLES} -I FORWARD -o $TUN -d $NET6 ${COMMENT} -j ACCEPT`,
      ),
      inserted(
        'default ipv6-forward',
        `${IP6TABLES} -I FORWARD -i $TUN -s $NET6 ${COMMENT} -j ACCEPT`,
      ),
      // The chosen address is not where the default route leaves: the client's packets go there too.
      { need: 'default external-route4', down: 'ip route flush table $TABLE' },
      { need: 'default', up: 'ip route add default via $EXT_VIA dev $EXT_IF table $TABLE' },
      { need: 'default external-link4', up: 'ip route add default dev $EXT_IF table $TABLE' },
      {
        need: 'default external-route4',
        up: 'ip rule add preference $PREF_MAIN iif $TUN table main suppress_prefixlength 0',
        down: 'ip rule del preference $PREF_MAIN',
      },
      {
        need: 'default external-route4',
        up: 'ip rule add preference $PREF iif $TUN table $TABLE',
        down: 'ip rule del preference $PREF',
      },
      // These interfaces learn their default route from router advertisements, which a forwarding
      // host ignores, and deletes, unless accept_ra is 2 (ip-sysctl.rst): before forwarding.
      {
        need: 'default ipv6-forward',
        sysctl: 'net/ipv6/conf/$RA_IF/accept_ra',
        value: '2',
      },
      {
        need: 'default ipv6-forward',
        sysctl: 'net/ipv6/conf/all/forwarding',
        value: '1',
        beside: ['net/ipv6/conf/*/forwarding'],
      },
      {
        need: 'default',
        sysctl: 'net/ipv4/ip_forward',
        value: '1',
        beside: ['net/ipv4/conf/*/forwarding', 'net/ipv4/conf/all/accept_redirects'],
      },
    ];

const linuxServer: readonly Row[] = [
  ...linuxDevice,
  { up: 'ip route add $NET4 dev $TUN' },
  { need: 'ipv6', up: 'ip -6 route add $NET6 dev $TUN' },
  ...linuxMss,
  ...linuxForwarding,
];

/**
 * Link sockets carry $MARK, one of $MARKS; everything else looks into $TABLE first, so that the links
 * of several instances never go through each other's tunnels. The rule on table main keeps
 * routes more specific than a default (the local network) outside the tunnel (wg-quick(8)).
 */
const linuxConnected: readonly Row[] = [
  // A reply on a link comes from where, unmarked, the route leads into the tunnel: with strict
  // rp_filter it needs the mark back (ip-sysctl.rst, src_valid_mark).
  {
    need: 'route4',
    sysctl: 'net/ipv4/conf/all/src_valid_mark',
    value: '1',
    optional: true,
  },
  inserted(
    'strict mangle4',
    `${IPTABLES} -t mangle -I POSTROUTING -p udp -m mark --mark $MARK ${COMMENT} -j CONNMARK --save-mark`,
  ),
  inserted(
    'strict mangle4',
    `${IPTABLES} -t mangle -I PREROUTING -p udp -m connmark --mark $MARK ${COMMENT} -j CONNMARK --restore-mark`,
  ),
  inserted(
    'strict mangle6',
    `${IP6TABLES} -t mangle -I POSTROUTING -p udp -m mark --mark $MARK ${COMMENT} -j CONNMARK --save-mark`,
  ),
  inserted(
    'strict mangle6',
    `${IP6TABLES} -t mangle -I PREROUTING -p udp -m connmark --mark $MARK ${COMMENT} -j CONNMARK --restore-mark`,
  ),
  // dsvpn's <gateway ip>: the links, and only they, leave through it.
  {
    up: 'ip route add default via $GATEWAY4 table $TABLE_OUT',
    down: 'ip route flush table $TABLE_OUT',
  },
  {
    need: 'gateway4',
    up: 'ip rule add preference $PREF_OUT fwmark $MARK table $TABLE_OUT',
    down: 'ip rule del preference $PREF_OUT',
  },
  {
    up: 'ip -6 route add default via $GATEWAY6 table $TABLE_OUT',
    down: 'ip -6 route flush table $TABLE_OUT',
  },
  {
    need: 'gateway6',
    up: 'ip -6 rule add preference $PREF_OUT fwmark $MARK table $TABLE_OUT',
    down: 'ip -6 rule del preference $PREF_OUT',
  },
  { need: 'route4', down: 'ip route flush table $TABLE' },
  { need: 'route6', down: 'ip -6 route flush table $TABLE' },
  { need: 'split', up: 'ip route add $NET4 dev $TUN table $TABLE' },
  ...(pointToPoint
    ? []
    : ([
        { need: 'everything', up: 'ip route add default dev $TUN table $TABLE' },
        {
          need: 'everything',
          up: 'ip rule add preference $PREF_MAIN table main suppress_prefixlength 0',
          down: 'ip rule del preference $PREF_MAIN',
        },
        {
          need: 'everything route6',
          up: 'ip -6 rule add preference $PREF_MAIN table main suppress_prefixlength 0',
          down: 'ip -6 rule del preference $PREF_MAIN',
        },
      ] satisfies readonly Row[])),
];

/** Two routes of unlike metric, so that one of them is there at every moment. */
const linuxIpv6: readonly Row[] = [
  ...(pointToPoint
    ? []
    : ([
        {
          need: 'everything route6 through6',
          up: 'ip -6 route replace default dev $TUN table $TABLE metric 1024',
        },
        {
          need: 'everything route6 blocked6',
          up: 'ip -6 route replace unreachable default table $TABLE metric 4096',
        },
      ] satisfies readonly Row[])),
  {
    need: 'split route6 through6',
    up: 'ip -6 route replace $NET6 dev $TUN table $TABLE metric 1024',
  },
  {
    need: 'split route6 blocked6',
    up: 'ip -6 route replace unreachable $NET6 table $TABLE metric 4096',
  },
  { need: 'route6 through6', up: 'ip -6 route flush table $TABLE type unreachable' },
  { need: 'route6 blocked6', up: 'ip -6 route flush table $TABLE dev $TUN' },
];

const linuxEnter: readonly Row[] = [
  {
    need: 'route6',
    up: 'ip -6 rule add preference $PREF not fwmark $MARKS table $TABLE',
    down: 'ip -6 rule del preference $PREF',
  },
  {
    need: 'route4',
    up: 'ip rule add preference $PREF not fwmark $MARKS table $TABLE',
    down: 'ip rule del preference $PREF',
  },
];

const linux: Platform = {
  tunCreate: (native, name, offload) => native.tunCreate(name, offload),
  probes: {
    addresses: 'ip -N -j address show',
    rules4: 'ip -N -j -4 rule show',
    rules6: 'ip -N -j -6 rule show',
    routes4: 'ip -N -j -4 route show table all',
    routes6: 'ip -N -j -6 route show table all',
    filter4: `${IPTABLES} -t filter -S FORWARD`,
    filter6: `${IP6TABLES} -t filter -S FORWARD`,
    raw4: `${IPTABLES} -t raw -S PREROUTING`,
    raw6: `${IP6TABLES} -t raw -S PREROUTING`,
    mangle4: `${IPTABLES} -t mangle -S FORWARD`,
    mangle6: `${IP6TABLES} -t mangle -S FORWARD`,
    nat4: `${IPTABLES} -t nat -S POSTROUTING`,
    nat6: `${IP6TABLES} -t nat -S POSTROUTING`,
  },
  server: linuxServer,
  client: [...linuxDevice, ...linuxMss],
  connected: linuxConnected,
  everySession: linuxIpv6,
  enter: linuxEnter,
  absent:
    /No such (process|file or directory|device)|Cannot find device|FIB table does not exist|[Aa]ddress not found|Cannot assign requested address|does a matching rule exist|No chain\/target\/match by that name|table '\w+' does not exist/,
};

export const PLATFORMS: Readonly<Record<string, Platform>> = { linux };

/** The platform this runs on; undefined where there is none yet. */
export function thisPlatform(): Platform | undefined {
  return PLATFORMS[process.platform];
}
