/**
 * The hosts that most tests and the demo use:
 *
 *   lan ─────────── client ─────────── router ─────────── server ─────────── internet
 *       10.77.0.0/24        10.1.0.0/24  │    10.2.0.0/24        10.3.0.0/24    │
 *       .2        .1        .2        .1 │    .1        .2       .2        .1   203.0.113.9
 *       lan0    lan0        eth0    eth0 │    eth1    eth0       wan0    eth0   2001:db8:9::9
 *                                        │ eth2
 *                                        │ 10.9.0.0/24
 *                                    attacker   owns 10.66.0.0/16 and 2001:db8:66::/64
 *
 * IPv6 has the same picture: 2001:db8:77::/64, 2001:db8:1::/64 and so on, same last numbers.
 *
 * - The internet knows no way back to anybody but its neighbour: what it answers came through the
 *   server's NAT. The router knows no way to it: what reaches it came through the tunnel.
 * - The client's default route leads to the router, the server's to the internet.
 * - The LAN's default route leads to the client, which forwards nothing unless a test says so.
 * - The attacker can send from, and hear answers to, 65536 addresses, and more of IPv6.
 *
 * And the smallest bed, for measurements:
 *
 *   client ─────────── server
 *          10.1.0.0/24
 *          .1        .2
 *          eth0    eth0
 */
import type { Bed, Host } from './netns.ts';

export const INTERNET = { 4: '203.0.113.9', 6: '2001:db8:9::9' } as const;
export const SERVER = { 4: '10.2.0.2', 6: '2001:db8:2::2' } as const;
export const CLIENT = { 4: '10.1.0.2', 6: '2001:db8:1::2' } as const;
export const LAN = { 4: '10.77.0.2', 6: '2001:db8:77::2' } as const;
export const ATTACKER = { 4: '10.9.0.2', 6: '2001:db8:90::2' } as const;

export interface World {
  readonly bed: Bed;
  readonly lan: Host;
  readonly client: Host;
  readonly router: Host;
  readonly server: Host;
  readonly internet: Host;
  readonly attacker: Host;
}

const both = (net: number, last: number): string[] => [
  `10.${net}.0.${last}/24`,
  `2001:db8:${net === 9 ? 90 : net}::${last}/64`,
];

function route(host: Host, to4: string, to6: string, net: number, last: number): void {
  host.ip(
    `route add ${to4} via 10.${net}.0.${last}`,
    `route add ${to6} via 2001:db8:${net === 9 ? 90 : net}::${last}`,
  );
}

export function world(bed: Bed): World {
  const [lan, client, router, server, internet, attacker] = [
    'lan',
    'client',
    'router',
    'server',
    'internet',
    'attacker',
  ].map((name) => bed.host(name)) as [Host, Host, Host, Host, Host, Host];

  bed.cable(
    { host: lan, device: 'lan0', addresses: both(77, 2) },
    { host: client, device: 'lan0', addresses: both(77, 1) },
  );
  bed.cable(
    { host: client, device: 'eth0', addresses: both(1, 2) },
    { host: router, device: 'eth0', addresses: both(1, 1) },
  );
  bed.cable(
    { host: router, device: 'eth1', addresses: both(2, 1) },
    { host: server, device: 'eth0', addresses: both(2, 2) },
  );
  bed.cable(
    { host: server, device: 'wan0', addresses: both(3, 2) },
    { host: internet, device: 'eth0', addresses: both(3, 1) },
  );
  bed.cable(
    { host: router, device: 'eth2', addresses: both(9, 1) },
    { host: attacker, device: 'eth0', addresses: both(9, 2) },
  );

  route(lan, 'default', 'default', 77, 1);
  route(client, 'default', 'default', 1, 1);
  route(server, 'default', 'default', 3, 1);
  route(server, '10.1.0.0/24', '2001:db8:1::/64', 2, 1);
  route(server, '10.9.0.0/24', '2001:db8:90::/64', 2, 1);
  route(attacker, 'default', 'default', 9, 1);
  router.forward();

  internet.ip(
    `address add ${INTERNET[4]}/32 dev lo`,
    `address add ${INTERNET[6]}/128 dev lo nodad`,
    // Programs that do not say where they answer from answer from these addresses.
    `route replace 10.3.0.0/24 dev eth0 src ${INTERNET[4]}`,
    'route delete 2001:db8:3::/64 dev eth0',
    `route add 2001:db8:3::/64 dev eth0 src ${INTERNET[6]}`,
  );
  // A "local" route makes every address of the prefix the attacker's own (ip-route(8)).
  attacker.run('ip route add local 10.66.0.0/16 dev lo');
  router.run('ip route add 10.66.0.0/16 via 10.9.0.2');
  server.run('ip route add 10.66.0.0/16 via 10.2.0.1');
  attacker.run('ip route add local 2001:db8:66::/64 dev lo');
  // Of IPv6 such addresses can be answered from, but not bound to.
  attacker.sysctl('net.ipv6.ip_nonlocal_bind', '1');
  router.run('ip route add 2001:db8:66::/64 via 2001:db8:90::2');
  server.run('ip route add 2001:db8:66::/64 via 2001:db8:2::1');
  return { bed, lan, client, router, server, internet, attacker };
}

export interface Pair {
  readonly client: Host;
  readonly server: Host;
}

export function pair(bed: Bed): Pair {
  const client = bed.host('client');
  const server = bed.host('server');
  bed.cable(
    { host: client, device: 'eth0', addresses: ['10.1.0.1/24', '2001:db8:1::1/64'] },
    { host: server, device: 'eth0', addresses: ['10.1.0.2/24', '2001:db8:1::2/64'] },
  );
  return { client, server };
}

/**
 * Packets longer than `mtu` bytes no longer pass the router, whichever way they go. Without `icmp`
 * nobody is told.
 */
export function narrow({ router }: World, mtu: number, icmp: boolean): void {
  for (const [device, net] of [
    ['eth0', 1],
    ['eth1', 2],
  ] as const) {
    // A locked route MTU holds for forwarded packets too (ip-route(8)).
    router.run(`ip route replace 10.${net}.0.0/24 dev ${device} mtu lock ${mtu}`);
    router.run(`ip -6 route delete 2001:db8:${net}::/64 dev ${device}`);
    router.run(`ip -6 route add 2001:db8:${net}::/64 dev ${device} mtu lock ${mtu}`);
  }
  if (icmp) return;
  router.run('iptables -A OUTPUT -p icmp -j DROP');
  router.run('ip6tables -A OUTPUT -p icmpv6 --icmpv6-type packet-too-big -j DROP');
}

/** From now on the client's datagrams reach the server from 10.2.0.1 and `port`: a NAT that forgot. */
export function rebind({ router }: World, clientPort: number, port: number): void {
  router.try(['nft delete table ip nat_of_router']);
  // Without connection tracking, so that a new mapping holds at once, for flows that exist too. The
  // source changes on the way out: coming in, it would be the router's own and dropped as martian.
  router.nft(`table ip nat_of_router {
  chain forth {
    type filter hook postrouting priority 310
    oifname "eth1" ip daddr ${SERVER[4]} udp sport ${clientPort} ip saddr set 10.2.0.1 udp sport set ${port}
  }
  chain back {
    type filter hook prerouting priority -310
    iifname "eth1" ip daddr 10.2.0.1 udp dport ${port} ip daddr set ${CLIENT[4]} udp dport set ${clientPort}
  }
}`);
}

/** What the attacker sends to `to` arrives there as if it came from `from`. Replaces the last one. */
export function spoof(
  { router }: World,
  from: { readonly address: string; readonly port: number },
  to: { readonly address: string; readonly port: number },
): void {
  router.try(['nft delete table ip spoof']);
  router.nft(`table ip spoof {
  chain forth {
    type filter hook prerouting priority -310
    iifname "eth2" ip daddr ${to.address} udp dport ${to.port} ip saddr set ${from.address} udp sport set ${from.port} notrack
  }
}`);
}

export function stopSpoofing({ router }: World): void {
  router.run('nft delete table ip spoof');
}
