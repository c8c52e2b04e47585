/**
 * Every external command failing in turn, at start and at stop, in every way; vpn killed at each of
 * them: whatever happens, a host is in the end as it was in the beginning.
 *
 * A sample by default, another one for another VPN_SEED. VPN_SWEEP=FILE does all of it, notes in FILE
 * what is done, and skips what stands there. All of it on a pretended host is src/setup.sweep.test.ts.
 */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { End, EXECUTABLE, makeKey, startClient, startServer } from './ends.ts';
import { FaultyPath, isProbe, type Fault } from './faulty.ts';
import { netTest, until, type Bed, type Host } from './netns.ts';
import { Random } from './random.ts';
import { difference, hostState, type HostState } from './state.ts';
import { pair } from './world.ts';

const SWEEP = process.env['VPN_SWEEP'];
const SEED = Number(process.env['VPN_SEED'] ?? 7);
/** Of the calls of a run, so many are tried by default for each fault. */
const SAMPLE: Readonly<Record<Fault, number>> = {
  none: 0,
  fails: 2,
  'is killed': 1,
  'does its work and is killed': 1,
  hangs: 1,
  'is the last thing before vpn is killed': 2,
  'is done when vpn is killed': 2,
  'comes with SIGTERM': 1,
  'comes with SIGINT twice': 1,
  'fails for ever': 1,
};
const KILLS_VPN: readonly Fault[] = [
  'is the last thing before vpn is killed',
  'is done when vpn is killed',
];
/** What a user reads when a command of ours failed. */
const LINE =
  /^vpn: cannot [a-zA-Z6 ]+: .*"(ip|iptables|ip6tables|nft) .*" (exited with 1: no luck|was killed by SIGKILL|took longer than 5 s); .+$/m;

interface Trial {
  readonly bed: Bed;
  readonly host: Host;
  readonly path: FaultyPath;
  readonly stateDir: string;
  readonly before: HostState;
  /** Starts the end whose commands go wrong. */
  readonly start: () => End;
  /** The last command of a start, or a line of output. */
  readonly isReady: (end: End) => boolean;
}

function cleanup({ host, path, stateDir }: Trial): { status: number | null; text: string } {
  const words = [...path.wrapper, EXECUTABLE, 'cleanup', '--state-dir', stateDir];
  const { status, stdout, stderr } = host.try(words);
  return { status, text: stdout + stderr };
}

function journals({ stateDir }: Trial): string[] {
  return new End(undefined as never, undefined as never, stateDir)
    .journals()
    .filter((name) => name !== 'lock');
}

/** One start and stop in which the n-th call has a fault. Returns the calls of the run. */
async function tryOut(trial: Trial, n: number, fault: Fault): Promise<readonly string[]> {
  const { host, path, before } = trial;
  path.arm(n, fault);
  const end = trial.start();
  await until('start or end', () => end.daemon.exit !== undefined || trial.isReady(end));
  const started = path.calls().length;
  const isRunning = end.daemon.exit === undefined;
  const exit = isRunning ? await end.daemon.stop('SIGTERM') : end.daemon.exit;
  const calls = path.calls();
  const call = calls[n - 1];
  const what = `seed ${SEED}, call ${n}, "${call}", ${fault}:\n${end.daemon.output}`;
  path.arm(0, 'none');
  if (call === undefined || fault.startsWith('comes with')) {
    assert.equal(exit, 0, what);
    assert.doesNotMatch(end.daemon.output, /^vpn: (cannot|warning)/m, what);
  } else if (KILLS_VPN.includes(fault)) {
    assert.equal(exit, 'SIGKILL', what);
    if (n % 2 === 0) assert.equal(cleanup(trial).status, 0, what);
    else await startAndStop(trial);
  } else if (/ route add /.test(call) && calls.indexOf(call) < n - 1) {
    // What is made sure of every few seconds may fail.
    assert.equal(exit, 0, what);
  } else if (isProbe(call)) {
    // A fact is missing: with a warning it goes on, or cannot, and says so.
    if (exit !== 0) assert.match(end.daemon.output, LINE, what);
  } else if (n <= started && !isRunning) {
    assert.equal(exit, 1, what);
    assert.match(end.daemon.output, LINE, what);
    assert.equal(end.daemon.output.match(/^vpn: cannot/gm)?.length, 1, what);
  } else if (fault === 'fails for ever') {
    assert.equal(exit, 1, what);
    assert.match(end.daemon.output, /warning: cannot undo: .* no luck; run vpn cleanup/, what);
    assert.equal(journals(trial).length, 1, what);
    const { status, text } = cleanup(trial);
    assert.equal(status, 0, text);
    assert.match(text, /^undone: /m);
  } else {
    // Tried once more, and then it went well.
    assert.equal(exit, 0, what);
  }
  assert.doesNotMatch(end.daemon.output, /internal error|^ +at /m, what);
  assert.deepEqual(difference(before, hostState(host)), [], what);
  assert.deepEqual(journals(trial), [], what);
  return calls;
}

async function startAndStop(trial: Trial): Promise<void> {
  const end = trial.start();
  await until('a start', () => end.daemon.exit !== undefined || trial.isReady(end));
  assert.equal(await end.daemon.stop('SIGTERM'), 0, end.daemon.output);
}

/** How many calls a run makes in which nothing goes wrong, by the name of the trial. */
const counts = new Map<string, number>();

/** Which calls to try: all that are not done, or a sample. */
function choose(name: string, fault: Fault, done: (n: number) => boolean): number[] {
  const count = counts.get(name) ?? 0;
  const all = Array.from({ length: count }, (_, i) => i + 1);
  if (SWEEP !== undefined) return all.filter((n) => !done(n));
  // Undo is the last quarter; before, this is like a failure that passes.
  const eligible = fault === 'fails for ever' ? all.slice(-Math.floor(count / 4)) : all;
  const random = new Random(SEED * 1000 + name.length * 10 + Object.keys(SAMPLE).indexOf(fault));
  const chosen = Array.from(
    { length: SAMPLE[fault] },
    () => eligible[random.below(eligible.length)]!,
  );
  return [...new Set(chosen)];
}

async function sweep(trial: Trial, name: string, faults: readonly Fault[]): Promise<void> {
  if (!counts.has(name)) counts.set(name, (await tryOut(trial, 0, 'none')).length);
  for (const fault of faults) {
    const note = (n: number): string => `${name} ${fault} ${n}\n`;
    const notes = SWEEP !== undefined && existsSync(SWEEP) ? readFileSync(SWEEP, 'utf8') : '';
    for (const n of choose(name, fault, (one) => notes.includes(note(one)))) {
      await tryOut(trial, n, fault);
      if (SWEEP !== undefined) appendFileSync(SWEEP, note(n));
    }
  }
}

function serverTrial(bed: Bed, programs?: readonly string[]): Trial {
  const { server: host } = pair(bed);
  host.run('ip route add default via 10.1.0.1');
  host.run('ip -6 route add default via 2001:db8:1::1');
  // So that nft has a chain of somebody else to insert into.
  host.run('nft add table inet other');
  host.run(
    'nft',
    'add chain inet other forward { type filter hook forward priority 0; policy drop; }',
  );
  const [path, key, stateDir] = [new FaultyPath(bed, programs), makeKey(bed), bed.file('state')];
  const last = ['--route', '10.50.0.0/16'];
  return {
    bed,
    host,
    path,
    stateDir,
    before: hostState(host),
    start: () => startServer(bed, host, { key, stateDir, options: last, wrapper: path.wrapper }),
    isReady: (end) => end.daemon.output.includes('waiting for'),
  };
}

async function clientTrial(bed: Bed, programs?: readonly string[]): Promise<Trial> {
  const { client: host, server } = pair(bed);
  host.run('ip route add default via 10.1.0.2');
  host.run('ip -6 route add default via 2001:db8:1::2');
  const [path, key, stateDir] = [new FaultyPath(bed, programs), makeKey(bed), bed.file('state')];
  const peer = startServer(bed, server, { key });
  await peer.daemon.line(/waiting/);
  return {
    bed,
    host,
    path,
    stateDir,
    before: hostState(host),
    start: () =>
      startClient(bed, host, {
        key,
        stateDir,
        address: '10.1.0.2',
        last: '10.1.0.2',
        wrapper: path.wrapper,
      }),
    // A command that is refused is run; then the program ends.
    isReady: () =>
      path.calls().some((call) => /^ip rule add .* not fwmark/.test(call)) &&
      difference({ r: '' }, { r: host.run('ip -4 rule') }).some((line) =>
        /not from all/.test(line),
      ),
  };
}

const LIMIT_MS = SWEEP === undefined ? 170_000 : 3 * 3600_000;
const NFT_ONLY = ['ip', 'nft'];
const FAILING = ['fails', 'is killed', 'does its work and is killed', 'hangs'] as const;
const TRIALS: readonly (readonly [string, (bed: Bed) => Trial | Promise<Trial>])[] = [
  ['server', (bed) => serverTrial(bed)],
  ['client', (bed) => clientTrial(bed)],
  ['server with nft', (bed) => serverTrial(bed, NFT_ONLY)],
  ['client with nft', (bed) => clientTrial(bed, NFT_ONLY)],
];
const KEPT = /an undo fails|vpn is killed/;
const GROUPS: readonly (readonly [string, readonly Fault[]])[] = [
  ['a command fails', FAILING],
  ['an undo fails for good', ['fails for ever']],
  ['vpn is killed', KILLS_VPN],
  ['signals in the middle', ['comes with SIGTERM', 'comes with SIGINT twice']],
];

for (const [who, trial] of TRIALS)
  for (const [what, faults] of GROUPS) {
    // The engine is the same: what nft adds is another kind of undo.
    const isExtra = who === 'client with nft' || (who === 'server with nft' && !KEPT.test(what));
    if (SWEEP === undefined && isExtra) continue;
    netTest(
      `${who}: ${what}`,
      ['nft'],
      async (bed) => sweep(await trial(bed), who, faults),
      LIMIT_MS,
    );
  }
