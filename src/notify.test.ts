/** Against a real UNIX datagram socket (test/notified.cc). */
import { deepEqual, equal, ok, throws } from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Daemon, mustRun, run, until } from '../test/daemon.ts';
import { ADDON, native } from '../test/nativebed.ts';
import { takeNotifier } from './notify.ts';

const hasCompiler = run(['g++', '--version']).status === 0;
const skip =
  (process.platform !== 'linux' && 'credentials and abstract names are those of Linux') ||
  (!hasCompiler && 'needs g++');

const folder = mkdtempSync(join(tmpdir(), 'vpn-notify-'));
const program = join(folder, 'notified');
const daemons: Daemon[] = [];

/** A listening service manager, and what was sent to it by this process. */
async function listen(
  path: string,
): Promise<{ path: string; said: (count: number) => Promise<readonly string[]> }> {
  const manager = new Daemon([program, path], join(folder, `log${daemons.length}`), {});
  daemons.push(manager);
  await manager.line(/^listening$/);
  const said = (count: number): Promise<readonly string[]> =>
    until(`${count} datagrams at ${path}: ${manager.output}`, () => {
      const lines = manager.output.trim().split('\n').slice(1);
      return lines.length >= count && lines;
    });
  return { path, said };
}

function notifierOf(
  path: string,
  more: Record<string, string> = {},
): ReturnType<typeof takeNotifier> {
  return takeNotifier(native, { NOTIFY_SOCKET: path, ...more }, process.pid);
}

describe('the service manager', { skip }, () => {
  before(() => {
    const source = resolve(import.meta.dirname, '../test/notified.cc');
    mustRun(['g++', '-std=c++17', '-Wall', '-Wextra', '-o', program, source], 60_000);
  });
  after(() => {
    for (const daemon of daemons) daemon.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });

  const names: readonly (readonly [string, string])[] = [
    ['in a folder', join(folder, 'notify')],
    ['without a folder (abstract)', `@vpn-test-${process.pid}`],
  ];
  for (const [where, path] of names) {
    it(`hears of start, reload and end on a socket ${where}`, async () => {
      const manager = await listen(path);
      const notifier = notifierOf(manager.path);
      const startUs = process.hrtime.bigint() / 1000n;
      notifier.ready('connecting');
      notifier.status('connected to 192.0.2.1:443');
      notifier.reloading();
      notifier.ready('connecting');
      notifier.stopping('asked to stop');
      const pid = process.pid;
      const said = await manager.said(5);
      const us = BigInt(/MONOTONIC_USEC=(\d+)$/.exec(said[2] ?? '')?.[1] ?? 0);
      ok(us >= startUs && us <= process.hrtime.bigint() / 1000n, `${us} is not between`);
      deepEqual(said, [
        `${pid} READY=1|STATUS=connecting`,
        `${pid} STATUS=connected to 192.0.2.1:443`,
        `${pid} RELOADING=1|MONOTONIC_USEC=${us}`,
        `${pid} READY=1|STATUS=connected to 192.0.2.1:443`,
        `${pid} STOPPING=1|STATUS=asked to stop`,
      ]);
    });
  }

  it('takes no second assignment from a status', async () => {
    const manager = await listen(join(folder, 'lines'));
    notifierOf(manager.path).status('no reply\nREADY=1');
    deepEqual(await manager.said(1), [`${process.pid} STATUS=no reply READY=1`]);
  });

  it('hears again and again that all is well, until it is not, or no longer told', async () => {
    const manager = await listen(join(folder, 'watchdog'));
    const watched = { WATCHDOG_USEC: '20000', WATCHDOG_PID: String(process.pid) };
    const notifier = notifierOf(manager.path, watched);
    let isWell = true;
    const stop = notifier.watch(() => isWell);
    await manager.said(3);
    isWell = false;
    // Sent behind the last beat, so nothing comes in between once it is there.
    notifier.status('ill');
    await new Promise((done) => setTimeout(done, 60));
    stop();
    isWell = true;
    await new Promise((done) => setTimeout(done, 60));
    notifier.status('over');
    const all = await until('the last datagram', async () => {
      const said = await manager.said(1);
      return said.at(-1)?.endsWith('over') === true && said;
    });
    const beats = all.slice(0, -2);
    deepEqual(new Set(beats), new Set([`${process.pid} WATCHDOG=1`]));
    equal(all.at(-2), `${process.pid} STATUS=ill`);
  });

  for (const [what, more] of [
    ['it watches a parent of ours', { WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' }],
    ['it does not watch', {}],
    ['its limit is no number', { WATCHDOG_USEC: '1e3' }],
  ] as const) {
    it(`hears no beat where ${what}`, async () => {
      const manager = await listen(`@vpn-test-${process.pid}-${daemons.length}`);
      const notifier = notifierOf(manager.path, more);
      const stop = notifier.watch(() => true);
      await new Promise((done) => setTimeout(done, 30));
      stop();
      notifier.status('over');
      deepEqual(await manager.said(1), [`${process.pid} STATUS=over`]);
    });
  }
});

describe('what it wants of us', () => {
  it('is taken out of the environment of everything we run', () => {
    const environment = {
      NOTIFY_SOCKET: '/run/systemd/notify',
      WATCHDOG_USEC: '30000000',
      WATCHDOG_PID: '1',
      PATH: '/bin',
    };
    takeNotifier(native, environment, 1);
    deepEqual(environment, { PATH: '/bin' });
  });

  it('is nothing where there is no service manager', () => {
    const sent: string[] = [];
    const silent = { unixSend: (path: string) => void sent.push(path) };
    const notifier = takeNotifier(silent, { WATCHDOG_USEC: '1000' }, process.pid);
    notifier.ready('');
    notifier.reloading();
    notifier.stopping('');
    notifier.watch(() => true)();
    deepEqual(sent, []);
  });

  it('may be gone: one line, and the tunnel goes on', () => {
    const gone = join(folder, 'gone');
    const script = [
      `import { takeNotifier } from ${JSON.stringify(resolve(import.meta.dirname, 'notify.ts'))};`,
      `import { loadNative } from ${JSON.stringify(resolve(import.meta.dirname, 'native.ts'))};`,
      `const native = loadNative(${JSON.stringify(ADDON)});`,
      `const notifier = takeNotifier(native, { NOTIFY_SOCKET: ${JSON.stringify(gone)} }, 1);`,
      'notifier.ready("a"); notifier.status("b");',
    ].join('\n');
    const { status, stderr } = run([process.execPath, '--input-type=module', '-e', script]);
    equal(status, 0, stderr);
    equal(
      stderr,
      `vpn: warning: socket "${gone}": no such file or directory; unset NOTIFY_SOCKET\n`,
    );
  });

  it('is refused where no socket can have the name', () => {
    throws(() => native.unixSend('', 'a'), { code: 'EINVAL' });
    throws(() => native.unixSend(`/${'x'.repeat(108)}`, 'a'), { code: 'ENAMETOOLONG' });
  });
});
