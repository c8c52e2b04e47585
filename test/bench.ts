/**
 * `npm run bench`: vpn beside wireguard-go and openvpn, on one cable, in one run.
 *
 *   node test/bench.ts [--rounds N] [--seconds N] [--only NAME,…] [--no-profile] [--write]
 *
 * Every round measures every contestant in turn (A B C A B C …); the table has the medians.
 * --write puts the table into doc/bench.md and the chart into doc/bench.svg.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { barChart } from './chart.ts';
import { Bed, lacking, pass } from './netns.ts';
import { bareCable, openvpn, vpn, wireguardGo, type Contestant } from './peers.ts';
import { profile } from './profile.ts';
import { iperf, iperfServer, ping, readIperf, startIperf } from './traffic.ts';
import { pair, type Pair } from './world.ts';

const IDLE_SECONDS = 10;
const SMALL_BYTES = 64;

/** What one round gave. Rates in bits or packets per second, times in ms, memory in MB. */
interface Sample {
  up: number;
  down: number;
  packetsUp: number;
  packetsDown: number;
  pingIdle: number;
  pingLoaded: number;
  clientMb: number;
  serverMb: number;
}

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '4' },
    only: { type: 'string' },
    'no-profile': { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
});

async function measure({ client }: Pair, contestant: Contestant): Promise<Sample> {
  const seconds = Number(options.seconds);
  const to = contestant.serverIp;
  const udp = `-u -b 0 -l ${SMALL_BYTES} -t ${seconds} -w 1M`;
  const delivered = async (way: string): Promise<number> => {
    const { packets, lost } = await iperf(client, to, udp + way);
    return (packets - lost) / seconds;
  };

  const pingIdle = ping(client, to, '-q -c 300 -i 0.01').averageMs;
  const up = (await iperf(client, to, `-O 1 -t ${seconds}`)).bitsPerSecond;
  const clientMb = contestant.client?.residentMb() ?? 0;
  const down = (await iperf(client, to, `-O 1 -t ${seconds} -R`)).bitsPerSecond;
  const serverMb = contestant.server?.residentMb() ?? 0;

  const load = startIperf(client, to, `-t ${seconds + 1}`);
  await pass(1000);
  const { stdout } = await client.finish(
    `ping -n -q -c ${seconds * 20 - 10} -i 0.05 ${to}`.split(' '),
  );
  const pingLoaded = Number(/= [\d.]+\/([\d.]+)\//.exec(stdout)?.[1]);
  await load.ended();
  readIperf(load.output);

  const packetsUp = await delivered('');
  const packetsDown = await delivered(' -R');
  return { up, down, packetsUp, packetsDown, pingIdle, pingLoaded, clientMb, serverMb };
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.filter((n) => !Number.isNaN(n)).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function medians(samples: readonly Sample[]): Sample {
  const of = (key: keyof Sample): number => median(samples.map((sample) => sample[key]));
  return {
    up: of('up'),
    down: of('down'),
    packetsUp: of('packetsUp'),
    packetsDown: of('packetsDown'),
    pingIdle: of('pingIdle'),
    pingLoaded: of('pingLoaded'),
    clientMb: Math.max(...samples.map((sample) => sample.clientMb)),
    serverMb: Math.max(...samples.map((sample) => sample.serverMb)),
  };
}

interface Row {
  readonly contestant: Contestant;
  readonly result: Sample;
  readonly samples: readonly Sample[];
  /** Percent of one core at rest, client and server; undefined for the bare cable. */
  readonly idlePercent: readonly [number, number] | undefined;
}

const gbit = (bits: number): string => (bits / 1e9).toFixed(2);
const thousands = (packets: number): string => (packets / 1e3).toFixed(0);

function table(rows: readonly Row[]): string {
  const reference = rows.find(({ contestant }) => contestant.name === 'wireguard-go')?.result;
  const times = (mine: number, theirs: number | undefined): string =>
    theirs === undefined ? '' : ` (${(mine / theirs).toFixed(2)} ×)`;
  return [
    '| program | version | TCP up | TCP down | UDP 64 B up | UDP 64 B down | ping idle | ping under load | memory client / server | CPU idle client / server |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...rows.map(({ contestant, result, idlePercent }) =>
      [
        '',
        contestant.name,
        contestant.version,
        `${gbit(result.up)} Gbit/s${times(result.up, reference?.up)}`,
        `${gbit(result.down)} Gbit/s${times(result.down, reference?.down)}`,
        `${thousands(result.packetsUp)} kpps${times(result.packetsUp, reference?.packetsUp)}`,
        `${thousands(result.packetsDown)} kpps${times(result.packetsDown, reference?.packetsDown)}`,
        `${result.pingIdle.toFixed(3)} ms`,
        `${result.pingLoaded.toFixed(2)} ms`,
        result.clientMb === 0
          ? ''
          : `${result.clientMb.toFixed(0)} / ${result.serverMb.toFixed(0)} MB`,
        idlePercent === undefined
          ? ''
          : `${idlePercent[0].toFixed(1)} / ${idlePercent[1].toFixed(1)} %`,
        '',
      ]
        .join(' | ')
        .trim(),
    ),
  ].join('\n');
}

/** Percent of a core that each end of each contestant takes while nothing goes through. */
async function idleShares(
  contestants: readonly Contestant[],
): Promise<([number, number] | undefined)[]> {
  const used = (): (readonly [number, number] | undefined)[] =>
    contestants.map(({ client, server }) =>
      client && server ? ([client.cpuSeconds(), server.cpuSeconds()] as const) : undefined,
    );
  const before = used();
  await pass(IDLE_SECONDS * 1000);
  return used().map((after, i) =>
    after === undefined
      ? undefined
      : [
          ((after[0] - before[i]![0]) / IDLE_SECONDS) * 100,
          ((after[1] - before[i]![1]) / IDLE_SECONDS) * 100,
        ],
  );
}

function memoryOverTime(rows: readonly Row[]): string {
  return rows
    .filter(({ contestant }) => contestant.client !== undefined)
    .map(({ contestant, samples }) => {
      const of = (key: 'clientMb' | 'serverMb'): string =>
        samples.map((sample) => sample[key].toFixed(0)).join(', ');
      return `- ${contestant.name}: client ${of('clientMb')}; server ${of('serverMb')}`;
    })
    .join('\n');
}

async function main(): Promise<void> {
  const reason = lacking(['iperf3']);
  if (reason !== false) throw new Error(`the bench ${reason}`);
  const bed = new Bed();
  const hosts = pair(bed);
  await iperfServer(hosts.server);

  const contestants: Contestant[] = [];
  const entries = {
    cable: bareCable,
    vpn: vpn(0, []),
    'vpn-plain': vpn(1, ['--no-offload']),
    'vpn-clear': vpn(2, ['--cleartext-data']),
    'wireguard-go': wireguardGo,
    openvpn,
  };
  const only = options.only?.split(',');
  for (const [name, entry] of Object.entries(entries)) {
    if (only !== undefined && !only.includes(name)) continue;
    const contestant = await entry(bed, hosts);
    if (typeof contestant === 'string') console.error(`skipped: ${name}: ${contestant}`);
    else contestants.push(contestant);
  }

  const idle = await idleShares(contestants);
  const samples: Sample[][] = contestants.map(() => []);
  for (let round = 1; round <= Number(options.rounds); round++) {
    for (const [i, contestant] of contestants.entries()) {
      const sample = await measure(hosts, contestant);
      samples[i]!.push(sample);
      console.error(
        `round ${round}: ${contestant.name}: up ${gbit(sample.up)}, down ${gbit(sample.down)} Gbit/s`,
      );
    }
  }
  await bed.close();

  const rows = contestants.map((contestant, i) => ({
    contestant,
    result: medians(samples[i]!),
    samples: samples[i]!,
    idlePercent: idle[i],
  }));
  const profiled = options['no-profile'] ? undefined : await profile();
  const text = report(rows, profiled);
  process.stdout.write(text);
  if (options.write) write(text, rows);
}

function report(rows: readonly Row[], profiled: string | undefined): string {
  const [cpu] = cpus();
  return `${[
    `${cpu?.model ?? 'unknown CPU'}, ${cpus().length} cores shared by everything, Linux ${release()}, ${new Date().toISOString().slice(0, 10)}.`,
    `One veth pair between two network namespaces, one TCP stream (cubic), tunnel MTU 1420, ${options.rounds} rounds in turn, medians; in brackets: compared with wireguard-go. \`npm run bench\`.`,
    table(rows),
    'Resident memory after each round, MB:',
    memoryOverTime(rows),
    ...(profiled === undefined ? [] : [profiled]),
  ].join('\n\n')}\n`;
}

function write(text: string, rows: readonly Row[]): void {
  const directory = resolve(import.meta.dirname, '../doc');
  mkdirSync(directory, { recursive: true });
  writeFileSync(resolve(directory, 'bench.md'), `# Measurements\n\n${text}`);
  const bars = rows
    .filter(({ contestant }) => contestant.client !== undefined)
    .map(({ contestant, result }) => ({
      label: contestant.name,
      values: [result.up / 1e9, result.down / 1e9],
    }));
  const title = 'One TCP stream through the tunnel';
  writeFileSync(
    resolve(directory, 'bench.svg'),
    barChart(title, ['client → server', 'server → client'], bars, 'Gbit/s'),
  );
}

await main();
process.exit(0);
