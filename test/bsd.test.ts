/** Stand-ins of macOS and the BSDs as programs found through the PATH, and vpn killed behind each of them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PLATFORMS } from '../src/os.ts';
import { cleanUp } from '../src/setup.ts';
import { StandIn, initialState, type State, type SystemName } from './standins/bsd.ts';
import { TUN, casesOf } from './standins/plans.ts';

const PROGRAMS = [
  'ifconfig',
  'route',
  'netstat',
  'sysctl',
  'pfctl',
  'npfctl',
  'kldload',
  'kldunload',
  'kldstat',
  'which',
];
const LIMIT_MS = 60_000;
/** Each command is a program that starts anew: a few hundred of them, and compiled once. */
const CACHE = `NODE_COMPILE_CACHE="${process.env['NODE_COMPILE_CACHE'] ?? ''}"`;

for (const system of ['darwin', 'openbsd', 'freebsd', 'netbsd', 'dragonfly'] as const) {
  describe(`programs of ${system}`, () => {
    let folder: string;
    let path: string;
    let journalDir: string;
    const stateFile = (): string => join(folder, 'state.json');
    const read = (): State => JSON.parse(readFileSync(stateFile(), 'utf8')) as State;

    /** Makes the device, as the addon does; `gone`: takes it away, as its end does. */
    const device = (tun: string, gone: boolean): void => {
      const standIn = new StandIn(system, read());
      if (gone) standIn.destroyTun(tun);
      else standIn.createTun(tun);
      writeFileSync(stateFile(), JSON.stringify(standIn.state));
    };
    const comparable = (state: State): unknown => ({ ...state, pf: { ...state.pf, nextToken: 0 } });

    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'vpns-'));
      path = join(folder, 'bin');
      journalDir = join(folder, 'journals');
      mkdirSync(path);
      const program = join(import.meta.dirname, 'standins', 'program.ts');
      for (const name of PROGRAMS) {
        const file = join(path, name);
        const line = `${CACHE} exec "${process.execPath}" "${program}" "${folder}" ${system} ${name} "$@"`;
        writeFileSync(file, `#!/bin/sh\n${line}\n`);
        chmodSync(file, 0o755);
      }
      writeFileSync(stateFile(), JSON.stringify(initialState(system)));
    });
    afterEach(() => rmSync(folder, { recursive: true }));

    /** Runs vpn's set-up and undo in a process of its own, to be killed after `killAt` changes. */
    const victim = (name: string, killAt: number) => {
      if (killAt > 0) writeFileSync(join(folder, 'kill-at'), String(killAt));
      const file = join(import.meta.dirname, 'standins', 'victim.ts');
      const done = spawnSync(process.execPath, [file, journalDir, system, name], {
        env: { PATH: path, NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] },
        encoding: 'utf8',
        timeout: LIMIT_MS,
      });
      rmSync(join(folder, 'kill-at'), { force: true });
      return done;
    };
    const clean = () =>
      cleanUp({
        native: { netnsCookie: () => '', lockFile: () => true },
        journalDir,
        path,
        log: () => undefined,
        warn: (line) => assert.fail(line),
        platform: PLATFORMS[system]!,
      });
    const journals = (): readonly string[] =>
      readdirSync(journalDir).filter((file) => file.endsWith('.journal'));

    for (const name of ['server', 'client']) {
      const tun = TUN[system as SystemName];
      it(`${name}: set-up and undo leave the host as it was`, () => {
        const before = comparable(read());
        device(tun, false);
        const { status, stderr } = victim(name, 0);
        assert.equal(status, 0, stderr);
        device(tun, true);
        assert.deepEqual(comparable(read()), before);
        assert.deepEqual(journals(), []);
      });
    }

    // All of them on macOS, whose token is known only once it is taken; elsewhere one in the middle.
    for (const killAt of system === 'darwin' ? [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] : [4]) {
      it(`server killed behind change ${killAt}: cleanup restores everything`, async () => {
        assert.ok('server' in casesOf(system));
        const before = comparable(read());
        device(TUN[system], false);
        const { signal } = victim('server', killAt);
        if (system !== 'darwin') assert.equal(signal, 'SIGKILL');
        if (['darwin', 'openbsd'].includes(system)) device(TUN[system], true);
        const { failed } = await clean();
        assert.deepEqual(failed, []);
        device(TUN[system], true);
        assert.deepEqual(comparable(read()), before);
        assert.deepEqual(journals(), []);
      });
    }
  });
}
