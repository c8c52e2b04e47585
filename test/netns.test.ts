/** The test bed itself, without a tunnel: what the other tests rely on to be able to fail. */
import assert from 'node:assert/strict';
import { capture, captured, checksums, withoutCardOffloads } from './capture.ts';
import { NODE } from './ends.ts';
import { netTest, run } from './netns.ts';
import { difference, hostState } from './state.ts';
import { iperf, iperfServer, ping } from './traffic.ts';
import { attackFrom, checkArrived, receiveFile, sendFile } from './helpers.ts';
import { ATTACKER, CLIENT, INTERNET, narrow, rebind, SERVER, spoof, world } from './world.ts';

netTest('without a tunnel the client reaches the server and not the internet', [], async (bed) => {
  const { client } = world(bed);
  for (const family of [4, 6] as const) {
    assert.equal(ping(client, SERVER[family]).received, 1);
    assert.equal(ping(client, INTERNET[family], '-c 1 -W 1').received, 0);
  }
});

netTest('a narrowed router drops what is too long, with and without a word', [], async (bed) => {
  const hosts = world(bed);
  narrow(hosts, 1280, false);
  for (const family of [4, 6] as const) {
    const header = family === 4 ? 28 : 48;
    assert.equal(
      ping(hosts.client, SERVER[family], `-c 1 -W 1 -M do -s ${1280 - header}`).received,
      1,
    );
    assert.equal(
      ping(hosts.client, SERVER[family], `-c 1 -W 1 -M do -s ${1281 - header}`).received,
      0,
    );
    assert.equal(
      ping(hosts.server, CLIENT[family], `-c 1 -W 1 -M do -s ${1281 - header}`).received,
      0,
    );
  }
  hosts.router.run('iptables -F OUTPUT');
  assert.match(
    ping(hosts.client, SERVER[4], '-c 1 -W 1 -M do -s 1253').text,
    /Frag needed|message too long/,
  );
});

netTest('spoofed datagrams arrive from the forged address', ['nft', 'tcpdump'], async (bed) => {
  const hosts = world(bed);
  spoof(hosts, { address: CLIENT[4], port: 4321 }, { address: SERVER[4], port: 443 });
  const seen = await capture(bed, hosts.server, 'eth0', 'udp port 443');
  await attackFrom(hosts, {
    sources: [{ address: ATTACKER[4], port: 0 }],
    to: { address: SERVER[4], port: 443 },
    datagrams: [Buffer.from('hello').toString('base64')],
    listenMs: 0,
  });
  await captured(seen, 1);
  const [datagram] = seen.datagrams();
  assert.equal(`${datagram?.source}:${datagram?.sourcePort}`, `${CLIENT[4]}:4321`);
  assert.equal(Buffer.from(datagram!.payload).toString(), 'hello');
  assert.deepEqual(checksums(seen.packets()), { right: 0, wrong: 1 }, 'offloads were still on');
});

netTest('a rebound NAT changes the port the server sees, both ways', ['nft'], async (bed) => {
  const hosts = world(bed);
  const echo = hosts.server.start([NODE, '-e', ECHO_PORT]);
  await echo.line(/ready/);
  for (const port of [40001, 40002]) {
    rebind(hosts, 5555, port);
    const { stdout } = await hosts.client.finish([NODE, '-e', ASK_PORT]);
    assert.equal(stdout.trim(), `10.2.0.1:${port}`);
  }
});

netTest('checksums are told right from wrong', ['tcpdump', 'iperf3', 'ethtool'], async (bed) => {
  const hosts = world(bed);
  withoutCardOffloads(hosts.client, 'eth0');
  const right = await capture(bed, hosts.router, 'eth0', 'src 10.1.0.2');
  await iperfServer(hosts.server);
  await iperf(hosts.client, SERVER[4], '-n 2M');
  await right.stop();
  const found = checksums(right.packets());
  assert.ok(found.right > 100, `${found.right} packets seen`);
  assert.equal(found.wrong, 0);

  const packets = right.packets();
  packets[5]!.bytes[packets[5]!.bytes.length - 1]! ^= 1;
  assert.equal(checksums(packets).wrong, 1);
});

netTest('a change to a host shows as a difference, and its undo as none', [], async (bed) => {
  const host = bed.host('host');
  const before = hostState(host);
  host.run('iptables -t nat -A POSTROUTING -s 192.0.2.1 -j MASQUERADE');
  host.run('ip -6 rule add preference 77 fwmark 77 table 77');
  host.run('ip address add 192.0.2.9/32 dev lo');
  host.sysctl('net.ipv4.ip_forward', '1');
  const changes = difference(before, hostState(host)).join('\n');
  for (const part of ['addresses', 'IPv6 rules', 'IPv4 routes', 'iptables', 'sysctls'])
    assert.match(changes, new RegExp(`^${part}: \\+`, 'm'));
  host.run('iptables -t nat -D POSTROUTING -s 192.0.2.1 -j MASQUERADE');
  host.run('ip -6 rule delete preference 77');
  host.run('ip address delete 192.0.2.9/32 dev lo');
  host.sysctl('net.ipv4.ip_forward', '0');
  assert.deepEqual(difference(before, hostState(host)), []);
});

netTest('an order that is another shows as a difference', [], async (bed) => {
  const host = bed.host('host');
  const lines = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((source) => `-s ${source} -j ACCEPT`);
  const order = (sources: readonly string[]): void => {
    host.try(['iptables -F INPUT']);
    for (const line of sources) host.run(`iptables -A INPUT ${line}`);
  };
  const rules = (marks: readonly number[]): void => {
    while (host.try(['ip rule delete preference 77']).status === 0);
    for (const mark of marks) host.run(`ip rule add preference 77 fwmark ${mark} table 77`);
  };
  order(lines);
  rules([1, 2]);
  const before = hostState(host);
  order(lines.toReversed());
  rules([2, 1]);
  const changes = difference(before, hostState(host)).join('\n');
  for (const part of ['iptables', 'IPv4 rules'])
    assert.match(changes, new RegExp(`^${part}: ~`, 'm'));

  // As many lines, and the same ones, but not each as often.
  rules([1, 2]);
  order([...lines, lines[0]!]);
  const twice = hostState(host);
  order([...lines, lines[1]!]);
  const others = difference(twice, hostState(host)).join('\n');
  for (const sign of ['-', '[+]']) assert.match(others, new RegExp(`^iptables: ${sign} `, 'm'));

  order(lines);
  assert.deepEqual(difference(before, hostState(host)), []);
});

netTest(
  'what iptables leaves is no difference, an empty table of others is',
  ['nft'],
  async (bed) => {
    const host = bed.host('host');
    const before = hostState(host);
    for (const tool of ['iptables', 'ip6tables'])
      for (const table of ['filter', 'nat', 'mangle', 'raw'])
        for (const verb of ['-A', '-D']) host.run(`${tool} -t ${table} ${verb} OUTPUT -j ACCEPT`);
    assert.deepEqual(difference(before, hostState(host)), []);

    const left = (): readonly string[] =>
      difference(before, hostState(host)).filter((line) => line.startsWith('nft: + '));
    host.run('nft add table ip vpn-4711');
    assert.equal(left().length, 1);
    host.run('nft', 'add chain ip vpn-4711 raw { type filter hook prerouting priority -300 ; }');
    assert.equal(left().length, 2);
    host.run('nft delete table ip vpn-4711');
    assert.deepEqual(difference(before, hostState(host)), []);
    // Nor does one of ours hide among those of iptables.
    host.run('iptables -t raw -N vpn-4711');
    assert.notDeepEqual(left(), []);
  },
);

netTest('a transfer is checked from end to end', [], async (bed) => {
  const { client, server } = world(bed);
  for (const way of ['up', 'down'] as const) {
    const receiver = await receiveFile(server, 9000);
    await checkArrived(sendFile(client, SERVER[4], 9000, 20, undefined, way), receiver);
  }
});

netTest('closing a bed leaves neither namespaces nor programs', [], async (bed) => {
  const sleeper = bed.host('sleeper').start('sleep 1000'.split(' '));
  const { pid } = sleeper;
  await bed.close();
  assert.doesNotMatch(run(['ip netns list']).stdout, new RegExp(`vpnt${process.pid}x\\d+-sleeper`));
  assert.throws(() => process.kill(pid, 0));
});

const ECHO_PORT = `
  const s = require('dgram').createSocket('udp4');
  s.on('message', (_, from) => s.send(from.address + ':' + from.port, from.port, from.address));
  s.bind(443, () => console.log('ready'));`;
const ASK_PORT = `
  const s = require('dgram').createSocket('udp4');
  s.on('message', (m) => { console.log(String(m)); s.close(); });
  s.bind(5555, () => s.send('?', 443, '${SERVER[4]}'));
  setTimeout(() => process.exit(1), 3000).unref();`;
