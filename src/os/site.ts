/**
 * Linux: what is forwarded between the tunnel and the networks of this host, where --allow or --proxy-arp
 * asks for it, and the answers for the other end in those networks. By iptables; os/nft.ts has the same.
 *
 * First everything is dropped that is not allowed, in table mangle and in chains of the instance's own: what
 * passes there still meets whatever the host, or another instance, drops. Then accepting is safe, so that
 * the host's own lines need not know of the tunnel.
 *
 * Allowed are connections from $FROM4 to $ALLOW4 and to $TO4, and their answers: by the direction of the
 * connection, not by its state alone, so that what is not allowed any more ends at once.
 */
import { COMMENT, inserted, IP6TABLES, IPTABLES } from './iptables.ts';
import { nftSite } from './nft.ts';
import type { Row } from './platform.ts';

const ANSWERS = '-m conntrack --ctstate ESTABLISHED --ctdir REPLY';
/** ICMP errors, also those of routers on the way: a path MTU is learnt from them. */
const RELATED = '-m conntrack --ctstate RELATED';

function chain(need: string, program: string, name: string): readonly Row[] {
  const mangle = `${program} -t mangle`;
  const append = (rule: string): Row => ({ need, up: `${mangle} -A ${name} ${rule}` });
  return [
    { need, up: `${mangle} -N ${name}`, down: `${mangle} -X ${name}` },
    { need, down: `${mangle} -F ${name}` },
    append(`${ANSWERS} ${COMMENT} -j RETURN`),
    append(`${RELATED} ${COMMENT} -j RETURN`),
    append(`${COMMENT} -j DROP`),
  ];
}

function limited(need: string, program: string, to: '4' | '6'): readonly Row[] {
  const mangle = `${program} -t mangle`;
  return [
    ...chain(need, program, 'vpn-$TABLE-in'),
    ...chain(need, program, 'vpn-$TABLE-out'),
    inserted(need, `${mangle} -I vpn-$TABLE-in -s $FROM${to} -d $ALLOW${to} ${COMMENT} -j RETURN`),
    inserted(need, `${mangle} -I vpn-$TABLE-out -d $TO${to} ${COMMENT} -j RETURN`),
    // Last, so that a running tunnel is limited when all that it may is there.
    inserted(need, `${mangle} -I FORWARD -i $TUN ${COMMENT} -j vpn-$TABLE-in`),
    inserted(need, `${mangle} -I FORWARD -o $TUN ${COMMENT} -j vpn-$TABLE-out`),
  ];
}

/** Packets are forwarded. `need`: in which case. */
export const routing = (need: string): readonly Row[] => [
  // These interfaces learn their default route from router advertisements, which a forwarding
  // host ignores, and deletes, unless accept_ra is 2 (ip-sysctl.rst): before forwarding.
  { need: `${need} ipv6-forward`, sysctl: 'net/ipv6/conf/$RA_IF/accept_ra', value: '2' },
  {
    need: `${need} ipv6-forward`,
    sysctl: 'net/ipv6/conf/all/forwarding',
    value: '1',
    beside: ['net/ipv6/conf/*/forwarding'],
  },
  {
    need,
    sysctl: 'net/ipv4/ip_forward',
    value: '1',
    beside: ['net/ipv4/conf/*/forwarding', 'net/ipv4/conf/all/accept_redirects'],
  },
];

export const linuxSite: readonly Row[] = [
  ...limited('limited mangle4', IPTABLES, '4'),
  ...limited('limited mangle6 ipv6', IP6TABLES, '6'),
  inserted('limited filter4', `${IPTABLES} -I FORWARD -i $TUN ${COMMENT} -j ACCEPT`),
  inserted('limited filter4', `${IPTABLES} -I FORWARD -o $TUN ${COMMENT} -j ACCEPT`),
  inserted('limited filter6 ipv6', `${IP6TABLES} -I FORWARD -i $TUN ${COMMENT} -j ACCEPT`),
  inserted('limited filter6 ipv6', `${IP6TABLES} -I FORWARD -o $TUN ${COMMENT} -j ACCEPT`),
  // A server lets no connections to its client pass, unless that has an address of a network here.
  inserted('proxy filter4', `${IPTABLES} -I FORWARD -o $TUN -d $PEER ${COMMENT} -j ACCEPT`),
  inserted('proxy filter6 ipv6', `${IP6TABLES} -I FORWARD -o $TUN -d $PEER6 ${COMMENT} -j ACCEPT`),
  ...nftSite,
  ...routing('site'),
];

/**
 * On one interface, for what has an address of its network and is behind the tunnel. A kernel answers for
 * single addresses; for networks only ARP does, with a switch for the whole interface that answers for
 * nothing but what it would forward elsewhere (ip-sysctl.rst, proxy_arp).
 */
export const linuxProxy: readonly Row[] = [
  { need: 'proxy-networks', sysctl: 'net/ipv4/conf/$PROXY_IF/proxy_arp', value: '1' },
  { need: 'proxy6', sysctl: 'net/ipv6/conf/$PROXY_IF/proxy_ndp', value: '1' },
  {
    up: 'ip neigh add proxy $PROXY4 dev $PROXY_IF',
    down: 'ip neigh del proxy $PROXY4 dev $PROXY_IF',
  },
  {
    need: 'proxy6',
    up: 'ip -6 neigh add proxy $PROXY6 dev $PROXY_IF',
    down: 'ip -6 neigh del proxy $PROXY6 dev $PROXY_IF',
  },
];
