/**
 * Linux: the kill switch of a client. Nothing leaves the host but what goes through the tunnel, the
 * tunnel's own datagrams (by their marks) and what keeps the host on its networks.
 *
 * By nft where it works, in a table of its own: a drop there is final whatever the chains of others
 * accept, and `iptables -F` does not touch it. Else by iptables, inserted on top; for what is forwarded in
 * table mangle, because Docker puts its accepting lines on top of FORWARD in table filter.
 *
 * Each packet is judged by itself, also those of connections that were there before. Programs are told at
 * once (RFC 1812 §5.2.7.1, code 13) instead of waiting for an answer; what is forwarded is dropped, for the
 * message would be a packet that leaves. What somebody else's mangle or nat lines reroute has its real
 * interface only behind routing (nf_hook_state.out is that of the first route), hence the third place.
 *
 * The rows stay until `vpn cleanup`, or until the next start has its own in place.
 */
import { IP6TABLES, IPTABLES } from './iptables.ts';
import { pointToPoint } from './platform.ts';
import type { Row } from './platform.ts';

/**
 * Router and neighbour solicitations, neighbour advertisements (RFC 4861), and the multicast reports
 * without which a snooping switch forwards none of them (RFC 2710, RFC 3810).
 */
const NEIGHBOUR_TYPES = [131, 132, 133, 135, 136, 143];
/** Client and server ports of DHCP (RFC 2131) and DHCPv6 (RFC 8415); only root can send from these. */
const DHCP = [68, 67] as const;
const DHCP6 = [546, 547] as const;

/** Not the instance's own, which may have ended. */
const COMMENT = '-m comment --comment vpn:$SWITCH';

const kept = (need: string, up: string, down?: string): Row => ({
  need: `everything ${need}`,
  up,
  ...(down === undefined ? {} : { down }),
  stays: true,
});

/** What of `$SWITCH`, a chain of its own in `table`, is common to both; `end` is done with the rest. */
function chain(need: string, program: string, table: string, end: string): readonly Row[] {
  const [from, to] = program === IPTABLES ? DHCP : DHCP6;
  const pass = (match: string): Row =>
    kept(need, `${program} -t ${table} -A $SWITCH ${match} ${COMMENT} -j RETURN`);
  const neighbours =
    program === IPTABLES
      ? []
      : NEIGHBOUR_TYPES.map((type) => pass(`-p icmpv6 --icmpv6-type ${type}`));
  return [
    kept(need, `${program} -t ${table} -N $SWITCH`, `${program} -t ${table} -X $SWITCH`),
    { need: `everything ${need}`, down: `${program} -t ${table} -F $SWITCH`, stays: true },
    pass('-o lo'),
    pass('-o $TUN'),
    pass('-m mark --mark $SWITCH_MARK'),
    pass(`-p udp --sport ${from} --dport ${to}`),
    ...neighbours,
    kept(need, `${program} -t ${table} -A $SWITCH ${COMMENT} -j ${end}`),
  ];
}

function iptables(need: string, program: string, prohibited: string): readonly Row[] {
  const insert = (rule: string): Row =>
    kept(need, `${program} -t ${rule}`, `${program} -t ${rule.replace(' -I ', ' -D ')}`);
  return [
    ...chain(need, program, 'filter', `REJECT --reject-with ${prohibited}`),
    ...chain(need, program, 'mangle', 'DROP'),
    insert(`filter -I OUTPUT ${COMMENT} -j $SWITCH`),
    // No interface of arrival is known there: what was forwarded (it has no socket) was judged before.
    insert(`mangle -I POSTROUTING -m owner --socket-exists ${COMMENT} -j $SWITCH`),
    insert(`mangle -I FORWARD ! -i $TUN ! -o $TUN ${COMMENT} -j DROP`),
  ];
}

const HOOKS = {
  // Behind nat (-100), which changes addresses.
  out: '{ type filter hook output priority 0 ; }',
  post: '{ type filter hook postrouting priority -150 ; }',
  forward: '{ type filter hook forward priority -150 ; }',
} as const;

const NFT_COMMENT = 'comment "vpn:$SWITCH"';
const REJECT = 'reject with icmpx type admin-prohibited';

/** `nft --check` asks the kernel, and changes nothing. */
export const switchProbes = {
  'nft-switch':
    `nft -c add table inet vpn ; add chain inet vpn probe ${HOOKS.out} ; ` +
    `add rule inet vpn probe meta mark 0x1000-0x10ff ${REJECT}`,
};

function nft(need: string): readonly Row[] {
  const add = (name: string, statement: string): Row =>
    kept(need, `nft add rule inet $SWITCH ${name} ${statement} ${NFT_COMMENT}`);
  const base = (name: keyof typeof HOOKS, ...statements: readonly string[]): readonly Row[] => [
    kept(need, `nft add chain inet $SWITCH ${name} ${HOOKS[name]}`),
    ...statements.map((statement) => add(name, statement)),
  ];
  return [
    kept(need, 'nft add table inet $SWITCH', 'nft delete table inet $SWITCH'),
    kept(need, 'nft add chain inet $SWITCH own'),
    add('own', 'oifname { "lo", "$TUN" } accept'),
    add('own', 'meta mark $SWITCH_RANGE accept'),
    add('own', `meta nfproto ipv4 udp sport ${DHCP[0]} udp dport ${DHCP[1]} accept`),
    add('own', `meta nfproto ipv6 udp sport ${DHCP6[0]} udp dport ${DHCP6[1]} accept`),
    add('own', `icmpv6 type { ${NEIGHBOUR_TYPES.join(', ')} } accept`),
    // An accept ends no chain but its own, so the line that closes comes last everywhere.
    ...base('out', 'jump own', REJECT),
    ...base('forward', 'iifname "$TUN" accept', 'oifname "$TUN" accept', 'drop'),
    // What was forwarded has no socket, and was judged before.
    ...base('post', 'jump own', 'meta skuid != 4294967295 drop'),
  ];
}

export const linuxKillSwitch: readonly Row[] = pointToPoint
  ? []
  : [
      ...nft('switch-nft'),
      ...iptables('switch4', IPTABLES, 'icmp-admin-prohibited'),
      ...iptables('switch6', IP6TABLES, 'icmp6-adm-prohibited'),
    ];
