/**
 * Beside others: wg-quick up and down before, during and after, in every order; networks that change
 * under a connected client; an administrator who deletes what is ours.
 *
 * WireGuard is played by a second vpn that changes nothing but its device (--no-default-routes) and
 * marks its datagrams with wg-quick's mark; the rules are those that wg-quick(8) runs, word for word.
 */
import assert from 'node:assert/strict';
import { capture } from './capture.ts';
import { connected, makeKey, routed, startClient, startServer, tunnel, type End } from './ends.ts';
import { netTest, pass, until, type Bed, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping, reaches } from './traffic.ts';
import { CLIENT, INTERNET, SERVER, world, type World } from './world.ts';

const WG_MARK = 51820;
const WG = { localIp: '192.168.193.1', peerIp: '192.168.193.254' } as const;

interface WireGuard {
  up(): void;
  down(): void;
}

/** wg-quick's set_config, add_default and del_if (wireguard-tools, wg-quick/linux.bash). */
function wgQuick(host: Host, device: string): WireGuard {
  const [mark, table] = [String(WG_MARK), String(WG_MARK)];
  const xt = (order: 'I' | 'D'): readonly string[] => [
    `iptables -t raw -${order} PREROUTING ! -i ${device} -d ${WG.localIp} -m addrtype ! --src-type LOCAL -j DROP`,
    `iptables -t mangle -${order} POSTROUTING -m mark --mark ${mark} -p udp -j CONNMARK --save-mark`,
    `iptables -t mangle -${order} PREROUTING -p udp -j CONNMARK --restore-mark`,
  ];
  return {
    up: () => {
      host.run(`ip -4 route add 0.0.0.0/0 dev ${device} table ${table}`);
      host.run(`ip -4 rule add not fwmark ${mark} table ${table}`);
      host.run('ip -4 rule add table main suppress_prefixlength 0');
      // As wg-quick leaves it; it never puts it back.
      host.run('sysctl -q net.ipv4.conf.all.src_valid_mark=1');
      for (const line of xt('I')) host.run(line);
    },
    down: () => {
      const rules = (): string => host.run('ip -4 rule show');
      while (rules().includes(`lookup ${table}`)) host.run(`ip -4 rule delete table ${table}`);
      while (rules().includes('from all lookup main suppress_prefixlength 0'))
        host.run('ip -4 rule delete table main suppress_prefixlength 0');
      host.run(`ip -4 route flush table ${table}`);
      for (const line of xt('D')) host.run(line);
    },
  };
}

/** The tunnel that plays WireGuard's, from the client to the server, connected. */
async function wireGuard(hosts: World): Promise<End> {
  const { bed } = hosts;
  const key = makeKey(bed);
  const ends = { key, port: 4443, tun: 'wg0' };
  startServer(bed, hosts.server, {
    ...ends,
    localIp: WG.peerIp,
    peerIp: WG.localIp,
  });
  const client = startClient(bed, hosts.client, {
    ...ends,
    ...WG,
    address: SERVER[4],
    // No probes for a path MTU, whose result would show in the state.
    options: ['--no-default-routes', '--mtu', '1280', '--mark', String(WG_MARK)],
  });
  await connected(client, WG.peerIp);
  return client;
}

const sentBy = (host: Host, device: string): number =>
  Number(host.run(`cat /sys/class/net/${device}/statistics/tx_packets`));

/**
 * One packet in costs a few packets, not a storm. What a loop left behind may still be on its way
 * when the rule that ends it is there, so a quiet second may be waited for; a loop never has one.
 */
async function assertNoLoop(host: Host): Promise<void> {
  let sent = 0;
  for (let i = 0; i < 5; i += 1) {
    const before = sentBy(host, 'eth0');
    await pass(1000);
    sent = sentBy(host, 'eth0') - before;
    if (sent < 200) return;
  }
  assert.fail(`${sent} packets in a second without traffic`);
}

for (const order of [
  'wg up, vpn up, vpn down, wg down',
  'wg up, vpn up, wg down, vpn down',
  'vpn up, wg up, wg down, vpn down',
  'vpn up, wg up, vpn down, wg down',
])
  netTest(`wg-quick beside vpn: ${order}`, [], async (bed) => {
    const hosts = world(bed);
    const { client: host } = hosts;
    await wireGuard(hosts);
    // As wg-quick leaves it for ever.
    host.sysctl('net.ipv4.conf.all.src_valid_mark', '1');
    const before = hostState(host);
    const wg = wgQuick(host, 'wg0');
    const key = makeKey(bed);
    startServer(bed, hosts.server, { key });
    const leaked = await capture(bed, hosts.router, 'eth0', `host ${INTERNET[4]}`);
    let vpn: End | undefined;
    let between: ReturnType<typeof hostState> | undefined;
    for (const step of order.split(', ')) {
      if (step === 'wg up') wg.up();
      if (step === 'wg down') wg.down();
      if (step === 'vpn up') {
        between = hostState(host);
        vpn = startClient(bed, host, { key, address: SERVER[4] });
        await connected(vpn);
        await routed(vpn);
      }
      if (step === 'vpn down') {
        assert.equal(await vpn?.daemon.stop(), 0);
        assert.doesNotMatch(vpn?.daemon.output ?? '', /warning/);
        vpn = undefined;
      }
      const isLast = step === order.split(', ').at(-1);
      if (isLast) break;
      // Rules that come later are seen within some seconds; until then packets may go round.
      if (step === 'wg up' && vpn !== undefined) {
        for (const family of ['-4', '-6']) {
          await until(`wg exempt ${family}`, () =>
            /fwmark 0xca6c lookup main/.test(host.run(`ip ${family} rule`)),
          );
        }
      }
      await reaches(host, INTERNET[4]);
      await assertNoLoop(host);
    }
    if (order.startsWith('wg up, vpn up, vpn down')) assert.ok(between !== undefined);
    assert.deepEqual(leaked.packets(), []);
    await leaked.stop();
    assert.deepEqual(difference(before, hostState(host)), []);
  });

/** A second way from the client to the router, by the LAN's cable: another Wi-Fi. */
function secondWay({ lan, client, router }: World, bed: Bed): void {
  bed.cable(
    { host: lan, device: 'up0', addresses: ['10.5.0.2/24', '2001:db8:5::2/64'] },
    { host: router, device: 'lan0', addresses: ['10.5.0.1/24', '2001:db8:5::1/64'] },
  );
  lan.forward();
  for (const [host, to4, to6] of [[lan, '10.5.0.1', '2001:db8:5::1']] as const) {
    host.run(`ip route replace default via ${to4}`);
    host.run(`ip -6 route replace default via ${to6}`);
  }
  router.run('ip route add 10.77.0.0/24 via 10.5.0.2');
  router.run('ip -6 route add 2001:db8:77::/64 via 2001:db8:5::2');
  client.run('ip link show lan0');
}

for (const [name, gateway] of [
  ['', 'auto'],
  [', with a gateway given', '10.1.0.1'],
] as const)
  netTest(`the default gateway changes under a client${name}`, ['tcpdump'], async (bed) => {
    const hosts = world(bed);
    secondWay(hosts, bed);
    const { client: host, router, server } = hosts;
    server.run('ip route add 10.77.0.0/24 via 10.2.0.1');
    const key = makeKey(bed);
    startServer(bed, server, { key });
    const client = startClient(bed, host, { key, address: SERVER[4], last: gateway });
    await connected(client);
    await routed(client);
    const filter = `host ${INTERNET[4]} or host ${INTERNET[6]}`;
    const leaks = [
      await capture(bed, router, 'eth0', filter),
      await capture(bed, hosts.lan, 'lan0', filter),
    ];
    for (const family of [4, 6] as const) await reaches(host, INTERNET[family]);
    // Somebody pings all the time.
    const pings = [INTERNET[4], INTERNET[6]].map((to) =>
      host.start(['ping', '-n', '-i', '0.1', '-W', '1', to]),
    );
    const settled = async (): Promise<void> => {
      for (const family of [4, 6] as const) await reaches(host, INTERNET[family], 60_000);
    };
    // DHCP: another gateway on another network, and back.
    host.run('ip route replace default via 10.77.0.2');
    host.run('ip -6 route replace default via 2001:db8:77::2');
    await settled();
    // No network for a while, then the first again, with another address: another Wi-Fi.
    host.run('ip link set eth0 down');
    host.run('ip route del default');
    await pass(2000);
    host.run('ip link set eth0 up');
    host.run(`ip address del ${CLIENT[4]}/24 dev eth0`);
    host.run('ip address add 10.1.0.22/24 dev eth0');
    host.run('ip -6 address add 2001:db8:1::2/64 dev eth0 nodad');
    host.run('ip route replace default via 10.1.0.1');
    host.run('ip -6 route replace default via 2001:db8:1::1');
    await settled();
    if (gateway !== 'auto') {
      // In its own table: the main one has it again, too.
      await until('the gateway back', () => {
        const table = /fwmark 0x10\w\w lookup (\d+)/.exec(host.run('ip -4 rule'))?.[1];
        return /default via 10\.1\.0\.1/.test(host.run(`ip route show table ${table}`));
      });
      host.run('ip route replace default via 10.77.0.2');
      // The links go on by the gateway they were given.
      const mark = /fwmark (0x10\w\w) lookup/.exec(host.run('ip -4 rule'))?.[1];
      assert.match(host.run(`ip route get ${SERVER[4]} mark ${mark}`), /via 10\.1\.0\.1 dev eth0/);
      await settled();
    }
    for (const one of pings) await one.stop('SIGINT');
    for (const leak of leaks) {
      assert.deepEqual(leak.packets().length, 0, 'packets outside the tunnel');
      await leak.stop();
    }
    assert.equal(await client.daemon.stop(), 0, client.daemon.output);
    assert.doesNotMatch(host.run('ip rule') + host.run('ip -6 rule'), /^2[89]\d{3}:/m);
    assert.doesNotMatch(host.run('iptables-save') + host.run('ip6tables-save'), /vpn:/);
  });

netTest('what an administrator deleted of ours: undo goes on, and warns once', [], async (bed) => {
  const hosts = world(bed);
  const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
  const ends = await tunnel(bed, hosts, SERVER[4]);
  const preference = /^(2[89]\d{3}):.*not from all/m.exec(hosts.client.run('ip rule'))?.[1];
  hosts.client.run('iptables -t raw -F PREROUTING');
  hosts.client.run('iptables -t mangle -F');
  hosts.client.run(`ip rule del preference ${preference}`);
  hosts.server.run('iptables -F FORWARD');
  hosts.server.run('ip6tables -t nat -F');
  hosts.server.sysctl('net.ipv4.ip_forward', '0');
  for (const role of ['client', 'server'] as const) {
    const end = ends[role];
    assert.equal(await end.daemon.stop(), 0);
    const warnings = end.daemon.output.match(/^vpn: warning: .*$/gm) ?? [];
    assert.equal(warnings.length, 1, end.daemon.output);
    assert.match(warnings[0] ?? '', /somebody else removed what "ip.*" was to remove$/);
    assert.deepEqual(difference(before[role], hostState(hosts[role])), []);
  }
  assert.equal(ping(hosts.client, '10.1.0.1').received, 1);
});
