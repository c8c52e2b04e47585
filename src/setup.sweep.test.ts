/**
 * Linux, on a pretended host: every command that vpn runs goes wrong in every way, at start and at stop,
 * and vpn is killed or told to stop at each of them. The same in network namespaces, and with the
 * real programs, is test/failures.test.ts; macOS and the BSDs are in os/standins.test.ts.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { PretendedHost, pretendedLocks } from '../test/pretended.ts';
import { clientSettings, serverSettings } from '../test/standins/host.ts';
import { PLATFORMS } from './os.ts';
import { commandLine } from './rules.ts';
import type { HostFiles } from './hostfiles.ts';
import type { InOut, Outcome } from './rules.ts';
import { cleanUp, prepareHost } from './setup.ts';
import type { HostDeps, HostSettings, HostSetup } from './setup.ts';
import { scratchFolder } from '../test/scratch.ts';

const client = clientSettings('tun0');
const server = serverSettings('tun0');
/** Bound to an interface, and to an address of it. */
const LINKS = [
  { name: 'a', device: 'eth0', address: '', gateways: [] },
  { name: 'b', device: '', address: '203.0.113.2', gateways: [] },
];
const bonded: HostSettings = { ...client, links: LINKS, mostLinks: LINKS.length };
const NETWORKS = ['10.50.0.0/16', 'fd50::/32'];
const ALLOWED = ['10.9.0.0/24', 'fd09::/64'];
/** Its network, of which the peer has an address. */
const PROXIED = { routes: ['203.0.113.64/28'], peerIp: '203.0.113.9', proxyArp: true };
const NO_IPTABLES = /^ip6?tables /;
const NAMES = ['10.0.0.53', 'fd00::53'];
const { linux } = PLATFORMS;
/** What the host lacks comes last. */
const CASES: readonly (readonly [string, HostSettings, RegExp?])[] = [
  ['client', client],
  ['client, networks', { ...client, routes: NETWORKS, defaultRoutes: false }],
  ['client, gateway', { ...client, gateway: '203.0.113.9' }],
  ['client, links', bonded],
  ['client, no default routes', { ...client, defaultRoutes: false }],
  ['server', { ...server, routes: NETWORKS }],
  ['server, external address', { ...server, externalIp: '203.0.113.2' }],
  ['server, no default routes', { ...server, routes: NETWORKS, defaultRoutes: false }],
  ['server, site', { ...server, ...PROXIED, allow: ALLOWED, defaultRoutes: false }],
  ['client, kill switch, name servers', { ...client, killSwitch: true, dns: NAMES }],
  ['client, links, nft', bonded, NO_IPTABLES],
  ['server, nft', { ...server, routes: NETWORKS }, NO_IPTABLES],
  ['client, site, nft', { ...client, defaultRoutes: false, allow: ALLOWED }, NO_IPTABLES],
];

/** How the n-th call goes wrong. */
type Fault = 'refused' | 'killed before its work' | 'killed after its work' | 'refused for ever';
const FAULTS: readonly Fault[] = ['refused', 'killed before its work', 'killed after its work'];

const REFUSED: Outcome = {
  status: 1,
  stdout: '',
  stderr: 'no luck',
  reason: 'exited with 1: no luck',
  refused: true,
};
const KILLED: Outcome = { ...REFUSED, status: -1, reason: 'took longer than 5 s', refused: false };

class FaultyHost extends PretendedHost {
  /** Every command and every sysctl that was written, as typed. */
  readonly calls: string[] = [];
  at = 0;
  fault: Fault = 'refused';
  /** Before and after the work of each call. */
  onCall: (n: number, isDone: boolean) => void = () => undefined;
  #stubborn = '';

  relent(): void {
    this.at = 0;
    this.#stubborn = '';
  }

  #goesWrong(line: string): boolean {
    this.calls.push(line);
    this.onCall(this.calls.length, false);
    const isIt = this.calls.length === this.at;
    if (isIt && this.fault === 'refused for ever') this.#stubborn = line;
    return isIt || line === this.#stubborn;
  }

  override runSync(argv: readonly string[], io?: InOut): Outcome {
    if (this.#goesWrong(commandLine(argv))) {
      if (this.fault.startsWith('refused')) return REFUSED;
      if (this.fault === 'killed after its work') super.runSync(argv, io);
      return KILLED;
    }
    const outcome = super.runSync(argv, io);
    this.onCall(this.calls.length, true);
    return outcome;
  }

  override get files(): HostFiles {
    const files = super.files;
    return {
      ...files,
      write: (path, file) => {
        const isWrong = this.#goesWrong(`tee ${path}`);
        if (!isWrong || this.fault === 'killed after its work') files.write(path, file);
        if (isWrong) throw new Error('EROFS: no luck, write');
        this.onCall(this.calls.length, true);
      },
    };
  }

  override writeSysctl(name: string, value: string): void {
    // The kernel writes it or does not.
    if (this.#goesWrong(`${name}=${value}`)) throw new Error('EROFS: no luck, write');
    super.writeSysctl(name, value);
    this.onCall(this.calls.length, true);
  }
}

const isProbe = (line: string): boolean =>
  / show| -S | -V| -c | -y |route get|^resolv\w+ (status|--version)/.test(line);
const isSysctl = (line: string): boolean => /^net\/\S+=/.test(line);
/** Every record is synced, and there are some hundred thousand of them. */
const SCRATCH = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/** One run on a host of its own. */
class Trial {
  readonly host = new FaultyHost();
  readonly warnings: string[] = [];
  readonly deps: HostDeps;
  readonly #settings: HostSettings;
  readonly #journalDir = scratchFolder(SCRATCH);
  readonly #locks = pretendedLocks();
  readonly #before = this.host.state();
  #setup: HostSetup | undefined;

  constructor(settings: HostSettings, absent: RegExp | undefined) {
    this.#settings = settings;
    this.host.absent = absent ?? this.host.absent;
    this.deps = {
      native: { netnsCookie: () => '7', lockFile: this.#locks.lockFile },
      journalDir: this.#journalDir,
      path: '',
      log: () => undefined,
      warn: (line) => {
        if (!line.startsWith('the kill switch stays')) this.warnings.push(line);
      },
      runner: this.host,
      platform: linux!,
    };
  }

  /** The line of its failure, '' if there was none. */
  async start(): Promise<string> {
    try {
      this.#setup = await prepareHost(this.#settings, this.deps);
      await this.#setup.up();
      await this.#setup.connected({ ipv6: false });
      await this.#setup.connected({ ipv6: true });
      return '';
    } catch (error) {
      return (error as Error).message;
    }
  }

  async undo(): Promise<boolean> {
    return (await this.#setup?.undo()) ?? true;
  }

  /** With the `vpn cleanup` without which a kill switch stays. */
  async stop(): Promise<boolean> {
    const isUndone = await this.undo();
    if (!this.#settings.killSwitch) return isUndone;
    const { failed } = await cleanUp(this.deps);
    return isUndone && failed.length === 0;
  }

  journals(): readonly string[] {
    return readdirSync(this.#journalDir).filter((name) => name.endsWith('.journal'));
  }

  /** Host and journals as they are now; the result puts them back, as a process leaves them that is gone. */
  freeze(): () => void {
    const entries = [...this.host.entries];
    const names = [...this.host.names.files];
    const sysctls = [...this.host.sysctls];
    const files = this.journals().map((name) => {
      const path = join(this.#journalDir, name);
      return [path, readFileSync(path)] as const;
    });
    return () => {
      this.#locks.kill(this.#journalDir);
      this.host.entries.clear();
      for (const entry of entries) this.host.entries.add(entry);
      this.host.names.files.clear();
      for (const [path, file] of names) this.host.names.files.set(path, file);
      for (const [name, value] of sysctls) this.host.sysctls.set(name, value);
      for (const [path, bytes] of files) writeFileSync(path, bytes, { mode: 0o600 });
    };
  }

  assertRestored(what: string): void {
    assert.deepEqual(this.host.state(), this.#before, what);
    assert.deepEqual(this.journals(), [], what);
  }

  remove(): void {
    rmSync(this.#journalDir, { recursive: true });
  }
}

for (const [name, settings, absent] of CASES) {
  describe(`${name}, whatever happens at any of its commands:`, () => {
    async function inTrial<Result>(body: (trial: Trial) => Promise<Result>): Promise<Result> {
      const trial = new Trial(settings, absent);
      try {
        return await body(trial);
      } finally {
        trial.remove();
      }
    }
    /** The calls of a start and of a stop in which nothing goes wrong. */
    const calm = inTrial(async (trial) => {
      assert.equal(await trial.start(), '');
      const started = trial.host.calls.length;
      assert.equal(await trial.stop(), true);
      return { calls: trial.host.calls, started };
    });

    for (const fault of FAULTS)
      it(`it is ${fault}; all is undone, and the failure is one line that names it`, async () => {
        const { calls, started } = await calm;
        for (const [i, call] of calls.entries())
          await inTrial(async (trial) => {
            trial.host.at = i + 1;
            trial.host.fault = fault;
            const failure = await trial.start();
            // What fails at the stop is tried once more.
            assert.equal(await trial.stop(), true);
            const what = `call ${i + 1}, ${call}: ${failure} ${trial.warnings.join(' ')}`;
            trial.assertRestored(what);
            if (failure !== '') assert.match(failure, /^[^:\n]+: [^\n]+; [^\n]+$/, what);
            if (i >= started) {
              assert.equal(failure, '', what);
            } else if (isProbe(call)) {
              // A fact is missing: it goes on without, or says so. No list of addresses is like an empty one.
              const isNamed = failure.includes(`"${call}"`);
              assert.ok(failure === '' || isNamed, what);
            } else if (call.startsWith('tee')) {
              assert.match(
                failure,
                /^cannot set the name servers: "\/etc\/resolv.conf": no luck; /,
                what,
              );
            } else if (isSysctl(call)) {
              const said = call.includes('src_valid_mark') ? trial.warnings.join(' ') : failure;
              assert.match(said, /"sysctl -w net\..*": no luck/, what);
            } else {
              const why = fault === 'refused' ? REFUSED.reason : KILLED.reason;
              assert.ok(failure.includes(`"${call}" ${why}`), what);
            }
          });
      });

    it('it is refused for ever at the stop; the others are undone, cleanup does the rest', async () => {
      const { calls, started } = await calm;
      for (const [i, call] of calls.entries())
        await inTrial(async (trial) => {
          if (i < started) return;
          assert.equal(await trial.start(), '');
          trial.host.at = i + 1;
          trial.host.fault = 'refused for ever';
          assert.equal(await trial.stop(), false);
          const what = `call ${i + 1}, ${call}: ${trial.warnings.join(' ')}`;
          assert.match(trial.warnings.at(-1) ?? '', /^cannot undo: ".*; run vpn cleanup$/, what);
          assert.equal(trial.journals().length, 1, what);
          trial.host.relent();
          assert.deepEqual((await cleanUp(trial.deps)).failed, [], what);
          trial.assertRestored(what);
        });
    });

    for (const isDone of [false, true])
      it(`vpn is killed ${isDone ? 'behind' : 'in front of'} it; cleanup undoes all, as does a start`, async () => {
        const { calls } = await calm;
        for (const [i, call] of calls.entries())
          for (const isStart of [false, true])
            await inTrial(async (trial) => {
              let thaw = (): void => assert.fail(`there is no call ${i + 1}`);
              trial.host.onCall = (n, done) => {
                if (n === i + 1 && done === isDone) thaw = trial.freeze();
              };
              await trial.start();
              await trial.stop();
              trial.host.onCall = () => undefined;
              thaw();
              const what = `killed at call ${i + 1}, ${call}`;
              if (!isStart) assert.deepEqual((await cleanUp(trial.deps)).failed, [], what);
              else {
                assert.equal(await trial.start(), '', what);
                assert.equal(await trial.stop(), true, what);
              }
              trial.assertRestored(what);
              assert.deepEqual(trial.warnings, [], what);
            });
      });

    it('vpn is told to stop at it; it does, and undoes all', async () => {
      const { calls, started } = await calm;
      for (const [i, call] of calls.entries())
        await inTrial(async (trial) => {
          let isStopped: Promise<boolean> | undefined;
          trial.host.onCall = (n) => {
            if (n === i + 1) isStopped = trial.undo();
          };
          const failure = await trial.start();
          const what = `stopped at call ${i + 1}, ${call}: ${failure}`;
          assert.match(failure, /^$|^cannot set up this host: interrupted; /, what);
          if (i >= started) assert.equal(failure, '', what);
          assert.equal((await isStopped) ?? true, true, what);
          assert.equal(await trial.stop(), true, what);
          trial.assertRestored(what);
        });
    });
  });
}
