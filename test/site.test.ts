/**
 * Two sites, joined by a tunnel between their gateways, one set up by a file and one by options:
 *
 *   a ───────────── gateA ═══ 10.1.0.0/24 ═══ gateB ───────────── b
 *   192.168.10.2    client (options, nft)     server (file)       192.168.20.2
 *   192.168.40.2                                                  192.168.30.2
 *   192.168.50.2
 *
 * IPv6 has the same picture: fd10::2, fd20::2 and so on. Both gateways drop what is forwarded, and forward
 * nothing, until vpn tells them to.
 */
import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { capture, type Captured } from './capture.ts';
import { EXECUTABLE, makeKey, startClient, startServer, type End } from './ends.ts';
import { checkArrived, receiveFile, sendFile } from './helpers.ts';
import { inPath, netTest, until, type Bed, type Daemon, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping, reaches } from './traffic.ts';

const GATE_B = '10.1.0.2';
/** What is to be denied; what is allowed answers sooner by far. */
const DENIED = '-c 1 -W 0.25';
const PORT = 9000;
/** More than is ever sent: the transfer ends when all is done that is to be done meanwhile. */
const MEGABYTES = 100_000;
const MBIT = 40;

const address = (net: number, family: 4 | 6, last = 2): string =>
  family === 4 ? `192.168.${net}.${last}` : `fd${net}::${last}`;
const network = (net: number, family: 4 | 6): string =>
  family === 4 ? `192.168.${net}.0/24` : `fd${net}::/64`;

interface Sites {
  readonly a: Host;
  readonly gateA: Host;
  readonly gateB: Host;
  readonly b: Host;
}

function sites(bed: Bed): Sites {
  const [a, gateA, gateB, b] = ['a', 'gate-a', 'gate-b', 'b'].map((name) => bed.host(name));
  const lan = (net: number, last: number): string[] => [
    `${address(net, 4, last)}/24`,
    `${address(net, 6, last)}/64`,
  ];
  bed.cable(
    { host: gateA, device: 'eth0', addresses: ['10.1.0.1/24'] },
    { host: gateB, device: 'eth0', addresses: [`${GATE_B}/24`] },
  );
  for (const [host, gate, net, others] of [
    [a, gateA, 10, [40, 50]],
    [b, gateB, 20, [30]],
  ] as const) {
    bed.cable(
      { host, device: 'lan0', addresses: lan(net, 2) },
      { host: gate, device: 'lan0', addresses: lan(net, 1) },
    );
    for (const [family, ip] of [
      [4, 'ip'],
      [6, 'ip -6'],
    ] as const) {
      host.run(`${ip} route add default via ${address(net, family, 1)}`);
      for (const other of others) {
        host.run(`${ip} address add ${address(other, family)} dev lo`);
        gate.run(`${ip} route add ${network(other, family)} via ${address(net, family)}`);
      }
    }
  }
  for (const program of ['iptables', 'ip6tables']) gateB.run(`${program} -P FORWARD DROP`);
  const closed = 'chain f {\ntype filter hook forward priority 0; policy drop;\n}';
  gateA.nft(`table inet other {\n${closed}\n}`);
  return { a, gateA, gateB, b };
}

/** A folder for PATH in which iptables is not. */
function withoutIptables(bed: Bed): readonly string[] {
  const folder = bed.file('bin');
  mkdirSync(folder);
  for (const tool of ['ip', 'nft']) {
    const from = (process.env['PATH'] ?? '').split(':').find((one) => inPath(join(one, tool)));
    symlinkSync(join(from ?? '/usr/sbin', tool), join(folder, tool));
  }
  return ['env', `PATH=${folder}`];
}

/** The file of the server, with these networks. */
class FileServer {
  readonly daemon: Daemon;
  private readonly bed: Bed;
  private readonly key: string;
  private readonly file: string;

  constructor(
    bed: Bed,
    host: Host,
    key: string,
    routes: readonly number[],
    allow: readonly number[],
  ) {
    this.bed = bed;
    this.key = key;
    this.file = bed.file('site.conf');
    this.write(routes, allow);
    this.daemon = host.start([EXECUTABLE, '-c', this.file, '--state-dir', bed.file('state')]);
  }

  private write(routes: readonly number[], allow: readonly number[]): void {
    const list = (nets: readonly number[], ...families: (4 | 6)[]): string =>
      nets.flatMap((net) => families.map((family) => network(net, family))).join(' ');
    const lines = [
      '[general]',
      'mode = server',
      `key_file = ${this.key}`,
      'interface_name = site0',
      `ip4_routes = ${list(routes, 4)}`,
      `ip6_routes = ${list(routes, 6)}`,
      `allow = ${list(allow, 4, 6)}`,
      '[one]',
      'bindport = 443',
    ];
    this.bed.write(this.file, `${lines.join('\n')}\n`);
  }

  async reload(routes: readonly number[], allow: readonly number[], said: RegExp): Promise<void> {
    this.write(routes, allow);
    const from = this.daemon.output.length;
    this.daemon.kill('SIGHUP');
    await this.daemon.line(said, 20_000, from);
  }
}

/** From one network to another; `options` as for ping(8). */
function isReached(from: Host, net: number, to: number, family: 4 | 6, options = DENIED): boolean {
  const source = `-I ${address(net, family)} ${options}`;
  return ping(from, address(to, family), source).received > 0;
}

function assertReached(from: Host, net: number, to: number, expected: boolean): void {
  for (const family of [4, 6] as const) {
    const options = expected ? '-c 1 -W 2' : DENIED;
    assert.equal(isReached(from, net, to, family, options), expected, `${net} to ${to}, ${family}`);
  }
}

/** The MSS of each SYN (RFC 9293 §3.7.1) with the headers of a packet that is as large. */
function largestPackets(seen: readonly Captured[]): readonly number[] {
  return seen.flatMap(({ bytes }) => {
    const at = bytes[0]! >> 4 === 4 ? (bytes[0]! & 15) * 4 : 40;
    const isTcp = (bytes[0]! >> 4 === 4 ? bytes[9] : bytes[6]) === 6;
    const isSyn = isTcp && (bytes[at + 13]! & 2) !== 0;
    // The kernel has it in front of other options: kind 2, length 4.
    if (!isSyn || bytes[at + 20] !== 2 || bytes[at + 21] !== 4) return [];
    return [((bytes[at + 22]! << 8) | bytes[at + 23]!) + at + 20];
  });
}

const mtuOf = (host: Host, device: string): number =>
  Number(/mtu (\d+)/.exec(host.run(`ip link show ${device}`))?.[1]);

netTest(
  'hosts of two sites reach what is allowed, and nothing else',
  ['nft', 'tcpdump', 'ss'],
  async (bed) => {
    const { a, gateA, gateB, b } = sites(bed);
    const before = [gateA, gateB].map(hostState);
    const key = makeKey(bed);
    const server = new FileServer(bed, gateB, key, [10, 40], [20]);
    const routes = [20, 30].flatMap((net) => [
      '--route',
      network(net, 4),
      '--route',
      network(net, 6),
    ]);
    const client = startClient(bed, gateA, {
      key,
      address: GATE_B,
      wrapper: withoutIptables(bed),
      options: [...routes, '--allow', network(10, 4), '--allow', network(10, 6)],
    });
    await reaches(a, address(20, 4));
    await reaches(a, address(20, 6));

    // Both ways where both allow it; else where the connection is opened from, with its answers.
    assertReached(b, 20, 10, true);
    assertReached(a, 10, 30, false);
    assertReached(b, 30, 10, true);
    assertReached(b, 20, 40, false);
    assertReached(a, 40, 20, true);
    // Behind the client, but not among the server's routes.
    assertReached(a, 50, 20, false);

    await checkSizes(bed, { a, b }, client);
    await checkReloads({ a, b }, server);

    assert.equal(await client.daemon.stop(), 0);
    assert.equal(await server.daemon.stop(), 0);
    const now = [gateA, gateB].map(hostState);
    now.forEach((state, i) => assert.deepEqual(difference(before[i]!, state), []));
  },
);

/** What is too large for the tunnel is told so, and TCP never tries it. */
async function checkSizes(bed: Bed, { a, b }: Pick<Sites, 'a' | 'b'>, client: End): Promise<void> {
  const small = 'inbound and less 200';
  const [atA, atB] = [await capture(bed, a, 'lan0', small), await capture(bed, b, 'lan0', small)];
  // The first packet that a capture waits for is not always in it.
  assertReached(a, 10, 20, true);
  const mtu = mtuOf(client.host, client.tun);
  const whole = '-c 1 -W 2 -M do -s';
  const told = ping(a, address(20, 4), `${whole} ${1500 - 28}`);
  assert.match(told.text, /[Ff]rag needed and DF set|message too long/i);
  assert.equal(ping(a, address(20, 4), `${whole} ${mtu - 28}`).received, 1);
  assert.equal(ping(b, address(10, 6), `${whole} ${mtu - 48}`).received, 1);
  for (const [from, to, host] of [
    [a, address(20, 4), b],
    [b, address(10, 6), a],
  ] as const) {
    const receiver = await receiveFile(host, PORT);
    await checkArrived(sendFile(from, to, PORT, 3), receiver);
  }
  for (const seen of [atA, atB]) {
    // Of one family the client's, of the other the server's.
    const sizes = await until('two SYNs', () => {
      const found = largestPackets(seen.packets());
      return found.length >= 2 ? found : undefined;
    });
    await seen.stop();
    for (const size of sizes) assert.ok(size <= mtu && size >= 1280, `${size} of ${mtu}`);
  }
}

/** Routes and allowed networks come and go while a transfer goes on. */
async function checkReloads({ a, b }: Pick<Sites, 'a' | 'b'>, server: FileServer): Promise<void> {
  const receiver = await receiveFile(b, PORT);
  const sender = sendFile(a, address(20, 4), PORT, MEGABYTES, MBIT);
  await until('a transfer', () => b.run(`ss -Htn sport = :${PORT}`).includes('ESTAB'));

  await server.reload([10, 50], [20, 30], /^vpn: reload: allow: .* -> .*fd30::\/64$/);
  assertReached(a, 10, 30, true);
  assertReached(a, 50, 20, true);
  assertReached(a, 40, 20, false);
  const open = a.start(`ping -n -i 0.1 ${address(30, 4)}`.split(' '));
  await open.line(/bytes from/);
  await server.reload([10], [20], /^vpn: reload: allow: /);
  // A connection that is open ends, too: nothing comes back from here on.
  const { length } = open.output;
  assertReached(a, 10, 30, false);
  assert.doesNotMatch(open.output.slice(length), /bytes from/);
  open.kill('SIGTERM');
  assertReached(a, 50, 20, false);
  assertReached(b, 30, 10, true);

  assert.equal(sender.exit, undefined, sender.output);
  sender.kill('SIGTERM');
  await checkArrived(sender, receiver);
}

netTest('a client has an address of the local network', ['nft'], async (bed) => {
  const { a, gateA, gateB } = sites(bed);
  // Else the kernel lets a chance of up to this go by before each answer (arp(7)).
  gateA.sysctl('net.ipv4.neigh.lan0.proxy_delay', '0');
  gateA.sysctl('net.ipv6.neigh.lan0.proxy_delay', '0');
  const before = hostState(gateA);
  const key = makeKey(bed);
  // .200 and .201 are the tunnel's; behind the client is a part of the network, too.
  const [local, peer, behind] = [address(10, 4, 200), address(10, 4, 201), address(10, 4, 65)];
  const [local6, peer6] = [address(10, 6, 200), address(10, 6, 201)];
  const allowed = ['--no-default-routes', '--allow', network(10, 4), '--allow', network(10, 6)];
  const server = startServer(bed, gateA, {
    key,
    localIp: local,
    peerIp: peer,
    options: [
      ...[...allowed, '--proxy-arp', '--route', `${address(10, 4, 64)}/28`],
      ...['--ip6', `${local6}/128`, '--ip6-gateway', peer6],
    ],
  });
  gateB.run(`ip address add ${behind}/32 dev lo`);
  const client = startClient(bed, gateB, {
    key,
    address: '10.1.0.1',
    localIp: peer,
    peerIp: local,
    options: [
      ...['--route', network(10, 4), '--route', network(10, 6)],
      ...['--ip6', `${peer6}/128`, '--ip6-gateway', local6],
    ],
  });
  await reaches(gateB, address(10, 4));
  await reaches(gateB, address(10, 6));
  // Without a route: a looks for them on its own network, and finds the gateway.
  for (const to of [peer, peer6, behind]) {
    a.run('ip neigh flush dev lan0');
    assert.equal(ping(a, to, '-c 1 -W 3').received, 1, to);
  }
  assert.equal(await client.daemon.stop(), 0);
  assert.equal(await server.daemon.stop(), 0);
  assert.deepEqual(difference(before, hostState(gateA)), []);
  assert.equal(gateA.run('ip neigh show proxy') + gateA.run('ip -6 neigh show proxy'), '');
});
