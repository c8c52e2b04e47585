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
  remove: `nft delete chain ${family} vpn-$TABLE ${name}`,
});

/** The line whose comment says so; `what` tells it from others of ours. */
const found = (chains: string, what: string) => ({
  comment: `comment "vpn:$TAG${what}"`,
  delete: `nft delete rule ${chains} handle ${FOUND}`,
  find: { list: `nft -a -s list chain ${chains}`, holding: `"vpn:$TAG${what}"` },
});

/** A line that a running instance may take back: for `$NET4` and the like, which `what` names. */
const change = (
  verb: 'add' | 'insert',
  need: string,
  family: string,
  chain: string,
  statement: string,
  what: string,
): Row => {
  const line = found(`${family} vpn-$TABLE ${chain}`, what);
  return {
    need,
    up: `nft ${verb} rule ${family} vpn-$TABLE ${chain} ${statement} ${line.comment}`,
    remove: line.delete,
    find: line.find,
  };
};

/** A line on top of a chain of somebody else. */
const insert = (need: string, chains: string, statement: string, what = ''): Row => {
  const line = found(chains, what);
  return {
    need,
    up: `nft insert rule ${chains} ${statement} ${line.comment}`,
    down: line.delete,
    find: line.find,
  };
};

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

export const nftMss: readonly Row[] = [
  ...mss('clamp nft-mangle4', 'ip'),
  ...mss('clamp nft-mangle6 ipv6', 'ip6'),
];

/**
 * The first that fits is taken: the chosen address before the interface's own. The variant is told apart in
 * here, for esbuild drops what is not evaluated and not what is not called.
 */
const nat = (need: string, family: string, to: '4' | '6', peer: string): readonly Row[] =>
  pointToPoint
    ? []
    : [
        chain(need, family, 'nat', NAT),
        add(need, family, 'nat', `${family} saddr ${peer} oifname "$EXT_IF" snat to $EXT${to}`),
        change(
          'add',
          need,
          family,
          'nat',
          `${family} saddr $NET${to} oifname "$EXT_IF" snat to $EXT${to}`,
          `:snat:$NET${to}`,
        ),
        add(need, family, 'nat', `${family} saddr ${peer} oifname != "$TUN" masquerade`),
        change(
          'add',
          need,
          family,
          'nat',
          `${family} saddr $NET${to} oifname != "$TUN" masquerade`,
          `:masquerade:$NET${to}`,
        ),
      ];

const forward = (need: string, family: string, to: '4' | '6', peer: string): readonly Row[] =>
  pointToPoint
    ? []
    : [
        insert(
          need,
          `$CHAIN${to}`,
          `oifname "$TUN" ${family} daddr ${peer} ct state established,related accept`,
        ),
        insert(need, `$CHAIN${to}`, `iifname "$TUN" ${family} saddr ${peer} accept`),
        insert(
          need,
          `$CHAIN${to}`,
          `oifname "$TUN" ${family} daddr $NET${to} accept`,
          `:to:$NET${to}`,
        ),
        insert(
          need,
          `$CHAIN${to}`,
          `iifname "$TUN" ${family} saddr $NET${to} accept`,
          `:from:$NET${to}`,
        ),
      ];

export const nftForwarding: readonly Row[] = [
  ...nat('default nft-nat4', 'ip', '4', '$PEER'),
  ...nat('default ipv6-leaves nft-nat6', 'ip6', '6', '$PEER6'),
  // Also where iptables works: it reaches no chain but its own.
  ...forward('default', 'ip', '4', '$PEER'),
  ...forward('default ipv6-forward', 'ip6', '6', '$PEER6'),
];

/** As in os/site.ts. An accept ends no chain but this one. */
const limited = (need: string, family: string, to: '4' | '6'): readonly Row[] => {
  const line = (verb: 'add' | 'insert', statement: string, what: string): Row =>
    change(verb, need, family, 'allowed', statement, what);
  return [
    chain(need, family, 'allowed', FORWARD),
    line(
      'insert',
      `iifname "$TUN" ${family} saddr $FROM${to} ${family} daddr $ALLOW${to} accept`,
      `:$FROM${to}:$ALLOW${to}`,
    ),
    line('insert', `oifname "$TUN" ${family} daddr $TO${to} accept`, `:$TO${to}`),
    add(need, family, 'allowed', 'ct state established ct direction reply accept'),
    add(need, family, 'allowed', 'ct state related accept'),
    // Last, so that a running tunnel is limited when all that it may is there.
    line('add', 'iifname "$TUN" drop', ':in'),
    line('add', 'oifname "$TUN" drop', ':out'),
  ];
};

const accepted = (need: string, family: string, to: '4' | '6', peer: string): readonly Row[] => [
  insert(`limited${need}`, `$CHAIN${to}`, 'iifname "$TUN" accept', ':in'),
  insert(`limited${need}`, `$CHAIN${to}`, 'oifname "$TUN" accept', ':out'),
  insert(`proxy${need}`, `$CHAIN${to}`, `oifname "$TUN" ${family} daddr ${peer} accept`, ':peer'),
];

export const nftSite: readonly Row[] = [
  ...limited('limited nft-mangle4', 'ip', '4'),
  ...limited('limited nft-mangle6 ipv6', 'ip6', '6'),
  // Also where iptables works, as above.
  ...accepted('', 'ip', '4', '$PEER'),
  ...accepted(' ipv6', 'ip6', '6', '$PEER6'),
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
