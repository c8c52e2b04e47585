/**
 * `npm run bench -- bonding`: what one TCP stream (cubic) gets over the links of the profile table.
 *
 *   node test/bonding-bench.ts [--only PROFILE,…] [--runs N] [--both] [--full] [--fresh] [--write]
 *
 * For each link of each profile `vpn` with that link only, once; `vpn` with both, the median of three (or N); and the
 * peers found in PATH (MLVPN, glorytun), which are told the rates, once. What was measured is
 * kept in build/bonding.json, by the figures of the link and the version of the program, so that a run that was
 * interrupted goes on where it was. --both: only what concerns both links. --full adds plain TCP over
 * each link, and on five profiles four streams, the other way, and BBR. --fresh measures all of it again; --write puts the table
 * into doc/bonding.md and the chart into doc/bonding.svg.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { bondingPeers, plainTcp, vpn, type Program } from './bonding-peers.ts';
import { Bed, lacking } from './netns.ts';
import { barChart } from './chart.ts';
import {
  atLeastMbit,
  linkText,
  PROFILES,
  profileNamed,
  ruleText,
  sumMbit,
  type LinkFigures,
  type Profile,
} from './profiles.ts';
import { readIperf, startIperf } from './traffic.ts';
import { wan, type WanLink } from './wan.ts';

const CACHE = resolve(import.meta.dirname, '../build/bonding.json');
const TABLE = resolve(import.meta.dirname, '../doc/bonding.md');
const CHART = resolve(import.meta.dirname, '../doc/bonding.svg');
/** From when to when a stream is measured, in seconds. */
const QUICK = [3, 13] as const;
const SLOW = [15, 35] as const;
const FIRST = [0, 10] as const;
const SEED = 1;
/** Runs over both links, of which the median counts. */
const RUNS = 3;

/** How the streams differ from the one of the table. */
interface Variant {
  readonly name: string;
  readonly options: string;
  readonly isDown: boolean;
}

const PLAIN: Variant = { name: '', options: '', isDown: false };
const VARIANTS: readonly Variant[] = [
  { name: '4 streams', options: '-P 4', isDown: false },
  { name: 'down', options: '-R', isDown: true },
  { name: 'BBR', options: '-C bbr', isDown: false },
];
const VARIED: readonly string[] = ['baseline', 'rtt_120', 'jit_5', 'loss_2', 'lte_starlink'];

interface Result {
  readonly mbit: number;
  /** Of the first ten seconds. */
  readonly firstMbit: number;
  /** Packets that the emulator delivered late: many mean that the machine was too busy to measure. */
  readonly latePackets: number;
}

/** Kbit/s in each second as the receiver saw them, from the lines of `iperf3 -s -f k`: of all streams. */
function readReceiver(text: string): number[] {
  const pattern = /^\[ *(SUM|\d+)\] +[\d.]+-[\d.]+ +sec .* ([\d.]+) Kbits\/sec *$/gm;
  const lines = [...text.matchAll(pattern)].map(([, whose, kbit]) => ({
    whose,
    kbit: Number(kbit),
  }));
  const sums = lines.filter(({ whose }) => whose === 'SUM');
  return (sums.length > 0 ? sums : lines).map(({ kbit }) => kbit);
}

function meanMbit(kbitPerSecond: readonly number[], [from, to]: readonly [number, number]): number {
  const span = kbitPerSecond.slice(from, to);
  if (span.length < to - from) throw new Error(`the stream ended after ${kbitPerSecond.length} s`);
  return span.reduce((sum, kbit) => sum + kbit, 0) / span.length / 1000;
}

async function measure({ program, figures, isSlow, variant }: Job): Promise<Result> {
  const bed = new Bed();
  try {
    const [client, server] = [bed.host('client'), bed.host('server')];
    const links: WanLink[] = [];
    for (const [i, both] of figures.entries())
      links.push(await wan(bed, client, server, { both, seed: SEED + i }));
    const to = await program.start({ bed, client, server, links, figures });
    const receiver = server.start('iperf3 -s -1 -f k --forceflush'.split(' '));
    await receiver.line(/Server listening/);
    const span = isSlow ? SLOW : QUICK;
    const sender = startIperf(client, to, `-t ${span[1]} ${variant.options}`.trim());
    await sender.ended((span[1] + 30) * 1000);
    const atClient = readIperf(sender.output).perSecond.map((bytes) => (bytes * 8) / 1000);
    await receiver.ended();
    const kbitPerSecond = variant.isDown ? atClient : readReceiver(receiver.output);
    const stats = await Promise.all(links.map((link) => link.stats()));
    return {
      mbit: meanMbit(kbitPerSecond, span),
      firstMbit: meanMbit(kbitPerSecond, FIRST),
      latePackets: stats.reduce((sum, { aToB, bToA }) => sum + aToB.late + bToA.late, 0),
    };
  } catch (error) {
    console.error(`\n${bed.logs()}`);
    throw error;
  } finally {
    await bed.close();
  }
}

/** What was measured in this run and in earlier ones. */
class Results {
  private readonly known = new Map<string, Result>();

  constructor(isFresh: boolean) {
    if (isFresh || !existsSync(CACHE)) return;
    const kept = JSON.parse(readFileSync(CACHE, 'utf8')) as Record<string, Result>;
    for (const [key, result] of Object.entries(kept)) this.known.set(key, result);
  }

  get(job: Job): Result | undefined {
    return this.known.get(job.key);
  }

  set(job: Job, result: Result): void {
    this.known.set(job.key, result);
    mkdirSync(dirname(CACHE), { recursive: true });
    // At once: an interrupted write must not take earlier results with it.
    const temporary = `${CACHE}.${process.pid}`;
    writeFileSync(temporary, `${JSON.stringify(Object.fromEntries(this.known), undefined, 2)}\n`);
    renameSync(temporary, CACHE);
  }
}

interface Job {
  readonly key: string;
  readonly program: Program;
  readonly figures: readonly LinkFigures[];
  readonly isSlow: boolean;
  readonly variant: Variant;
}

/** `run`: which of several measurements of the same. */
function jobOf(
  program: Program,
  figures: readonly LinkFigures[],
  isSlow: boolean,
  variant = PLAIN,
  run = 1,
): Job {
  const links = figures.map(linkText).join(' + ');
  const title = [program.name, program.version].filter((word) => word !== '').join(' ');
  const words = [
    isSlow ? ' slow' : '',
    variant.name && ` ${variant.name}`,
    run > 1 ? ` #${run}` : '',
  ];
  return { key: `${title}: ${links}${words.join('')}`, program, figures, isSlow, variant };
}

/** What a peer gets over both links. */
const jobsOfPeers = ({ a, b, isSlow }: Profile): Job[] =>
  bondingPeers.map((peer) => jobOf(peer, [a, b], isSlow));

/** The tunnel over both links, three times. */
const jobsOfBoth = ({ a, b, isSlow }: Profile, runs = RUNS): Job[] =>
  Array.from({ length: runs }, (_, run) => jobOf(vpn, [a, b], isSlow, PLAIN, run + 1));

const jobsOfVariant = ({ a, b, isSlow }: Profile, variant: Variant): readonly [Job, Job, Job] => [
  jobOf(vpn, [a], isSlow, variant),
  jobOf(vpn, [b], isSlow, variant),
  jobOf(vpn, [a, b], isSlow, variant),
];

/** The tunnel over each link of a profile alone. */
const jobsOfLinks = ({ a, b, isSlow }: Profile): readonly [Job, Job] => [
  jobOf(vpn, [a], isSlow),
  jobOf(vpn, [b], isSlow),
];

const isVaried = ({ name }: Profile): boolean => VARIED.includes(name);

function jobsOf(
  profiles: readonly Profile[],
  runs: number,
  isBothOnly: boolean,
  isFull: boolean,
): Job[] {
  const jobs = profiles.flatMap((profile) => {
    const { a, b, isSlow } = profile;
    const both = [...jobsOfBoth(profile, runs), ...jobsOfPeers(profile)];
    if (isBothOnly) return both;
    const plain = isFull ? [jobOf(plainTcp, [a], isSlow), jobOf(plainTcp, [b], isSlow)] : [];
    const variants =
      isFull && isVaried(profile)
        ? VARIANTS.flatMap((variant) => jobsOfVariant(profile, variant))
        : [];
    return [...both, ...jobsOfLinks(profile), ...plain, ...variants];
  });
  return [...new Map(jobs.map((job) => [job.key, job])).values()];
}

const digits = (mbit: number): string => mbit.toFixed(mbit < 10 ? 1 : 0);

/** The median, as far as there is anything. */
function medianOf(results: readonly (Result | undefined)[]): Result | undefined {
  const known = results.filter((result) => result !== undefined);
  return known.sort((a, b) => a.mbit - b.mbit)[Math.floor(known.length / 2)];
}

interface Line {
  readonly profile: Profile;
  readonly a: Result | undefined;
  readonly b: Result | undefined;
  readonly both: Result | undefined;
  readonly peers: readonly (Result | undefined)[];
}

const linesOf = (profiles: readonly Profile[], results: Results): Line[] =>
  profiles.map((profile) => {
    const [a, b] = jobsOfLinks(profile).map((job) => results.get(job));
    const both = medianOf(jobsOfBoth(profile).map((job) => results.get(job)));
    const peers = jobsOfPeers(profile).map((job) => results.get(job));
    return { profile, a, b, both, peers };
  });

function table(lines: readonly Line[]): string {
  const peers = bondingPeers.map(({ name }) => ` ${name} |`).join('');
  return [
    `| profile | link A | link B | A alone | B alone | **both** | of the sum | wanted |${peers}`,
    `| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |${peers.replaceAll(/[^|]+/g, ' ---: ')}`,
    ...lines.map(({ profile, a, b, both, peers: measured }) => {
      const { name, isSlow } = profile;
      const cell = (result: Result | undefined): string => {
        if (result === undefined) return '–';
        return isSlow
          ? `${digits(result.mbit)} (${digits(result.firstMbit)})`
          : digits(result.mbit);
      };
      const rule = ruleText(profile);
      const isKnown = a !== undefined && b !== undefined;
      const wanted = isKnown ? `${digits(atLeastMbit(profile, a.mbit, b.mbit))} (${rule})` : rule;
      const share =
        both === undefined ? '–' : `${Math.round((both.mbit / sumMbit(profile)) * 100)} %`;
      const links = [linkText(profile.a), linkText(profile.b)];
      const title = isSlow ? `${name} \\*` : name;
      const words = [title, ...links, cell(a), cell(b), `**${cell(both)}**`, share, wanted];
      return `| ${[...words, ...measured.map(cell)].join(' | ')} |`;
    }),
  ].join('\n');
}

function variantTable(profiles: readonly Profile[], results: Results): string {
  const rows = profiles.filter(isVaried).flatMap((profile) =>
    VARIANTS.map((variant) => {
      const cells = jobsOfVariant(profile, variant).map((job) => results.get(job));
      if (cells.every((cell) => cell === undefined)) return undefined;
      const texts = cells.map((cell) => (cell === undefined ? '–' : digits(cell.mbit)));
      return `| ${[profile.name, variant.name, ...texts].join(' | ')} |`;
    }),
  );
  const known = rows.filter((row) => row !== undefined);
  if (known.length === 0) return '';
  const head = [
    '| profile | streams | A alone | B alone | both |',
    '| --- | --- | ---: | ---: | ---: |',
  ];
  return [...head, ...known].join('\n');
}

function chart(lines: readonly Line[]): string {
  const isWhole = lines.every(({ a, b }) => a !== undefined && b !== undefined);
  const bars = lines.map(({ profile, a, b, both }) => {
    const alone = Math.max(a?.mbit ?? 0, b?.mbit ?? 0);
    const values = isWhole ? [alone, both?.mbit ?? 0] : [both?.mbit ?? 0];
    // A few links bring three hundred: shares of the sum fit one picture.
    return { label: profile.name, values: values.map((mbit) => (mbit / sumMbit(profile)) * 100) };
  });
  const title = 'One TCP stream: share of what both links carry together';
  return barChart(title, isWhole ? ['the better link alone', 'both'] : ['both'], bars, '%');
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      only: { type: 'string' },
      fresh: { type: 'boolean', default: false },
      runs: { type: 'string', default: String(RUNS) },
      both: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  });
  const reason = lacking(['iperf3', 'mkfifo']);
  if (reason !== false) throw new Error(`the bench ${reason}`);
  const profiles = options.only?.split(',').map(profileNamed) ?? PROFILES;
  const results = new Results(options.fresh);
  const missing = jobsOf(profiles, Number(options.runs), options.both, options.full).filter(
    (job) => results.get(job) === undefined,
  );
  for (const [i, job] of missing.entries()) {
    process.stderr.write(`${i + 1}/${missing.length} ${job.key} ...`);
    try {
      const result = await measure(job);
      results.set(job, result);
      const late = result.latePackets > 0 ? `, ${result.latePackets} packets late` : '';
      process.stderr.write(` ${digits(result.mbit)} Mbit/s${late}\n`);
    } catch (error) {
      // A peer that does not start leaves a hole in the table.
      if (job.program === plainTcp || job.program === vpn) throw error;
      process.stderr.write(` failed: ${(error as Error).message}\n`);
    }
  }
  const lines = linesOf(profiles, results);
  const text = `${[
    `One TCP stream (cubic), Mbit/s. Links: one-way delay ms / jitter ms / loss % / Mbit/s, the same both ways, with a queue of 60 ms (q: another). 10 s after 3 s of start; profiles marked \\*: 20 s after 15 s, in brackets the first 10 s. Each link alone once, both ${options.runs === '1' ? 'once' : `the median of ${options.runs}`}. The sum: 1388 of each 1500 bytes of both rates. \`npm run bench -- bonding\`.`,
    table(lines),
    variantTable(profiles, results),
  ]
    .filter((part) => part !== '')
    .join('\n\n')}\n`;
  process.stdout.write(text);
  if (!options.write) return;
  writeFileSync(TABLE, `# Bonding\n\n![Both links against the better one](bonding.svg)\n\n${text}`);
  writeFileSync(CHART, chart(lines));
}

await main();
process.exit(0);
