/**
 * The journal and the ways out, by the real executable: a disk that is full, a journal that is cut short
 * or of another version, a device that is taken away.
 */
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connected, EXECUTABLE, makeKey, startClient, startServer, tunnel } from './ends.ts';
import { FaultyPath } from './faulty.ts';
import { netTest, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { INTERNET, SERVER, pair, world } from './world.ts';
import { reaches } from './traffic.ts';

const cleanup = (host: Host, stateDir: string, ...options: string[]): string => {
  const { status, stdout, stderr } = host.try([
    EXECUTABLE,
    'cleanup',
    '--state-dir',
    stateDir,
    ...options,
  ]);
  assert.equal(status, 0, stderr);
  return stdout + stderr;
};

const onlyJournal = (stateDir: string): string => {
  const names = readdirSync(stateDir).filter((name) => name.endsWith('.journal'));
  assert.equal(names.length, 1);
  return join(stateDir, names[0] ?? '');
};

// tmpfs gives room by the page: none at all, and one that a journal outgrows.
for (const [room, pages] of [
  ['no room', 0],
  ['room for some records', 1],
] as const)
  netTest(`${room} for the journal: nothing is changed, one line`, [], async (bed) => {
    const { server } = pair(bed);
    server.run('ip route add default via 10.1.0.1');
    server.run('ip -6 route add default via 2001:db8:1::1');
    const before = hostState(server);
    const stateDir = bed.file('state');
    const script = [
      `mount -t tmpfs -o size=16k,mode=700 tmpfs ${stateDir}`,
      `head -c ${16384 - 4096 * pages} /dev/zero > ${stateDir}/full`,
      'exec "$@"',
    ];
    const end = startServer(bed, server, {
      key: makeKey(bed),
      stateDir,
      options: ['--route', '10.50.0.0/16', '--route', 'fd50::/32'],
      wrapper: ['unshare', '-m', 'sh', '-c', script.join(' && '), 'sh'],
    });
    assert.equal(await end.daemon.ended(), 1, end.daemon.output);
    assert.match(
      end.daemon.output,
      /^vpn: cannot write the journal "[^"]*": no space left on device; make room or make it writable: [^\n]*\n$/,
    );
    assert.deepEqual(difference(before, hostState(server)), []);
  });

netTest('a journal cut short, one without a header, one of another version', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const { client, key } = await tunnel(bed, hosts, SERVER[4]);
  const { stateDir } = client;
  await client.daemon.stop('SIGKILL');
  const journal = onlyJournal(stateDir);
  const whole = readFileSync(journal, 'utf8');
  appendFileSync(journal, '{"number":99,"record":{"undo":["ip","ru');
  writeFileSync(join(stateDir, 'empty.journal'), '');
  writeFileSync(join(stateDir, 'cut.journal'), whole.slice(0, 30));
  const header = whole.slice(0, whole.indexOf('\n'));
  const other = header.replace(/"version":\d+/, '"version":99');
  const stranger = '{"number":1,"record":{"undo":["ip","link","del","eth0"]}}';
  writeFileSync(join(stateDir, 'other.journal'), `${other}\n${stranger}\n`);
  const said = cleanup(hosts.client, stateDir);
  assert.match(said, /^undone: ip rule del preference/m);
  assert.match(said, /^vpn: warning: journal ".*other\.journal" is of another version: run vpn/m);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
  assert.deepEqual(readdirSync(stateDir).sort(), ['lock', 'other.journal']);
  // It does not keep anybody from starting, either.
  const again = startClient(bed, hosts.client, { key, address: SERVER[4], stateDir });
  await connected(again);
  assert.equal(await again.daemon.stop(), 0);
  assert.deepEqual(readdirSync(stateDir).sort(), ['lock', 'other.journal']);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});

netTest('a tun device deleted under it: exit 1, one line, all undone', [], async (bed) => {
  const hosts = world(bed);
  const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
  const ends = await tunnel(bed, hosts, SERVER[4]);
  await reaches(hosts.client, INTERNET[4]);
  for (const role of ['client', 'server'] as const) {
    const end = ends[role];
    const already = end.daemon.output.length;
    hosts[role].run(`ip link del ${end.tun}`);
    assert.equal(await end.daemon.ended(), 1);
    const said = end.daemon.output.slice(already);
    assert.match(said, /^vpn: tun device "tun0": gone; start vpn again$/m);
    assert.deepEqual(difference(before[role], hostState(hosts[role])), [], said);
    assert.equal(end.journals().filter((name) => name !== 'lock').length, 0);
  }
});

for (const [how, programs] of [
  ['iptables', ['ip', 'iptables', 'ip6tables', 'nft']],
  ['nft', ['ip', 'nft']],
] as const)
  netTest(
    `the whole ruleset flushed under it, ${how}: one warning, all undone`,
    ['nft'],
    async (bed) => {
      const hosts = world(bed);
      const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
      const { wrapper } = new FaultyPath(bed, programs);
      const key = makeKey(bed);
      const server = startServer(bed, hosts.server, { key, wrapper });
      const client = startClient(bed, hosts.client, { key, wrapper, address: SERVER[4] });
      await connected(client);
      await reaches(hosts.client, INTERNET[4]);
      for (const [role, end] of [
        ['client', client],
        ['server', server],
      ] as const) {
        hosts[role].run('nft flush ruleset');
        assert.equal(await end.daemon.stop(), 0, end.daemon.output);
        const warnings = end.daemon.output.match(/^vpn: warning: .*$/gm) ?? [];
        assert.equal(warnings.length, 1, end.daemon.output);
        assert.match(
          warnings[0] ?? '',
          /somebody else removed what "(nft|ip6?tables) .*" was to remove$/,
        );
        assert.deepEqual(difference(before[role], hostState(hosts[role])), []);
        assert.deepEqual(readdirSync(end.stateDir), ['lock']);
      }
    },
  );

netTest('cleanup beside a living instance, again and again, and as a dry run', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const stateDir = bed.file('state');
  const key = makeKey(bed);
  const alive = startServer(bed, hosts.client, {
    key: makeKey(bed),
    port: 4443,
    localIp: '192.168.193.254',
    peerIp: '192.168.193.1',
    stateDir,
  });
  await alive.daemon.line(/waiting/);
  const between = hostState(hosts.client);
  startServer(bed, hosts.server, { key });
  const dead = startClient(bed, hosts.client, { key, address: SERVER[4], stateDir });
  await connected(dead);
  await dead.daemon.stop('SIGKILL');
  const killed = hostState(hosts.client);
  const planned = cleanup(hosts.client, stateDir, '--dry-run');
  assert.equal(cleanup(hosts.client, stateDir, '--dry-run'), planned);
  assert.deepEqual(difference(killed, hostState(hosts.client)), []);
  const undone = cleanup(hosts.client, stateDir);
  assert.equal(undone.replaceAll('undone: ', ''), planned);
  assert.deepEqual(difference(between, hostState(hosts.client)), []);
  assert.equal(cleanup(hosts.client, stateDir), 'nothing to undo\n');
  assert.equal(cleanup(hosts.client, stateDir, '--dry-run'), 'nothing to undo\n');
  assert.equal(await alive.daemon.stop(), 0);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});
