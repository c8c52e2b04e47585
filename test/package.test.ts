/**
 * The Debian package: installed, run and purged on a machine of its own, on which nothing is left then; and
 * the service, under the systemd that is installed here.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, test } from 'node:test';
import { makePackage } from '../src/service/package.mjs';
import { EXECUTABLE } from './ends.ts';
import { lackingMachine, Machine } from './machine.ts';
import { Bed, until } from './netns.ts';

const ROOT = resolve(import.meta.dirname, '..');
/** On the machine. */
const DEB = '/home/vpn.deb';
/** What dpkg(1) writes for any package, and systemd at any reload. */
const ALLOWED = [
  /^\/var\/lib\/dpkg\/(status|status-old|diversions|statoverride|available|lock|lock-frontend)$/,
  /^\/var\/lib\/dpkg\/triggers\//,
  /^\/var\/log\/dpkg\.log$/,
];
/** `systemd-analyze security`, tenths: 0 is closed, 100 is open to everything. */
const MOST_EXPOSURE = 40;

const folder = mkdtempSync(join(tmpdir(), 'vpn-package-'));
after(() => rmSync(folder, { recursive: true }));
let made: string | undefined;

/** The package, made once. */
function deb(): string {
  made ??= make('once');
  return made;
}

function make(name: string): string {
  const output = join(folder, name);
  mkdirSync(output);
  copyFileSync(join(ROOT, 'dist', 'LICENSES'), join(output, 'LICENSES'));
  const natives = ['vpn.node', 'sodium-native.node'].map((file) => join(ROOT, 'build', file));
  return makePackage({ root: ROOT, executable: EXECUTABLE, natives, output });
}

function machineTest(
  name: string,
  isBooted: boolean,
  body: (machine: Machine) => Promise<void>,
): void {
  void test(name, { skip: lackingMachine(isBooted), timeout: 120_000 }, async (t) => {
    const bed = new Bed();
    let machine: Machine | undefined;
    try {
      machine = await Machine.start(bed, isBooted);
      prepare(machine);
      await body(machine);
    } catch (error) {
      t.diagnostic(bed.logs());
      if (isBooted)
        t.diagnostic(machine?.run('journalctl', '--no-pager', '-t', 'vpn@home').stdout ?? '');
      throw error;
    } finally {
      await machine?.close();
      await bed.close();
    }
  });
}

/**
 * The two routers and the server of the examples are one namespace:
 *
 *   machine eth0 192.168.1.2 ── 192.168.1.1 far
 *           eth1 192.168.2.2 ── 192.168.2.1
 */
function prepare(machine: Machine): void {
  machine.put(DEB, readFileSync(deb()));
  machine.must(
    ...['sh', '-euc'],
    `ip netns add far
     for n in 1 2; do
       ip link add eth$((n - 1)) type veth peer name lan$n netns far
       ip address add 192.168.$n.2/24 dev eth$((n - 1))
       ip link set eth$((n - 1)) up
       ip -n far address add 192.168.$n.1/24 dev lan$n
       ip -n far link set lan$n up
     done
     ip -n far link set lo up
     echo '192.168.1.1 vpn.example.com' >>/etc/hosts
     # Of a vpn of this host.
     rm -rf /etc/vpn /var/lib/vpn`,
  );
  machine.settle();
}

/** What `dpkg -i` does, without man-db's index of all pages of this host. */
function install(machine: Machine): void {
  machine.must('dpkg', '--no-triggers', '--install', DEB);
}

/** Both examples, with a key that fits. */
function configure(machine: Machine): void {
  machine.must(
    ...['sh', '-euc'],
    `cd /usr/share/doc/vpn/examples
     install -m 600 client.conf /etc/vpn/home.conf
     install -m 600 server.conf /etc/vpn/far.conf
     vpn keygen /etc/vpn/home.key`,
  );
}

/** `vpn` at the far end. */
async function startFar(machine: Machine): Promise<void> {
  const far = machine.spawn(
    'ip netns exec far vpn --config /etc/vpn/far.conf --state-dir /run/far',
  );
  await far.line(/waiting for the client on UDP port 5080, 5081/);
}

async function reaches(machine: Machine): Promise<void> {
  const ping = (): boolean => machine.run('ping -c 1 -W 1 10.42.43.2').status === 0;
  await until('a tunnel to 10.42.43.2', ping);
}

/** Of the network, what `vpn` changes. */
function state(machine: Machine): string {
  const commands = [
    'ip -br link',
    'ip rule',
    'ip -6 rule',
    'ip route show table all',
    'iptables-save',
  ];
  return machine.must('sh', '-c', `{ ${commands.join('; ')}; } | grep -Ev '^[#:*]|^COMMIT'`);
}

function unexpected(machine: Machine): readonly string[] {
  return machine.changed().filter((path) => !ALLOWED.some((allowed) => allowed.test(path)));
}

machineTest(
  'the package is installed, run and purged, and leaves nothing',
  false,
  async (machine) => {
    const digest = (file: string): string =>
      createHash('sha256').update(readFileSync(file)).digest('hex');
    assert.equal(digest(make('again')), digest(deb()), 'the same again is another file');

    install(machine);
    assert.match(machine.must('vpn --version'), /^vpn \d+\.\d+\.\d+/);
    assert.equal(machine.must('stat -c %a /etc/vpn').trim(), '700');
    assert.equal(machine.must('dpkg --verify vpn'), '');
    for (const page of ['man8/vpn.8', 'man5/vpn.conf.5']) {
      const text = machine.must('man', '--local-file', `/usr/share/man/${page}.gz`);
      assert.match(text, /^NAME\n +vpn[^]*^SEE ALSO$/m, page);
    }
    configure(machine);
    for (const name of ['home', 'far']) {
      const checked = machine.must(`vpn --config /etc/vpn/${name}.conf --check`);
      assert.equal(checked, `/etc/vpn/${name}.conf: ok\n`);
    }

    await startFar(machine);
    const before = state(machine);
    const home = machine.spawn('vpn --config /etc/vpn/home.conf --log json');
    await reaches(machine);
    assert.match(machine.must('vpn status'), /dsl1[^]*dsl2/);
    machine.must('vpn stop');
    assert.equal(await home.ended(), 0);
    const lines = home.output.trim().split('\n');
    for (const line of lines) assert.equal(JSON.parse(line).instance, 'home', line);

    // What a killed one has left goes before the executable does.
    machine.spawn('vpn --config /etc/vpn/home.conf');
    await reaches(machine);
    const { pid } = JSON.parse(machine.must('sh', '-c', 'cat /var/lib/vpn/*.instance'));
    machine.must(`kill -KILL ${pid}`);
    assert.notEqual(state(machine), before);
    machine.must('dpkg --no-triggers --purge vpn');
    assert.equal(state(machine), before);

    // What an administrator has written stays, and nothing else does.
    const written = ['far.conf', 'home.conf', 'home.key'].map((name) => `/etc/vpn/${name}`);
    assert.deepEqual(unexpected(machine), ['/etc/vpn', ...written]);
    machine.must('rm', ...written);
    install(machine);
    machine.must('dpkg --no-triggers --purge vpn');
    assert.deepEqual(unexpected(machine), []);
  },
);

machineTest(
  'vpn@home under systemd: start, reload, hanging, restart, end',
  true,
  async (machine) => {
    const show = (property: string): string =>
      machine.must(`systemctl show --value -p ${property} vpn@home`).trim();
    const journal = (...words: readonly string[]): string => {
      // What was written may not have been read yet.
      machine.must('journalctl --sync');
      return machine.must('journalctl', '--no-pager', '-o', 'cat', '-t', 'vpn@home', ...words);
    };

    install(machine);
    const unit = '/usr/lib/systemd/system/vpn@.service';
    const verified = machine.run('systemd-analyze', '--man=no', 'verify', unit);
    assert.deepEqual(linesAbout('vpn@', verified.stderr), []);
    const analysed = ['security', '--no-pager', '--offline=true', `--threshold=${MOST_EXPOSURE}`];
    const { status, stdout } = machine.run('systemd-analyze', ...analysed, unit);
    assert.equal(status, 0, stdout);

    configure(machine);
    await startFar(machine);
    // A process that hangs is noticed, and started again, within a moment here.
    machine.must(
      ...['sh', '-euc'],
      `cd /etc/vpn
     sed -i 's/^#default_routes.*/default_routes = yes\\nkill_switch = yes/' home.conf
     printf '[filters]\\ndsl1 = "udp port 5060"\\n' >>home.conf
     mkdir /run/systemd/system/vpn@.service.d
     cd /run/systemd/system/vpn@.service.d
     printf '[Service]\\nWatchdogSec=2\\nRestartSec=100ms\\n' >test.conf
     systemctl daemon-reload
     systemctl enable --now vpn@home`,
    );
    assert.equal(show('ActiveState'), 'active');
    await reaches(machine);
    const isTold = (): boolean =>
      /^connected to 192\.168\.[12]\.1:508[01]$/.test(show('StatusText'));
    await until(`the state in words: ${show('StatusText')}`, isTold);

    // Priorities are taken off and known: 5 is a change of state.
    assert.match(journal('-p', '5..5'), /^connected to /m);
    assert.doesNotMatch(journal(), /^<\d>/m);

    machine.must('sed -i s/^#control_bind_port/control_bind_port/ /etc/vpn/home.conf');
    machine.must('systemctl reload vpn@home');
    assert.match(journal(), /^reload: control_bind_port/m);
    machine.must('sed -i s/^mode/mood/ /etc/vpn/home.conf');
    assert.notEqual(machine.run('systemctl reload vpn@home').status, 0);
    machine.must('sed -i s/^mood/mode/ /etc/vpn/home.conf');
    assert.equal(show('ActiveState'), 'active');

    // The kill switch holds while it hangs, is killed and starts again, and when it ends in order.
    const outside = machine.spawn('ping -n -i 0.05 192.168.1.1');
    const first = show('MainPID');
    machine.must(`kill -STOP ${first}`);
    const isBack = (): boolean => show('MainPID') !== first && show('SubState') === 'running';
    await until('a new start after the watchdog', isBack);
    await reaches(machine);
    machine.must('systemctl restart vpn@home');
    await reaches(machine);
    machine.must('systemctl stop vpn@home');
    assert.doesNotMatch(outside.output, /bytes from/);
    assert.match(outside.output, /not permitted|prohibited|filtered/i);

    machine.must('dpkg --no-triggers --purge vpn');
    await outside.line(/bytes from 192\.168\.1\.1/);
    machine.must('rm -r /etc/vpn');
    assert.deepEqual(unexpected(machine), []);
  },
);

/** systemd-analyze also tells of other units. */
function linesAbout(what: string, text: string): readonly string[] {
  return text.split('\n').filter((line) => line.includes(what));
}
