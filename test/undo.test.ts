/** Before equals after on both hosts, however an end goes; and several ends on one host. */
import assert from 'node:assert/strict';
import { capture } from './capture.ts';
import {
  CLIENT_IP,
  connected,
  End,
  EXECUTABLE,
  makeKey,
  startClient,
  startServer,
  tunDevices,
  tunnel,
} from './ends.ts';
import { netTest, until, type Host } from './netns.ts';
import { difference, hostState, type HostState } from './state.ts';
import { ping, reaches } from './traffic.ts';
import { INTERNET, SERVER, world, type World } from './world.ts';

/** What a user may have set up before, and wants back as it was. */
function livedIn({ client, server }: World): void {
  client.run('iptables -A INPUT -p tcp --dport 22 -j ACCEPT');
  client.run('ip6tables -A INPUT -p tcp --dport 22 -j ACCEPT');
  // As wg-quick(8) leaves it while it is up.
  client.run('ip rule add preference 32000 table main suppress_prefixlength 0');
  server.run('iptables -P FORWARD DROP');
  server.run('iptables -A FORWARD -s 10.77.0.0/24 -j ACCEPT');
  server.run('iptables -t nat -A POSTROUTING -s 10.77.0.0/24 -o wan0 -j MASQUERADE');
  server.sysctl('net.ipv4.conf.all.rp_filter', '1');
}

function checkUndone(end: End, before: HostState): void {
  assert.deepEqual(difference(before, hostState(end.host)), [], end.daemon.output);
}

function cleanup(host: Host, stateDir: string): void {
  const { status, stderr } = host.try([
    EXECUTABLE,
    'cleanup',
    ...(stateDir === '' ? [] : ['--state-dir', stateDir]),
  ]);
  assert.equal(status, 0, stderr);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const)
  netTest(
    `${signal}${signal === 'SIGKILL' ? ' and vpn cleanup' : ''}: both hosts are as before`,
    [],
    async (bed) => {
      const hosts = world(bed);
      livedIn(hosts);
      const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
      const ends = await tunnel(bed, hosts, SERVER[4]);
      await reaches(hosts.client, INTERNET[4]);
      await reaches(hosts.client, INTERNET[6]);
      for (const role of ['client', 'server'] as const) {
        const end = ends[role];
        assert.notDeepEqual(difference(before[role], hostState(end.host)), []);
        const exit = await end.daemon.stop(signal);
        if (signal === 'SIGKILL') cleanup(end.host, end.stateDir);
        else assert.equal(exit, 0, end.daemon.output);
        checkUndone(end, before[role]);
      }
    },
  );

netTest('after SIGKILL the next start takes over, and its end undoes all', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const { client, key } = await tunnel(bed, hosts, SERVER[4]);
  await client.daemon.stop('SIGKILL');
  const again = startClient(bed, hosts.client, {
    key,
    address: SERVER[4],
    stateDir: client.stateDir,
  });
  await connected(again);
  assert.equal(await again.daemon.stop('SIGTERM'), 0);
  checkUndone(again, before);
});

netTest('vpn cleanup leaves a living instance alone', [], async (bed) => {
  const hosts = world(bed);
  // No probes for a path MTU, whose result would show in the state.
  const { client } = await tunnel(bed, hosts, SERVER[4], { both: ['--mtu', '1280'] });
  // The tunnel answers before all the routes are there.
  await reaches(hosts.client, INTERNET[4]);
  await reaches(hosts.client, INTERNET[6]);
  const running = hostState(hosts.client);
  cleanup(hosts.client, client.stateDir);
  assert.deepEqual(difference(running, hostState(hosts.client)), []);
  await reaches(hosts.client, INTERNET[4]);
});

netTest('the end of a client of a server that went first is clean too', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const { client, server } = await tunnel(bed, hosts, SERVER[4]);
  await server.daemon.stop('SIGKILL');
  assert.equal(await client.daemon.stop('SIGINT'), 0);
  checkUndone(client, before);
});

netTest(
  'two namespaces with the same tun name share the state directory in peace',
  [],
  async (bed) => {
    const hosts = world(bed);
    const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
    const key = makeKey(bed);
    // The program's own default directory: this is what namespaces of one machine share.
    const server = startServer(bed, hosts.server, { key, tun: 'tun0', stateDir: '' });
    const client = startClient(bed, hosts.client, {
      key,
      tun: 'tun0',
      address: SERVER[4],
      stateDir: '',
    });
    await connected(client);
    await client.daemon.stop('SIGKILL');
    // In the server's namespace there is nothing dead.
    cleanup(hosts.server, '');
    assert.notDeepEqual(difference(before.client, hostState(hosts.client)), []);
    cleanup(hosts.client, '');
    checkUndone(client, before.client);
    assert.deepEqual(tunDevices(hosts.server), ['tun0']);
    assert.equal(await server.daemon.stop('SIGTERM'), 0);
    checkUndone(server, before.server);
  },
);

netTest('two clients of two servers on one host do not disturb each other', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const stateDir = bed.file('state');
  const [near, far] = [makeKey(bed), makeKey(bed)];
  const ips = { localIp: '192.168.193.1', peerIp: '192.168.193.254' };
  startServer(bed, hosts.server, { key: near });
  startServer(bed, hosts.router, {
    key: far,
    port: 4443,
    localIp: ips.peerIp,
    peerIp: ips.localIp,
    options: ['--no-default-routes'],
  });
  const first = startClient(bed, hosts.client, { key: near, address: SERVER[4], stateDir });
  await connected(first);
  const second = startClient(bed, hosts.client, {
    key: far,
    address: '10.1.0.1',
    port: 4443,
    ...ips,
    stateDir,
    options: ['--no-default-routes'],
  });
  await connected(second, ips.peerIp);
  assert.equal(tunDevices(hosts.client).length, 2);
  await reaches(hosts.client, INTERNET[4]);
  assert.equal(await first.daemon.stop('SIGTERM'), 0);
  assert.equal(ping(hosts.client, ips.peerIp, '-c 3 -i 0.2 -W 2').received, 3);
  assert.equal(await second.daemon.stop('SIGTERM'), 0);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});

netTest(
  'two clients that both take the default route, and leave in either order',
  [],
  async (bed) => {
    const hosts = world(bed);
    const before = hostState(hosts.client);
    const [near, far] = [makeKey(bed), makeKey(bed)];
    const ips = { localIp: '192.168.193.1', peerIp: '192.168.193.254' };
    startServer(bed, hosts.server, { key: near });
    startServer(bed, hosts.server, {
      key: far,
      port: 4443,
      localIp: ips.peerIp,
      peerIp: ips.localIp,
    });
    const stateDir = bed.file('state');
    for (const order of ['first', 'last'] as const) {
      const first = startClient(bed, hosts.client, { key: near, address: SERVER[4], stateDir });
      await connected(first);
      const second = startClient(bed, hosts.client, {
        key: far,
        address: SERVER[4],
        port: 4443,
        ...ips,
        stateDir,
      });
      await connected(second, ips.peerIp);
      await reaches(hosts.client, INTERNET[4]);
      const [leaving, staying] = order === 'first' ? [first, second] : [second, first];
      assert.equal(await leaving.daemon.stop('SIGTERM'), 0);
      await reaches(hosts.client, INTERNET[4]);
      assert.equal(await staying.daemon.stop('SIGTERM'), 0);
      assert.deepEqual(difference(before, hostState(hosts.client)), []);
    }
  },
);

netTest('a server and a client on one host do not disturb each other', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const stateDir = bed.file('state');
  const [out, inward] = [makeKey(bed), makeKey(bed)];
  const ips = { localIp: '192.168.193.254', peerIp: '192.168.193.1' };
  startServer(bed, hosts.server, { key: out });
  const client = startClient(bed, hosts.client, { key: out, address: SERVER[4], stateDir });
  await connected(client);
  const server = startServer(bed, hosts.client, { key: inward, port: 4443, ...ips, stateDir });
  // The LAN host is the client of the middle one, which is a client itself.
  const lan = startClient(bed, hosts.lan, {
    key: inward,
    address: '10.77.0.1',
    port: 4443,
    localIp: ips.peerIp,
    peerIp: ips.localIp,
  });
  await connected(lan, ips.localIp);
  await reaches(hosts.client, INTERNET[4]);
  assert.equal(await server.daemon.stop('SIGTERM'), 0);
  await reaches(hosts.client, INTERNET[4]);
  assert.equal(ping(hosts.server, CLIENT_IP).received, 1);
  assert.equal(await client.daemon.stop('SIGTERM'), 0);
  await until('undo', () => difference(before, hostState(hosts.client)).length === 0, 5000);
});

netTest('while the server is away nothing leaves outside the tunnel', ['tcpdump'], async (bed) => {
  const hosts = world(bed);
  const { server } = await tunnel(bed, hosts, SERVER[4]);
  const leaked = await capture(
    bed,
    hosts.router,
    'eth0',
    `host ${INTERNET[4]} or host ${INTERNET[6]}`,
  );
  await reaches(hosts.client, INTERNET[6]);
  await server.daemon.stop('SIGKILL');
  for (const to of [INTERNET[4], INTERNET[6]])
    assert.equal(ping(hosts.client, to, '-c 5 -i 0.2 -W 1').received, 0);
  assert.deepEqual(leaked.packets(), []);
  await leaked.stop();
});
