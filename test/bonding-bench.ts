/**
 * `npm run bench -- bonding`: what one TCP stream (cubic) gets over the links of the profile table.
 *
 *   node test/bonding-bench.ts [--only PROFILE,…] [--fresh] [--write]
 *
 * For each link of each profile: plain TCP without a tunnel, and `vpn` with that link only; for both
 * links: the peers found in PATH (MLVPN, glorytun), which are told the rates. Each distinct link is measured once; what was measured is kept in build/bonding.json, by the figures of
 * the link and the version of the program, so that a run that was interrupted goes on where it was.
 * --fresh measures all of it again; --write puts the table into doc/bonding.md.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { bondingPeers, plainTcp, vpn, type Program } from './bonding-peers.ts';
import { Bed, lacking } from './netns.ts';
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
/** From when to when a stream is measured, in seconds. */
const QUICK = [3, 13] as const;
const SLOW = [15, 35] as const;
const FIRST = [0, 10] as const;
const SEED = 1;

interface Result {
  readonly mbit: number;
  /** Of the first ten seconds. */
  readonly firstMbit: number;
  /** Packets that the emulator delivered late: many mean that the machine was too busy to measure. */
  readonly latePackets: number;
}

/** Kbit/s in each second as the receiver saw them, from the lines of `iperf3 -s -f k`. */
function readReceiver(text: string): number[] {
  const pattern = /^\[ *\d+\] +[\d.]+-[\d.]+ +sec .* ([\d.]+) Kbits\/sec *$/gm;
  return [...text.matchAll(pattern)].map((match) => Number(match[1]));
}

function meanMbit(kbitPerSecond: readonly number[], [from, to]: readonly [number, number]): number {
  const span = kbitPerSecond.slice(from, to);
  if (span.length < to - from) throw new Error(`the stream ended after ${kbitPerSecond.length} s`);
  return span.reduce((sum, kbit) => sum + kbit, 0) / span.length / 1000;
}

async function measure(
  program: Program,
  figures: readonly LinkFigures[],
  isSlow: boolean,
): Promise<Result> {
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
    const sender = startIperf(client, to, `-t ${span[1]}`);
    await sender.ended((span[1] + 30) * 1000);
    readIperf(sender.output);
    await receiver.ended();
    const kbitPerSecond = readReceiver(receiver.output);
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
}

function jobOf(program: Program, figures: readonly LinkFigures[], isSlow: boolean): Job {
  const links = figures.map(linkText).join(' + ');
  const title = [program.name, program.version].filter((word) => word !== '').join(' ');
  return { key: `${title}: ${links}${isSlow ? ' slow' : ''}`, program, figures, isSlow };
}

/** What a peer gets over both links. */
const jobsOfPeers = ({ a, b, isSlow }: Profile): Job[] =>
  bondingPeers.map((peer) => jobOf(peer, [a, b], isSlow));

/** Plain TCP and the tunnel, over one link of a profile. */
const jobsOfLink = (figures: LinkFigures, isSlow: boolean): readonly [Job, Job] => [
  jobOf(plainTcp, [figures], isSlow),
  jobOf(vpn, [figures], isSlow),
];

function jobsOf(profiles: readonly Profile[]): Job[] {
  const jobs = profiles.flatMap((profile) => [
    ...[profile.a, profile.b].flatMap((figures) => jobsOfLink(figures, profile.isSlow)),
    ...jobsOfPeers(profile),
  ]);
  return [...new Map(jobs.map((job) => [job.key, job])).values()];
}

const digits = (mbit: number): string => mbit.toFixed(mbit < 10 ? 1 : 0);

function table(profiles: readonly Profile[], results: Results): string {
  const cell = (result: Result | undefined, isSlow: boolean): string => {
    if (result === undefined) return '–';
    return isSlow ? `${digits(result.mbit)} (${digits(result.firstMbit)})` : digits(result.mbit);
  };
  const peers = bondingPeers.map(({ name }) => ` ${name} |`).join('');
  return [
    `| profile | link A | link B | TCP A | TCP B | vpn A | vpn B |${peers} sum | both at least |`,
    `| --- | --- | --- | ---: | ---: | ---: | ---: |${peers.replaceAll(/[^|]+/g, ' ---: ')} ---: | ---: |`,
    ...profiles.map((profile) => {
      const { name, a, b, isSlow } = profile;
      const of = (job: Job): Result | undefined => results.get(job);
      const [plainA, vpnA] = jobsOfLink(a, isSlow).map(of);
      const [plainB, vpnB] = jobsOfLink(b, isSlow).map(of);
      const measured = [plainA, plainB, vpnA, vpnB, ...jobsOfPeers(profile).map(of)];
      const rule = ruleText(profile);
      const wanted =
        vpnA === undefined || vpnB === undefined
          ? rule
          : `${digits(atLeastMbit(profile, vpnA.mbit, vpnB.mbit))} (${rule})`;
      const cells = measured.map((result) => cell(result, isSlow));
      const title = isSlow ? `${name} \\*` : name;
      const words = [title, linkText(a), linkText(b), ...cells, digits(sumMbit(profile)), wanted];
      return `| ${words.join(' | ')} |`;
    }),
  ].join('\n');
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      only: { type: 'string' },
      fresh: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  });
  const reason = lacking(['iperf3', 'mkfifo']);
  if (reason !== false) throw new Error(`the bench ${reason}`);
  const profiles = options.only?.split(',').map(profileNamed) ?? PROFILES;
  const results = new Results(options.fresh);
  const missing = jobsOf(profiles).filter((job) => results.get(job) === undefined);
  for (const [i, job] of missing.entries()) {
    process.stderr.write(`${i + 1}/${missing.length} ${job.key} ...`);
    try {
      const result = await measure(job.program, job.figures, job.isSlow);
      results.set(job, result);
      const late = result.latePackets > 0 ? `, ${result.latePackets} packets late` : '';
      process.stderr.write(` ${digits(result.mbit)} Mbit/s${late}\n`);
    } catch (error) {
      // A peer that does not start leaves a hole in the table.
      if (job.program === plainTcp || job.program === vpn) throw error;
      process.stderr.write(` failed: ${(error as Error).message}\n`);
    }
  }
  const text = `${[
    'One TCP stream (cubic), Mbit/s. Links: one-way delay ms / jitter ms / loss % / Mbit/s, the same both ways, with a queue of 60 ms (q: another). 10 s after 3 s of start; profiles marked \\*: 20 s after 15 s, in brackets the first 10 s. Sum: 1388 of each 1500 bytes of both rates. `npm run bench -- bonding`.',
    table(profiles, results),
  ].join('\n\n')}\n`;
  process.stdout.write(text);
  if (options.write) writeFileSync(TABLE, `# Bonding\n\n${text}`);
}

await main();
process.exit(0);
