/** What happens to honest ends: addresses move, servers restart, links go away, clocks jump. */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { capture } from './capture.ts';
import {
  clientPort,
  connected,
  makeKey,
  NODE,
  SERVER_IP,
  startClient,
  startServer,
  tunnel,
} from './ends.ts';
import { checkArrived, receiveFile, sendFile } from './helpers.ts';
import { netTest, pass, run, until, type Daemon } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping, reaches } from './traffic.ts';
import { CLIENT, INTERNET, rebind, SERVER, world, type World } from './world.ts';

/** VPN_TEST_LONG=1 takes the link away for a whole minute. */
const LINK_DOWN_MS = process.env['VPN_TEST_LONG'] === '1' ? 60_000 : 12_000;

interface Transfer {
  readonly sender: Daemon;
  readonly receiver: Daemon;
}

/** How long a transfer goes on at least, around what happens to it. */
const SECONDS = 5;

/** A TCP transfer from the client to the internet, or to the server itself, or back. */
async function startTransfer(
  hosts: World,
  way: 'up' | 'down',
  to: 'internet' | 'server' = 'internet',
): Promise<Transfer> {
  const mbit = 16;
  // The client connects in both cases: the server's NAT lets nobody in.
  const receiver = await receiveFile(hosts[to], 9000);
  const address = to === 'server' ? SERVER_IP : INTERNET[4];
  const sender = sendFile(hosts.client, address, 9000, (mbit / 8) * SECONDS, mbit, way);
  return { sender, receiver };
}

for (const way of ['up', 'down'] as const) {
  netTest(`a TCP transfer ${way} outlives a new address of the client`, [], async (bed) => {
    const hosts = world(bed);
    await tunnel(bed, hosts, SERVER[4]);
    await reaches(hosts.client, INTERNET[4]);
    const transfer = await startTransfer(hosts, way);
    await pass(1500);
    hosts.client.run('ip address delete 10.1.0.2/24 dev eth0');
    hosts.client.run('ip address add 10.1.0.33/24 dev eth0');
    hosts.client.run('ip route add default via 10.1.0.1');
    await checkArrived(transfer.sender, transfer.receiver);
    assert.equal(ping(hosts.client, INTERNET[4], '-q -c 5 -i 0.1 -W 2').received, 5);
  });

  netTest(
    `a TCP transfer ${way} outlives a NAT that forgets its mapping`,
    ['nft', 'tcpdump'],
    async (bed) => {
      const hosts = world(bed);
      const { client } = await tunnel(bed, hosts, SERVER[4]);
      rebind(hosts, clientPort(hosts.client), 40_001);
      await connected(client);
      await reaches(hosts.client, INTERNET[4]);
      const transfer = await startTransfer(hosts, way);
      for (const port of [40_002, 40_003]) {
        await pass(1500);
        rebind(hosts, clientPort(hosts.client), port);
      }
      const wire = await capture(bed, hosts.server, 'eth0', 'udp src port 443');
      await checkArrived(transfer.sender, transfer.receiver);
      await wire.stop();
      assert.equal(wire.datagrams().at(-1)?.targetPort, 40_003);
    },
  );
}

for (const way of ['up', 'down'] as const)
  netTest(`a TCP transfer ${way} outlives a restart of the server`, [], async (bed) => {
    const hosts = world(bed);
    const { server, key } = await tunnel(bed, hosts, SERVER[4]);
    const transfer = await startTransfer(hosts, way, 'server');
    let running = server;
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      await pass(1500);
      await running.daemon.stop(signal);
      running = startServer(bed, hosts.server, { key, stateDir: server.stateDir });
    }
    await checkArrived(transfer.sender, transfer.receiver);
  });

/** What the internet sends meanwhile must not be taken by the server's kernel for its own. */
for (const isTracked of [false, true])
  netTest(
    `a connection through the NAT of a server that restarts ${isTracked ? 'lives where others track it' : 'is reset'}`,
    ['tcpdump'],
    async (bed) => {
      const hosts = world(bed);
      const ends = await tunnel(bed, hosts, SERVER[4]);
      await reaches(hosts.client, INTERNET[4]);
      // As most firewalls do. Without any such line the kernel stops to track as soon as ours are gone.
      if (isTracked)
        hosts.server.run('iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT');
      // By the server itself: what the client sends has passed a router, and lost one of 64 hops.
      const reset = 'tcp[tcpflags] & tcp-rst != 0 and ip[8] = 64';
      const resets = await capture(bed, hosts.server, 'wan0', reset);
      const transfer = await startTransfer(hosts, 'down');
      await pass(1500);
      await ends.server.daemon.stop();
      if (!isTracked) {
        // Sent again and again until there is an answer, it comes to the server as to a stranger.
        await until('a reset', () => resets.packets().length > 0);
        return;
      }
      await pass(1500);
      startServer(bed, hosts.server, { key: ends.key, stateDir: ends.server.stateDir });
      await checkArrived(transfer.sender, transfer.receiver);
      assert.deepEqual(resets.packets(), []);
      await resets.stop();
    },
  );

netTest(
  `a TCP transfer outlives a link that is down for ${LINK_DOWN_MS / 1000} s`,
  [],
  async (bed) => {
    const hosts = world(bed);
    const { client } = await tunnel(bed, hosts, SERVER[4]);
    await reaches(hosts.client, INTERNET[4]);
    const transfer = await startTransfer(hosts, 'up');
    await pass(1000);
    hosts.router.run('ip link set eth0 down');
    await pass(LINK_DOWN_MS);
    assert.equal(client.daemon.exit, undefined);
    hosts.router.run('ip link set eth0 up');
    await connected(client, undefined, 60_000);
    if (LINK_DOWN_MS < 30_000) await checkArrived(transfer.sender, transfer.receiver);
    await reaches(hosts.client, INTERNET[4]);
  },
);

netTest(
  'the tunnel comes back after its interface was taken down and set up anew',
  [],
  async (bed) => {
    const hosts = world(bed);
    const { client } = await tunnel(bed, hosts, SERVER[4]);
    hosts.client.run('ip link set eth0 down');
    // Longer than a session may be silent (SILENT_MS).
    await pass(3500);
    hosts.client.run('ip link set eth0 up');
    // As a DHCP client does.
    hosts.client.run('ip route add default via 10.1.0.1');
    await connected(client, undefined, 60_000);
    await reaches(hosts.client, INTERNET[4]);
  },
);

for (const stepped of ['client', 'server'] as const)
  netTest(`a clock stepped by a day at the ${stepped} changes nothing`, ['g++'], async (bed) => {
    const hosts = world(bed);
    const library = bed.file('clock.so');
    const source = resolve(import.meta.dirname, 'clock.cc');
    const built = run(['g++', '-shared', '-fPIC', '-O1', '-o', library, source, '-ldl'], 60_000);
    assert.equal(built.status, 0, built.stderr);
    const stepFile = bed.file('step');
    bed.write(stepFile, '0');
    const env = { LD_PRELOAD: library, CLOCK_STEP_FILE: stepFile };
    const key = makeKey(bed);
    const options = ['--rekey-after', '2'];
    startServer(bed, hosts.server, { key, options, env: stepped === 'server' ? env : {} });
    const client = startClient(bed, hosts.client, {
      key,
      address: SERVER[4],
      options,
      env: stepped === 'client' ? env : {},
    });
    await connected(client);
    await reaches(hosts.client, INTERNET[4]);
    const transfer = await startTransfer(hosts, 'up');
    for (const step of [86_400, -86_400]) {
      await pass(1500);
      bed.write(stepFile, String(step));
    }
    // The step reaches a program on the same node: else this test would prove nothing.
    const probe = bed.spawn([NODE, '-p', 'Date.now()'], env);
    assert.equal(await probe.ended(), 0);
    const off = Number(probe.output) - Date.now();
    assert.ok(Math.abs(off + 86_400_000) < 60_000, `off by ${off} ms`);
    await checkArrived(transfer.sender, transfer.receiver);
    assert.equal(ping(hosts.client, INTERNET[4], '-q -c 20 -i 0.1 -W 2').received, 20);
  });

netTest(
  'a silent server: one line, retries for ever; found when it comes up, and a clean end without it',
  ['tcpdump'],
  async (bed) => {
    const hosts = world(bed);
    const before = hostState(hosts.client);
    const key = makeKey(bed);
    hosts.router.run('iptables -A FORWARD -p udp --dport 443 -j DROP');
    const wire = await capture(bed, hosts.router, 'eth0', 'udp dst port 443');
    const client = startClient(bed, hosts.client, { key, address: SERVER[4] });
    await client.daemon.line(/no reply from/, 60_000);
    const seen = wire.datagrams().length;
    await until('another try', () => wire.datagrams().length > seen + 2, 60_000);
    assert.equal(client.daemon.exit, undefined);
    assert.equal(client.daemon.output.match(/no reply from/g)?.length, 1, client.daemon.output);
    hosts.router.run('iptables -F FORWARD');
    const server = startServer(bed, hosts.server, { key });
    await connected(client, undefined, 60_000);
    await server.daemon.stop('SIGKILL');
    assert.equal(await client.daemon.stop('SIGINT'), 0);
    assert.deepEqual(difference(before, hostState(hosts.client)), []);
  },
);

netTest('a server that moves is found by its name', [], async (bed) => {
  const hosts = world(bed);
  const key = makeKey(bed);
  hosts.client.names(`127.0.0.1 localhost\n${SERVER[4]} server.test`);
  startServer(bed, hosts.server, { key });
  const client = startClient(bed, hosts.client, { key, address: 'server.test' });
  await connected(client);
  hosts.server.run(`ip address delete ${SERVER[4]}/24 dev eth0`);
  hosts.server.run('ip address add 10.2.0.44/24 dev eth0');
  for (const net of ['10.1.0.0/24', '10.9.0.0/24'])
    hosts.server.run(`ip route replace ${net} via 10.2.0.1`);
  // The old address must not answer with an error either: it is just gone.
  hosts.router.run(`ip neigh replace ${SERVER[4]} lladdr 02:00:00:00:00:01 dev eth1`);
  hosts.client.names('127.0.0.1 localhost\n10.2.0.44 server.test');
  await connected(client, undefined, 90_000);
  assert.equal(ping(hosts.client, CLIENT[4]).received, 1);
});
