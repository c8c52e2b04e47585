/** The tables of macOS and the BSDs run against stand-ins that refuse what the real tools refuse. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { StandIn, type SystemName } from '../../test/standins/bsd.ts';
import { Bed, type Mode, bringUp } from '../../test/standins/host.ts';
import { TUN, casesOf } from '../../test/standins/plans.ts';
import { cleanUp, prepareHost } from '../setup.ts';

const SYSTEMS: readonly SystemName[] = ['darwin', 'openbsd', 'freebsd', 'netbsd', 'dragonfly'];
const MODES: readonly Mode[] = ['refused', 'missing', 'killed before', 'killed after'];

for (const system of SYSTEMS) {
  for (const [name, settings] of Object.entries(casesOf(system))) {
    describe(`${system}, ${name}`, () => {
      const tun = TUN[system];
      let bed: Bed;
      let before: string;

      beforeEach(() => {
        bed = new Bed(system);
        before = bed.snapshot();
        bed.standIn.createTun(tun);
      });
      afterEach(() => bed.remove());

      /** After the device has gone, as it does when its descriptor is closed. */
      const assertRestored = (what: string): void => {
        const own = Object.values(bed.standIn.state.routes).filter((one) => one.device === tun);
        assert.deepEqual(own, [], `${what}: routes are taken back, not only lost with the device`);
        bed.standIn.destroyTun(tun);
        assert.equal(bed.snapshot(), before, what);
        assert.deepEqual(bed.journals(), [], what);
        bed.standIn.createTun(tun);
      };

      it('undo restores everything, without a warning', async () => {
        const setup = await bringUp(settings, bed);
        const isChanged = /no default/.test(name) || bed.snapshot() !== before;
        assert.ok(isChanged);
        assert.equal(await setup.undo(), true);
        assertRestored('after undo');
        // NetBSD has no translation of IPv6, and says so on a server.
        const expected = system === 'netbsd' && /^server(?!, no)/.test(name) ? 1 : 0;
        assert.equal(bed.warnings.length, expected, bed.warnings.join('\n'));
      });

      for (const mode of MODES) {
        it(`whichever command is ${mode}, everything is undone and the failure is one line`, async () => {
          await (await bringUp(settings, bed)).undo();
          const all = bed.runner.ran.length;
          bed.runner.mode = mode;
          for (let n = 1; n <= all; n += 1) {
            bed.runner.ran.length = 0;
            bed.runner.failAt = n;
            let message = '';
            await bringUp(settings, bed).then(
              (setup) => setup.undo(),
              (error: unknown) => (message = String(error)),
            );
            assertRestored(`command ${n}, ${bed.runner.ran[n - 1]}`);
            if (message !== '') assert.match(message, /^Error: [^:\n]+: [^\n]+; [^\n]+$/);
          }
        });
      }

      it('killed after any command, cleanup restores everything, and so does the next start', async () => {
        await (await bringUp(settings, bed)).undo();
        const all = bed.runner.ran.length;
        for (let n = 1; n <= all; n += 1) {
          for (const isNext of [false, true]) {
            bed.runner.ran.length = 0;
            bed.runner.failAt = 0;
            // From here on nothing is run any more, nor undone: the process is gone.
            const real = bed.runner.standIn.run.bind(bed.runner.standIn);
            const never = new Promise<never>(() => undefined);
            let isDead = (): void => undefined;
            const dead = new Promise<void>((done) => (isDead = done));
            const run = bed.runner.run.bind(bed.runner);
            const runSync = bed.runner.runSync.bind(bed.runner);
            class Killed extends Error {}
            bed.runner.run = (argv, io) => {
              if (bed.runner.ran.length >= n) {
                isDead();
                return never;
              }
              return run(argv, io);
            };
            bed.runner.runSync = (argv, io) => {
              if (bed.runner.ran.length >= n) {
                isDead();
                throw new Killed();
              }
              return runSync(argv, io);
            };
            const whole = bringUp(settings, bed).then(
              (setup) => setup.undo(),
              () => undefined,
            );
            await Promise.race([dead, whole]);
            bed.runner.run = run;
            bed.runner.runSync = runSync;
            bed.runner.standIn.run = real;
            bed.kill(tun);
            if (isNext) {
              bed.standIn.createTun(tun);
              await (await prepareHost(settings, bed.deps)).undo();
            } else {
              const { failed } = await cleanUp(bed.deps);
              assert.deepEqual(failed, []);
            }
            assertRestored(`killed after command ${n}, ${isNext ? 'next start' : 'cleanup'}`);
          }
        }
      });

      it('every undo is in the journal before its change is made', async () => {
        bed.runner.onChange = (line) => {
          const [journal = ''] = bed.journals();
          const text = readFileSync(join(bed.journalDir, journal), 'utf8');
          const undo = line.replace('route -n add', 'route -n delete').split(' ');
          if (line.includes('-host')) undo.length = 6;
          if (undo.includes('delete') && line.includes(' add ')) {
            assert.ok(text.includes(JSON.stringify(undo)), line);
          }
          if (/^pfctl -a .* -f/.test(line)) assert.ok(text.includes('"-F","all"'), line);
          if (/^pfctl -E/.test(line)) assert.ok(text.includes('["pfctl","-X","{found}"]'), line);
          const [, sysctl] = /^sysctl -w ([\w.]+)=1/.exec(line) ?? [];
          if (sysctl !== undefined) assert.ok(text.includes(sysctl.replaceAll('.', '/')), line);
        };
        await (await bringUp(settings, bed)).undo();
      });

      it('undoSync leaves only the device, which the next start removes', async () => {
        const setup = await bringUp(settings, bed);
        setup.undoSync();
        bed.kill(tun);
        await cleanUp(bed.deps);
        assertRestored('after undoSync and cleanup');
      });
    });
  }
}

describe('a probe', () => {
  it('that only looks is told apart from what changes something', () => {
    assert.ok(StandIn.isProbe(['pfctl', '-s', 'rules']));
    assert.ok(!StandIn.isProbe(['pfctl', '-E']));
  });
});
