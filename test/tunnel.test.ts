/** What goes through a tunnel: both families outside and inside, every size, narrow links, many streams. */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import {
  CLIENT_IP,
  connected,
  makeKey,
  NODE,
  SERVER_IP,
  startClient,
  startServer,
  tunnel,
  type Tunnel,
} from './ends.ts';
import { receiveFile, sendFile } from './helpers.ts';
import { netTest, pass, until, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { iperf, iperfServer, ping, reaches, readIperf, startIperf } from './traffic.ts';
import { INTERNET, LAN, narrow, SERVER, world, type World } from './world.ts';

const HEADER = { 4: 28, 6: 48 } as const;

/** Sends a file and compares what arrived. */
async function checkTransfer(
  from: Host,
  to: Host,
  address: string,
  megabytes: number,
): Promise<void> {
  const receiver = await receiveFile(to, 9000);
  const sender = sendFile(from, address, 9000, megabytes);
  assert.equal(await sender.ended(60_000), 0, sender.output);
  assert.equal(await receiver.ended(), 0, receiver.output);
  assert.equal(receiver.output.split('\n')[1], sender.output.trim());
}

for (const outside of [4, 6] as const)
  netTest(
    `carries IPv4 and IPv6 over IPv${outside}, to the server and to the internet behind its NAT`,
    [],
    async (bed) => {
      const hosts = world(bed);
      const ends = await tunnel(bed, hosts, SERVER[outside]);
      for (const to of [SERVER_IP, ends.server.inner6, INTERNET[4], INTERNET[6]])
        await reaches(hosts.client, to);
      for (const inside of [4, 6] as const) {
        await checkTransfer(hosts.client, hosts.internet, INTERNET[inside], 20);
        const back = inside === 4 ? CLIENT_IP : ends.client.inner6;
        await checkTransfer(hosts.server, hosts.client, back, 20);
      }
    },
  );

const OFFLOADS: readonly (readonly [string, Parameters<typeof tunnel>[3]])[] = [
  ['without offloads at both ends', { both: ['--no-offload'] }],
  ['without offloads at the client', { client: ['--no-offload'] }],
  ['without offloads at the server', { server: ['--no-offload'] }],
  ['with ChaCha20-Poly1305', { both: ['--cipher', 'chacha20-poly1305'] }],
  [
    'with ChaCha20-Poly1305 asked for by the client only',
    { client: ['--cipher', 'chacha20-poly1305'] },
  ],
];
for (const [how, options] of OFFLOADS)
  netTest(`carries the same ${how}`, [], async (bed) => {
    const hosts = world(bed);
    const ends = await tunnel(bed, hosts, SERVER[4], options);
    for (const to of [INTERNET[4], INTERNET[6]]) {
      await reaches(hosts.client, to);
      await checkTransfer(hosts.client, hosts.internet, to, 10);
    }
    await checkTransfer(hosts.server, hosts.client, CLIENT_IP, 10);
    await checkTransfer(hosts.server, hosts.client, ends.client.inner6, 10);
  });

netTest(
  'carries iperf3 with 1, 5 and 50 streams, TCP both ways and UDP',
  ['iperf3'],
  async (bed) => {
    const hosts = world(bed);
    await tunnel(bed, hosts, SERVER[4]);
    await iperfServer(hosts.internet);
    for (const streams of [1, 5, 50]) {
      for (const way of ['', ' -R']) {
        const tcp = await iperf(hosts.client, INTERNET[4], `-t 2 -P ${streams}${way}`);
        assert.ok(tcp.bytes > 1e6, `${streams} TCP streams${way}: ${tcp.bytes} bytes`);
        const rate = Math.round(20_000 / streams);
        const udp = await iperf(
          hosts.client,
          INTERNET[4],
          `-u -t 2 -l 1200 -b ${rate}K -w 1M -P ${streams}${way}`,
        );
        assert.ok(udp.packets > 1000, `${streams} UDP streams${way}: ${udp.packets} packets`);
        assert.equal(udp.lost, 0, `${streams} UDP streams${way}`);
      }
    }
  },
);

netTest('answers a flood ping and pings of 2000 and 3000 bytes', [], async (bed) => {
  const hosts = world(bed);
  const { server } = await tunnel(bed, hosts, SERVER[4]);
  for (const to of [SERVER_IP, server.inner6, INTERNET[4], INTERNET[6]]) {
    await reaches(hosts.client, to);
    await learntMtu(hosts.client, to);
    for (const options of ['-f -c 2000', '-f -c 300 -s 2000', '-f -c 300 -s 3000']) {
      const { sent, received } = ping(hosts.client, to, `-q ${options}`);
      assert.equal(received, sent, `ping ${options} ${to}`);
    }
  }
});

/** The answers too must fit; who sends them may first have to be told (RFC 8201: that costs a packet). */
async function learntMtu(from: Host, to: string): Promise<void> {
  for (const size of [1452, 2000, 3000])
    await until(
      `an answer of ${size} bytes`,
      () => ping(from, to, `-c 1 -W 1 -M dont -s ${size}`).received > 0,
    );
}

/** Every size from 1400 to 1500, from a host behind `via`, which is told when one is too long. */
async function checkSizes(from: Host, to: string, family: 4 | 6, mtu: number): Promise<void> {
  await learntMtu(from, to);
  for (let size = 1400; size <= 1500; size++) {
    const length = size - HEADER[family];
    assert.equal(
      ping(from, to, `-c 1 -W 3 -M dont -s ${length}`).received,
      1,
      `${size} bytes, may be fragmented`,
    );
    if (size <= mtu) {
      assert.equal(ping(from, to, `-c 1 -W 3 -M do -s ${length}`).received, 1, `${size} bytes`);
      continue;
    }
    // The error comes at once, from this host's own route; ping would wait for an answer all the same.
    const { text, received } = ping(from, to, `-c 1 -W 0.05 -M do -s ${length}`);
    assert.equal(received, 0);
    assert.match(text, /message too long|Frag needed|Packet too big/i, `${size} bytes: silence`);
  }
}

netTest(
  'passes every size from 1400 to 1500 bytes, or says that it is too long',
  [],
  async (bed) => {
    const hosts = world(bed);
    const { client, server } = await tunnel(bed, hosts, SERVER[4]);
    await settledMtu(client);
    for (const [to, family] of [
      [INTERNET[4], 4],
      [INTERNET[6], 6],
    ] as const) {
      await reaches(hosts.client, to);
      await checkSizes(hosts.client, to, family, client.tunMtu);
    }
    await reaches(hosts.server, CLIENT_IP);
    await checkSizes(hosts.server, CLIENT_IP, 4, server.tunMtu);
  },
);

netTest('tells a host of the LAN behind it that a packet is too long', [], async (bed) => {
  const hosts = world(bed);
  const { client } = await tunnel(bed, hosts, SERVER[4]);
  hosts.client.forward();
  for (const iptables of ['iptables', 'ip6tables'])
    hosts.client.run(`${iptables} -t nat -A POSTROUTING -o ${client.tun} -j MASQUERADE`);
  const mtu = await settledMtu(client);
  for (const [to, family] of [
    [INTERNET[4], 4],
    [INTERNET[6], 6],
  ] as const) {
    await reaches(hosts.lan, to);
    const fits = mtu - HEADER[family];
    await until(
      'the longest',
      () => ping(hosts.lan, to, `-c 1 -W 1 -M do -s ${fits}`).received > 0,
    );
    const { text } = ping(hosts.lan, to, `-c 1 -W 2 -M do -s ${fits + 1}`);
    assert.match(text, new RegExp(`(Frag needed|too big).*mtu ?= ?${mtu}`, 'i'));
  }
});

netTest('with --mtu 1500 passes every size whole, over two datagrams', [], async (bed) => {
  const hosts = world(bed);
  const { client } = await tunnel(bed, hosts, SERVER[4], { both: ['--mtu', '1500'] });
  assert.equal(client.tunMtu, 1500);
  for (const [to, family] of [
    [INTERNET[4], 4],
    [INTERNET[6], 6],
  ] as const) {
    await reaches(hosts.client, to);
    await checkSizes(hosts.client, to, family, 1500);
  }
  await checkTransfer(hosts.client, hosts.internet, INTERNET[4], 20);
  await checkTransfer(hosts.server, hosts.client, CLIENT_IP, 20);
});

/** The MTU search ends when the MTU has not changed for a second. */
async function settledMtu(end: Tunnel['client']): Promise<number> {
  let seen = end.tunMtu;
  let since = performance.now();
  return until('an MTU that stays', () => {
    const now = end.tunMtu;
    if (now !== seen) [seen, since] = [now, performance.now()];
    return performance.now() - since > 1000 ? now : undefined;
  });
}

for (const icmp of [true, false])
  netTest(
    `works over links of 1280 bytes ${icmp ? 'with' : 'without'} ICMP`,
    ['iperf3'],
    async (bed) => {
      const hosts = world(bed);
      narrow(hosts, 1280, icmp);
      const { server, client } = await tunnel(bed, hosts, SERVER[4]);
      for (const to of [SERVER_IP, server.inner6, INTERNET[4], INTERNET[6]])
        await reaches(hosts.client, to);
      await checkTransfer(hosts.client, hosts.internet, INTERNET[4], 10);
      await checkTransfer(hosts.server, hosts.client, CLIENT_IP, 10);
      await checkTransfer(hosts.server, hosts.client, client.inner6, 10);
      assert.ok(client.tunMtu >= 1280, `tun MTU ${client.tunMtu}`);
      for (const size of [1252, 2000, 3000])
        assert.equal(
          ping(hosts.client, INTERNET[4], `-c 1 -W 3 -M dont -s ${size}`).received,
          1,
          `${size}`,
        );
    },
  );

for (const way of ['', ' -R'])
  netTest(
    `goes on when the link shrinks from 1500 to 1280 without ICMP, ${way === '' ? 'up' : 'down'}`,
    ['iperf3'],
    async (bed) => {
      const hosts = world(bed);
      await tunnel(bed, hosts, SERVER[4]);
      await iperfServer(hosts.internet);
      const transfer = startIperf(hosts.client, INTERNET[4], `-t 16 -b 200M${way}`);
      await pass(3000);
      narrow(hosts, 1280, false);
      await transfer.ended(60_000);
      const { perSecond } = readIperf(transfer.output);
      const after = perSecond.slice(-3);
      assert.ok(
        after.every((bytes) => bytes > 1e6),
        `bytes per second: ${perSecond.join(' ')}`,
      );
    },
  );

netTest('loses nothing while keys change every two seconds under load', ['iperf3'], async (bed) => {
  const hosts = world(bed);
  const { client } = await tunnel(bed, hosts, SERVER[4], { both: ['-v', '--rekey-after', '2'] });
  await iperfServer(hosts.internet);
  for (const way of ['', ' -R']) {
    const from = client.daemon.output.length;
    const { packets, lost } = await iperf(
      hosts.client,
      INTERNET[4],
      `-u -t 9 -l 1200 -b 40M -w 1M${way}`,
    );
    assert.ok(packets > 30_000, `${packets} packets`);
    assert.equal(lost, 0, `of ${packets} packets${way}`);
    const rekeys = client.daemon.output.slice(from).match(/rekey|new keys/gi) ?? [];
    assert.ok(rekeys.length >= 3, `keys changed ${rekeys.length} times:\n${client.daemon.output}`);
  }
});

/** In place of the executable, the source as NO_DEFAULT_ROUTES=1 builds it. */
const BUILT_WITHOUT = [
  ...['env', 'NO_DEFAULT_ROUTES=1', 'sh', '-c', 'main=$1; shift 2; exec "$0" "$main" "$@"'],
  ...[NODE, resolve(import.meta.dirname, '../src/main.ts')],
];

for (const [how, options, wrapper] of [
  ['with --no-default-routes', ['--no-default-routes'], []],
  ['as built without default routes', [], BUILT_WITHOUT],
] as const)
  netTest(`keeps a tunnel to the peer only, ${how}`, [], async (bed) => {
    const hosts: World = world(bed);
    const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
    const key = makeKey(bed);
    const ends = {
      server: startServer(bed, hosts.server, { key, options, wrapper }),
      client: startClient(bed, hosts.client, { key, options, wrapper, address: SERVER[4] }),
    };
    await connected(ends.client);
    assert.equal(ping(hosts.client, INTERNET[4], '-c 2 -W 1').received, 0);
    // What is outside goes its old way.
    assert.equal(ping(hosts.client, SERVER[4]).received, 1);
    for (const role of ['client', 'server'] as const) {
      const during = hostState(hosts[role]);
      for (const part of ['IPv4 rules', 'IPv6 rules', 'sysctls'])
        assert.deepEqual(withoutTun(during[part]), before[role][part], part);
      // The addresses of the tunnel are protected, and that is all.
      for (const family of ['iptables', 'ip6tables'])
        assert.match(during[family] ?? '', /^\*raw\n-A PREROUTING .* -j DROP$/);
      assert.equal(await ends[role].daemon.stop(), 0, ends[role].daemon.output);
      assert.deepEqual(difference(before[role], hostState(hosts[role])), []);
    }
  });

/** Without what every device has. */
const withoutTun = (sysctls = ''): string =>
  sysctls
    .split('\n')
    .filter((line) => !/^net\.ipv[46]\.(conf|neigh)\.tun0\./.test(line))
    .join('\n');

netTest('takes only the networks given with --route', [], async (bed) => {
  const hosts = world(bed);
  hosts.internet.run('ip address add 198.51.100.9/32 dev lo');
  const before = hostState(hosts.client);
  const { client } = await tunnel(bed, hosts, SERVER[4], {
    client: ['--route', `${INTERNET[4]}/32`, '--route', `${INTERNET[6]}/128`],
  });
  await connected(client);
  await reaches(hosts.client, INTERNET[4]);
  await reaches(hosts.client, INTERNET[6]);
  assert.equal(ping(hosts.client, '198.51.100.9', '-c 2 -W 1').received, 0);
  assert.match(hosts.client.run('ip route get 198.51.100.9'), /dev eth0/);
  assert.equal(ping(hosts.client, LAN[4]).received, 1);
  assert.equal(await client.daemon.stop(), 0, client.daemon.output);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});
