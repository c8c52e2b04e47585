/** The services as a whole, on real sockets; the tunnel is a stand-in, it is not the subject. */
import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { Failure } from '../report.ts';
import { Connection } from './connect.ts';
import { startDaemonServices } from './daemon.ts';
import type { DaemonOptions, DaemonServices } from './daemon.ts';
import { Hooks } from './hooks.ts';
import { livingInstances } from './instances.ts';
import type { TunnelStatus } from './status.ts';

const NETNS = '31';

let folder = '';
let tunnel: TunnelStatus;
let looks = 0;
let done: string[];
const running: DaemonServices[] = [];

beforeEach(() => {
  // The script must lie where only root can write.
  folder = mkdtempSync(join(process.geteuid?.() === 0 ? homedir() : tmpdir(), 'vpn-d-'));
  tunnel = tunnelStatus([linkStatus(), linkStatus({ id: 1, name: 'lte' })]);
  looks = 0;
  done = [];
});

afterEach(async () => {
  for (const services of running.splice(0)) await services.close('test over');
  rmSync(folder, { recursive: true, force: true });
});

async function start(changes: Partial<DaemonOptions> = {}): Promise<DaemonServices> {
  const services = await startDaemonServices({
    native: { netnsCookie: () => NETNS },
    stateDir: folder,
    about: ABOUT,
    controlPath: '',
    http: undefined,
    hooks: undefined,
    snapshot: () => {
      looks++;
      return tunnel;
    },
    actions: {
      reset: async () => {
        done.push('reset');
        return ['new handshake'];
      },
      link: async (name, change) => {
        if (name !== 'dsl') throw new Failure(`link "${name}"`, 'not there', 'give dsl or lte');
        done.push(`link ${JSON.stringify(change)}`);
        return [];
      },
      reload: async () => {
        done.push('reload');
        return ['link lte: cap 20 Mbit/s', 'mtu: restart needed'];
      },
      stop: () => void done.push('stop'),
    },
    cause: 'started by hand',
    ...changes,
  });
  running.push(services);
  return services;
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries++) {
    ok(tries < 2_000, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('the services of an instance', () => {
  it('are found, asked, and gone without a trace', async () => {
    const services = await start();
    const [instance] = await livingInstances(folder, NETNS);
    equal(instance.socket, services.controlPath);
    const connection = await Connection.open(instance.socket);
    const answer = await connection.ask({ command: 'status' });
    ok('status' in answer);
    equal(answer.status.name, 'home');
    deepEqual(
      answer.status.tunnels.map(({ name }) => name),
      ['dsl', 'lte'],
    );
    connection.close();
    await services.close('by hand');
    deepEqual(readdirSync(folder), []);
  });

  it('read the tunnel no more often for many who ask', async () => {
    await start();
    const connection = await Connection.open(running[0].controlPath);
    const before = looks;
    const startMs = performance.now();
    for (let i = 0; i < 500; i++) await connection.ask({ command: 'status' });
    const passedMs = performance.now() - startMs;
    // At most every 100 ms for answers and every 250 ms for the log.
    ok(
      looks - before <= 2 + passedMs / 100 + passedMs / 250,
      `${looks - before} in ${passedMs} ms`,
    );
    connection.close();
  });

  it('act, and say what came of it', async () => {
    await start();
    const connection = await Connection.open(running[0].controlPath);
    const ask = async (request: object): Promise<readonly string[]> => {
      const answer = await connection.ask(request);
      ok('lines' in answer);
      return answer.lines;
    };
    deepEqual(await ask({ command: 'reset' }), ['new handshake']);
    deepEqual(await ask({ command: 'reload' }), ['link lte: cap 20 Mbit/s', 'mtu: restart needed']);
    await ask({ command: 'link', name: 'dsl', change: ['backup', 'max=20mbit'] });
    await rejects(ask({ command: 'link', name: 'ppp0', change: ['up'] }), /not there; give dsl/);
    await ask({ command: 'stop' });
    deepEqual(done, ['reset', 'reload', 'link {"state":"backup","maxRate":2500000}', 'stop']);
    const log = running[0].events.map(({ event }) => event);
    deepEqual(
      log.filter((event) => !event.startsWith('link-up')),
      ['started', 'reset', 'reloaded', 'link-set', 'stopping'],
    );
    connection.close();
  });

  it('notice links that come and go by themselves, with date and cause', async () => {
    const services = await start();
    await until('both up', () => services.events.length >= 3);
    tunnel = tunnelStatus([linkStatus(), linkStatus({ id: 1, name: 'lte', state: 'suspect' })]);
    services.event({ kind: 'moved', link: 0, endpoint: '192.0.2.9:443' });
    await until('the suspicion', () => services.events.length >= 5);
    const [started, , , moved, suspect] = services.events;
    equal(started.cause, 'started by hand');
    equal(moved.event, 'moved');
    deepEqual([suspect.event, suspect.link], ['link-suspect', 'lte']);
    match(suspect.time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  });

  it('go on with the log of a worker that died', async () => {
    const first = await start();
    const earlier = [...first.events];
    await first.close('crash');
    const second = await start({ earlier, cause: 'worker ended by SIGSEGV' });
    deepEqual(
      second.events.map(({ number, cause }) => [number, cause]),
      [
        [1, 'started by hand'],
        [2, 'worker ended by SIGSEGV'],
      ],
    );
  });

  it('serve HTTP when asked to, and leave nothing when the port is taken', async () => {
    const services = await start({ http: { host: '127.0.0.1', port: 0 } });
    const answer = await fetch(`http://127.0.0.1:${services.httpPort}/status`);
    const status = (await answer.json()) as { name: string };
    equal(status.name, 'home');
    const metrics = await (await fetch(`http://127.0.0.1:${services.httpPort}/metrics`)).text();
    match(metrics, /^vpn_link_mtu_bytes\{link="lte"\} 1500$/m);
    const other = join(folder, 'other');
    const http = { host: '127.0.0.1', port: services.httpPort };
    await rejects(start({ http, stateDir: other }), /address already in use/);
    deepEqual(readdirSync(other), []);
  });

  it('refuse a second instance of the same name', async () => {
    await start();
    await rejects(start(), /instance "home": runs here already/);
    equal((await livingInstances(folder, NETNS)).length, 1);
  });

  it('use the path they are given', async () => {
    const controlPath = join(folder, 'mlvpn.sock');
    const services = await start({ controlPath });
    ok(existsSync(controlPath));
    equal((await livingInstances(folder, NETNS))[0].socket, controlPath);
    await services.close('by hand');
    ok(!existsSync(controlPath));
  });
});

describe('the status script', () => {
  const skip = process.geteuid?.() === 0 ? false : 'needs root';
  const hooks = (body: string): Hooks => {
    const command = join(folder, 'updown.sh');
    writeFileSync(command, `#!/bin/sh\n${body}\n`, { mode: 0o700 });
    const nothing = { ip4: '', ip6: '', ip4Gateway: '', ip6Gateway: '', ip4Routes: '' };
    const settings = { command, device: 'tun0', ...nothing, ip6Routes: '', mtu: 1420 };
    return new Hooks(settings, { warn: () => undefined, log: () => undefined });
  };

  it('is told at the end that all is down, and waited for', { skip }, async () => {
    const output = join(folder, 'output');
    const services = await start({ hooks: hooks(`sleep 0.05; echo $2 $3 >>${output}`) });
    await until('the tunnel to be up', () => existsSync(output));
    await services.close('by hand');
    deepEqual(readFileSync(output, 'utf8').trimEnd().split('\n'), [
      'rtun_up dsl',
      'tuntap_up',
      'rtun_up lte',
      'rtun_down dsl',
      'rtun_down lte',
      'tuntap_down',
    ]);
  });

  it('does not keep anybody waiting', { skip }, async () => {
    const [output, gate] = [join(folder, 'output'), join(folder, 'gate')];
    const body = `echo $2 >>${output}; while [ ! -e ${gate} ]; do sleep 0.02; done`;
    const services = await start({ hooks: hooks(body) });
    await until('the first run', () => existsSync(output));
    const connection = await Connection.open(services.controlPath);
    for (let i = 0; i < 50; i++) await connection.ask({ command: 'status' });
    connection.close();
    equal(readFileSync(output, 'utf8'), 'rtun_up\n');
    writeFileSync(gate, '');
  });
});
