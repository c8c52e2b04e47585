/** What happens to honest ends: addresses move, servers restart, links go away, clocks jump. */
import assert from 'node:assert/strict';
import { capture } from './capture.ts';
import { Clock } from './clock.ts';
import {
  clientPort,
  connected,
  End,
  EXECUTABLE,
  makeKey,
  NODE,
  routed,
  SERVER_IP,
  startClient,
  startServer,
  tunnel,
} from './ends.ts';
import { checkArrived, receiveFile, sendFile, startNameServer } from './helpers.ts';
import { netTest, pass, until, type Daemon } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping, reaches } from './traffic.ts';
import { ATTACKER, CLIENT, INTERNET, rebind, SERVER, world, type World } from './world.ts';

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

netTest('a TCP transfer outlives a new IPv6 address of the client', ['tcpdump'], async (bed) => {
  const hosts = world(bed);
  await tunnel(bed, hosts, SERVER[6]);
  await reaches(hosts.client, INTERNET[4]);
  const transfer = await startTransfer(hosts, 'up');
  await pass(1500);
  hosts.client.run('ip address delete 2001:db8:1::2/64 dev eth0');
  hosts.client.run('ip address add 2001:db8:1::33/64 dev eth0 nodad');
  hosts.client.run('ip -6 route replace default via 2001:db8:1::1');
  const wire = await capture(bed, hosts.server, 'eth0', 'udp src port 443');
  await checkArrived(transfer.sender, transfer.receiver);
  assert.equal(ping(hosts.client, INTERNET[6], '-q -c 5 -i 0.1 -W 2').received, 5);
  await wire.stop();
  assert.equal(wire.datagrams().at(-1)?.target, '2001:db8:1:0:0:0:0:33');
});

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
    const clock = new Clock(bed);
    const env = (role: typeof stepped) => (role === stepped ? clock.env : {});
    const key = makeKey(bed);
    const options = ['-v', '--rekey-after', '2'];
    const server = startServer(bed, hosts.server, { key, options, env: env('server') });
    const there = { key, options, address: SERVER[4] };
    const client = startClient(bed, hosts.client, { ...there, env: env('client') });
    await connected(client);
    await reaches(hosts.client, INTERNET[4]);
    const end = { client, server }[stepped];
    const [monitor, worker, ...others] = end.daemon.family;
    assert.ok(monitor !== undefined && worker !== undefined && others.length === 0);
    const transfer = await startTransfer(hosts, 'up');
    const newKeys = /new keys/;
    for (const step of [86_400, -86_400, 0]) {
      clock.step(step);
      const from = end.daemon.output.length;
      // All of the protocol is in the worker; it looks at this clock when it is asked how it does.
      end.host.run(EXECUTABLE, 'status', '--json', '--state-dir', end.stateDir);
      for (const [which, pid] of Object.entries({ worker, monitor }))
        await until(`the ${which} stepped by ${step} s`, () => clock.seenBy(pid) === step);
      await end.daemon.line(newKeys, undefined, from);
      assert.equal(ping(hosts.client, INTERNET[4], '-q -c 20 -i 0.05 -W 2').received, 20);
    }
    await checkArrived(transfer.sender, transfer.receiver);
    assert.doesNotMatch(
      client.daemon.output + server.daemon.output,
      /answers again|no reply|nothing/,
    );
    assert.equal(client.daemon.output.match(/^vpn: connected to/gm)?.length, 1);
  });

netTest(
  'a silent server: one line, retries for ever; found when it comes up, and a clean end without it',
  ['tcpdump'],
  async (bed) => {
    const hosts = world(bed);
    const before = { client: hostState(hosts.client), other: hostState(hosts.attacker) };
    const key = makeKey(bed);
    hosts.router.run('iptables -A FORWARD -p udp --dport 443 -j DROP');
    const wire = await capture(bed, hosts.router, 'eth0', 'udp dst port 443');
    const client = startClient(bed, hosts.client, { key, address: SERVER[4] });
    // Another, which is never to connect.
    const other = startClient(bed, hosts.attacker, { key, address: SERVER[4] });
    for (const one of [client, other]) await one.daemon.line(/no reply from/, 60_000);
    const seen = wire.datagrams().length;
    await until('another try', () => wire.datagrams().length > seen + 2, 60_000);
    assert.equal(client.daemon.exit, undefined);
    assert.equal(client.daemon.output.match(/no reply from/g)?.length, 1, client.daemon.output);
    assert.notDeepEqual(difference(before.other, hostState(hosts.attacker)), []);
    assert.equal(await other.daemon.stop('SIGINT'), 0, other.daemon.output);
    assert.doesNotMatch(other.daemon.output, /connected to/);
    assert.deepEqual(difference(before.other, hostState(hosts.attacker)), []);
    hosts.router.run('iptables -F FORWARD');
    const server = startServer(bed, hosts.server, { key });
    await connected(client, undefined, 60_000);
    await server.daemon.stop('SIGKILL');
    assert.equal(await client.daemon.stop('SIGINT'), 0);
    assert.deepEqual(difference(before.client, hostState(hosts.client)), []);
  },
);

netTest('a server that starts elsewhere is found by its name', ['tcpdump'], async (bed) => {
  const hosts = world(bed);
  const key = makeKey(bed);
  // Behind the router, so that what asks for it by the default route asks through the tunnel that is down.
  hosts.client.resolver(`nameserver ${ATTACKER[4]}`);
  const known = (address: string): Promise<Daemon> =>
    startNameServer(bed, hosts.attacker, ATTACKER[4], { 'server.test': address });
  const first = await known(SERVER[4]);
  const server = startServer(bed, hosts.server, { key });
  const client = startClient(bed, hosts.client, { key, address: 'server.test' });
  await connected(client);
  await routed(client);
  // Without a goodbye; and the next one knows nothing of the session that might roam.
  await server.daemon.stop('SIGKILL');
  hosts.server.run(`ip address delete ${SERVER[4]}/24 dev eth0`);
  hosts.server.run('ip address add 10.2.0.44/24 dev eth0');
  for (const net of ['10.1.0.0/24', '10.9.0.0/24'])
    hosts.server.run(`ip route replace ${net} via 10.2.0.1`);
  // The old address must not answer with an error either: it is just gone.
  hosts.router.run(`ip neigh replace ${SERVER[4]} lladdr 02:00:00:00:00:01 dev eth1`);
  await first.stop();
  const questions = await capture(bed, hosts.attacker, 'eth0', 'udp dst port 53');
  await known('10.2.0.44');
  startServer(bed, hosts.server, { key, stateDir: server.stateDir });
  await connected(client, undefined, 90_000);
  await client.daemon.line(/^vpn: connected to 10\.2\.0\.44:443 /);
  assert.ok(questions.datagrams().some(({ source }) => source === CLIENT[4]));
  await reaches(hosts.client, INTERNET[4]);
});

netTest('SIGUSR1 opens no inspector in either process of an end', [], async (bed) => {
  const hosts = world(bed);
  const { client, server } = await tunnel(bed, hosts, SERVER[4]);
  const listening = ({ host }: End): string => host.run('ss -Hlntp');
  for (const end of [client, server]) {
    assert.equal(end.daemon.family.length, 2);
    for (const pid of end.daemon.family) process.kill(pid, 'SIGUSR1');
    // What a node does that has nothing against it, and how soon.
    const plain = end.host.start([NODE, '-e', 'setInterval(() => {}, 1e6); console.log("ready")']);
    await plain.line(/^ready$/);
    plain.kill('SIGUSR1');
    await until('an inspector', () => listening(end).includes(`pid=${plain.pid},`));
    await plain.stop('SIGKILL');
    assert.equal(listening(end), '');
    assert.equal(end.daemon.family.length, 2);
    assert.equal(end.daemon.exit, undefined);
    assert.doesNotMatch(end.daemon.output, /debugger|inspector/i);
  }
  assert.equal(ping(hosts.client, INTERNET[4], '-q -c 20 -i 0.05 -W 2').received, 20);
});
