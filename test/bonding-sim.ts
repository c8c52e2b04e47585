/**
 * The profiles of bonding over the simulated network:
 *
 *   node test/bonding-sim.ts                                 all of them: A alone, B alone, both
 *   node test/bonding-sim.ts --only jit_5,loss_2 --streams 4 --way down --seed 7 --runs 3
 *   node test/bonding-sim.ts --only baseline --links both --trace
 *
 * What a single link gives is kept in build/bonding-sim.json under its figures and a hash of the sources,
 * so that it is measured once per change of the tunnel; `--singles-cache FILE` keeps it in FILE
 * whatever the sources are. `--links` says what to run: a, b, both, or letters (abb: three links).
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import type { Tunnel } from '../src/vpn.ts';
import { atLeastMbit, GOODPUT_SHARE, profileNamed, PROFILES, type Profile } from './profiles.ts';
import { measure, type Result, type Run, type Sample } from './simrun.ts';
import type { SimBond } from './simbond.ts';
import type { Way } from './simflows.ts';

const ROOT = resolve(import.meta.dirname, '..');
const CACHE = resolve(ROOT, 'build/bonding-sim.json');
const TRACE_MS = 500;
/** Less than this beside what is wanted is the noise of where the measured time begins and ends. */
const TOLERANCE = 0.005;

/** What can be measured by another thread: plain data. */
interface Job {
  readonly profile: string;
  /** Letters a and b, one per link. */
  readonly links: string;
  readonly streams: number;
  readonly way: Way;
  readonly seed: number;
}

/** Of several runs, the one whose throughput is the median. */
type Outcome = Omit<Result, 'samples'> & { readonly seconds: number };

function runOf({ profile, links, streams, way, seed }: Job): Run {
  const { a, b, isSlow } = profileNamed(profile);
  return {
    links: [...links].map((letter) => (letter === 'a' ? a : b)),
    streams,
    way,
    startMs: isSlow ? 15_000 : 3_000,
    measureMs: isSlow ? 20_000 : 10_000,
    seed,
  };
}

async function outcomeOf(job: Job): Promise<Outcome> {
  const startMs = performance.now();
  const { samples: _samples, ...result } = await measure(runOf(job));
  return { ...result, seconds: (performance.now() - startMs) / 1000 };
}

function inThread(job: Job): Promise<Outcome> {
  return new Promise((done, failed) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: job });
    worker.once('message', done);
    worker.once('error', failed);
  });
}

/** What single links gave, in this run and in earlier ones. */
class Singles {
  private readonly file: string;
  private readonly isKept: boolean;
  private readonly known: Map<string, Outcome>;

  /** Of what is in `file`, only what belongs to the sources of `hash` is kept. */
  constructor(file: string, isKept: boolean, hash: string) {
    this.file = file;
    this.isKept = isKept;
    const text = isKept && existsSync(file) ? readFileSync(file, 'utf8') : '{}';
    const entries = Object.entries(JSON.parse(text) as Record<string, Outcome>);
    this.known = new Map(entries.filter(([key]) => key.endsWith(hash)));
  }

  get(key: string): Outcome | undefined {
    return this.known.get(key);
  }

  set(key: string, outcome: Outcome): void {
    this.known.set(key, outcome);
    if (!this.isKept) return;
    mkdirSync(dirname(this.file), { recursive: true });
    const temporary = `${this.file}.${process.pid}`;
    writeFileSync(temporary, `${JSON.stringify(Object.fromEntries(this.known), undefined, 2)}\n`);
    renameSync(temporary, this.file);
  }
}

/** Of all that takes part: the simulation, the tunnel, and what they import. */
function sourceHash(): string {
  const hash = createHash('sha256');
  const files = [resolve(import.meta.dirname, 'simrun.ts')];
  // Grows while it is walked through.
  for (const file of files) {
    const text = readFileSync(file, 'utf8');
    hash.update(text);
    for (const [, name] of text.matchAll(/from '(\.[^']+)'/g)) {
      const imported = resolve(dirname(file), name!);
      if (!files.includes(imported)) files.push(imported);
    }
  }
  return hash.digest('hex').slice(0, 16);
}

interface Options {
  readonly jobs: number;
  readonly runs: number;
  readonly singles: Singles;
  readonly hash: string;
}

/** Runs up to `options.jobs` at a time; the median of `options.runs` seeds each. */
class Runner {
  private readonly options: Options;
  private readonly waiting: (() => void)[] = [];
  private running = 0;

  constructor(options: Options) {
    this.options = options;
  }

  async measure(job: Job): Promise<Outcome> {
    const isSingle = job.links.length === 1;
    const { runs, singles, hash } = this.options;
    const { links, startMs, measureMs } = runOf(job);
    const what = { links, startMs, measureMs, streams: job.streams, way: job.way };
    const key = `${JSON.stringify(what)} seed ${job.seed} runs ${runs} ${hash}`;
    const known = isSingle ? singles.get(key) : undefined;
    if (known !== undefined) return known;
    const seeds = Array.from({ length: runs }, (_, i) => job.seed + i);
    const outcomes = await Promise.all(seeds.map((seed) => this.one({ ...job, seed })));
    const median = outcomes.toSorted((x, y) => x.mbit - y.mbit)[outcomes.length >> 1]!;
    if (isSingle) singles.set(key, median);
    return median;
  }

  private async one(job: Job): Promise<Outcome> {
    while (this.running >= this.options.jobs)
      await new Promise<void>((free) => void this.waiting.push(free));
    this.running++;
    try {
      return await inThread(job);
    } finally {
      this.running--;
      this.waiting.shift()?.();
    }
  }
}

const digits = (mbit: number): string => mbit.toFixed(mbit < 10 ? 2 : 1);

interface Row {
  readonly profile: Profile;
  readonly a: Outcome | undefined;
  readonly b: Outcome | undefined;
  readonly both: Outcome | undefined;
}

const sumMbitOf = ({ a, b }: Profile, links: string): number =>
  [...links].reduce((sum, letter) => sum + (letter === 'a' ? a : b).rateMbit * GOODPUT_SHARE, 0);

/** The numbers are for one stream over two links; others must not be slower than one link. */
function wantedMbit({ profile, a, b }: Row, job: Omit<Job, 'profile' | 'seed'>): number {
  if (a === undefined || b === undefined) return Number.NaN;
  if (job.streams === 1 && job.links === 'ab') return atLeastMbit(profile, a.mbit, b.mbit);
  return Math.max(a.mbit, b.mbit);
}

const HEAD =
  'profile       |  A alone |  B alone |     both (10 s) | % of sum |  wanted | verdict | resent timeouts |   ping ms 50/95/100 | overtaken | s';

function rowText(row: Row, job: Omit<Job, 'profile' | 'seed'>): string {
  const { profile, a, b, both } = row;
  const cell = (outcome: Outcome | undefined): string =>
    (outcome === undefined ? '–' : digits(outcome.mbit)).padStart(8);
  const start = [`${profile.name}${profile.isSlow ? ' *' : ''}`.padEnd(13), cell(a), cell(b)];
  if (both === undefined) return start.join(' | ');
  const wanted = wantedMbit(row, job);
  const { ping } = both;
  const pings = [ping.medianMs, ping.highMs, ping.mostMs].map((ms) => ms.toFixed(0)).join('/');
  return [
    ...start,
    `${digits(both.mbit)} (${digits(both.firstTenMbit)})`.padStart(15),
    `${((100 * both.mbit) / sumMbitOf(profile, job.links)).toFixed(0)} %`.padStart(8),
    Number.isNaN(wanted) ? '      –' : digits(wanted).padStart(7),
    verdict(both, wanted).padStart(7),
    `${both.retransmissions}`.padStart(6) + `${both.timeouts}`.padStart(9),
    `${pings} ${ping.answered}/${ping.sent}`.padStart(19),
    `${both.overtaken}`.padStart(9),
    both.seconds.toFixed(1),
  ].join(' | ');
}

function verdict({ mbit, damaged, duplicated }: Outcome, wanted: number): string {
  if (damaged > 0) return 'DAMAGED';
  if (duplicated > 0) return 'TWICE';
  if (Number.isNaN(wanted)) return '';
  const margin = mbit / wanted - 1;
  const percent = `${margin < 0 ? '' : '+'}${(100 * margin).toFixed(0)} %`;
  return margin >= -TOLERANCE ? percent : `${percent} !`;
}

/** Prints a line per half second, and what the tunnels tell of themselves. */
async function trace(job: Job): Promise<void> {
  let recent: Sample[] = [];
  const mean = (of: (sample: Sample) => number): number =>
    recent.reduce((total, sample) => total + of(sample), 0) / recent.length;
  const onSample = (sample: Sample, net: SimBond): void => {
    recent.push(sample);
    if (sample.atMs % TRACE_MS !== 0) return;
    const links = sample.linkMbit.map(
      (_, i) =>
        `${mean(({ linkMbit }) => linkMbit[i]!).toFixed(1)} q${sample.queueMs[i]!.toFixed(0)}`,
    );
    const streams = sample.windows.map(
      (window, i) => `${window.toFixed(0)}/${sample.srttMs[i]!.toFixed(0)}`,
    );
    console.log(
      `${(sample.atMs / 1000).toFixed(1).padStart(5)} s  ${mean(({ mbit }) => mbit).toFixed(1)} Mbit/s` +
        `  links ${links.join(', ')}  cwnd/srtt ${streams.join(' ')}  resent ${sample.retransmissions}`,
    );
    recent = [];
    for (const end of ['client', 'server'] as const) {
      for (const line of described(net[end].tunnel)) console.log(`        ${end} ${line}`);
    }
  };
  const { samples: _samples, ...result } = await measure({ ...runOf(job), onSample });
  console.log(JSON.stringify(result, undefined, 1));
}

/** One line for the end, and one for each of its links: what its decisions follow from. */
function described(tunnel: Tunnel | undefined): string[] {
  if (tunnel === undefined) return [];
  const { bonding, reorder, holdMs, set } = tunnel.parts;
  const waiting = `${bonding?.queue.bytes ?? 0} of ${bonding?.scheduler.mostWaiting ?? 0}`;
  const counted = JSON.stringify({ ...bonding?.counters, ...reorder.counters });
  const rounded = (value: number): string => value.toFixed(1);
  return [
    `waiting ${waiting}, hold ${rounded(holdMs)} ms, ${counted}`,
    ...set.list.map(({ id, state, capacity, flight, reorderingMs }) => {
      const [rate, found] = [capacity.rate, capacity.deliveredRate].map((r) => rounded(r * 0.008));
      const times = [capacity.ackMs, capacity.queueMs, capacity.fullMs, reorderingMs].map(rounded);
      const counts = `sent ${flight.sent} lost ${flight.lost} spurious ${flight.spurious}`;
      return (
        `  ${id} ${state}: rate ${rate} delivered ${found} Mbit/s, ` +
        `ack/queue/full/reordering ${times.join('/')} ms, flying ${flight.bytes}, ${counts}`
      );
    }),
  ];
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      stall: { type: 'string', default: '0' },
      streams: { type: 'string', default: '1' },
      way: { type: 'string', default: 'up' },
      seed: { type: 'string', default: '1' },
      runs: { type: 'string', default: '1' },
      links: { type: 'string' },
      jobs: { type: 'string', default: '2' },
      trace: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      'singles-cache': { type: 'string' },
      'no-cache': { type: 'boolean', default: false },
    },
  });
  const profiles = values.only?.split(',').map(profileNamed) ?? PROFILES;
  const chosen = (values.links ?? 'both').replace('both', 'ab');
  if (!/^[ab]{1,3}$/.test(chosen)) throw new Error('--links: a, b, both, or up to three letters');
  if (values.way !== 'up' && values.way !== 'down') throw new Error('--way: up or down');
  const common = { streams: Number(values.streams), way: values.way, links: chosen } as const;
  const seed = Number(values.seed);
  if (values.trace) {
    for (const { name } of profiles) await trace({ ...common, profile: name, seed });
    return;
  }
  const hash = values['singles-cache'] === undefined ? sourceHash() : '';
  const runner = new Runner({
    jobs: Number(values.jobs),
    runs: Number(values.runs),
    singles: new Singles(values['singles-cache'] ?? CACHE, !values['no-cache'], hash),
    hash,
  });
  const measured = profiles.map(async (profile): Promise<Row> => {
    const over = (links: string): Promise<Outcome | undefined> => {
      const isWanted = values.links === undefined || links === chosen || chosen.length > 1;
      const job = { ...common, profile: profile.name, links, seed };
      return isWanted ? runner.measure(job) : Promise.resolve(undefined);
    };
    const both = chosen.length > 1 ? over(chosen) : Promise.resolve(undefined);
    const [a, b, bonded] = await Promise.all([over('a'), over('b'), both]);
    return { profile, a, b, both: bonded };
  });
  const rows: Row[] = [];
  if (!values.json) console.log(HEAD);
  for (const row of measured) {
    rows.push(await row);
    if (!values.json) console.log(rowText(rows.at(-1)!, common));
  }
  if (!values.json) return;
  const named = rows.map((row) => ({
    ...row,
    profile: row.profile.name,
    wantedMbit: wantedMbit(row, common),
  }));
  console.log(JSON.stringify(named, undefined, 2));
}

// A reader that has seen enough (head) is no error.
process.stdout.on('error', () => process.exit(0));
if (isMainThread) await main();
else parentPort!.postMessage(await outcomeOf(workerData as Job));
