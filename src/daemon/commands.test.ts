/** The commands as a user runs them, each in a process of its own, against real control sockets. */
import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { withNativeCode } from '../assets.ts';
import { loadNative } from '../native.ts';
import { Failure } from '../report.ts';
import { startDaemonServices } from './daemon.ts';
import type { DaemonServices } from './daemon.ts';

const HELPER = join(import.meta.dirname, '../../test/daemoncommand.ts');
const folder = mkdtempSync(join(tmpdir(), 'vpn-commands-'));
const native = withNativeCode('vpn.node', loadNative);
const done: string[] = [];

interface Result {
  readonly status: number | null;
  readonly output: string;
  readonly errors: string;
}

function start(name: string, pid: number, stop = (): void => undefined): Promise<DaemonServices> {
  return startDaemonServices({
    native,
    stateDir: folder,
    about: { ...ABOUT, name, pid, peerIp: '127.0.0.1' },
    controlPath: '',
    http: undefined,
    hooks: undefined,
    snapshot: () => tunnelStatus([linkStatus(), linkStatus({ id: 1, name: 'lte', state: 'down' })]),
    actions: {
      reset: async () => ['new handshake'],
      link: async (link, change) => {
        if (link !== 'lte') throw new Failure(`link "${link}"`, 'not there', 'give dsl or lte');
        done.push(JSON.stringify(change));
        return [];
      },
      reload: async () => {
        throw new Failure('no configuration file', '', 'start vpn with --config');
      },
      stop,
    },
    cause: 'test',
  });
}

/** `heard` is told of all output so far whenever there is more. */
function vpn(
  command: string,
  words: readonly string[] = [],
  heard = (_output: string): void => undefined,
): Promise<Result> {
  const child = spawn(process.execPath, [HELPER, command, folder, ...words]);
  let [output, errors] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
    heard(output);
  });
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  return new Promise((settle) => {
    child.on('close', (status) => settle({ status, output, errors }));
  });
}

describe('commands where nothing runs', () => {
  it('say so, with exit status 1', async () => {
    for (const command of ['status', 'check', 'stop']) {
      const { status, output, errors } = await vpn(command);
      deepEqual([status, output], [1, ''], command);
      match(errors, /^vpn: no vpn runs in this network namespace; start one/);
    }
  });
});

describe('commands for one instance', () => {
  let services: DaemonServices;
  before(async () => {
    services = await start('home', process.pid);
  });
  after(() => services.close('test over'));

  it('show its status as a table, and as JSON', async () => {
    const table = await vpn('status');
    equal(table.status, 0);
    match(table.output, /^home: client on tun0, connected/);
    match(table.output, /^lte .* down /m);
    const { output } = await vpn('status', ['--json']);
    const status = JSON.parse(output) as { schema: number; tunnels: readonly unknown[] };
    deepEqual(
      [status.schema, status.tunnels.length, output.trimEnd().includes('\n')],
      [1, 2, false],
    );
  });

  it('change it, and tell what it says', async () => {
    deepEqual(await vpn('reset'), { status: 0, output: 'new handshake\n', errors: '' });
    const set = await vpn('link', ['lte', 'backup', 'max=20mbit']);
    deepEqual([set.status, done], [0, ['{"state":"backup","maxRate":2500000}']]);
    const wrong = await vpn('link', ['ppp0', 'up']);
    deepEqual(wrong, {
      status: 1,
      output: '',
      errors: 'vpn: link "ppp0": not there; give dsl or lte\n',
    });
    const reload = await vpn('reload');
    deepEqual(
      [reload.status, reload.errors],
      [1, 'vpn: no configuration file; start vpn with --config\n'],
    );
  });

  it('refuse words that mean nothing, with exit status 2', async () => {
    for (const words of [
      ['status', 'now'],
      ['link'],
      ['link', 'lte'],
      ['link', 'lte', 'sideways'],
    ]) {
      const { status, errors } = await vpn(words[0], words.slice(1));
      equal(status, 2, words.join(' '));
      match(errors, /^vpn: [^\n]+\n$/);
    }
  });

  it('check both steps, with a line each', async () => {
    const { status, output } = await vpn('check');
    const lines = output.trimEnd().split('\n');
    match(lines[0], /^outside: reachable: the server is heard over dsl /);
    match(lines[1], /^inside: /);
    equal(lines.length, 2);
    equal(status, lines[1].startsWith('inside: reachable') ? 0 : 1);
  });

  it('need a terminal to draw on', async () => {
    const { status, errors } = await vpn('top');
    deepEqual([status, errors.includes('no terminal to draw on; use vpn status')], [1, true]);
  });

  it('follow events until the instance ends', async () => {
    const other = await start('other', process.pid);
    let follows = (): void => {};
    const isFollowing = new Promise<void>((settle) => (follows = settle));
    const following = vpn('events', ['-n', 'other'], (output) => {
      if (output.includes('"started"')) follows();
    });
    await isFollowing;
    other.event({ kind: 'silent', forMs: 10_000 });
    await other.close('test over');
    const { status, output } = await following;
    equal(status, 0);
    const events = output
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { event: string }).event);
    ok(events.includes('silent'));
    equal(events.at(-1), 'ended');
  });
});

describe('commands where several run', () => {
  const running: DaemonServices[] = [];
  before(async () => {
    running.push(await start('home', process.pid), await start('work', process.pid));
  });
  after(async () => {
    for (const services of running) await services.close('test over');
  });

  it('list them, with exit status 2, until one is chosen', async () => {
    const { status, errors } = await vpn('status');
    equal(status, 2);
    equal(errors, 'vpn: several instances run here: home, work; choose one with -n NAME\n');
    match((await vpn('status', ['-n', 'work'])).output, /^work: /);
    const none = await vpn('status', ['-n', 'else']);
    deepEqual([none.status, none.errors.includes('there is home, work')], [1, true]);
  });
});

describe('vpn stop', () => {
  it('comes back when the process is gone', async () => {
    const child = spawn('sleep', ['60']);
    const services = await start('home', child.pid!, () => {
      setTimeout(() => child.kill(), 300);
    });
    const { status, errors } = await vpn('stop');
    deepEqual([status, errors, child.exitCode ?? child.signalCode], [0, '', 'SIGTERM']);
    await services.close('test over');
    rmSync(folder, { recursive: true, force: true });
  });
});
