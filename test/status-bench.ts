/**
 * `npm run bench -- status`: what being watched and changed costs a tunnel.
 *
 *   node test/status-bench.ts [--only overhead,reload,clients] [--rounds N] [--seconds N]
 *
 * overhead  one TCP stream (cubic) with status, metrics, filters and `vpn top`, and without, in turn
 * reload    a file of 20 links is reloaded: how long the data path stands still, what is lost
 * clients   100 clients of the control socket with 1000 requests each, at either end; memory after it
 *
 * The real executable at both ends, over veth pairs. What a reload takes has the start of `vpn reload` in
 * it. On a machine that others use, "nothing done" says how much of a standstill is theirs. As `poll PORT`
 * it is the monitor that asks once a second, run in a host.
 */
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { makeKey, NODE } from './ends.ts';
import { FileEnd } from './fileend.ts';
import { startMeter } from './helpers.ts';
import { countedBy } from './meter.ts';
import { Bed, lacking, pass, type Daemon, type Host } from './netns.ts';
import { iperf, iperfServer, reaches } from './traffic.ts';
import { pair } from './world.ts';

const LINKS = 20;
/** Of the links that a reload takes out, and of those that it puts in. */
const EXCHANGED = 10;
const RELOADS = 10;
const CLIENTS = 100;
const REQUESTS = 1_000;
/** Between pings, s: how exact a standstill is known. */
const PING_S = 0.001;
/** 2 Mbit/s to each of these, in packets of 1000 bytes: the queue of a tun device holds 0.2 s of all. */
const FLOODS = Array.from({ length: 10 }, (_, i) => `udp:${9000 + i}`);
/** What was sent comes within this. */
const SETTLE_MS = 500;
/** About as long as a reload takes. */
const USUAL_MS = 200;
const POLL_MS = 1_000;
const SERVER_PORT = 5_080;
const HELPER = join(import.meta.dirname, 'controlload.ts');

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: 'string' },
    rounds: { type: 'string', default: '4' },
    seconds: { type: 'string', default: '4' },
  },
});

const say = (text = ''): void => void process.stdout.write(`${text}\n`);
const median = (numbers: readonly number[]): number => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/* Throughput, watched and not */

/** The inner addresses of a tunnel: 10.NET.0.1 is the client's. */
const innerOf = (net: number, last: number): string => `10.${net}.0.${last}`;

function general(mode: 'client' | 'server', key: string, net: number): string {
  const [own, peer] = mode === 'client' ? [1, 2] : [2, 1];
  return [
    '[general]',
    `mode = ${mode}`,
    `key_file = ${key}`,
    `interface_name = vpn${net}`,
    `ip4 = ${innerOf(net, own)}/30`,
    `ip4_gateway = ${innerOf(net, peer)}`,
    '',
  ].join('\n');
}

const WATCHED = 'control_bind_port = 8080\n';
const FILTERS = '[filters]\none = "udp port 5060"\nrealtime = "udp portrange 16384-32767"\n';

/** The ends of a tunnel. */
interface Watched {
  readonly near: FileEnd;
  readonly far: FileEnd;
  readonly net: number;
}

async function overhead(): Promise<void> {
  const bed = new Bed();
  const { client, server } = pair(bed);
  const key = makeKey(bed);
  await iperfServer(server);
  const start = async (net: number, more: string, filters: string): Promise<Watched> => {
    const port = SERVER_PORT + net;
    const far = general('server', key, net) + more + filters + `[one]\nbindport = ${port}\n`;
    const near = general('client', key, net) + more + filters;
    const link = `[one]\nremotehost = 10.1.0.2\nremoteport = ${port}\n`;
    const name = `bench${net}`;
    const ends = {
      far: new FileEnd(bed, server, name, far),
      near: new FileEnd(bed, client, name, near + link),
    };
    await reaches(client, innerOf(net, 2));
    return { ...ends, net };
  };
  const plain = await start(71, '', '');
  const watched = await start(72, WATCHED, FILTERS);

  const samples: Record<'off' | 'on', Sample[]> = { off: [], on: [] };
  for (let round = 1; round <= Number(options.rounds); round++) {
    samples.off.push(await stream(client, plain));
    const watchers = [client, server].map((host) => watch(host));
    const topWords = watched.near.command('top').join(' ');
    const top = client.start(['script', '-qfc', topWords, '/dev/null']);
    samples.on.push(await stream(client, watched));
    await top.stop();
    for (const watcher of watchers) {
      if ((await watcher.stop()) !== 0) throw new Error(`nobody watched: ${watcher.output}`);
    }
    const both = [samples.off.at(-1)!, samples.on.at(-1)!].map(({ gbit }) => gbit.toFixed(2));
    say(`  round ${round}: off ${both[0]}, on ${both[1]} Gbit/s`);
  }
  tellMemory(watched);
  await bed.close();
  const of = (what: keyof Sample): readonly [number, number, string] => {
    const [off, on] = [samples.off, samples.on].map((some) => median(some.map((one) => one[what])));
    return [off!, on!, `${((100 * on!) / off!).toFixed(1)} %`];
  };
  const [off, on, share] = of('gbit');
  say(`  median: off ${off.toFixed(2)}, on ${on.toFixed(2)} Gbit/s: ${share} (wanted: 97 %)`);
  const [cpuOff, cpuOn, cpuShare] = of('cpuPerGigabyte');
  say(
    `  processor time of both ends per gigabyte: off ${cpuOff.toFixed(2)}, on ${cpuOn.toFixed(2)} s: ${cpuShare}`,
  );
}

interface Sample {
  readonly gbit: number;
  /** Of all processes of both ends, in seconds: says what costs when others keep the machine busy. */
  readonly cpuPerGigabyte: number;
}

function tellMemory({ near, far }: Watched): void {
  for (const end of [far, near])
    for (const { title, residentMb } of end.memory())
      say(`  memory of the ${end.host.name}: ${residentMb.toFixed(0)} MB, ${title}`);
}

async function stream(client: Host, { near, far, net }: Watched): Promise<Sample> {
  const used = (): number => near.cpuSeconds() + far.cpuSeconds();
  const before = used();
  const { bitsPerSecond, bytes } = await iperf(client, innerOf(net, 2), `-t ${options.seconds}`);
  return { gbit: bitsPerSecond / 1e9, cpuPerGigabyte: (used() - before) / (bytes / 1e9) };
}

function watch(host: Host): Daemon {
  return host.start([
    NODE,
    '--disable-warning=ExperimentalWarning',
    import.meta.filename,
    'poll',
    '8080',
  ]);
}

/** Asks once a second until SIGTERM; then exit status 0, if everything was answered. */
async function poll(port: string): Promise<void> {
  let answers = 0;
  process.on('SIGTERM', () => process.exit(answers > 0 ? 0 : 1));
  for (;;) {
    for (const path of ['status', 'metrics']) {
      const answer = await fetch(`http://127.0.0.1:${port}/${path}`);
      if (!answer.ok || (await answer.text()) === '') process.exit(1);
    }
    answers++;
    await sleep(POLL_MS);
  }
}

/* Reloads */

/** Pairs of interfaces that the links go by, 10.(100 + i).0.0/24 each. */
function cables(bed: Bed, client: Host, server: Host, count: number): void {
  for (let i = 0; i < count; i++) {
    bed.cable(
      { host: client, device: `v${i}`, addresses: [`10.${100 + i}.0.1/24`] },
      { host: server, device: `v${i}`, addresses: [`10.${100 + i}.0.2/24`] },
    );
  }
}

/** The sections of links `from` to `from + LINKS`; `weight`: of the first. */
function clientLinks(from: number, weight: number): string {
  const numbers = Array.from({ length: LINKS }, (_, i) => from + i);
  const sections = numbers.map((n) =>
    [
      `[link${n}]`,
      `device = v${n}`,
      `remotehost = 10.${100 + n}.0.2`,
      `remoteport = ${SERVER_PORT}`,
    ]
      .concat(n === from ? [`weight = ${weight}`] : [])
      .join('\n'),
  );
  return `${sections.join('\n\n')}\n`;
}

async function allUp(end: FileEnd, count: number): Promise<void> {
  for (let tries = 0; tries < 60; tries++) {
    const { stdout } = await end.ask('status', '--json');
    const { tunnels } = JSON.parse(stdout) as { tunnels: { state: string }[] };
    if (tunnels.filter(({ state }) => state === 'up').length === count) return;
    await pass(250);
  }
  throw new Error(`not ${count} links up:\n${(await end.ask('status')).stdout}`);
}

/** A reply: when it came, in ms since 1970, and after how long. */
interface Reply {
  readonly atMs: number;
  readonly tookMs: number;
}

/** From when to when something was done, in ms since 1970. */
interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** Pings one a millisecond while something is done, at times that it returns. */
async function pinged(host: Host, to: string, act: () => Promise<readonly Span[]>): Promise<void> {
  const pings = host.start(['ping', '-n', '-D', '-i', String(PING_S), to]);
  await pass(500);
  const spans = await act();
  await pings.stop('SIGINT');
  const lines = pings.output.matchAll(/^\[([\d.]+)\].* icmp_seq=(\d+) .*time=([\d.]+) ms$/gm);
  const numbers = new Set<number>();
  const replies: Reply[] = [];
  for (const [, atS, number, ms] of lines) {
    // They count to 2¹⁶, which is more than are sent here.
    numbers.add(Number(number));
    replies.push({ atMs: Number(atS) * 1000, tookMs: Number(ms) });
  }
  // What was on its way when it was stopped is not lost.
  const lost = Math.max(...numbers) - numbers.size;
  const usualMs = median(replies.map(({ tookMs }) => tookMs));
  const delays = spans.map(({ fromMs, toMs }) => {
    const during = replies.filter(({ atMs, tookMs }) => atMs >= fromMs && atMs - tookMs <= toMs);
    return Math.max(...during.map(({ tookMs }) => tookMs)) - usualMs;
  });
  say(`  lost ${lost} of ${replies.length} pings (wanted: 0), round trip ${usualMs.toFixed(2)} ms`);
  const [most, worst] = [median(delays), Math.max(...delays)].map((ms) => ms.toFixed(1));
  say(`  stood still for ${most} ms (median), ${worst} ms (worst) (wanted: 5)`);
}

/** Runs `once` so many times; a little later each than the one before was over. */
async function spansOf(once: () => Promise<void>): Promise<readonly Span[]> {
  const spans: Span[] = [];
  for (let i = 0; i < RELOADS; i++) {
    const fromMs = Date.now();
    await once();
    spans.push({ fromMs, toMs: Date.now() });
    await pass(300);
  }
  const times = spans.map(({ fromMs, toMs }) => toMs - fromMs);
  say(
    `  the whole in ${median(times)} ms (median), ${Math.max(...times)} ms (worst) (wanted: 1000)`,
  );
  return spans;
}

async function reload(): Promise<void> {
  const bed = new Bed();
  const [client, server] = [bed.host('client'), bed.host('server')];
  cables(bed, client, server, LINKS + EXCHANGED);
  const key = makeKey(bed);
  const net = 73;
  const head = general('client', key, net);
  const file = (from: number, weight: number): string => head + clientLinks(from, weight);
  const all = `${general('server', key, net)}[all]\nbindport = ${SERVER_PORT}\n`;
  const far = new FileEnd(bed, server, 'bench', all);
  const end = new FileEnd(bed, client, 'bench', file(0, 1));
  const to = innerOf(net, 2);
  await reaches(client, to);
  await allUp(end, LINKS);

  const kinds = [
    { what: 'nothing done (what the machine alone does)', textOf: undefined },
    { what: 'one line', textOf: (isOdd: boolean) => file(0, isOdd ? 2 : 1) },
    {
      what: `${EXCHANGED} of ${LINKS} links`,
      textOf: (isOdd: boolean) => file(isOdd ? EXCHANGED : 0, 1),
    },
  ];
  for (const { what, textOf } of kinds) {
    let isOdd = false;
    const once = async (): Promise<void> => {
      isOdd = !isOdd;
      if (textOf === undefined) await pass(USUAL_MS);
      else await reloaded(end, textOf(isOdd));
    };
    say(`${what}, ${RELOADS} times under pings, and as often under numbered packets`);
    await pinged(client, to, () => spansOf(once));
    await flooded({ near: end, far, net }, () => spansOf(once));
    if (textOf === undefined) continue;
    if (isOdd) await once();
    await allUp(end, LINKS);
  }
  await bed.close();
}

/** Changes the file, and waits until that holds. */
async function reloaded(end: FileEnd, text: string): Promise<void> {
  end.write(text);
  const { status, stdout } = await end.ask('reload');
  if (status !== 0 || stdout.startsWith('nothing')) throw new Error(`reload: ${stdout}`);
}

/** Numbered packets between hosts while something is done, and how many of them did not come. */
async function flooded({ near, far, net }: Watched, act: () => Promise<unknown>): Promise<void> {
  const device = `/sys/class/net/vpn${net}/statistics/tx_dropped`;
  const refused = (): number => Number(near.host.run('cat', device));
  const before = refused();
  const receiver = await startMeter(far.host, 'receive', ...FLOODS);
  const sender = await startMeter(near.host, 'send', innerOf(net, 2), ...FLOODS);
  await pass(SETTLE_MS);
  await act();
  await sender.stop();
  await pass(SETTLE_MS);
  await receiver.stop();
  const [sent, came] = [sender, receiver].map((meter) =>
    Object.values(countedBy(meter)).reduce((sum, { datagrams }) => sum + datagrams, 0),
  );
  const lost = `lost ${sent! - came!} of ${sent} packets (wanted: 0)`;
  say(`  ${lost}, ${refused() - before} by the queue of tun`);
}

/* Clients of the control socket */

async function clients(): Promise<void> {
  const bed = new Bed();
  const net = 74;
  const { client, server } = pair(bed);
  const key = makeKey(bed);
  const farText = `${general('server', key, net)}${WATCHED}[one]\nbindport = ${SERVER_PORT}\n`;
  const link = `[one]\nremotehost = 10.1.0.2\nremoteport = ${SERVER_PORT}\n`;
  const far = new FileEnd(bed, server, 'bench', farText);
  const near = new FileEnd(bed, client, 'bench', general('client', key, net) + WATCHED + link);
  await reaches(client, innerOf(net, 2));
  const ends = { server: far, client: near };
  for (const [name, end] of Object.entries(ends)) {
    const startMs = performance.now();
    await flooded({ near, far, net }, async () => {
      const words = [HELPER, 'clients', end.socket, String(CLIENTS), String(REQUESTS)];
      const load = client.start([NODE, '--disable-warning=ExperimentalWarning', ...words]);
      await load.ended(100_000);
      if (load.output.trim() !== `answers ${CLIENTS * REQUESTS}`) throw new Error(load.output);
    });
    say(
      `  ${CLIENTS} × ${REQUESTS} answers of the ${name} in ${seconds(performance.now() - startMs)}`,
    );
  }
  tellMemory({ near, far, net });
  await bed.close();
}

const PARTS = { overhead, reload, clients };

async function main(): Promise<void> {
  const reason = lacking(['iperf3', 'tcpdump', 'script']);
  if (reason !== false) throw new Error(`the bench ${reason}`);
  const [cpu] = cpus();
  const load = loadavg()[0]!.toFixed(2);
  say(
    `${cpu?.model ?? 'unknown CPU'}, ${cpus().length} cores, Linux ${release()}, load ${load}, ${new Date().toISOString().slice(0, 10)}.`,
  );
  const only = options.only?.split(',');
  for (const [name, part] of Object.entries(PARTS)) {
    if (only !== undefined && !only.includes(name)) continue;
    say(`\n${name}`);
    await part();
  }
}

if (positionals[0] === 'poll') await poll(positionals[1]!);
else await main();
process.exit(0);
