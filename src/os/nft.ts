/**
 * What iptables does in linux.ts, by nft, where there is no iptables or it does not work.
 *
 * NAT, mangling and protection are in tables of the instance's own, which go as a whole. Only accepting
 * is done in the chains of others, for an accept ends no chain but its own: whatever may drop what
 * is forwarded has to be told. Those lines have no name but their comment; the handle by which they
 * are deleted is found by it.
 */
import { FOUND, pointToPoint } from './platform.ts';
import type { ProbeName, Row } from './platform.ts';

const COMMENT = 'comment "vpn:$TAG"';
const SYN = 'tcp flags & (syn|rst) == syn';
const CLAMP = 'tcp option maxseg size set rt mtu';
/** Of chains at the hooks; NAT in front of the others' (100), whose lines may be less particular. */
const RAW = '{ type filter hook prerouting priority -300 ; }';
const PREROUTING = '{ type filter hook prerouting priority -150 ; }';
const FORWARD = '{ type filter hook forward priority -150 ; }';
const POSTROUTING = '{ type filter hook postrouting priority -150 ; }';
const NAT = '{ type nat hook postrouting priority 90 ; }';

/** `nft --check` asks the kernel, and changes nothing. */
const check = (family: string, chain: string, statement: string): string =>
  `nft -c add table ${family} vpn ; add chain ${family} vpn probe ${chain} ; add rule ${family} vpn probe ${statement}`;
const checks = (family: string, to: '4' | '6') => ({
  [`nft-filter${to}`]: check(family, FORWARD, 'ct state established,related accept'),
  [`nft-raw${to}`]: check(family, RAW, 'fib saddr type != local drop'),
  [`nft-mangle${to}`]: check(family, FORWARD, `${SYN} ${CLAMP}`),
  [`nft-nat${to}`]: check(family, NAT, 'masquerade'),
});

export const nftProbes = {
  chains: 'nft -y list chains',
  ...checks('ip', '4'),
  ...checks('ip6', '6'),
} as Readonly<Record<Extract<ProbeName, 'chains' | `nft-${string}`>, string>>;

/** A line in a table of our own, which goes with it. */
const add = (need: string, family: string, chain: string, statement: string): Row => ({
  need,
  up: `nft add rule ${family} vpn-$TABLE ${chain} ${statement} ${COMMENT}`,
});
const chain = (need: string, family: string, name: string, hook: string): Row => ({
  need,
  up: `nft add chain ${family} vpn-$TABLE ${name} ${hook}`,
});

/** A line on top of a chain of somebody else. */
const insert = (need: string, chains: string, statement: string): Row => ({
  need,
  up: `nft insert rule ${chains} ${statement} ${COMMENT}`,
  down: `nft delete rule ${chains} handle ${FOUND}`,
  find: { list: `nft -a -s list chain ${chains}`, holding: '"vpn:$TAG"' },
});

export const nftDevice: readonly Row[] = [
  { need: 'nft4', up: 'nft add table ip vpn-$TABLE', down: 'nft delete table ip vpn-$TABLE' },
  { need: 'nft6', up: 'nft add table ip6 vpn-$TABLE', down: 'nft delete table ip6 vpn-$TABLE' },
  chain('nft-raw4', 'ip', 'raw', RAW),
  add('nft-raw4', 'ip', 'raw', 'iifname != "$TUN" ip daddr $LOCAL fib saddr type != local drop'),
  chain('nft-raw6 ipv6', 'ip6', 'raw', RAW),
  add(
    'nft-raw6 ipv6',
    'ip6',
    'raw',
    'iifname != "$TUN" ip6 daddr $LOCAL6 fib saddr type != local drop',
  ),
];

const mss = (need: string, family: string): readonly Row[] => [
  chain(need, family, 'forward', FORWARD),
  add(need, family, 'forward', `oifname "$TUN" ${SYN} ${CLAMP}`),
  add(need, family, 'forward', `iifname "$TUN" ${SYN} ${CLAMP}`),
];

export const nftMss: readonly Row[] = pointToPoint
  ? []
  : [...mss('default nft-mangle4', 'ip'), ...mss('default nft-mangle6 ipv6', 'ip6')];

/** The first that fits is taken: the chosen address before the interface's own. */
const nat = (need: string, family: string, to: '4' | '6', peer: string): readonly Row[] => [
  chain(need, family, 'nat', NAT),
  ...[peer, `$NET${to}`].flatMap((source) => [
    add(need, family, 'nat', `${family} saddr ${source} oifname "$EXT_IF" snat to $EXT${to}`),
  ]),
  ...[peer, `$NET${to}`].map((source) =>
    add(need, family, 'nat', `${family} saddr ${source} oifname != "$TUN" masquerade`),
  ),
];

const forward = (need: string, family: string, to: '4' | '6', peer: string): readonly Row[] => [
  insert(
    need,
    `$CHAIN${to}`,
    `oifname "$TUN" ${family} daddr ${peer} ct state established,related accept`,
  ),
  insert(need, `$CHAIN${to}`, `iifname "$TUN" ${family} saddr ${peer} accept`),
  insert(need, `$CHAIN${to}`, `oifname "$TUN" ${family} daddr $NET${to} accept`),
  insert(need, `$CHAIN${to}`, `iifname "$TUN" ${family} saddr $NET${to} accept`),
];

export const nftForwarding: readonly Row[] = pointToPoint
  ? []
  : [
      ...nat('default nft-nat4', 'ip', '4', '$PEER'),
      ...nat('default ipv6-leaves nft-nat6', 'ip6', '6', '$PEER6'),
      // Also where iptables works: it reaches no chain but its own.
      ...forward('default', 'ip', '4', '$PEER'),
      ...forward('default ipv6-forward', 'ip6', '6', '$PEER6'),
    ];

const marks = (need: string, family: string, mark: string): readonly Row[] => [
  chain(need, family, 'out', POSTROUTING),
  add(need, family, 'out', `meta l4proto udp meta mark ${mark} ct mark set meta mark`),
  chain(need, family, 'in', PREROUTING),
  add(need, family, 'in', `meta l4proto udp ct mark ${mark} meta mark set ct mark`),
];

export const nftMarks: readonly Row[] = [
  ...marks('route4 nft-mangle4', 'ip', '$MARK'),
  ...marks('route6 nft-mangle6', 'ip6', '$MARK'),
];

export const nftLinkMarks: readonly Row[] = [
  ...marks('nft-mangle4', 'ip', '$LINK_MARK'),
  ...marks('nft-mangle6', 'ip6', '$LINK_MARK'),
];
