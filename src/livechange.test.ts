/**
 * What a reload changes, on a pretended host: from any routes and allowed networks to any others, with every
 * command failing, and what stays being there at every moment.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, describe, it } from 'node:test';
import { PretendedHost, pretendedLocks } from '../test/pretended.ts';
import { Random } from '../test/random.ts';
import { clientSettings, serverSettings } from '../test/standins/host.ts';
import type { Networks } from './instance.ts';
import { PLATFORMS } from './os.ts';
import { prepareHost } from './setup.ts';
import type { HostSettings, HostSetup } from './setup.ts';
import { scratchFolder } from '../test/scratch.ts';

const SEED = 20260704;
const ROUNDS = 12;
const ROUTES = ['10.50.0.0/16', '10.60.0.0/16', '203.0.113.64/28', 'fd50::/32', 'fd60::/32'];
const ALLOWED = ['10.9.0.0/24', '10.10.0.0/24', 'fd09::/64'];
/** Every record is synced. */
const SCRATCH = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const NO_IPTABLES = /^ip6?tables /;

const client = { ...clientSettings('tun0'), defaultRoutes: false };
const server = { ...serverSettings('tun0'), peerIp: '203.0.113.9', proxyArp: true };
/** What the host lacks comes last. */
const CASES: readonly (readonly [string, HostSettings, RegExp?])[] = [
  ['client', client],
  ['client of a default route', { ...client, defaultRoutes: true }],
  ['server', { ...server, defaultRoutes: false, proxyArp: false }],
  ['server with NAT and proxy ARP', server],
  ['client, nft', client, NO_IPTABLES],
  ['server with NAT and proxy ARP, nft', server, NO_IPTABLES],
];

const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

/** A host that is set up, and its lines without what counts nothing. */
class Trial {
  readonly host = new PretendedHost();
  readonly warnings: string[] = [];
  readonly journalDir = scratchFolder(SCRATCH);
  private setup: HostSetup | undefined;

  async start(settings: HostSettings, absent: RegExp | undefined): Promise<HostSetup> {
    directories.push(this.journalDir);
    this.host.absent = absent ?? this.host.absent;
    const { lockFile } = pretendedLocks();
    this.setup = await prepareHost(settings, {
      native: { netnsCookie: () => '7', lockFile },
      journalDir: this.journalDir,
      path: '',
      log: () => undefined,
      warn: (line) => this.warnings.push(line),
      runner: this.host,
      platform: PLATFORMS.linux!,
    });
    await this.setup.up();
    await this.setup.connected({ ipv6: false });
    this.warnings.length = 0;
    return this.setup;
  }

  /** With sysctls, and with what would go with the device. */
  lines(): readonly string[] {
    const { entries, sysctls } = this.host;
    const plain = [...entries].map((entry) => entry.replace(/ # handle \d+$/, ''));
    return [...plain, ...[...sysctls].map((pair) => pair.join('='))].sort();
  }
}

function drawn(random: Random): Networks {
  const some = (pool: readonly string[]): readonly string[] =>
    pool.filter(() => random.below(2) === 0);
  // None at all is where most comes and goes.
  const routes = random.below(4) === 0 ? [] : some(ROUTES);
  return { routes, allow: random.below(3) === 0 ? [] : some(ALLOWED) };
}

for (const [name, settings, absent] of CASES) {
  describe(`${name}, changed while it runs,`, () => {
    it('is as one that was started so, and keeps what stays at every moment', async () => {
      const random = new Random(SEED);
      let now: Networks = { routes: [], allow: [] };
      const trial = new Trial();
      const before = trial.host.state();
      const setup = await trial.start({ ...settings, ...now }, absent);
      for (let round = 0; round < ROUNDS; round++) {
        const next = drawn(random);
        const what = `seed ${SEED}: ${JSON.stringify(now)} to ${JSON.stringify(next)}`;
        const fresh = new Trial();
        await fresh.start({ ...settings, ...next }, absent);
        const expected = fresh.lines();
        // The kernel sets some sysctls along with others for a moment.
        const isLine = (line: string): boolean => !line.startsWith('net/');
        const staying = trial.lines().filter((line) => isLine(line) && expected.includes(line));
        const missed: string[] = [];
        trial.host.onChange = (command) => {
          const there = new Set(trial.lines());
          const gone = staying.filter((line) => !there.has(line));
          missed.push(...gone.map((line) => `${line} at ${command}`));
        };
        await setup.changeNetworks(next);
        trial.host.onChange = () => undefined;
        assert.deepEqual(missed, [], what);
        assert.deepEqual(trial.lines(), expected, what);
        assert.deepEqual(trial.warnings, [], what);
        const ran = trial.host.ran.length;
        await setup.changeNetworks(next);
        assert.equal(trial.host.ran.length, ran, `${what}: twice`);
        now = next;
      }
      assert.equal(await setup.undo(), true);
      assert.deepEqual(trial.host.state(), before);
      assert.deepEqual(readdirSync(trial.journalDir).filter(isJournal), []);
    });

    it('is as it was when something new is refused, and otherwise says what is left', async () => {
      const old: Networks = { routes: ROUTES.slice(1, 4), allow: ALLOWED.slice(0, 1) };
      const next: Networks = { routes: ROUTES.slice(2), allow: ALLOWED.slice(1) };
      for (const [from, to] of [
        [old, next],
        [{ routes: [], allow: [] }, next],
        [next, { routes: [], allow: [] }],
      ] as const) {
        for (let n = 1, isOver = false; !isOver; n++) {
          const trial = new Trial();
          const before = trial.host.state();
          const setup = await trial.start({ ...settings, ...from }, absent);
          const then = trial.lines();
          const ran = trial.host.ran.length;
          trial.host.failAt = ran + n;
          let failure = '';
          await setup.changeNetworks(to).catch((error: Error) => (failure = error.message));
          isOver = trial.host.ran.length < trial.host.failAt;
          const what = `${JSON.stringify(from)} to ${JSON.stringify(to)}, command ${n}: ${failure}`;
          if (failure !== '') {
            assert.match(failure, /^cannot [^:\n]+: .*(no luck|read-only).*; [^\n]+$/, what);
            assert.deepEqual(trial.lines(), then, what);
          }
          // An undo is tried twice, and fails once here.
          const isOptional = (line: string): boolean => line.includes('src_valid_mark');
          assert.deepEqual(
            trial.warnings.filter((line) => !isOptional(line)),
            [],
            what,
          );
          trial.host.failAt = 0;
          assert.equal(await setup.undo(), true, what);
          assert.deepEqual(trial.host.state(), before, what);
        }
      }
    });
  });
}

const isJournal = (name: string): boolean => name.endsWith('.journal');
