/**
 * The host set-up for real, as root, in throwaway network namespaces: whatever happens, the state
 * before is the state after.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it as testOf } from 'node:test';
import type { HostSettings } from '../src/setup.ts';
import { ADDON, Instance } from './instance.ts';
import { Bed, lacking, type Host } from './netns.ts';
import { difference, hostState, type HostState } from './state.ts';

const skip = lacking(['ip6tables']) || (!existsSync(ADDON) && 'needs the addon: npm run build');
/** Skipped by its own name where the machine cannot run it. */
const it = (name: string, body: () => Promise<void>): void => void testOf(name, { skip }, body);

/** A host with an uplink, default routes, an address, and lines of somebody else. */
function livedIn(bed: Bed): Host {
  const host = bed.host('host');
  host.run('ip link add v0 type veth peer name v1');
  // Link-local addresses come when they like.
  for (const end of ['v0', 'v1']) host.run(`ip link set ${end} addrgenmode none`);
  for (const end of ['v1', 'v0']) host.run(`ip link set ${end} up`);
  host.run('ip address add 10.77.0.2/24 dev v0');
  host.run('ip route add default via 10.77.0.1 dev v0');
  host.run('ip -6 address add fd77::2/64 dev v0 nodad');
  host.run('ip -6 route add default via fd77::1 dev v0');
  // Among which ours must be found again.
  host.run('iptables -w -A FORWARD -s 10.1.1.1 -j DROP');
  host.run('iptables -w -P FORWARD DROP');
  host.run('ip rule add preference 32000 table main suppress_prefixlength 0');
  host.sysctl('net.ipv6.conf.v1.forwarding', '1');
  return host;
}

function assertSame(now: HostState, before: HostState, when = ''): void {
  assert.deepEqual(difference(before, now), [], when);
}

function canRead(link: string): boolean {
  try {
    readlinkSync(link);
    return true;
  } catch {
    return false;
  }
}

const base: HostSettings = {
  role: 'client',
  tun: 'tun0',
  localIp: '192.168.192.1',
  peerIp: '192.168.192.254',
  localIp6: 'fd00:1::1',
  peerIp6: 'fd00:1::2',
  mtu: 1420,
  defaultRoutes: true,
  routes: [],
  mark: 0,
  table: 0,
  externalIp: '',
  gateway: '',
  port: 443,
};
const server: HostSettings = {
  ...base,
  role: 'server',
  localIp: '192.168.192.254',
  peerIp: '192.168.192.1',
  localIp6: 'fd00:1::2',
  peerIp6: 'fd00:1::1',
};
const NETWORKS = ['10.50.0.0/16', '10.60.0.0/16', 'fd50::/32'];
const cases: readonly (readonly [string, HostSettings])[] = [
  ['client, default routes', base],
  ['client, networks', { ...base, defaultRoutes: false, routes: NETWORKS }],
  ['client, no default routes', { ...base, defaultRoutes: false }],
  ['client, with a gateway', { ...base, gateway: '10.77.0.1' }],
  ['server', server],
  ['server, networks behind the client', { ...server, routes: ['10.50.0.0/16', 'fd50::/32'] }],
  ['server, external address', { ...server, externalIp: '10.77.0.2' }],
  ['server, no default routes', { ...server, defaultRoutes: false, routes: ['10.50.0.0/16'] }],
];

describe('the host is left as it was found', { concurrency: 1 }, () => {
  let bed: Bed;
  let space: Host;
  let journalDir: string;
  const instances: Instance[] = [];

  beforeEach(() => {
    bed = new Bed();
    space = livedIn(bed);
    journalDir = mkdtempSync(join(tmpdir(), 'vpnh-'));
  });
  afterEach(async () => {
    for (const instance of instances.splice(0)) await instance.kill();
    await bed.close();
    rmSync(journalDir, { recursive: true });
  });

  function start(settings: HostSettings, killAt = 0, killAfter = false, where = space): Instance {
    where.run(`ip tuntap add dev ${settings.tun} mode tun`);
    const instance = new Instance(where, journalDir, settings, killAt, killAfter);
    instances.push(instance);
    return instance;
  }
  /** The kernel does it when the last descriptor is closed. */
  const closeTun = (tun: string): unknown => space.run(`ip link del dev ${tun}`);
  const journals = (): readonly string[] =>
    readdirSync(journalDir).filter((name) => name.endsWith('.journal'));

  for (const [name, settings] of cases) {
    it(`after undo: ${name}`, async () => {
      const before = hostState(space);
      const instance = start(settings);
      assert.deepEqual((await instance.must('up')).warnings, []);
      await instance.must('connected 1');
      await instance.must('connected 0');
      await instance.must('connected 1');
      assert.equal(journals().length, 1);
      const done = await instance.must('undo');
      assert.equal(done.result, true);
      assert.deepEqual(done.warnings, []);
      await instance.end();
      closeTun('tun0');
      assertSame(hostState(space), before);
      assert.deepEqual(journals(), []);
    });
  }

  it('after undoSync', async () => {
    const before = hostState(space);
    const instance = start({ ...server, routes: ['10.50.0.0/16'] });
    await instance.must('up');
    assert.deepEqual((await instance.must('undoSync')).warnings, []);
    await instance.end();
    closeTun('tun0');
    assertSame(hostState(space), before);
  });

  it('sends everything but marked datagrams into the tunnel, and blocks IPv6 that ends at the server', async () => {
    const instance = start(base);
    await instance.must('up');
    const { result } = await instance.must('connected 0');
    const { mark } = result as { readonly mark: number };
    assert.match(space.run('ip route get 203.0.113.7'), /dev tun0/);
    assert.match(space.run(`ip route get 203.0.113.7 mark ${mark}`), /via 10.77.0.1 dev v0/);
    assert.match(space.run('ip route get 10.77.0.9'), /dev v0/);
    assert.notEqual(space.try(['ip -6 route get 2001:db8::1']).status, 0);
    assert.match(space.run(`ip -6 route get 2001:db8::1 mark ${mark}`), /dev v0/);
    await instance.must('connected 1');
    assert.match(space.run('ip -6 route get 2001:db8::1'), /dev tun0/);
  });

  it('sends only the given networks into the tunnel', async () => {
    const instance = start({ ...base, routes: ['10.50.0.0/16', 'fd50::/32'] });
    await instance.must('up');
    await instance.must('connected 1');
    assert.match(space.run('ip route get 10.50.1.1'), /dev tun0/);
    assert.match(space.run('ip -6 route get fd50::9'), /dev tun0/);
    assert.match(space.run('ip route get 203.0.113.7'), /dev v0/);
    assert.match(space.run('ip -6 route get 2001:db8::1'), /dev v0/);
  });

  it('keeps a default route learnt from a router advertisement while it forwards', async () => {
    space.run('ip -6 route del default');
    space.run('ip -6 route add default via fd77::1 dev v0 proto ra metric 1024');
    const instance = start(server);
    const answer = await instance.must('up');
    assert.deepEqual(answer.result, { ...(answer.result as object), ipv6Leaves: true });
    assert.match(space.run('ip -6 route show default'), /via fd77::1/);
    assert.equal(space.run('sysctl -n net.ipv6.conf.v0.accept_ra').trim(), '2');
    await instance.must('undo');
    assert.equal(space.run('sysctl -n net.ipv6.conf.v0.accept_ra').trim(), '1');
    assert.match(space.run('ip -6 route show default'), /via fd77::1/);
  });

  it('leaves by the interface of the external address, though the default route is another', async () => {
    space.run('ip address add 10.88.0.2/24 dev v1');
    space.run('ip route add default via 10.88.0.1 dev v1 metric 500');
    const before = hostState(space);
    const instance = start({ ...server, externalIp: '10.88.0.2' });
    await instance.must('up');
    const route = 'ip route get 203.0.113.7 from 192.168.192.1 iif tun0';
    assert.match(space.run(route), /via 10.88.0.1 dev v1/);
    assert.match(space.run('ip route get 203.0.113.7'), /via 10.77.0.1 dev v0/);
    assert.match(space.run('iptables -w -t nat -S'), /-o v1 .*-j SNAT --to-source 10.88.0.2/);
    await instance.must('undo');
    closeTun('tun0');
    assertSame(hostState(space), before);
  });

  for (const firstGoes of [true, false]) {
    it(`two servers share sysctls; the ${firstGoes ? 'first' : 'second'} ends first`, async () => {
      const before = hostState(space);
      const one = start(server);
      await one.must('up');
      const between = hostState(space);
      const two = start({
        ...server,
        tun: 'tun1',
        localIp: '192.168.193.254',
        peerIp: '192.168.193.1',
        localIp6: 'fd00:2::2',
        peerIp6: 'fd00:2::1',
      });
      await two.must('up');
      const [early, late] = firstGoes ? [one, two] : [two, one];
      await early.must('undo');
      assert.equal(space.run('sysctl -n net.ipv4.ip_forward').trim(), '1');
      if (!firstGoes) {
        await early.end();
        closeTun('tun1');
        assertSame(hostState(space), between);
      }
      await late.must('undo');
      for (const tun of firstGoes ? ['tun0', 'tun1'] : ['tun0']) closeTun(tun);
      assertSame(hostState(space), before);
    });
  }

  it('two instances that start at the same time choose different numbers', async () => {
    const one = start(base);
    const two = start({
      ...base,
      tun: 'tun1',
      localIp: '192.168.193.1',
      peerIp: '192.168.193.254',
      localIp6: '',
      peerIp6: '',
      routes: ['10.9.0.0/16'],
    });
    const both = await Promise.all([one.must('up'), two.must('up')]);
    const marks = both.map((answer) => (answer.result as { readonly mark: number }).mark);
    assert.notEqual(marks[0], marks[1]);
    await Promise.all([one.must('connected 1'), two.must('connected 1')]);
    for (const mark of marks) {
      assert.match(space.run(`ip route get 203.0.113.7 mark ${mark}`), /dev v0/);
      assert.match(space.run(`ip route get 10.9.0.1 mark ${mark}`), /dev v0/);
    }
    await Promise.all([one.must('undo'), two.must('undo')]);
    assert.doesNotMatch(space.run('ip rule'), /2[89]\d{3}:/);
  });

  it('a journal of a living instance, and of another namespace, is not touched', async () => {
    const next = new Bed();
    const other = livedIn(next);
    const one = start(server);
    await one.must('up');
    const elsewhere = start(server, 0, false, other);
    await elsewhere.must('up');
    await elsewhere.kill();
    const during = hostState(space);
    const cleaner = new Instance(space, journalDir, server);
    instances.push(cleaner);
    assert.deepEqual((await cleaner.must('cleanup')).result, { undone: [], failed: [] });
    assertSame(hostState(space), during);
    assert.equal(journals().length, 2);
    await next.close();
    await cleaner.must('cleanup');
    // Where not all processes may be looked at, nobody knows that it is gone.
    const sees = canRead('/proc/1/ns/net');
    assert.equal(journals().length, sees ? 1 : 2, 'the journal of a namespace that is gone');
  });

  for (const [name, settings] of [
    ['client', base],
    ['server', { ...server, routes: ['10.50.0.0/16'] }],
  ] as const) {
    // A sample, other ones before than after; with VPN_SWEEP all of them.
    const step = process.env.VPN_SWEEP === undefined ? 13 : 1;
    for (const killAfter of [false, true]) {
      const first = killAfter ? 1 + Math.floor(step / 2) : 1;
      const when = killAfter ? 'after' : 'before';
      testOf(
        `SIGKILL ${when} a change or its undo, then cleanup: ${name}`,
        { skip, timeout: 580_000 },
        async () => {
          const before = hostState(space);
          let isDead = true;
          for (let n = first; isDead; n += step) {
            const victim = start(settings, n, killAfter);
            for (const order of ['up', 'connected 1', 'connected 0', 'undo']) {
              isDead = (await victim.order(order)) === undefined;
              if (isDead) break;
            }
            await victim.kill();
            closeTun('tun0');
            const cleaner = new Instance(space, journalDir, settings);
            instances.push(cleaner);
            const { result, warnings } = await cleaner.must('cleanup');
            await cleaner.end();
            assert.deepEqual((result as { readonly failed: unknown }).failed, [], `killed at ${n}`);
            assert.deepEqual(warnings, [], `killed at ${n}`);
            assertSame(hostState(space), before, `killed at ${n}`);
            assert.deepEqual(journals(), [], `killed at ${n}`);
          }
        },
      );
    }
  }

  it('the next start undoes what a killed one left', async () => {
    const before = hostState(space);
    const victim = start(base);
    await victim.must('up');
    await victim.must('connected 0');
    await victim.kill();
    closeTun('tun0');
    const next = start({ ...base, defaultRoutes: false });
    const { log } = await next.must('prepare');
    assert.ok(log.some((line) => line.startsWith('undone for a dead vpn: ip rule del')));
    await next.must('undo');
    closeTun('tun0');
    assertSame(hostState(space), before);
  });

  it('one line of ours deleted by hand: undo goes on and warns once', async () => {
    const before = hostState(space);
    const instance = start(base);
    await instance.must('up');
    await instance.must('connected 1');
    const preference = /^(2[89]\d{3}):.*not from all fwmark/m.exec(space.run('ip rule'))?.[1];
    space.run(`ip rule del preference ${preference}`);
    space.run(`ip -6 rule del preference ${preference}`);
    const { result, warnings } = await instance.must('undo');
    assert.equal(result, true);
    assert.equal(warnings.length, 1);
    closeTun('tun0');
    assertSame(hostState(space), before);
  });

  it('a failing command undoes everything and is named', async () => {
    const before = hostState(space);
    const instance = start({ ...base, gateway: '10.99.0.1' });
    await instance.must('up');
    const answer = await instance.order('connected 1');
    assert.match(
      answer?.error ?? '',
      /^cannot set up routing: "ip route add default via 10\.99\.0\.1 dev v0 table \d+" exited with 2: Nexthop has invalid gateway\.?; check the gateway address$/,
    );
    closeTun('tun0');
    assertSame(hostState(space), before);
    assert.deepEqual(journals(), []);
  });

  it('refuses a tunnel address that another interface has, and an external one that none has', async () => {
    const before = hostState(space);
    const taken = start({ ...base, localIp: '10.77.0.2' });
    assert.match(
      (await taken.order('up'))?.error ?? '',
      /^tunnel address "10\.77\.0\.2": interface "v0" has it already; /,
    );
    closeTun('tun0');
    const absent = start({ ...server, externalIp: '203.0.113.9' });
    assert.match(
      (await absent.order('up'))?.error ?? '',
      /^external address "203\.0\.113\.9": no interface of this host has it; /,
    );
    closeTun('tun0');
    assertSame(hostState(space), before);
  });

  it('IPv6 switched off: one warning, IPv4 goes on', async () => {
    space.run('sysctl -qw net.ipv6.conf.all.disable_ipv6=1');
    space.run('sysctl -qw net.ipv6.conf.default.disable_ipv6=1');
    const before = hostState(space);
    for (const settings of [base, server]) {
      const instance = start(settings);
      const { warnings } = await instance.must('up');
      assert.equal(warnings.length, 1);
      assert.match(warnings[0] ?? '', /^IPv6 is off/);
      await instance.must('connected 1');
      assert.equal((await instance.must('undo')).result, true);
      closeTun('tun0');
      assertSame(hostState(space), before);
    }
  });

  it('the plan lists what is run, and changes nothing', async () => {
    const before = hostState(space);
    for (const settings of [base, server]) {
      const instance = start(settings);
      const planned = (await instance.must('plan')).result as readonly string[];
      assert.deepEqual(journals(), []);
      await instance.must('up');
      const { log } = await instance.must('connected 1');
      const ran = log
        .filter((line) => line.startsWith('[#] '))
        .map((line) => line.slice(4))
        .filter((line) => !/ show|-S | -V|nft -[cy] |route get/.test(line));
      const strip = (line: string): string => line.replace(/vpn:\S+/g, 'TAG');
      const setUp = planned.slice(1, planned.indexOf('# undo')).map(strip);
      assert.deepEqual(ran.map(strip), setUp);
      await instance.must('undo');
      closeTun('tun0');
    }
    assertSame(hostState(space), before);
  });
});
