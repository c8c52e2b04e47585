/**
 * Linux: a client's links that are bound to an interface or an address. Each has a mark, a table and a
 * rule of its own, so that its packets take its way whatever the other routes say.
 */
import { COMMENT, inserted, IP6TABLES, IPTABLES, validMarks } from './iptables.ts';
import { nftLinkMarks } from './nft.ts';
import type { Row } from './platform.ts';

const FLUSH = 'ip route flush table $LINK_TABLE';
const FLUSH6 = 'ip -6 route flush table $LINK_TABLE';

/**
 * What stands as long as the link is configured, wherever its interface is. Its table ends the search: a
 * link whose way is gone must not leave by another, with an address that nobody there would answer.
 */
export const linuxLink: readonly Row[] = [
  // A reply comes in where, unmarked, the route to its sender may not lead: with strict rp_filter
  // (ip-sysctl.rst, src_valid_mark) it needs its mark back. Without connection tracking there is
  // only the loose check (RFC 3704 §2.4) of that interface.
  validMarks('mangle4'),
  validMarks('nft-mangle4'),
  inserted(
    'mangle4',
    `${IPTABLES} -t mangle -I POSTROUTING -p udp -m mark --mark $LINK_MARK ${COMMENT} -j CONNMARK --save-mark`,
  ),
  inserted(
    'mangle4',
    `${IPTABLES} -t mangle -I PREROUTING -p udp -m connmark --mark $LINK_MARK ${COMMENT} -j CONNMARK --restore-mark`,
  ),
  inserted(
    'mangle6',
    `${IP6TABLES} -t mangle -I POSTROUTING -p udp -m mark --mark $LINK_MARK ${COMMENT} -j CONNMARK --save-mark`,
  ),
  inserted(
    'mangle6',
    `${IP6TABLES} -t mangle -I PREROUTING -p udp -m connmark --mark $LINK_MARK ${COMMENT} -j CONNMARK --restore-mark`,
  ),
  ...nftLinkMarks,
  { down: FLUSH },
  { need: 'rules6', down: FLUSH6 },
  { up: 'ip route replace unreachable default table $LINK_TABLE metric 4096' },
  {
    need: 'rules6',
    up: 'ip -6 route replace unreachable default table $LINK_TABLE metric 4096',
  },
];

/** In front of the rules of every tunnel: those of others (wg-quick) take whatever has not their mark. */
export const linuxLinkRule: readonly Row[] = [
  {
    up: 'ip rule add preference $LINK_PREF fwmark $LINK_MARK table $LINK_TABLE',
    down: 'ip rule del preference $LINK_PREF table $LINK_TABLE',
  },
  {
    need: 'rules6',
    up: 'ip -6 rule add preference $LINK_PREF fwmark $LINK_MARK table $LINK_TABLE',
    down: 'ip -6 rule del preference $LINK_PREF table $LINK_TABLE',
  },
];

/** Whenever its interface is there anew. */
export const linuxLinkRoute: readonly Row[] = [
  {
    need: 'loose4',
    sysctl: 'net/ipv4/conf/$STRICT_IF/rp_filter',
    value: '2',
    optional: true,
  },
  { need: 'direct4', up: 'ip route replace $LINK_TO dev $LINK_IF table $LINK_TABLE' },
  { need: 'via4', up: 'ip route replace $LINK_TO via $LINK_VIA dev $LINK_IF table $LINK_TABLE' },
  {
    need: 'onlink4',
    up: 'ip route replace $LINK_TO via $LINK_VIA dev $LINK_IF onlink table $LINK_TABLE',
  },
  {
    need: 'across4',
    up: 'ip -4 route replace $LINK_TO via inet6 $LINK_VIA dev $LINK_IF table $LINK_TABLE',
  },
  { need: 'gone4', up: 'ip route del $LINK_TO dev $LINK_IF table $LINK_TABLE' },
  { need: 'direct6', up: 'ip -6 route replace $LINK_TO dev $LINK_IF table $LINK_TABLE' },
  {
    need: 'via6',
    up: 'ip -6 route replace $LINK_TO via $LINK_VIA dev $LINK_IF table $LINK_TABLE',
  },
  {
    need: 'onlink6',
    up: 'ip -6 route replace $LINK_TO via $LINK_VIA dev $LINK_IF onlink table $LINK_TABLE',
  },
  { need: 'gone6', up: 'ip -6 route del $LINK_TO dev $LINK_IF table $LINK_TABLE' },
];
