/**
 * Beside other people's firewalls, with iptables and without: traffic passes, and their lines stay as
 * they were, in their order. The rule sets in rulesets/ are what firewalld 1.3.3, ufw 0.36.2 and Docker
 * make (`nft -s list ruleset`, `iptables-save`), with the server's port opened.
 */
import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { capture } from './capture.ts';
import {
  CLIENT_IP,
  connected,
  EXECUTABLE,
  makeKey,
  startClient,
  startServer,
  type Tunnel,
} from './ends.ts';
import { receiveFile, sendFile } from './helpers.ts';
import { inPath, netTest, until, type Bed, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping, reaches } from './traffic.ts';
import { INTERNET, LAN, SERVER, world } from './world.ts';

const RULE_SETS = join(import.meta.dirname, 'rulesets');

/** A folder for PATH in which only `tools` are. */
function pathWith(bed: Bed, tools: readonly string[]): string {
  const folder = bed.file('bin');
  mkdirSync(folder);
  for (const tool of tools) {
    const from = (process.env['PATH'] ?? '').split(':').find((one) => inPath(join(one, tool)));
    symlinkSync(join(from ?? '/usr/sbin', tool), join(folder, tool));
  }
  return folder;
}

function load(host: Host, name: string): void {
  if (name === 'firewalld') {
    host.run('nft', '-f', join(RULE_SETS, 'firewalld.nft'));
  } else {
    host.run('iptables-restore', join(RULE_SETS, `${name}.v4`));
    host.run('ip6tables-restore', join(RULE_SETS, `${name}.v6`));
  }
}

/** Every line, without the tables that nft calls ours, and empty ones. */
function lines(host: Host): readonly string[] {
  return host
    .run('nft -s list ruleset')
    .replaceAll(/^table \w+ vpn-\d+ \{\n(.|\n)*?^\}\n/gm, '')
    .replaceAll(/^\tchain \w+ \{\n\t\ttype [^\n]*policy accept;\n\t\}\n\n?/gm, '')
    .replaceAll(/^table \w+ \w+ \{\n*\}\n/gm, '')
    .split('\n');
}

/** All of `before` is there, in its order; between them only what is new. */
function assertKept(before: readonly string[], now: readonly string[]): void {
  let next = 0;
  for (const line of now) if (line === before[next]) next += 1;
  assert.equal(before[next], undefined, `line ${next + 1} is gone`);
}

async function start(
  bed: Bed,
  hosts: { readonly client: Host; readonly server: Host },
  address: string,
  path: string,
  options: readonly string[] = [],
): Promise<Tunnel> {
  const key = makeKey(bed);
  const wrapper = ['env', `PATH=${path}`];
  const server = startServer(bed, hosts.server, { key, wrapper, options });
  const client = startClient(bed, hosts.client, { key, address, wrapper });
  await connected(client);
  return { server, client, key };
}

/** Bytes by TCP from one to the other, and back their digest. */
async function transfers(from: Host, to: Host, address: string): Promise<boolean> {
  const receiver = await receiveFile(to, 9000);
  const sender = sendFile(from, address, 9000, 1);
  const isDone = (await sender.ended()) === 0;
  if (!isDone) await receiver.stop();
  return isDone;
}

for (const firewall of ['docker', 'firewalld', 'ufw'])
  for (const [how, tools] of [
    ['iptables', ['ip', 'nft', 'iptables', 'ip6tables']],
    ['nft', ['ip', 'nft']],
  ] as const)
    netTest(`${how} beside ${firewall}: traffic passes, lines stay`, ['nft'], async (bed) => {
      const hosts = world(bed);
      for (const host of [hosts.client, hosts.server]) load(host, firewall);
      const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
      const found = { client: lines(hosts.client), server: lines(hosts.server) };
      const path = pathWith(bed, tools);
      const ends = await start(bed, hosts, SERVER[how === 'nft' ? 6 : 4], path);
      for (const family of [4, 6] as const) {
        await reaches(hosts.client, INTERNET[family]);
        assert.ok(await transfers(hosts.client, hosts.internet, INTERNET[family]));
      }
      for (const end of [ends.client, ends.server])
        assert.doesNotMatch(end.daemon.output, /warning/);
      for (const role of ['client', 'server'] as const) {
        assertKept(found[role], lines(hosts[role]));
        assert.equal(await ends[role].daemon.stop('SIGTERM'), 0, ends[role].daemon.output);
        assert.deepEqual(difference(before[role], hostState(hosts[role])), []);
        assert.deepEqual(lines(hosts[role]), found[role]);
      }
    });

netTest(
  'nft alone does what iptables does: NAT, MSS, protection, and an end by SIGKILL',
  ['nft', 'tcpdump'],
  async (bed) => {
    const hosts = world(bed);
    const { client, server, internet, lan, router } = hosts;
    load(server, 'firewalld');
    const before = { client: hostState(client), server: hostState(server) };
    const ends = await start(bed, hosts, SERVER[4], pathWith(bed, ['ip', 'nft']), [
      '--route',
      '10.77.0.0/24',
    ]);
    client.run('sysctl -qw net.ipv4.ip_forward=1');
    await reaches(lan, INTERNET[4]);
    const mtu = ends.client.tunMtu;
    const syns = await capture(bed, internet, 'eth0', 'tcp[tcpflags] & tcp-syn != 0');
    assert.ok(await transfers(lan, internet, INTERNET[4]));
    const seen = await until('a SYN', () => {
      const packets = syns.packets();
      return packets.length > 0 && packets;
    });
    await syns.stop();
    for (const { bytes } of seen) {
      // From the server's address, though the LAN has its own; and with an MSS that fits the tunnel.
      const [source, mss] = [bytes.subarray(12, 16).join('.'), mssOf(bytes)];
      if (source === INTERNET[4]) continue;
      assert.equal(source, '10.3.0.2');
      assert.ok(mss <= mtu - 40, `MSS ${mss} in a tunnel of ${mtu}`);
    }
    // Nobody but the server's own network may open a connection to the client.
    internet.run(`ip route add ${CLIENT_IP} via 10.3.0.2`);
    assert.equal(ping(internet, CLIENT_IP, '-c 2 -i 0.2 -W 1').received, 0);
    internet.run(`ip route add ${LAN[4]} via 10.3.0.2`);
    assert.equal(ping(internet, LAN[4]).received, 1);
    // CVE-2019-14899: a neighbour asks for the address inside the tunnel.
    router.run(`ip route add ${CLIENT_IP} via 10.1.0.2`);
    assert.equal(ping(router, CLIENT_IP, '-c 2 -i 0.2 -W 1').received, 0);
    for (const role of ['client', 'server'] as const) {
      await ends[role].daemon.stop('SIGKILL');
      const { stateDir } = ends[role];
      const cleanup = ['cleanup', '--state-dir', stateDir];
      const wrapped = (words: string[]) => hosts[role].try([EXECUTABLE, ...words]).stdout;
      const planned = wrapped([...cleanup, '--dry-run'])
        .trim()
        .split('\n');
      assert.match(planned.join('\n'), /nft delete table ip vpn-\d+/);
      assert.match(hosts[role].run('nft list ruleset'), /"vpn:tun0/);
      const undone = wrapped(cleanup).trim().split('\n');
      assert.deepEqual(
        undone,
        planned.map((line) => `undone: ${line}`),
      );
      assert.equal(wrapped(cleanup), 'nothing to undo\n');
      if (role === 'client') client.run('sysctl -qw net.ipv4.ip_forward=0');
      assert.deepEqual(difference(before[role], hostState(hosts[role])), []);
    }
  },
);

/** The value of the MSS option (kind 2) of an IPv4 SYN. */
function mssOf(packet: Uint8Array): number {
  const tcp = (packet[0]! & 15) * 4;
  const end = tcp + (packet[tcp + 12]! >> 4) * 4;
  for (let at = tcp + 20; at < end && packet[at] !== 0;) {
    if (packet[at] === 2) return packet[at + 2]! * 256 + packet[at + 3]!;
    at += packet[at] === 1 ? 1 : packet[at + 1]!;
  }
  return 536;
}
