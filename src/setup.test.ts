/** The whole set-up on a pretended host that keeps state and refuses what a real one refuses. */
import assert from 'node:assert/strict';
import { fstatSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PLATFORMS } from './os.ts';
import type { Outcome, Runner } from './rules.ts';
import { cleanUp, plan, prepareHost } from './setup.ts';
import type { HostDeps, HostSettings } from './setup.ts';

const SYSCTLS: readonly (readonly [string, string])[] = [
  ['net/ipv4/ip_forward', '0'],
  ['net/ipv4/conf/all/forwarding', '0'],
  ['net/ipv4/conf/eth0/forwarding', '0'],
  ['net/ipv4/conf/docker0/forwarding', '1'],
  ['net/ipv4/conf/all/accept_redirects', '0'],
  ['net/ipv4/conf/all/src_valid_mark', '0'],
  ['net/ipv4/conf/all/rp_filter', '0'],
  ['net/ipv4/conf/eth0/rp_filter', '1'],
  ['net/ipv6/conf/all/disable_ipv6', '0'],
  ['net/ipv6/conf/default/disable_ipv6', '0'],
  ['net/ipv6/conf/all/forwarding', '0'],
  ['net/ipv6/conf/eth0/forwarding', '0'],
  ['net/ipv6/conf/eth0/accept_ra', '1'],
];
const PROBES: readonly (readonly [RegExp, string])[] = [
  [/address show/, '[{"ifname":"eth0","addr_info":[{"local":"203.0.113.2"}]}]'],
  [/-4 route show/, '[{"dst":"default","gateway":"203.0.113.1","dev":"eth0"}]'],
  [/-6 route show/, '[{"dst":"default","gateway":"fe80::1","dev":"eth0","protocol":"9"}]'],
  [/rule show/, '[{"priority":32766,"table":"254"}]'],
];

/** Remembers firewall lines, rules and routes, and fails at the n-th command that changes something. */
class PretendedHost implements Runner {
  readonly sysctls = new Map(SYSCTLS);
  readonly entries = new Set<string>();
  readonly ran: string[] = [];
  failAt = 0;
  failWith: Partial<Outcome> = { status: 2, reason: 'exited with 2: no luck', refused: true };
  absent = /never/;
  onChange: (line: string) => void = () => undefined;

  state(): readonly string[] {
    return [...[...this.entries].sort(), ...[...this.sysctls].map((pair) => pair.join('='))];
  }

  runSync(argv: readonly string[]): Outcome {
    const line = argv.join(' ');
    const answer = (status: number, stdout: string, stderr: string): Outcome => ({
      status,
      stdout,
      stderr,
      reason: `exited with ${status}: ${stderr}`,
      refused: status !== 0,
    });
    if (this.absent.test(line)) return { ...answer(-1, '', ''), reason: 'was not found' };
    if (/ show| -S /.test(line)) {
      return answer(0, PROBES.find(([pattern]) => pattern.test(line))?.[1] ?? '', '');
    }
    this.ran.push(line);
    this.onChange(line);
    if (this.ran.length === this.failAt) return { ...answer(2, '', 'no luck'), ...this.failWith };
    const [, verb] = / (-I|-D|add|del|replace|flush) /.exec(line) ?? [];
    const family = line.includes(' -6 ') ? 6 : 4;
    const key = /preference (\d+)/.exec(line)?.[1] ?? line.replace(/ (-I|-D) /, ' ');
    const table = /table (\d{4,})/.exec(line)?.[1];
    const entry = line.includes('tables -w')
      ? key
      : line.includes(' rule ')
        ? `rule ${family} ${key}`
        : `route ${family} ${table} ${line}`;
    if (verb === 'flush') {
      const isInTable = (one: string): boolean => one.startsWith(`route ${family} ${table} `);
      const doomed = [...this.entries].filter(isInTable);
      if (doomed.length === 0) return answer(2, '', 'Error: FIB table does not exist.');
      const only = /type unreachable|dev \S+/.exec(line)?.[0].replace('type ', '');
      for (const one of doomed) {
        if (only === undefined || one.includes(only)) this.entries.delete(one);
      }
    } else if (verb === '-D' || verb === 'del') {
      if (!this.entries.delete(entry)) return answer(2, '', 'No such file or directory');
    } else if (/tables -w|rule|table/.test(line)) {
      if (this.entries.has(entry) && verb === 'add') return answer(2, '', 'File exists');
      this.entries.add(entry);
    }
    return answer(0, '', '');
  }
  run(argv: readonly string[]): Promise<Outcome> {
    return Promise.resolve(this.runSync(argv));
  }
  readSysctl(name: string): string | undefined {
    return this.sysctls.get(name);
  }
  writeSysctl(name: string, value: string): void {
    this.ran.push(`${name}=${value}`);
    this.onChange(`${name}=${value}`);
    if (this.ran.length === this.failAt) throw new Error('EROFS: read-only file system, write');
    // What Linux does along with it (devinet_sysctl_forward, addrconf_fixup_forwarding).
    const all = /^(net\/ipv[46])\/(ip_forward|conf\/all\/forwarding)$/.exec(name)?.[1];
    for (const other of all === undefined ? [] : this.listSysctls(`${all}/conf/*/forwarding`)) {
      this.sysctls.set(other, value);
    }
    if (name === 'net/ipv4/ip_forward') {
      this.sysctls.set('net/ipv4/conf/all/accept_redirects', value === '1' ? '0' : '1');
    }
    this.sysctls.set(name, value);
  }
  listSysctls(pattern: string): readonly string[] {
    const [before = '', after = ''] = pattern.split('*');
    return [...this.sysctls.keys()].filter(
      (name) => name.startsWith(before) && name.endsWith(after),
    );
  }
}

/** flock(2) within one process. */
function pretendedLocks(): { lockFile(fd: number): boolean; kill(path: string): void } {
  const holders = new Map<number, number>();
  return {
    lockFile(fd) {
      const { ino } = fstatSync(fd);
      const holder = holders.get(ino);
      if (holder !== undefined && holder !== fd) {
        try {
          if (fstatSync(holder).ino === ino) return false;
        } catch {
          // Closed, so unlocked.
        }
      }
      holders.set(ino, fd);
      return true;
    },
    kill: () => holders.clear(),
  };
}

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
const CASES: readonly (readonly [string, HostSettings])[] = [
  ['client', client],
  ['client, split', { ...client, routes: ['10.0.0.0/8', '10.0.0.0/8', 'fd50::/32'] }],
  ['client, gateway', { ...client, gateway: '203.0.113.9' }],
  ['client, no default routes', { ...client, defaultRoutes: false }],
  ['server', { ...server, routes: ['10.0.0.0/8', 'fd50::/32'] }],
  ['server, external', { ...server, externalIp: '203.0.113.2' }],
  ['server, no default routes', { ...server, defaultRoutes: false }],
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
    journalDir = mkdtempSync(join(tmpdir(), 'vpnj-'));
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

  for (const [name, settings] of CASES) {
    it(`${name}: undo restores everything, in reverse`, async () => {
      const before = host.state();
      const setup = await bringUp(settings);
      const inserted = host.ran.filter((line) => line.includes(' -I '));
      const count = host.ran.length;
      assert.equal(await setup.undo(), true);
      const deleted = host.ran.slice(count).filter((line) => line.includes(' -D '));
      assert.deepEqual(deleted, inserted.map((line) => line.replace(' -I ', ' -D ')).reverse());
      assert.deepEqual(host.state(), before);
      assert.deepEqual(warnings, []);
      assert.deepEqual(journals(), []);
      const ran = host.ran.length;
      assert.equal(await setup.undo(), true);
      assert.equal(host.ran.length, ran, 'undo runs once');
    });

    it(`${name}: whichever change fails, everything is undone and the failure is one line`, async () => {
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
      host.onChange = (line) => {
        const text = readFileSync(journals()[0] ?? '', 'utf8');
        const undo = line.replace(' -I ', ' -D ');
        if (undo !== line) assert.ok(text.includes(JSON.stringify(undo.split(' '))), line);
        const [, preference] = /rule add preference (\d+)/.exec(line) ?? [];
        if (preference !== undefined) assert.ok(text.includes(`"${preference}"]`), line);
        if (line.includes('=')) assert.ok(text.includes(`"${line.split('=')[0] ?? ''}"`), line);
      };
      await (await bringUp(settings)).undo();
    });

    it(`${name}: what a killed instance left is undone by the next, and by cleanup`, async () => {
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
    ['no iptables on a server', server, /^iptables/, /^Error: cannot set up NAT: .*install/, ''],
    ['no iptables on a client', client, /tables/, undefined, /CVE-2019-14899/],
    ['no raw table', server, /-t raw/, undefined, /no raw table for iptables/],
    ['no IPv6 NAT', server, /^ip6tables.*-t nat/, undefined, /IPv6 does not leave this server/],
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
