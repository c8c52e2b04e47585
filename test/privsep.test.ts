/** Who does what: a monitor that is root and reads nothing of the network, a worker that is nobody. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { ofProcess } from './daemon.ts';
import { connected, EXECUTABLE, SERVER_IP, startClient, tunnel, type End } from './ends.ts';
import { receiveFile, sendFile } from './helpers.ts';
import { netTest, until } from './netns.ts';
import { difference, hostState } from './state.ts';
import { reaches } from './traffic.ts';
import { INTERNET, SERVER, world } from './world.ts';

const workersOf = (end: End): readonly number[] => end.daemon.family.slice(1);

function workerOf(end: End): number {
  const [worker, ...others] = workersOf(end);
  assert.ok(worker !== undefined && others.length === 0, 'one worker');
  return worker;
}

const isRunning = (pid: number): boolean => ofProcess(pid, 'status') !== '';
const titleOf = (pid: number): string => ofProcess(pid, 'cmdline').replace(/[\0 ]*$/, '');
const field = (status: string, name: string): string =>
  new RegExp(`^${name}:[\\t ]*(.*)$`, 'm').exec(status)?.[1] ?? '';

/** Of a process, what its descriptors are: 'socket', '/dev/net/tun', … */
function descriptors(pid: number): readonly string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:.*/, '');
    } catch {
      return '';
    }
  });
}

netTest('the worker of each end is nobody, and can become nobody else', [], async (bed) => {
  const hosts = world(bed);
  const ends = await tunnel(bed, hosts, SERVER[4]);
  await reaches(hosts.client, INTERNET[4]);
  const uids = Object.values({ server: ends.server, client: ends.client }).map((end) => {
    const monitor = end.daemon.pid;
    const worker = workerOf(end);
    const threads = readdirSync(`/proc/${worker}/task`);
    assert.ok(threads.length > 1, 'node has threads of its own');
    for (const thread of threads) {
      const status = readFileSync(`/proc/${worker}/task/${thread}/status`, 'utf8');
      const ids = new Set([
        ...field(status, 'Uid').split('\t'),
        ...field(status, 'Gid').split('\t'),
      ]);
      assert.ok(ids.size === 1 && Number([...ids][0]) > 1000, `${thread}: ${[...ids].join(' ')}`);
      assert.equal(field(status, 'Groups').trim(), '');
      for (const kind of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) {
        assert.match(field(status, kind), /^0+$/, `${kind} of thread ${thread}`);
      }
      assert.equal(field(status, 'NoNewPrivs'), '1', `thread ${thread}`);
      // A filter: no other program can be started.
      assert.equal(field(status, 'Seccomp'), '2', `thread ${thread}`);
    }
    // An empty folder without a name.
    assert.match(readlinkSync(`/proc/${worker}/root`), / \(deleted\)$/);
    assert.deepEqual(readdirSync(`/proc/${worker}/root`), []);
    for (const namespace of ['net', 'mnt', 'pid']) {
      const of = (pid: number): string => readlinkSync(`/proc/${pid}/ns/${namespace}`);
      assert.equal(of(worker), of(monitor));
    }
    // It has no way to a file: the device, sockets, and what an event loop is made of.
    const known = ['/dev/net/tun', 'socket', 'anon_inode', 'pipe', '/dev/null', ''];
    const others = descriptors(worker).filter((one) => !known.includes(one));
    assert.deepEqual(
      others,
      [readlinkSync(`/proc/${monitor}/fd/2`)].filter((one) => others.includes(one)),
    );
    assert.match(field(ofProcess(monitor, 'status'), 'Uid'), /^0\t/);
    return field(ofProcess(worker, 'status'), 'Uid');
  });
  assert.notEqual(uids[0], uids[1], 'two instances, two users');
  // Names of processes as of MLVPN's, with what is known of the links.
  assert.equal(titleOf(ends.client.daemon.pid), 'vpn: tun0 [priv]');
  assert.match(titleOf(workerOf(ends.client)), /^vpn: tun0 @\S+$/);
});

netTest('a worker that dies takes the tunnel along, and the host is as before', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const { client } = await tunnel(bed, hosts, SERVER[4]);
  process.kill(workerOf(client), 'SIGSEGV');
  assert.equal(await client.daemon.ended(), 1);
  assert.match(client.daemon.output, /^vpn: worker: ended by SIGSEGV; start vpn again$/m);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
  assert.deepEqual(client.journals(), ['lock']);
});

netTest('a monitor that is killed takes its worker along', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const { client } = await tunnel(bed, hosts, SERVER[4]);
  const worker = workerOf(client);
  await client.daemon.stop('SIGKILL');
  await until('the end of the worker', () => !isRunning(worker));
  hosts.client.run(EXECUTABLE, 'cleanup', '--state-dir', client.stateDir);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
});

netTest('signals to the worker do what they do to the monitor', [], async (bed) => {
  const hosts = world(bed);
  const { client, server } = await tunnel(bed, hosts, SERVER[4]);
  process.kill(workerOf(client), 'SIGTERM');
  assert.equal(await client.daemon.ended(), 0);
  process.kill(workerOf(server), 'SIGHUP');
  assert.equal(await server.daemon.ended(), 0);
});

netTest('with a kill switch the next worker goes on where the last one died', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const { client, server, key } = await tunnel(bed, hosts, SERVER[4]);
  assert.equal(await client.daemon.stop(), 0);
  const options = ['--kill-switch'];
  const guarded = startClient(bed, hosts.client, { key, address: SERVER[4], options });
  await connected(guarded);
  const receiver = await receiveFile(hosts.server, 9000);
  const sender = sendFile(hosts.client, SERVER_IP, 9000, 12, 16, 'up');
  const first = workerOf(guarded);
  process.kill(first, 'SIGKILL');
  const second = await until('the next worker', () =>
    workersOf(guarded).find((pid) => pid !== first),
  );
  await connected(guarded);
  assert.equal(workerOf(guarded), second);
  // The connection through the tunnel has outlived it.
  assert.equal(await sender.ended(60_000), 0, sender.output);
  assert.equal(await receiver.ended(), 0, receiver.output);
  const last = (output: string): string | undefined => output.trim().split('\n').at(-1);
  assert.equal(last(receiver.output), last(sender.output));
  const events = hosts.client.start([EXECUTABLE, 'events', '--state-dir', guarded.stateDir]);
  await events.line(/"event":"started","cause":"started by hand"/);
  await events.line(/"event":"started","cause":"worker ended by SIGKILL"/);
  assert.equal(await guarded.daemon.stop(), 0);
  hosts.client.run(EXECUTABLE, 'cleanup', '--state-dir', guarded.stateDir);
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
  assert.equal(server.daemon.exit, undefined);
});

netTest('the user can be named, and has to be there', [], async (bed) => {
  const hosts = world(bed);
  const before = hostState(hosts.client);
  const { client, key } = await tunnel(bed, hosts, SERVER[4], { client: ['-u', 'nobody'] });
  const nobody = /^nobody:x:(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8'))?.[1];
  const status = ofProcess(workerOf(client), 'status');
  assert.equal(field(status, 'Uid').split('\t')[0], nobody);
  assert.equal(await client.daemon.stop(), 0);
  for (const [user, line] of [
    ['no-such-user', /^vpn: user "no-such-user": no such user; create it, or leave it out$/m],
    ['root', /^vpn: user "root": has the rights of root; give another, or leave it out$/m],
  ] as const) {
    const options = ['--user', user];
    const refused = startClient(bed, hosts.client, { key, address: SERVER[4], options });
    assert.equal(await refused.daemon.ended(), 1);
    assert.match(refused.daemon.output, line);
  }
  assert.deepEqual(difference(before, hostState(hosts.client)), []);
  assert.ok(existsSync(client.stateDir));
});
