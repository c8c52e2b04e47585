/**
 * The links of a client on a real host: what its packets go by, what it changes for that, and what it
 * does when interfaces, addresses and routes come and go. All under strict reverse path filtering.
 */
import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import {
  connected,
  EXECUTABLE,
  makeKey,
  SERVER_IP,
  startClient,
  startServer,
  type End,
} from './ends.ts';
import { netTest, pass, until, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping } from './traffic.ts';
import {
  ADDRESS,
  carried,
  raise,
  replug,
  SERVER,
  twoWays,
  type Device,
  type TwoWays,
} from './twoways.ts';

/** A server, and a client with these links that is not yet connected. */
function ends(
  hosts: TwoWays,
  links: readonly string[],
  more: {
    readonly options?: readonly string[];
    readonly family?: 4 | 6;
    readonly wrapper?: readonly string[];
  } = {},
): { readonly client: End; readonly server: End } {
  const { bed } = hosts;
  const key = makeKey(bed);
  const server = startServer(bed, hosts.server, { key });
  const client = startClient(bed, hosts.client, {
    key,
    address: SERVER[more.family ?? 4],
    options: [...links.flatMap((link) => ['--link', link]), ...(more.options ?? [])],
    wrapper: more.wrapper ?? [],
  });
  return { client, server };
}

/** Bytes that 50 pings of 1000 bytes put on each way. */
function load(hosts: TwoWays): Readonly<Record<Device, number>> {
  const before = [carried(hosts, 'eth0'), carried(hosts, 'eth1')];
  assert.equal(ping(hosts.client, SERVER_IP, '-q -c 50 -i 0.005 -W 2 -s 1000').received, 50);
  return {
    eth0: carried(hosts, 'eth0') - before[0]!,
    eth1: carried(hosts, 'eth1') - before[1]!,
  };
}

/** Rules of ours that lead the packets of links. */
const linkRules = (host: Host): string[] =>
  (host.run('ip -4 rule') + host.run('ip -6 rule'))
    .split('\n')
    .filter((line) => /^27\d\d\d:/.test(line));

const BYTES = 50_000;
const ROUTES = `${SERVER_IP}/32`;

for (const [name, link, family, options] of [
  ['an interface', 'eth1', 4, []],
  ['an interface, over IPv6', 'eth1', 6, []],
  ['an address', ADDRESS.eth1[4], 4, []],
  ['an address of IPv6', ADDRESS.eth1[6], 6, []],
  ['an interface, with --route', 'eth1', 4, ['--route', ROUTES]],
  ['an address, with --no-default-routes', ADDRESS.eth1[4], 4, ['--no-default-routes']],
  ['an interface, with --mark', 'eth1', 4, ['--mark', '77']],
  ['an interface, with a gateway', 'eth1,gateway=10.4.0.1', 4, []],
  ['another server', 'eth1,remote=10.14.0.2:443', 4, []],
] as const)
  netTest(`a link bound to ${name} carries all, and nothing is left behind`, [], async (bed) => {
    const hosts = twoWays(bed);
    const before = hostState(hosts.client);
    const { client } = ends(hosts, [link], { family, options });
    await connected(client);
    const { eth0, eth1 } = load(hosts);
    assert.ok(eth1 > BYTES && eth0 < BYTES / 10, `${eth0} and ${eth1} bytes`);
    assert.equal(linkRules(hosts.client).length, 2);
    assert.equal(await client.daemon.stop(), 0);
    assert.deepEqual(difference(before, hostState(hosts.client)), [], client.daemon.output);
    assert.doesNotMatch(client.daemon.output, /warning/);
  });

netTest('the way of a link is its own, though the main table has none for it', [], async (bed) => {
  const hosts = twoWays(bed);
  for (const family of ['-4', '-6']) hosts.client.run(`ip ${family} route del default dev eth1`);
  const { client } = ends(hosts, [`${ADDRESS.eth1[4]},gateway=10.4.0.1`]);
  await connected(client);
  assert.ok(load(hosts).eth1 > BYTES);
  assert.equal(await client.daemon.stop(), 0);
});

netTest(
  'a link that no default route leads out by is a warning, and goes on once there is',
  [],
  async (bed) => {
    const hosts = twoWays(bed);
    for (const family of ['-4', '-6']) hosts.client.run(`ip ${family} route del default dev eth1`);
    const { client } = ends(hosts, ['eth1']);
    await client.daemon.line(
      /^vpn: warning: link "eth1": no default route leads out by "eth1"; if none is to come, write --link eth1,gateway=ADDRESS$/,
    );
    assert.equal(ping(hosts.client, SERVER_IP, '-c 2 -i 0.2 -W 0.5').received, 0);
    hosts.client.run('ip route add default via 10.4.0.1 dev eth1 metric 300');
    await connected(client);
    assert.ok(load(hosts).eth1 > BYTES);
  },
);

for (const [name, links] of [
  ['two interfaces', ['eth0', 'eth1']],
  ['two addresses', [ADDRESS.eth0[4], ADDRESS.eth1[4]]],
  ['every interface with a default route', ['auto']],
  [
    'two gateways on one interface',
    ['192.168.1.2,gateway=192.168.1.1', '192.168.2.2,gateway=192.168.2.1'],
  ],
  [
    'two gateways on one interface, without addresses,',
    ['lan0,gateway=192.168.1.1', 'lan0,gateway=192.168.2.1,name=b'],
  ],
] as const)
  netTest(`${name}: both are used at the same time`, [], async (bed) => {
    const hosts = twoWays(bed);
    const before = hostState(hosts.client);
    const { client } = ends(hosts, links);
    await connected(client);
    await bothUsed(hosts);
    assert.equal(await client.daemon.stop(), 0);
    assert.deepEqual(difference(before, hostState(hosts.client)), [], client.daemon.output);
  });

/** Each way carries something of what goes on all the time. */
async function bothUsed(hosts: TwoWays): Promise<void> {
  const flood = hosts.client.start(['ping', '-n', '-q', '-f', '-s', '1300', SERVER_IP]);
  for (const device of ['eth0', 'eth1'] as const) {
    const from = carried(hosts, device);
    await until(`traffic by ${device}`, () => carried(hosts, device) > from + BYTES);
  }
  await flood.stop('SIGINT');
}

netTest(
  'without iptables and nft an interface checks the reverse path loosely meanwhile',
  [],
  async (bed) => {
    const hosts = twoWays(bed);
    const before = hostState(hosts.client);
    const path = bed.file('path');
    mkdirSync(path);
    symlinkSync(hosts.client.run('sh', '-c', 'command -v ip').trim(), join(path, 'ip'));
    const { client } = ends(hosts, ['eth0', 'eth1'], { wrapper: ['env', `PATH=${path}`] });
    await connected(client);
    await bothUsed(hosts);
    assert.equal(hosts.client.run('sysctl -n net.ipv4.conf.eth1.rp_filter').trim(), '2');
    assert.equal(await client.daemon.stop(), 0);
    assert.deepEqual(difference(before, hostState(hosts.client)), [], client.daemon.output);
  },
);

netTest('two gateways on one interface: without gateway= the error names it', [], async (bed) => {
  const hosts = twoWays(bed);
  hosts.client.run('ip route add default via 192.168.1.1 dev lan0 metric 50');
  const before = hostState(hosts.client);
  const { client } = ends(hosts, ['192.168.1.2', '192.168.2.2']);
  assert.equal(await client.daemon.ended(), 1);
  assert.match(
    client.daemon.output,
    /^vpn: link "192\.168\.2\.2": 192\.168\.1\.1, the gateway on "lan0", is not on its network; write --link 192\.168\.2\.2,gateway=ADDRESS$/m,
  );
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});

netTest(
  'a rule of the administrator for the address of a link is left to lead it',
  [],
  async (bed) => {
    const hosts = twoWays(bed);
    hosts.client.run('ip route del default dev eth1');
    hosts.client.run('ip route add default via 10.4.0.1 dev eth1 table 104');
    hosts.client.run('ip rule add preference 100 from 10.4.0.2 table 104');
    const { client } = ends(hosts, ['10.4.0.2']);
    await connected(client);
    assert.ok(load(hosts).eth1 > BYTES);
    assert.deepEqual(linkRules(hosts.client), []);
  },
);

netTest('another tunnel that takes everything unmarked takes no link', [], async (bed) => {
  const hosts = twoWays(bed);
  const { client } = ends(hosts, ['eth0', '10.4.0.2']);
  await connected(client);
  // What wg-quick(8) adds, with a device behind which nobody is.
  hosts.client.run('ip tuntap add dev wg0 mode tun');
  hosts.client.run('ip link set wg0 up');
  hosts.client.run('ip route add default dev wg0 table 51820');
  hosts.client.run('ip rule add not fwmark 51820 table 51820');
  hosts.client.run('ip rule add table main suppress_prefixlength 0');
  await pass(1000);
  await bothUsed(hosts);
});

interface Loss {
  readonly name: string;
  readonly take: (hosts: TwoWays) => void;
  readonly giveBack: (hosts: TwoWays) => void;
  readonly says: RegExp;
}
const LOSSES: readonly Loss[] = [
  {
    name: 'goes down',
    take: ({ client }) => client.run('ip link set eth1 down'),
    giveBack: (hosts) => raise(hosts, 'eth1'),
    says: /^vpn: link eth1: its interface is down$/m,
  },
  {
    name: 'loses its carrier',
    take: ({ b }) => b.run('ip link set eth0 down'),
    giveBack: ({ b }) => {
      b.run('ip link set eth0 up');
      b.run('ip address replace 2001:db8:4::1/64 dev eth0 nodad');
    },
    says: /^vpn: link eth1: its interface has no carrier$/m,
  },
  {
    name: 'is deleted and made anew',
    take: ({ client }) => client.run('ip link delete eth1'),
    giveBack: (hosts) => replug(hosts, 'eth1'),
    says: /^vpn: link eth1: no such interface$/m,
  },
  {
    name: 'loses its addresses',
    take: ({ client }) => client.run('ip address flush dev eth1 scope global'),
    giveBack: (hosts) => raise(hosts, 'eth1'),
    says: /^vpn: link eth1: its interface has no address$/m,
  },
];
for (const { name, take, giveBack, says } of LOSSES)
  netTest(`an interface that ${name}: the other goes on, and it is used again`, [], async (bed) => {
    const hosts = twoWays(bed);
    const before = hostState(hosts.client);
    const { client } = ends(hosts, ['eth0', 'eth1']);
    await connected(client);
    await bothUsed(hosts);
    take(hosts);
    await until('its line', () => says.test(client.daemon.output));
    const { eth0 } = load(hosts);
    assert.ok(eth0 > BYTES);
    giveBack(hosts);
    await bothUsed(hosts);
    assert.equal(await client.daemon.stop(), 0);
    const differs = difference(before, hostState(hosts.client));
    // What is made anew has another number and address of hardware.
    assert.deepEqual(
      differs.filter((line) => !/^(addresses|links|IPv6 routes: . local fe80)/.test(line)),
      [],
      client.daemon.output,
    );
  });

netTest('an interface whose address and gateway change is followed', [], async (bed) => {
  const hosts = twoWays(bed);
  const { client } = ends(hosts, ['eth1']);
  await connected(client);
  const { client: host, b, server } = hosts;
  b.run('ip address add 10.5.0.1/24 dev eth0');
  server.run('ip route add 10.5.0.0/24 via 10.14.0.1');
  host.run('ip address del 10.4.0.2/24 dev eth1');
  host.run('ip address add 10.5.0.2/24 dev eth1');
  host.run('ip route replace default via 10.5.0.1 dev eth1 metric 200');
  await connected(client);
  assert.ok(load(hosts).eth1 > BYTES);
  const table = /lookup (\S+)/.exec(linkRules(host)[0] ?? '')?.[1];
  const routes = host.run(`ip -4 route show table ${table}`);
  assert.match(routes, /default via 10\.5\.0\.1 dev eth1/);
  assert.doesNotMatch(routes, /10\.4\.0/);
  assert.equal(await client.daemon.stop(), 0);
});

netTest('links that are absent at the start are used when they come', [], async (bed) => {
  const hosts = twoWays(bed);
  hosts.client.run('ip link set eth1 down');
  const { client } = ends(hosts, ['eth1', '10.9.9.9', 'nowhere0']);
  for (const line of [
    /^vpn: warning: link eth1: its interface is down; used once that changes$/,
    /^vpn: warning: link 10\.9\.9\.9: no interface that is up has this address; used once that changes$/,
    /^vpn: warning: link nowhere0: no such interface; used once that changes$/,
  ])
    await client.daemon.line(line);
  raise(hosts, 'eth1');
  await connected(client);
  assert.ok(load(hosts).eth1 > BYTES);
});

netTest('with "auto" an interface joins when it gets a default route', [], async (bed) => {
  const hosts = twoWays(bed);
  hosts.client.run('ip link set eth1 down');
  const { client } = ends(hosts, ['auto']);
  await connected(client);
  raise(hosts, 'eth1');
  await bothUsed(hosts);
});

netTest('a killed client with links leaves what vpn cleanup takes back', [], async (bed) => {
  const hosts = twoWays(bed);
  const before = hostState(hosts.client);
  const { client } = ends(hosts, ['eth0', '10.4.0.2', 'lan0,gateway=192.168.2.1,name=c']);
  await connected(client);
  assert.equal(linkRules(hosts.client).length, 6);
  await client.daemon.stop('SIGKILL');
  const words = [EXECUTABLE, 'cleanup', '--state-dir', client.stateDir];
  const { status, stderr } = hosts.client.try(words);
  assert.equal(status, 0, stderr);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});

netTest(
  'a server listens on several addresses, and answers from the one that was asked',
  [],
  async (bed) => {
    const hosts = twoWays(bed);
    const key = makeKey(bed);
    const listen = [`${SERVER[4]}:443`, '10.14.0.2:444', `[${SERVER[6]}]:445`];
    startServer(bed, hosts.server, { key, options: listen.flatMap((one) => ['--listen', one]) });
    for (const [address, port] of [
      [SERVER[4], 443],
      ['10.14.0.2', 444],
      [SERVER[6], 445],
    ] as const) {
      const options = ['--link', 'eth1'];
      const client = startClient(bed, hosts.client, { key, address, port, options });
      await connected(client);
      assert.equal(await client.daemon.stop(), 0);
    }
  },
);
