/**
 * A client with two ways to one server, and a third interface behind which both routers are:
 *
 *              10.1.0.0/24              10.11.0.0/24
 *          ┌── eth0 .2 ─── .1 eth0  a  eth1 .1 ─── .2 eth0 ──┐
 *   client ┤                                                 ├ server   198.51.100.1
 *          ├── eth1 .2 ─── .1 eth0  b  eth1 .1 ─── .2 eth1 ──┘          2001:db8:51::1
 *          │   10.4.0.0/24              10.14.0.0/24
 *          │
 *          └── lan0 ── switch ─┬── lan0 192.168.1.1  a
 *     192.168.1.2/24           └── lan0 192.168.2.1  b
 *     192.168.2.2/24
 *
 * IPv6 has the same picture without the switch: 2001:db8:1::/64, 2001:db8:4::/64 and so on.
 *
 * - The client's default routes lead to a (metric 100) and to b (metric 200). It checks the reverse path
 *   strictly.
 * - The server answers each network of the client by the router that is on it.
 */
import type { Bed, Host } from './netns.ts';

export const SERVER = { 4: '198.51.100.1', 6: '2001:db8:51::1' } as const;
/** Of the client, by interface. */
export const ADDRESS = {
  eth0: { 4: '10.1.0.2', 6: '2001:db8:1::2' },
  eth1: { 4: '10.4.0.2', 6: '2001:db8:4::2' },
} as const;
export type Device = keyof typeof ADDRESS;
const NET = { eth0: 1, eth1: 4 } as const;

export interface TwoWays {
  readonly bed: Bed;
  readonly client: Host;
  readonly server: Host;
  readonly a: Host;
  readonly b: Host;
}

const both = (net: number, last: number): string[] => [
  `10.${net}.0.${last}/24`,
  `2001:db8:${net}::${last}/64`,
];

export function twoWays(bed: Bed): TwoWays {
  const [client, server, a, b, lan] = ['client', 'server', 'a', 'b', 'switch'].map((name) =>
    bed.host(name),
  ) as [Host, Host, Host, Host, Host];
  for (const which of ['all', 'default']) client.sysctl(`net.ipv4.conf.${which}.rp_filter`, '1');
  for (const [router, device, net, far] of [
    [a, 'eth0', 1, 11],
    [b, 'eth1', 4, 14],
  ] as const) {
    bed.cable(
      { host: client, device, addresses: both(net, 2) },
      { host: router, device: 'eth0', addresses: both(net, 1) },
    );
    bed.cable(
      { host: router, device: 'eth1', addresses: both(far, 1) },
      { host: server, device, addresses: both(far, 2) },
    );
    router.ip(
      `route add ${SERVER[4]} via 10.${far}.0.2`,
      `route add ${SERVER[6]} via 2001:db8:${far}::2`,
    );
    router.forward();
    server.ip(
      `route add 10.${net}.0.0/24 via 10.${far}.0.1`,
      `route add 2001:db8:${net}::/64 via 2001:db8:${far}::1`,
    );
  }
  server.ip(`address add ${SERVER[4]}/32 dev lo`, `address add ${SERVER[6]}/128 dev lo`);
  addDefaultRoute({ client }, 'eth0');
  addDefaultRoute({ client }, 'eth1');
  join(bed, lan, client, a, b);
  server.run('ip route add 192.168.1.0/24 via 10.11.0.1');
  server.run('ip route add 192.168.2.0/24 via 10.14.0.1');
  return { bed, client, server, a, b };
}

function join(bed: Bed, lan: Host, client: Host, a: Host, b: Host): void {
  lan.run('ip link add br0 type bridge');
  for (const [host, port, addresses] of [
    [client, 'port0', ['192.168.1.2/24', '192.168.2.2/24']],
    [a, 'port1', ['192.168.1.1/24']],
    [b, 'port2', ['192.168.2.1/24']],
  ] as const) {
    bed.cable({ host, device: 'lan0', addresses }, { host: lan, device: port, addresses: [] });
    lan.run(`ip link set ${port} master br0`);
  }
  lan.run('ip link set br0 up');
}

/** As a DHCP client or a router advertisement would. */
export function addDefaultRoute({ client }: Pick<TwoWays, 'client'>, device: Device): void {
  const [net, metric] = [NET[device], device === 'eth0' ? 100 : 200];
  client.run(`ip route replace default via 10.${net}.0.1 dev ${device} metric ${metric}`);
  client.run(
    `ip -6 route replace default via 2001:db8:${net}::1 dev ${device} metric ${1000 + metric}`,
  );
}

/** Gives an interface that was down or is new its addresses and routes again. */
export function raise(hosts: TwoWays, device: Device): void {
  const { client } = hosts;
  client.run(`ip link set ${device} up`);
  client.run(`ip address replace ${ADDRESS[device][4]}/24 dev ${device}`);
  client.run(`ip address replace ${ADDRESS[device][6]}/64 dev ${device} nodad`);
  addDefaultRoute(hosts, device);
}

/** Makes the cable of a client's interface anew, after it was deleted. */
export function replug(hosts: TwoWays, device: Device): void {
  const { bed, client } = hosts;
  const net = NET[device];
  bed.cable(
    { host: client, device, addresses: both(net, 2) },
    { host: device === 'eth0' ? hosts.a : hosts.b, device: 'eth0', addresses: both(net, 1) },
  );
  addDefaultRoute(hosts, device);
}

/** Bytes of the client that went through the router behind an interface. */
export function carried({ a, b }: TwoWays, device: Device): number {
  const router = device === 'eth0' ? a : b;
  return Number(router.run('cat /sys/class/net/eth1/statistics/tx_bytes'));
}
