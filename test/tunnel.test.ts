/** What goes through a tunnel: both families outside and inside, every size, narrow links. Streams: streams.test.ts. */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { capture, withoutCardOffloads } from './capture.ts';
import {
  CLIENT_IP,
  connected,
  makeKey,
  NODE,
  SERVER_IP,
  startClient,
  startServer,
  tunnel,
} from './ends.ts';
import { checkArrived, receiveFile, sendFile, settledMtu } from './helpers.ts';
import { netTest, until, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping, reaches } from './traffic.ts';
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
  await checkArrived(sendFile(from, address, 9000, megabytes), receiver);
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
      () => ping(from, to, `-c 1 -W 0.2 -M dont -s ${size}`).received > 0,
    );
}

/** Every size from 1400 to 1500, from a host behind `via`, which is told when one is too long. */
async function checkSizes(from: Host, to: string, family: 4 | 6, mtu: number): Promise<void> {
  await learntMtu(from, to);
  const sizes = Array.from({ length: 101 }, (_, i) => 1400 + i);
  const pings = (
    options: string,
    some: readonly number[],
  ): readonly (readonly [number, string])[] => pingEach(from, to, options, some, HEADER[family]);
  for (const [size, text] of pings('-W 3 -M dont', sizes))
    assert.match(text, / 1 received/, `${size} bytes, may be fragmented`);
  const fits = sizes.filter((size) => size <= mtu);
  for (const [size, text] of pings('-W 3 -M do', fits))
    assert.match(text, / 1 received/, `${size} bytes`);
  // The error comes at once, from this host's own route; ping would wait for an answer all the same.
  for (const [size, text] of pings('-W 0.01 -M do', sizes.slice(fits.length))) {
    assert.match(text, / 0 received/);
    assert.match(text, /message too long|Frag needed|Packet too big/i, `${size} bytes: silence`);
  }
}

/** One ping of each size, headers included, and what was said of it. */
function pingEach(
  from: Host,
  to: string,
  options: string,
  sizes: readonly number[],
  header: number,
): readonly (readonly [size: number, text: string])[] {
  const lengths = sizes.map((size) => size - header).join(' ');
  const each = `for n in ${lengths}; do ping -n -c 1 ${options} -s $n ${to} 2>&1; printf '\\0'; done`;
  const texts = from.try(['sh', '-c', each], 60_000).stdout.split('\0');
  return sizes.map((size, i) => [size, texts[i] ?? ''] as const);
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
      () => ping(hosts.lan, to, `-c 1 -W 0.2 -M do -s ${fits}`).received > 0,
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

for (const [outside, icmp] of [
  [4, true],
  [4, false],
  [6, true],
  [6, false],
] as const)
  netTest(
    `works over IPv${outside} on links of 1280 bytes ${icmp ? 'with' : 'without'} ICMP`,
    ['tcpdump', 'ethtool'],
    async (bed) => {
      const hosts = world(bed);
      narrow(hosts, 1280, icmp);
      const { server, client } = await tunnel(bed, hosts, SERVER[outside]);
      for (const to of [SERVER_IP, server.inner6, INTERNET[4], INTERNET[6]])
        await reaches(hosts.client, to);
      // IPv6 inside needs as much; what does not fit then goes as two datagrams.
      assert.equal(client.tunMtu, 1280);
      for (const [from, to, address] of [
        [hosts.client, hosts.internet, INTERNET[4]],
        [hosts.client, hosts.internet, INTERNET[6]],
        [hosts.server, hosts.client, CLIENT_IP],
        [hosts.server, hosts.client, client.inner6],
      ] as const)
        await checkTransfer(from, to, address, 10);
      for (const size of [1252, 2000, 3000])
        assert.equal(
          ping(hosts.client, INTERNET[4], `-c 1 -W 3 -M dont -s ${size}`).received,
          1,
          `${size}`,
        );
      withoutCardOffloads(hosts.client, 'eth0');
      const there = outside === 4 ? 'udp dst port 443' : 'ip6 dst net 2001:db8:2::/64';
      const wire = await capture(bed, hosts.client, 'eth0', `${there} and greater 500`);
      for (const to of [INTERNET[4], INTERNET[6]]) {
        const header = to === INTERNET[4] ? HEADER[4] : HEADER[6];
        const options = `-q -c 10 -i 0.05 -W 2 -M do -s ${1280 - header}`;
        assert.equal(ping(hosts.client, to, options).received, 10);
      }
      // Those that are longer probe the path.
      const halves = (): number =>
        wire.packets().filter(({ bytes: { length } }) => length <= 1280).length;
      await until('two datagrams for each', () => halves() >= 2 * 2 * 10);
      // None of them is a fragment.
      assert.equal(wire.datagrams().length, wire.packets().length);
      await wire.stop();
    },
  );

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
    assert.equal(ping(hosts.client, INTERNET[4], '-c 2 -i 0.2 -W 0.5').received, 0);
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
  assert.equal(ping(hosts.client, '198.51.100.9', '-c 2 -i 0.2 -W 0.5').received, 0);
  assert.match(hosts.client.run('ip route get 198.51.100.9'), /dev eth0/);
  assert.equal(ping(hosts.client, LAN[4]).received, 1);
  assert.equal(await client.daemon.stop(), 0, client.daemon.output);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});
