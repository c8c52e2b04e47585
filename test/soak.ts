/**
 * `npm run soak -- MINUTES`: a tunnel over two links that lose, corrupt and duplicate and that go away and
 * come back at random, with new keys every ten seconds, under flood pings and checked TCP transfers both
 * ways. What it must show is in `verdict`.
 *
 *   node test/soak.ts MINUTES [SEED]
 */
import { readdirSync } from 'node:fs';
import { bonded, type Bonded } from './bonded.ts';
import { CLIENT_IP, connected, SERVER_IP, type End } from './ends.ts';
import { receiveFile, sendFile } from './helpers.ts';
import { Bed, lacking, pass, type Daemon, type Host } from './netns.ts';
import { Random } from './random.ts';
import { counter } from './traffic.ts';
import type { WanLink } from './wan.ts';

const FIGURES = {
  delayMs: 20,
  rateMbit: 50,
  queueMs: 60,
  lossRatio: 0.02,
  corruptRatio: 0.005,
  duplicateRatio: 0.005,
};
const REKEY_SECONDS = 10;
const TRANSFER_MEGABYTES = 20;
/** Longer than any series of outages and its repair. */
const TRANSFER_WITHIN_MS = 90_000;
const REPORT_MS = 10_000;
/** How long a link is there and away, at least and at most. */
const THERE_MS = [1_000, 8_000] as const;
const AWAY_MS = [300, 4_000] as const;
/** Until then memory is still filled for the first time. */
const WARM_SHARE = 1 / 3;
const MOST_WARM_MS = 60_000;
/** How often, and how long after one another, open files are counted. */
const LOOKS = 20;
const LOOK_MS = 50;
/** What is retransmitted has arrived by then. */
const CALM_MS = 2_000;
/** Of a garbage collector's heap between collections. */
const MOST_GROWTH = { share: 0.15, megabytes: 12 };

interface Outage {
  readonly name: string;
  readonly take: (link: WanLink, client: Host) => Promise<void> | void;
  readonly giveBack: (link: WanLink) => Promise<void> | void;
}

const cutting = (name: string, way: 'both' | 'aToB' | 'bToA'): Outage => ({
  name,
  take: (link) => link.set({ [way]: { isCut: true } }),
  giveBack: (link) => link.set({ [way]: { isCut: false } }),
});

const OUTAGES: readonly Outage[] = [
  cutting('cut', 'both'),
  cutting('cut up', 'aToB'),
  cutting('cut down', 'bToA'),
  {
    name: 'interface down',
    take: ({ device }, client) => void client.run(`ip link set ${device} down`),
    giveBack: (link) => link.raise('a'),
  },
  {
    name: 'interface deleted',
    take: ({ device }, client) => void client.run(`ip link delete ${device}`),
    giveBack: (link) => link.reopen('a'),
  },
  {
    name: 'address removed',
    take: ({ device }, client) => void client.run(`ip address flush dev ${device} scope global`),
    giveBack: (link) => link.raise('a'),
  },
];

/** Memory in MB and open files of one end. */
interface Usage {
  readonly megabytes: number;
  readonly files: number;
}

/** Of some moments the fewest files: while a command runs for it there are more. */
async function usageOf({ daemon }: End): Promise<Usage> {
  let files = Number.POSITIVE_INFINITY;
  for (let i = 0; i < LOOKS; i++) {
    files = Math.min(files, readdirSync(`/proc/${daemon.pid}/fd`).length);
    await pass(LOOK_MS);
  }
  return { megabytes: daemon.residentMb(), files };
}

const usages = (ends: readonly End[]): Promise<readonly Usage[]> => Promise.all(ends.map(usageOf));

export interface Soaked {
  readonly seed: number;
  readonly outages: number;
  readonly rekeys: number;
  /** Of the checked transfers, in the order up and down. */
  readonly transfers: readonly [number, number];
  readonly megabytesPerSecond: number;
  readonly pings: { readonly sent: number; readonly received: number; readonly twice: number };
  /** Inner packets with a wrong checksum, as the kernels of client and server counted them. */
  readonly corrupt: readonly BadChecksums[];
  /** Outer ones: the emulator has done its work. */
  readonly corrupted: number;
  readonly lost: number;
  readonly duplicated: number;
  /** Client and server: before, after the warm-up, and at the end. */
  readonly first: readonly Usage[];
  readonly warm: readonly Usage[];
  readonly last: readonly Usage[];
}

class Soak {
  private readonly hosts: Bonded;
  private readonly random: Random;
  private readonly endMs: number;
  private readonly startMs = performance.now();
  private readonly transfers: [number, number] = [0, 0];
  private outages = 0;
  private readonly away = new Set<string>();
  private readonly tell: (line: string) => void;

  constructor(hosts: Bonded, seconds: number, seed: number, tell: (line: string) => void) {
    this.hosts = hosts;
    this.random = new Random(seed);
    this.endMs = this.startMs + seconds * 1000;
    this.tell = tell;
  }

  async run(seed: number): Promise<Soaked> {
    const { client, server, links } = this.hosts;
    const both = [this.hosts.ends.client, this.hosts.ends.server];
    const first = await usages(both);
    const floods = [
      client.start(['ping', '-n', '-q', '-f', '-s', '1000', SERVER_IP]),
      server.start(['ping', '-n', '-q', '-f', '-s', '100', CLIENT_IP]),
    ];
    const warmMs = Math.min(MOST_WARM_MS, (this.endMs - this.startMs) * WARM_SHARE);
    const warm = pass(warmMs).then(() => usages(both));
    await Promise.all([
      ...links.map((link) => this.disturb(link)),
      this.transfer('up'),
      this.transfer('down'),
      this.report(),
    ]);
    await connected(this.hosts.ends.client);
    await pass(CALM_MS);
    for (const flood of floods) await flood.stop('SIGINT');
    const stats = (await Promise.all(links.map((link) => link.stats()))).flatMap((one) => [
      one.aToB,
      one.bToA,
    ]);
    const total = (what: 'corrupted' | 'lost' | 'duplicated'): number =>
      stats.reduce((sum, way) => sum + way[what], 0);
    const seconds = (performance.now() - this.startMs) / 1000;
    return {
      seed,
      outages: this.outages,
      rekeys: this.rekeys(),
      transfers: this.transfers,
      megabytesPerSecond: ((this.transfers[0] + this.transfers[1]) * TRANSFER_MEGABYTES) / seconds,
      pings: readFloods(floods),
      corrupt: [badChecksums(client), badChecksums(server)],
      corrupted: total('corrupted'),
      lost: total('lost'),
      duplicated: total('duplicated'),
      first,
      warm: await warm,
      last: await usages(both),
    };
  }

  private get isOver(): boolean {
    return performance.now() >= this.endMs;
  }

  /** Lets a time between these pass, but not beyond the end. */
  private async while([least, most]: readonly [number, number]): Promise<void> {
    const ms = least + this.random.next() * (most - least);
    await pass(Math.max(0, Math.min(ms, this.endMs - performance.now())));
  }

  /** Takes a link away and gives it back, until the end. */
  private async disturb(link: WanLink): Promise<void> {
    for (;;) {
      await this.while(THERE_MS);
      if (this.isOver) return;
      const outage = OUTAGES[this.random.below(OUTAGES.length)]!;
      this.away.add(`${link.device} ${outage.name}`);
      await outage.take(link, this.hosts.client);
      this.outages++;
      await this.while(AWAY_MS);
      await outage.giveBack(link);
      this.away.delete(`${link.device} ${outage.name}`);
    }
  }

  /** One transfer after the other, until the end. */
  private async transfer(way: 'up' | 'down'): Promise<void> {
    const { client, server } = this.hosts;
    const [from, to, address] =
      way === 'up' ? [client, server, SERVER_IP] : [server, client, CLIENT_IP];
    for (let port = 10_000; !this.isOver; port = 10_000 + ((port + 1) % 1_000)) {
      const receiver = await receiveFile(to, port);
      const sender = sendFile(from, address, port, TRANSFER_MEGABYTES);
      for (const program of [sender, receiver])
        if ((await program.ended(TRANSFER_WITHIN_MS)) !== 0)
          throw new Error(`a transfer ${way} ended: ${program.output}`);
      if (digestOf(sender) !== digestOf(receiver))
        throw new Error(`a transfer ${way} arrived other than it was sent`);
      this.transfers[way === 'up' ? 0 : 1]++;
    }
  }

  private rekeys(): number {
    return this.hosts.ends.client.daemon.output.match(/new keys/g)?.length ?? 0;
  }

  private async report(): Promise<void> {
    const { ends } = this.hosts;
    while (!this.isOver) {
      await pass(Math.max(0, Math.min(REPORT_MS, this.endMs - performance.now())));
      for (const { host, daemon } of [ends.client, ends.server])
        if (daemon.exit !== undefined) throw new Error(`the ${host.name} ended (${daemon.exit})`);
      const [c, s] = (await usages([ends.client, ends.server])) as [Usage, Usage];
      const [up, down] = this.transfers.map((count) => count * TRANSFER_MEGABYTES);
      this.tell(
        [
          `${Math.round((performance.now() - this.startMs) / 1000)} s`,
          `${up} MB up, ${down} MB down`,
          `${this.rekeys()} rekeys`,
          `${this.outages} outages${this.away.size > 0 ? ` (now: ${[...this.away].join(', ')})` : ''}`,
          `memory ${c.megabytes.toFixed(0)} and ${s.megabytes.toFixed(0)} MB`,
          `files ${c.files} and ${s.files}`,
        ].join('; '),
      );
    }
  }
}

const digestOf = (transfer: Daemon): string => transfer.output.trim().split('\n').at(-1)!;

function readFloods(floods: readonly Daemon[]): Soaked['pings'] {
  let [sent, received, twice] = [0, 0, 0];
  for (const { output } of floods) {
    const counts = /(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?/.exec(
      output,
    );
    if (counts === null) throw new Error(`ping counted nothing: ${output}`);
    sent += Number(counts[1]);
    received += Number(counts[2]);
    twice += Number(counts[3] ?? 0);
  }
  return { sent, received, twice };
}

interface BadChecksums {
  readonly icmp: number;
  readonly tcp: number;
}

/** Of what only the tunnel carries. */
function badChecksums(host: Host): BadChecksums {
  const count = (protocol: string): number => counter(host, protocol, 'InCsumErrors');
  return { icmp: count('Icmp'), tcp: count('Tcp') };
}

/** Everything that is not as it must be; nothing is good. */
export function verdict(soaked: Soaked, seconds: number): string[] {
  const { pings, corrupt, transfers, rekeys, first, warm, last } = soaked;
  const wrong: string[] = [];
  const expect = (isTrue: boolean, what: string): void => {
    if (!isTrue) wrong.push(what);
  };
  expect(
    corrupt.every(({ icmp, tcp }) => icmp + tcp === 0),
    `corrupt packets delivered: ${JSON.stringify(corrupt)}`,
  );
  expect(pings.twice === 0, `${pings.twice} pings answered twice`);
  expect(pings.received > 0, 'no ping answered');
  expect(transfers[0] > 0 && transfers[1] > 0, `${transfers.join(' and ')} transfers`);
  expect(rekeys >= seconds / REKEY_SECONDS / 2, `${rekeys} rekeys in ${seconds} s`);
  expect(
    soaked.corrupted > 0 && soaked.lost > 0 && soaked.duplicated > 0,
    'the links did not disturb',
  );
  for (const [i, name] of ['client', 'server'].entries()) {
    const most = warm[i]!.megabytes * (1 + MOST_GROWTH.share) + MOST_GROWTH.megabytes;
    const [then, now] = [warm[i]!.megabytes.toFixed(1), last[i]!.megabytes.toFixed(1)];
    expect(last[i]!.megabytes <= most, `memory of the ${name} grew from ${then} to ${now} MB`);
    const [before, after] = [first[i]!.files, last[i]!.files];
    expect(after <= before, `the ${name} had ${before} files open, and now ${after}`);
  }
  return wrong.map((what) => `${what} (seed ${soaked.seed})`);
}

/** Throws when a transfer or an end does not live through it. */
export async function soak(
  bed: Bed,
  seconds: number,
  seed: number,
  tell: (line: string) => void,
): Promise<Soaked> {
  const options = ['--rekey-after', String(REKEY_SECONDS), '-v'];
  const hosts = await bonded(bed, { figures: [FIGURES, FIGURES], options, seed });
  // A kernel's "port unreachable" for a link that is gone would be corrupted too, and counted as ours.
  for (const host of [hosts.client, hosts.server])
    host.run('iptables -A OUTPUT -o wan+ -p icmp -j DROP');
  try {
    return await new Soak(hosts, seconds, seed, tell).run(seed);
  } catch (error) {
    throw new Error(`${(error as Error).message} (seed ${seed})`);
  }
}

async function main([minutes = '', seed = String(Date.now() % 1e6)]: string[]): Promise<number> {
  const seconds = Number(minutes) * 60;
  const reason = lacking(['mkfifo']);
  if (!(seconds > 0) || reason !== false) {
    process.stderr.write(`soak: ${reason || 'how long? npm run soak -- MINUTES [SEED]'}\n`);
    return 1;
  }
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  const bed = new Bed();
  try {
    say(`soak: ${minutes} minutes, seed ${seed}`);
    const soaked = await soak(bed, seconds, Number(seed), say);
    say(JSON.stringify(soaked, undefined, 1));
    const wrong = verdict(soaked, seconds);
    for (const line of wrong) say(`soak: ${line}`);
    if (wrong.length > 0) return 1;
    say('soak: both ends alive, nothing corrupt or twice, memory and open files flat');
    return 0;
  } catch (error) {
    process.stderr.write(`soak: ${(error as Error).message}\n${bed.logs()}\n`);
    return 1;
  } finally {
    await bed.close();
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
