/** Linux, with iproute2 and iptables, or nft where there is no iptables. */
import { COMMENT, inserted, IP6TABLES, IPTABLES, validMarks } from './iptables.ts';
import { linuxKillSwitch, switchProbes } from './killswitch.ts';
import { linuxLink, linuxLinkRoute, linuxLinkRule } from './links.ts';
import { linuxNames } from './names.ts';
import { nftDevice, nftForwarding, nftMarks, nftMss, nftProbes } from './nft.ts';
import { pointToPoint } from './platform.ts';
import type { Platform, Row } from './platform.ts';
import { linuxProxy, linuxSite, routing } from './site.ts';

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
  ...nftDevice,
  // No link-local address: nothing in the tunnel uses it, but for neighbours on an Ethernet.
  { need: 'ipv6 tun', up: 'ip link set dev $TUN addrgenmode none' },
  // Up first: the kernel makes no route to the peer of an IPv6 address given to a device that is down.
  { up: 'ip link set dev $TUN mtu $MTU up' },
  { need: 'tun', up: 'ip address add $LOCAL peer $PEER dev $TUN' },
  { need: 'ipv6 tun', up: 'ip -6 address add $LOCAL6 peer $PEER6 dev $TUN nodad' },
  { need: 'tap', up: 'ip address add $ON_LINK4 brd + dev $TUN' },
  { need: 'ipv6 tap', up: 'ip -6 address add $ON_LINK6 dev $TUN nodad' },
];

/** A route into the tunnel: by the device, and on an Ethernet by the peer's address there. */
const through = (need: string, command: string, rest = ''): readonly Row[] => {
  const peer = command.startsWith('ip -6') ? '$PEER6' : '$PEER';
  const removing = command.replace(/ (add|replace) /, ' del ');
  const by = (kind: string, way: string): Row => ({
    need: `${need} ${kind}`.trim(),
    up: `${command} ${way}${rest}`,
    remove: `${removing} ${way}${rest}`,
  });
  return [by('tun', 'dev $TUN'), by('tap', `via ${peer} dev $TUN`)];
};

/** For hosts behind this one: their SYNs learn the tunnel's MTU even where ICMP is lost. */
const linuxMss: readonly Row[] = [
  inserted(
    'clamp mangle4',
    `${IPTABLES} -t mangle -I FORWARD -o $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
  ),
  inserted(
    'clamp mangle4',
    `${IPTABLES} -t mangle -I FORWARD -i $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
  ),
  inserted(
    'clamp mangle6 ipv6',
    `${IP6TABLES} -t mangle -I FORWARD -o $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
  ),
  inserted(
    'clamp mangle6 ipv6',
    `${IP6TABLES} -t mangle -I FORWARD -i $TUN ${SYN} ${COMMENT} -j TCPMSS --clamp-mss-to-pmtu`,
  ),
  ...nftMss,
];

const linuxForwarding: readonly Row[] = pointToPoint
  ? []
  : [
      // Whatever is inserted later stands above: the SNAT to a chosen address wins over MASQUERADE.
      inserted(
        'default nat4',
        `${IPTABLES} -t nat -I POSTROUTING -s $PEER ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default nat4',
        `${IPTABLES} -t nat -I POSTROUTING -s $NET4 ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default nat4',
        `${IPTABLES} -t nat -I POSTROUTING -s $PEER -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT4`,
      ),
      inserted(
        'default nat4',
        `${IPTABLES} -t nat -I POSTROUTING -s $NET4 -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT4`,
      ),
      inserted(
        'default ipv6-leaves nat6',
        `${IP6TABLES} -t nat -I POSTROUTING -s $PEER6 ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default ipv6-leaves nat6',
        `${IP6TABLES} -t nat -I POSTROUTING -s $NET6 ! -o $TUN ${COMMENT} -j MASQUERADE`,
      ),
      inserted(
        'default ipv6-leaves nat6',
        `${IP6TABLES} -t nat -I POSTROUTING -s $PEER6 -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT6`,
      ),
      inserted(
        'default ipv6-leaves nat6',
        `${IP6TABLES} -t nat -I POSTROUTING -s $NET6 -o $EXT_IF ${COMMENT} -j SNAT --to-source $EXT6`,
      ),
      // Answers go to the client; connections to it may be opened only for the networks behind it.
      inserted(
        'default filter4',
        `${IPTABLES} -I FORWARD -o $TUN -d $PEER -m conntrack --ctstate RELATED,ESTABLISHED ${COMMENT} -j ACCEPT`,
      ),
      inserted('default filter4', `${IPTABLES} -I FORWARD -i $TUN -s $PEER ${COMMENT} -j ACCEPT`),
      inserted('default filter4', `${IPTABLES} -I FORWARD -o $TUN -d $NET4 ${COMMENT} -j ACCEPT`),
      inserted('default filter4', `${IPTABLES} -I FORWARD -i $TUN -s $NET4 ${COMMENT} -j ACCEPT`),
      inserted(
        'default ipv6-forward filter6',
        `${IP6TABLES} -I FORWARD -o $TUN -d $PEER6 -m conntrack --ctstate RELATED,ESTABLISHED ${COMMENT} -j ACCEPT`,
      ),
      inserted(
        'default ipv6-forward filter6',
        `${IP6TABLES} -I FORWARD -i $TUN -s $PEER6 ${COMMENT} -j ACCEPT`,
      ),
      inserted(
        'default ipv6-forward filter6',
        `${IP6TABLES} -I FORWARD -o $TUN -d $NET6 ${COMMENT} -j ACCEPT`,
      ),
      inserted(
        'default ipv6-forward filter6',
        `${IP6TABLES} -I FORWARD -i $TUN -s $NET6 ${COMMENT} -j ACCEPT`,
      ),
      ...nftForwarding,
      // The chosen address is not where the default route leaves: the client's packets go there too.
      { need: 'default external-route4', down: 'ip route flush table $TABLE' },
      { need: 'default', up: 'ip route add default via $EXT_VIA dev $EXT_IF table $TABLE' },
      { need: 'default external-link4', up: 'ip route add default dev $EXT_IF table $TABLE' },
      {
        need: 'default external-route4',
        up: 'ip rule add preference $PREF_MAIN iif $TUN table main suppress_prefixlength 1',
        down: 'ip rule del preference $PREF_MAIN table main',
      },
      {
        need: 'default external-route4',
        up: 'ip rule add preference $PREF iif $TUN table $TABLE',
        down: 'ip rule del preference $PREF table $TABLE',
      },
      ...routing('default'),
    ];

const linuxServer: readonly Row[] = [
  ...linuxDevice,
  ...through('', 'ip route add $NET4'),
  ...through('ipv6', 'ip -6 route add $NET6'),
  ...linuxMss,
  ...linuxForwarding,
];

/**
 * Link sockets carry $MARK, one of $MARKS; everything else looks into $TABLE first, so that the links
 * of several instances never go through each other's tunnels. The rule on table main keeps
 * routes more specific than a default (the local network) outside the tunnel, as wg-quick(8) does. By 1
 * and not by 0: `0/1` and `128/1` are a default route too (OpenVPN's), and wg-quick deletes every rule
 * with 0 when it goes down.
 */
const linuxConnected: readonly Row[] = [
  // A reply on a link comes from where, unmarked, the route leads into the tunnel: with strict
  // rp_filter (ip-sysctl.rst, src_valid_mark), and with the rpfilter of a firewall (firewalld's for
  // IPv6), it needs the mark back. Which of them a host has is not to be seen from outside.
  validMarks('route4'),
  inserted(
    'route4 mangle4',
    `${IPTABLES} -t mangle -I POSTROUTING -p udp -m mark --mark $MARK ${COMMENT} -j CONNMARK --save-mark`,
  ),
  inserted(
    'route4 mangle4',
    `${IPTABLES} -t mangle -I PREROUTING -p udp -m connmark --mark $MARK ${COMMENT} -j CONNMARK --restore-mark`,
  ),
  inserted(
    'route6 mangle6',
    `${IP6TABLES} -t mangle -I POSTROUTING -p udp -m mark --mark $MARK ${COMMENT} -j CONNMARK --save-mark`,
  ),
  inserted(
    'route6 mangle6',
    `${IP6TABLES} -t mangle -I PREROUTING -p udp -m connmark --mark $MARK ${COMMENT} -j CONNMARK --restore-mark`,
  ),
  ...nftMarks,
  // dsvpn's <gateway ip>: the links, and only they, leave through it.
  {
    up: 'ip route add default via $GATEWAY4 dev $GATEWAY_IF table $TABLE_OUT',
    down: 'ip route flush table $TABLE_OUT',
  },
  {
    need: 'gateway4',
    up: 'ip rule add preference $PREF_OUT fwmark $MARK table $TABLE_OUT',
    down: 'ip rule del preference $PREF_OUT table $TABLE_OUT',
  },
  {
    up: 'ip -6 route add default via $GATEWAY6 dev $GATEWAY_IF table $TABLE_OUT',
    down: 'ip -6 route flush table $TABLE_OUT',
  },
  {
    need: 'gateway6',
    up: 'ip -6 rule add preference $PREF_OUT fwmark $MARK table $TABLE_OUT',
    down: 'ip -6 rule del preference $PREF_OUT table $TABLE_OUT',
  },
  { need: 'route4', down: 'ip route flush table $TABLE' },
  { need: 'route6', down: 'ip -6 route flush table $TABLE' },
  ...through('split', 'ip route add $NET4', ' table $TABLE'),
  ...(pointToPoint
    ? []
    : ([
        ...through('everything', 'ip route add default', ' table $TABLE'),
        {
          need: 'everything',
          up: 'ip rule add preference $PREF_MAIN table main suppress_prefixlength 1',
          down: 'ip rule del preference $PREF_MAIN table main',
        },
        {
          need: 'everything route6',
          up: 'ip -6 rule add preference $PREF_MAIN table main suppress_prefixlength 1',
          down: 'ip -6 rule del preference $PREF_MAIN table main',
        },
      ] satisfies readonly Row[])),
];

/** Two routes of unlike metric, so that one of them is there at every moment. */
const linuxIpv6: readonly Row[] = [
  ...(pointToPoint
    ? []
    : ([
        ...through(
          'everything route6 through6',
          'ip -6 route replace default',
          ' table $TABLE metric 1024',
        ),
        {
          need: 'everything route6 blocked6',
          up: 'ip -6 route replace unreachable default table $TABLE metric 4096',
          remove: 'ip -6 route del unreachable default table $TABLE metric 4096',
        },
      ] satisfies readonly Row[])),
  ...through('split route6 through6', 'ip -6 route replace $NET6', ' table $TABLE metric 1024'),
  {
    need: 'split route6 blocked6',
    up: 'ip -6 route replace unreachable $NET6 table $TABLE metric 4096',
    remove: 'ip -6 route del unreachable $NET6 table $TABLE metric 4096',
  },
  { need: 'route6 through6', up: 'ip -6 route flush table $TABLE type unreachable' },
  { need: 'route6 blocked6', up: 'ip -6 route flush table $TABLE dev $TUN' },
];

/**
 * Another tunnel that takes everything but its own mark (wg-quick's `not fwmark`): were its datagrams
 * to take our routes, and ours its, they would wrap each other for ever. Ours go through it.
 */
const linuxForeign: readonly Row[] = [
  {
    need: 'route4',
    up: 'ip rule add preference $PREF_OUT fwmark $FOREIGN table main',
    down: 'ip rule del preference $PREF_OUT fwmark $FOREIGN table main',
  },
  {
    need: 'route6',
    up: 'ip -6 rule add preference $PREF_OUT fwmark $FOREIGN table main',
    down: 'ip -6 rule del preference $PREF_OUT fwmark $FOREIGN table main',
  },
];

const linuxEnter: readonly Row[] = [
  ...linuxForeign,
  {
    need: 'route6',
    up: 'ip -6 rule add preference $PREF not fwmark $MARKS table $TABLE',
    down: 'ip -6 rule del preference $PREF table $TABLE',
  },
  {
    need: 'route4',
    up: 'ip rule add preference $PREF not fwmark $MARKS table $TABLE',
    down: 'ip rule del preference $PREF table $TABLE',
  },
];

const linuxRefresh: readonly Row[] = [
  ...linuxForeign,
  // The kernel drops a route when its interface goes down. `add` does nothing where it is there. By its
  // device, for meanwhile the gateway may seem to be behind the tunnel.
  { need: 'gateway4', up: 'ip route add default via $GATEWAY4 dev $GATEWAY_IF table $TABLE_OUT' },
  {
    need: 'gateway6',
    up: 'ip -6 route add default via $GATEWAY6 dev $GATEWAY_IF table $TABLE_OUT',
  },
];

export const linux: Platform = {
  tun: { file: '/dev/net/tun', remedy: 'run modprobe tun' },
  tap: { file: '/dev/net/tun', remedy: 'run modprobe tun' },
  hasOffload: true,
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
    iptables: 'iptables -V',
    ...nftProbes,
  },
  instead: {
    'nft-filter4': 'filter4',
    'nft-filter6': 'filter6',
    'nft-raw4': 'raw4',
    'nft-raw6': 'raw6',
    'nft-mangle4': 'mangle4',
    'nft-mangle6': 'mangle6',
    'nft-nat4': 'nat4',
    'nft-nat6': 'nat6',
  },
  routeTo: 'ip route get',
  server: linuxServer,
  client: [...linuxDevice, ...linuxMss],
  site: linuxSite,
  proxy: linuxProxy,
  connected: linuxConnected,
  everySession: linuxIpv6,
  enter: linuxEnter,
  refresh: linuxRefresh,
  link: linuxLink,
  linkRule: linuxLinkRule,
  linkRoute: linuxLinkRoute,
  killSwitch: linuxKillSwitch,
  switchProbes,
  names: linuxNames,
  absent:
    /No such (process|file or directory|device)|Cannot find device|FIB table does not exist|[Aa]ddress not found|Cannot assign requested address|does a matching rule exist|No chain\/target\/match by that name|table '\w+' does not exist|Chain '[\w.-]+' does not exist/,
};
