/**
 * Hosts behind the ends: forwarded and NATed, with checksums looked at on the last wire, and what must
 * not come out of a tunnel.
 *
 * A packet leaves its kernel with a checksum that is to be completed later, and the tunnel carries it
 * so. Where the last cable does nothing for the sender, the completed one can be read off the wire.
 */
import assert from 'node:assert/strict';
import { capture, checksums, withoutCardOffloads } from './capture.ts';
import { CLIENT_IP, SERVER_IP, tunnel } from './ends.ts';
import { checkArrived, receiveFile, sendFile } from './helpers.ts';
import { netTest, until, type Bed, type Host } from './netns.ts';
import { iperf, iperfServer, ping, reaches } from './traffic.ts';
import { INTERNET, LAN, SERVER, world } from './world.ts';

const TOOLS = ['tcpdump', 'ethtool', 'iperf3'];

/**
 * TCP and UDP from `from` to `to` at `address`; every checksum that comes out at `device` of `to` must be
 * right. `sender` is the neighbour at the other end of that cable.
 */
async function checkWire(
  bed: Bed,
  from: Host,
  to: Host,
  device: string,
  address: string,
  sender: { readonly host: Host; readonly device: string },
): Promise<void> {
  withoutCardOffloads(sender.host, sender.device);
  const seen = await capture(bed, to, device, 'inbound');
  const receiver = await receiveFile(to, 9000);
  await checkArrived(sendFile(from, address, 9000, 2), receiver);
  const udp = await iperf(from, address, '-u -t 1 -b 5M -l 1000');
  assert.ok(udp.packets - udp.lost > 100, `${udp.packets} UDP packets, ${udp.lost} lost`);
  await seen.stop();
  const { right, wrong } = checksums(seen.packets());
  assert.ok(right > 500, `${right} packets seen`);
  assert.equal(wrong, 0, `${wrong} wrong checksums, ${right} right`);
}

for (const [how, options] of [
  ['', {}],
  [', without offloads at the server', { server: ['--no-offload'] }],
  [', without offloads at the client', { client: ['--no-offload'] }],
] as const)
  netTest(`checksums are right behind the server's NAT${how}`, TOOLS, async (bed) => {
    const hosts = world(bed);
    await tunnel(bed, hosts, SERVER[4], options);
    await iperfServer(hosts.internet);
    for (const family of [4, 6] as const) {
      await reaches(hosts.client, INTERNET[family]);
      await checkWire(bed, hosts.client, hosts.internet, 'eth0', INTERNET[family], {
        host: hosts.server,
        device: 'wan0',
      });
    }
  });

netTest('a LAN behind the client reaches the internet through both NATs', TOOLS, async (bed) => {
  const hosts = world(bed);
  const { client } = await tunnel(bed, hosts, SERVER[4]);
  hosts.client.forward();
  for (const iptables of ['iptables', 'ip6tables'])
    hosts.client.run(`${iptables} -t nat -A POSTROUTING -o ${client.tun} -j MASQUERADE`);
  await iperfServer(hosts.internet);
  for (const family of [4, 6] as const) {
    await reaches(hosts.lan, INTERNET[family]);
    await checkWire(bed, hosts.lan, hosts.internet, 'eth0', INTERNET[family], {
      host: hosts.server,
      device: 'wan0',
    });
  }
});

netTest('a host behind the server reaches the client without NAT', TOOLS, async (bed) => {
  const hosts = world(bed);
  const { client } = await tunnel(bed, hosts, SERVER[4], { both: ['--no-default-routes'] });
  hosts.server.forward();
  hosts.internet.run(`ip route add ${CLIENT_IP}/32 via 10.3.0.2 src ${INTERNET[4]}`);
  hosts.client.run(`ip route add ${INTERNET[4]}/32 dev ${client.tun}`);
  await reaches(hosts.internet, CLIENT_IP);
  await iperfServer(hosts.internet);
  await checkWire(bed, hosts.client, hosts.internet, 'eth0', INTERNET[4], {
    host: hosts.server,
    device: 'wan0',
  });
});

netTest(
  'a port forwarded to the LAN behind the client is reached through the tunnel',
  TOOLS,
  async (bed) => {
    const hosts = world(bed);
    const { client } = await tunnel(bed, hosts, SERVER[4]);
    hosts.client.forward();
    hosts.client.run(
      `iptables -t nat -A PREROUTING -i ${client.tun} -d ${CLIENT_IP} -j DNAT --to-destination ${LAN[4]}`,
    );
    hosts.lan.run('ip route replace default via 10.77.0.1');
    await reaches(hosts.server, CLIENT_IP);
    await iperfServer(hosts.lan);
    await checkWire(bed, hosts.server, hosts.lan, 'lan0', CLIENT_IP, {
      host: hosts.client,
      device: 'lan0',
    });
  },
);

netTest(
  'the server drops inner packets with a source that is not the client',
  ['tcpdump'],
  async (bed) => {
    const hosts = world(bed);
    const { client, server } = await tunnel(bed, hosts, SERVER[4]);
    for (const address of ['192.0.2.66/32', '2001:db8:bad::66/128'])
      // Deprecated: used only by who asks for it.
      hosts.client.run(`ip address add ${address} dev ${client.tun} preferred_lft 0`);
    await reaches(hosts.client, INTERNET[6]);
    const onTun = await capture(bed, hosts.server, server.tun, 'icmp or icmp6');
    const beyond = await capture(bed, hosts.internet, 'eth0', 'icmp or icmp6');
    for (const [from, to] of [
      ['192.0.2.66', INTERNET[4]],
      ['192.0.2.66', SERVER_IP],
      ['2001:db8:bad::66', INTERNET[6]],
    ] as const)
      assert.equal(ping(hosts.client, to, `-c 3 -i 0.2 -W 0.5 -I ${from} -s 333`).received, 0);
    // The honest one that follows shows that the captures see what passes.
    assert.equal(ping(hosts.client, INTERNET[4], '-c 1 -W 2 -s 444').received, 1);
    assert.equal(ping(hosts.client, INTERNET[6], '-c 1 -W 2 -s 444').received, 1);
    for (const seen of [onTun, beyond]) {
      const lengths = await until('the honest ones', () => {
        const all = seen.packets().map(({ bytes }) => bytes.length);
        return all.includes(444 + 28) && all.includes(444 + 48) ? all : undefined;
      });
      assert.ok(!lengths.includes(333 + 28) && !lengths.includes(333 + 48), lengths.join(' '));
    }
  },
);

netTest('nobody on the network of the client reaches its tunnel address', [], async (bed) => {
  // CVE-2019-14899: a neighbour that can address the tunnel IP learns of the connections inside.
  const hosts = world(bed);
  const { client } = await tunnel(bed, hosts, SERVER[4]);
  hosts.router.run(`ip route add ${CLIENT_IP}/32 via 10.1.0.2`);
  hosts.router.run(`ip -6 route add ${client.inner6}/128 via 2001:db8:1::2`);
  assert.equal(ping(hosts.router, CLIENT_IP, '-c 2 -i 0.2 -W 0.5').received, 0);
  assert.equal(ping(hosts.router, client.inner6, '-c 2 -i 0.2 -W 0.5').received, 0);
  assert.equal(ping(hosts.server, CLIENT_IP).received, 1);
});
