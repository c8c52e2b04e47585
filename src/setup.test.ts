/** The whole set-up on a pretended host that keeps state and refuses what a real one refuses. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PLATFORMS } from './os.ts';
import { PretendedHost, pretendedLocks } from '../test/pretended.ts';
import { cleanUp, plan, planCleanUp, prepareHost } from './setup.ts';
import type { HostDeps, HostSettings } from './setup.ts';
import { scratchFolder } from '../test/scratch.ts';

const client: HostSettings = {
  role: 'client',
  tun: 'tun0',
  localIp: '192.168.192.1',
  peerIp: '192.168.192.254',
  localIp6: 'fd00::1',
  peerIp6: 'fd00::2',
  mtu: 1420,
  defaultRoutes: true,
  routes: [],
  mark: 0,
  table: 0,
  externalIp: '',
  gateway: '',
  port: 443,
};
const server: HostSettings = { ...client, role: 'server' };
const eth0 = { name: 'eth0', device: 'eth0', address: '', gateways: [] };
const links = [eth0, { ...eth0, name: 'b', device: '', address: '203.0.113.2' }];
const bonded: HostSettings = { ...client, links, mostLinks: links.length };
const onLink = { ip4: '192.168.192.1/24', ip6: 'fd00::1/64' };
const NO_IPTABLES = /^ip6?tables /;
/** What the host lacks comes last. */
const CASES: readonly (readonly [string, HostSettings, RegExp?])[] = [
  ['client', client],
  ['client, split', { ...client, routes: ['10.0.0.0/8', '10.0.0.0/8', 'fd50::/32'] }],
  ['client, gateway', { ...client, gateway: '203.0.113.9' }],
  ['client, no default routes', { ...client, defaultRoutes: false }],
  ['client, links, no default routes', { ...bonded, defaultRoutes: false }],
  ['server', { ...server, routes: ['10.0.0.0/8', 'fd50::/32'] }],
  ['server, external', { ...server, externalIp: '203.0.113.2' }],
  ['server, no default routes', { ...server, defaultRoutes: false }],
  ['client, tap', { ...client, tun: 'tap0', onLink }],
  ['server, tap', { ...server, tun: 'tap0', onLink, routes: ['10.0.0.0/8', 'fd50::/32'] }],
  ['client, links, nft', bonded, NO_IPTABLES],
  ['client, nft', { ...client, gateway: '203.0.113.9' }, NO_IPTABLES],
  ['server, nft', { ...server, routes: ['10.0.0.0/8', 'fd50::/32'] }, NO_IPTABLES],
  ['server, external, nft', { ...server, externalIp: '203.0.113.2' }, NO_IPTABLES],
  ['server, nft, no default routes', { ...server, defaultRoutes: false }, NO_IPTABLES],
];

describe('setting up a host', () => {
  let journalDir: string;
  let host: PretendedHost;
  let deps: HostDeps;
  let locks: ReturnType<typeof pretendedLocks>;
  let warnings: string[];
  const linux = PLATFORMS.linux;
  if (linux === undefined) throw new Error('no linux');

  beforeEach(() => {
    journalDir = scratchFolder();
    host = new PretendedHost();
    locks = pretendedLocks();
    warnings = [];
    deps = {
      native: { netnsCookie: () => '7', lockFile: locks.lockFile },
      journalDir,
      path: '',
      log: () => undefined,
      warn: (line) => warnings.push(line),
      runner: host,
      platform: linux,
    };
  });
  afterEach(() => rmSync(journalDir, { recursive: true }));

  const journals = (): readonly string[] =>
    readdirSync(journalDir)
      .filter((name) => name.endsWith('.journal'))
      .map((name) => join(journalDir, name));

  async function bringUp(settings: HostSettings): ReturnType<typeof prepareHost> {
    const setup = await prepareHost(settings, deps);
    await setup.up();
    await setup.connected({ ipv6: false });
    await setup.connected({ ipv6: true });
    return setup;
  }

  for (const [name, settings, absent] of CASES) {
    it(`${name}: undo restores everything, in reverse`, async () => {
      host.absent = absent ?? host.absent;
      const before = host.state();
      const setup = await bringUp(settings);
      const inserted = host.ran.filter((line) => line.includes(' -I '));
      const added = host.ran.filter((line) => line.startsWith('nft insert'));
      assert.equal(added.length > 0, settings.role === 'server' && settings.defaultRoutes);
      const count = host.ran.length;
      assert.equal(await setup.undo(), true);
      const deleted = host.ran.slice(count).filter((line) => line.includes(' -D '));
      assert.deepEqual(deleted, inserted.map((line) => line.replace(' -I ', ' -D ')).reverse());
      const removed = host.ran.slice(count).filter((line) => line.startsWith('nft delete rule'));
      assert.equal(removed.length, added.length);
      assert.deepEqual(host.state(), before);
      assert.deepEqual(warnings, []);
      assert.deepEqual(journals(), []);
      const ran = host.ran.length;
      assert.equal(await setup.undo(), true);
      assert.equal(host.ran.length, ran, 'undo runs once');
    });

    it(`${name}: whichever change fails, everything is undone and the failure is one line`, async () => {
      host.absent = absent ?? host.absent;
      const before = host.state();
      await (await bringUp(settings)).undo();
      const all = host.ran.length;
      for (let n = 1; n <= all; n += 1) {
        host.ran.length = 0;
        host.failAt = n;
        let message = '';
        await bringUp(settings).then(
          (setup) => setup.undo(),
          (error: unknown) => (message = String(error)),
        );
        assert.deepEqual(host.state(), before, `change ${n}`);
        assert.deepEqual(journals(), [], `change ${n}`);
        if (message !== '') assert.match(message, /^Error: [^:]+: .*(no luck|read-only).*; .+$/);
        assert.ok(!message.includes('\n'));
      }
    });

    it(`${name}: a command killed half way may have done its work, and is undone too`, async () => {
      host.absent = absent ?? host.absent;
      const before = host.state();
      host.failAt = 3;
      host.failWith = { status: -1, reason: 'took longer than 5 s', refused: false };
      await bringUp(settings).then(
        (setup) => setup.undo(),
        () => undefined,
      );
      assert.deepEqual(host.state(), before);
    });

    it(`${name}: every undo is in the journal before its change is made`, async () => {
      host.absent = absent ?? host.absent;
      host.onChange = (line) => {
        const text = readFileSync(journals()[0] ?? '', 'utf8');
        const undo = line.replace(' -I ', ' -D ');
        const [, chain] = /^nft insert rule (.*?) [io]ifname/.exec(line) ?? [];
        if (chain !== undefined) assert.ok(text.includes(`"delete","rule","${chain}"`), line);
        if (undo !== line) assert.ok(text.includes(JSON.stringify(undo.split(' '))), line);
        const [, preference] = /rule add preference (\d+)/.exec(line) ?? [];
        if (preference !== undefined)
          assert.ok(text.includes(`"del","preference","${preference}"`), line);
        if (/^net\/\S+=/.test(line))
          assert.ok(text.includes(`"${line.split('=')[0] ?? ''}"`), line);
      };
      await (await bringUp(settings)).undo();
    });

    it(`${name}: what a killed instance left is undone by the next, and by cleanup`, async () => {
      host.absent = absent ?? host.absent;
      const before = host.state();
      await bringUp(settings);
      locks.kill(journalDir);
      const { undone, failed } = await cleanUp(deps);
      assert.ok(undone.length > 0);
      assert.deepEqual(failed, []);
      assert.deepEqual(host.state(), before);
      assert.deepEqual(await cleanUp(deps), { undone: [], failed: [] });
      await bringUp(settings);
      locks.kill(journalDir);
      const next = await prepareHost(settings, deps);
      assert.deepEqual(host.state(), before);
      await next.undo();
    });

    it(`${name}: the plan is what is run`, async () => {
      host.absent = absent ?? host.absent;
      const planned = await plan(settings, deps);
      assert.deepEqual(host.ran, []);
      const setup = await prepareHost(settings, deps);
      await setup.up();
      await setup.connected({ ipv6: true });
      const upEnds = planned.indexOf('# undo');
      assert.equal(upEnds - 1, host.ran.length);
      await setup.undo();
    });
  }

  it('exempts the datagrams of other tunnels, also of those that come later', async () => {
    const before = host.state();
    const wgQuick = (mark: number): string =>
      JSON.stringify({ priority: 32764, not: null, fwmark: `0x${mark.toString(16)}`, table: '1' });
    host.answers = [[/rule show/, `[${wgQuick(0xca6c)}]`]];
    const setup = await bringUp(client);
    const exempt = (mark: string): number =>
      [...host.entries].filter((one) => one.includes(`fwmark ${mark}/0xffffffff`)).length;
    assert.equal(exempt('0xca6c'), 2);
    host.answers = [[/rule show/, `[${wgQuick(0xca6c)},${wgQuick(0xca6d)}]`]];
    await setup.refresh();
    const ran = host.ran.length;
    await setup.refresh();
    assert.equal(host.ran.length, ran);
    assert.deepEqual([exempt('0xca6c'), exempt('0xca6d')], [2, 2]);
    assert.equal(await setup.undo(), true);
    assert.deepEqual(host.state(), before);
    await setup.refresh();
    assert.deepEqual(host.state(), before);
  });

  it('cleanup --dry-run lists what cleanup does, and does nothing', async () => {
    assert.deepEqual(await planCleanUp(deps), []);
    assert.deepEqual(readdirSync(journalDir), []);
    await bringUp(server);
    assert.deepEqual(await planCleanUp(deps), []);
    locks.kill(journalDir);
    const during = host.state();
    const planned = await planCleanUp(deps);
    assert.deepEqual(host.state(), during);
    assert.equal(journals().length, 1);
    assert.deepEqual((await cleanUp(deps)).undone, planned);
    assert.deepEqual(await planCleanUp(deps), []);
  });

  it('asks for IPv6 through the tunnel only when it leaves the server', async () => {
    const setup = await prepareHost(client, deps);
    await setup.up();
    const routes = (): readonly string[] =>
      [...host.entries].filter((one) => one.startsWith('route 6'));
    for (const [ipv6, kind] of [
      [false, /unreachable default/],
      [true, /default dev tun0/],
      [false, /unreachable default/],
    ] as const) {
      host.onChange = () => {
        // Not a moment without a route: the guard comes before the other goes.
        if (host.ran.some((line) => line.includes('not fwmark'))) assert.ok(routes().length > 0);
      };
      await setup.connected({ ipv6 });
      assert.equal(routes().length, 1);
      assert.match(routes()[0] ?? '', kind);
    }
    host.onChange = () => undefined;
    await setup.undo();
  });

  it('two instances share a sysctl: the last one restores what the first found', async () => {
    const before = host.state();
    const one = await bringUp(server);
    const second = { ...server, tun: 'tun1', localIp: '10.1.0.1', peerIp: '10.1.0.2' };
    const two = await bringUp({ ...second, localIp6: '', peerIp6: '' });
    assert.notEqual(one.mark, two.mark);
    await one.undo();
    assert.equal(host.sysctls.get('net/ipv4/ip_forward'), '1');
    await two.undo();
    assert.deepEqual(host.state(), before);
  });

  it('does not touch a sysctl that has its value already', async () => {
    host.writeSysctl('net/ipv4/ip_forward', '1');
    host.ran.length = 0;
    const setup = await bringUp(server);
    assert.ok(!host.ran.some((line) => line.startsWith('net/ipv4/ip_forward')));
    await setup.undo();
    assert.equal(host.sysctls.get('net/ipv4/ip_forward'), '1');
  });

  it('a failing undo is tried once more, does not stop the others, and stays for cleanup', async () => {
    const before = host.state();
    const setup = await bringUp(client);
    const stubborn = /rule del preference/;
    const real = host.run.bind(host);
    host.run = (argv) =>
      stubborn.test(argv.join(' '))
        ? Promise.resolve({
            status: 2,
            stdout: '',
            stderr: 'no luck',
            reason: 'exited with 2: no luck',
            refused: true,
          })
        : real(argv);
    assert.equal(await setup.undo(), false);
    assert.equal(warnings.length, 4);
    assert.match(
      warnings[0] ?? '',
      /^cannot undo: "ip .*" exited with 2: no luck; run vpn cleanup$/,
    );
    assert.equal(journals().length, 1);
    host.run = real;
    assert.equal((await cleanUp(deps)).undone.length, 4);
    assert.deepEqual(host.state(), before);
    assert.deepEqual(journals(), []);
  });

  it('undoSync restores everything', async () => {
    const before = host.state();
    const setup = await bringUp(server);
    setup.undoSync();
    assert.deepEqual(host.state(), before);
    assert.deepEqual(journals(), []);
    assert.equal(await setup.undo(), true);
  });

  it('undo in the middle of up waits, stops it, and undoes', async () => {
    const before = host.state();
    const setup = await prepareHost(server, deps);
    const up = setup.up();
    const undo = setup.undo();
    await assert.rejects(up, /interrupted/);
    assert.equal(await undo, true);
    assert.deepEqual(host.state(), before);
  });

  it('journals of other boots are removed, of other namespaces and living ones left alone', async () => {
    await bringUp(client);
    const alive = journals();
    assert.deepEqual(await cleanUp(deps), { undone: [], failed: [] });
    assert.deepEqual(journals(), alive);
    const header = JSON.parse(readFileSync(alive[0] ?? '', 'utf8').split('\n')[0] ?? '') as object;
    const write = (name: string, changed: object): void => {
      const record = { number: 1, record: { undo: ['ip', 'rule', 'del', 'preference', '1'] } };
      const lines = [JSON.stringify({ ...header, ...changed }), JSON.stringify(record)];
      writeFileSync(join(journalDir, `${name}.journal`), `${lines.join('\n')}\n`);
    };
    write('reboot', { bootId: 'another' });
    write('elsewhere', { netns: '8', netnsInode: Number.NaN });
    write('version', { version: 99 });
    writeFileSync(join(journalDir, 'cut.journal'), '{"version":1,"bo');
    const ran = host.ran.length;
    await cleanUp(deps);
    assert.equal(host.ran.length, ran);
    const names = readdirSync(journalDir);
    assert.ok(!names.includes('reboot.journal'));
    assert.ok(!names.includes('cut.journal'));
    assert.ok(names.includes('version.journal'));
    assert.equal(warnings.length, 1);
  });

  for (const [name, settings, absent, failure, warning] of [
    ['no ip', client, /^ip /, /cannot read the addresses of this host: .* install iproute2/, ''],
    [
      'no iptables and no nft on a server',
      server,
      /^(iptables|nft) /,
      /^Error: cannot set up NAT: .*install iptables or nftables/,
      '',
    ],
    ['no iptables and no nft on a client', client, /tables|nft/, undefined, /CVE-2019-14899/],
    ['no raw table', server, /-t raw|priority -300/, undefined, /no raw table for iptables/],
    [
      'no IPv6 NAT',
      server,
      /^ip6tables.*-t nat|nft -c.* ip6 .*masquerade/,
      undefined,
      /IPv6 does not leave this server/,
    ],
  ] as const) {
    it(`a host may lack things: ${name}`, async () => {
      const before = host.state();
      host.absent = absent;
      if (failure !== undefined) {
        await assert.rejects(prepareHost(settings, deps), failure);
      } else {
        const setup = await bringUp(settings);
        assert.equal(warnings.length, 1);
        assert.match(warnings[0] ?? '', warning);
        if (name === 'no IPv6 NAT') assert.equal(setup.ipv6Leaves, false);
        assert.equal(await setup.undo(), true);
      }
      assert.deepEqual(host.state(), before);
      assert.deepEqual(journals(), []);
    });
  }

  it('refuses a table in use, a taken tunnel address, a foreign external address', async () => {
    await assert.rejects(prepareHost({ ...client, table: 254 }, deps), /table 254: it is in use/);
    await assert.rejects(
      prepareHost({ ...client, peerIp: '203.0.113.2' }, deps),
      /tunnel address "203\.0\.113\.2": interface "eth0" has it already/,
    );
    await assert.rejects(
      prepareHost({ ...server, externalIp: '198.51.100.1' }, deps),
      /no interface of this host has it; give auto, or one of 203\.0\.113\.2$/,
    );
    assert.deepEqual(journals(), []);
  });
});
