/**
 * What happens to one of two links of the profile *baseline*, and what is noticed of it: under the load of
 * one TCP stream, and idle. Beside it run a ping every 10 ms and, both ways, two UDP streams of 2 Mbit/s,
 * one of them in the realtime class and duplicated. test/failover-sim.ts does the same under a virtual clock.
 *
 *   node test/failover.ts [--only cut,rebind] [--way down] [--idle | --load]
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { bonded, type Bonded } from './bonded.ts';
import { CLIENT_IP, SERVER_IP } from './ends.ts';
import { startMeter } from './helpers.ts';
import { countedBy, tenthNow, type Counted, type Meter } from './meter.ts';
import { Bed, pass, type Daemon, type Host } from './netns.ts';
import { profileNamed } from './profiles.ts';
import { counter } from './traffic.ts';
import type { WanLink, WanStats } from './wan.ts';

export interface Event {
  readonly name: string;
  readonly title: string;
  /** Done to the first link. */
  readonly fail: (link: WanLink, hosts: Bonded) => Promise<void> | void;
  readonly repair: (link: WanLink, hosts: Bonded) => Promise<void> | void;
  /** Which way the link still carries bulk meanwhile. */
  readonly carries?: Way | 'both';
}

const cut = { isCut: true };
const healed = { isCut: false };
const raise = (link: WanLink): void => link.raise('a');

export const EVENTS: readonly Event[] = [
  {
    name: 'cut',
    title: 'a link is cut both ways',
    fail: (link) => link.set({ both: cut }),
    repair: (link) => link.set({ both: healed }),
  },
  {
    name: 'cut-up',
    title: 'a link is cut on the way up',
    fail: (link) => link.set({ aToB: cut }),
    repair: (link) => link.set({ aToB: healed }),
    carries: 'down',
  },
  {
    name: 'cut-down',
    title: 'a link is cut on the way down',
    fail: (link) => link.set({ bToA: cut }),
    repair: (link) => link.set({ bToA: healed }),
    carries: 'up',
  },
  {
    name: 'interface-down',
    title: 'an interface goes down',
    fail: ({ device }, { client }) => void client.run(`ip link set ${device} down`),
    repair: raise,
  },
  {
    name: 'interface-deleted',
    title: 'an interface is deleted',
    fail: ({ device }, { client }) => void client.run(`ip link delete ${device}`),
    repair: (link) => link.reopen('a'),
  },
  {
    name: 'address-removed',
    title: 'an interface loses its address',
    fail: ({ device }, { client }) =>
      void client.run(`ip address flush dev ${device} scope global`),
    repair: raise,
  },
  {
    name: 'rebind',
    title: 'a NAT forgets its mapping, twice',
    fail: (link, hosts) => rebind(link, hosts, 40_001),
    repair: (link, hosts) => rebind(link, hosts, 40_002),
    carries: 'both',
  },
  {
    name: 'loss-20',
    title: 'a link loses 20 %',
    fail: (link) => link.set({ both: { lossRatio: 0.2 } }),
    repair: (link) => link.set({ both: { lossRatio: 0 } }),
    carries: 'both',
  },
  {
    name: 'mtu-1280',
    title: 'the MTU of a link falls to 1280 without a word',
    fail: (link) => link.set({ both: { mtu: 1280 } }),
    repair: (link) => link.set({ both: { mtu: 1500 } }),
    carries: 'both',
  },
];

/**
 * The client's datagrams come from another port, and what is sent to the old one is dropped: a NAT that
 * forgot. Without connection tracking, so that it holds at once; and where packets come in: those that go
 * out are runs still, whose checksums nft would spoil.
 */
function rebind({ device }: WanLink, { client, server }: Bonded, port: number): void {
  const own = portOn(client, device);
  for (const [host, rules] of [
    [server, [`udp sport ${own} udp sport set ${port}`]],
    [
      client,
      [`udp dport ${port} udp dport set ${own} accept`, `udp dport { ${own}, 40001, 40002 } drop`],
    ],
  ] as const) {
    host.try(['nft delete table ip nat_of_link']);
    host.nft(`table ip nat_of_link {
  chain comes_in {
    type filter hook prerouting priority -310
    ${rules.map((rule) => `iifname "${device}" ${rule}`).join('\n    ')}
  }
}`);
  }
}

/** The port of the socket that is bound to `device`. */
function portOn(client: Host, device: string): number {
  const found = new RegExp(`%${device}:(\\d+)`).exec(client.run('ss -Huan'));
  if (found === null) throw new Error(`no socket on ${device}`);
  return Number(found[1]);
}

export interface Noticed {
  /** TCP payload, Mbit/s: before; from half a second after the failure on; from two seconds after the repair on. */
  readonly beforeMbit: number;
  readonly failedMbit: number;
  readonly repairedMbit: number;
  /** From the failure until the stream runs as fast as one link takes, for half a second at least. */
  readonly settledMs: number;
  /** Of what its rate gives, what the first link carried: half a second after the failure and later; from two seconds after the repair on. */
  readonly used: number;
  readonly usedAgain: number;
  /** Why the TCP connection ended; '' if it did not. */
  readonly tcpEnded: string;
  /** Longest time without an answer to a ping: less that in which ping itself stood still, and by the clock. */
  readonly gapMs: number;
  readonly clockGapMs: number;
  readonly pingsLost: number;
  readonly pingsTwice: number;
  /** Of the two UDP streams, up and down. */
  readonly normalLost: readonly [up: number, down: number];
  readonly realtimeLost: readonly [up: number, down: number];
  readonly twice: number;
  /** Datagrams that the kernel dropped since a meter did not read, and packets since vpn did not. */
  readonly unread: number;
  readonly untaken: number;
  /** Of the processors' time, what was left: without any, nothing that was timed means anything. */
  readonly idle: number;
}

export type Way = 'up' | 'down';

export const REALTIME_PORT = 5060;
const NORMAL_PORT = 9000;
const STREAM_PORT = 9001;
const [NORMAL, REALTIME, STREAM] = [
  `udp:${NORMAL_PORT}`,
  `udp:${REALTIME_PORT}`,
  `tcp:${STREAM_PORT}`,
];
const PING_MS = 10;
/** Without answers ping(8) asks every 16 ms; if it did not for longer, it was not given the processor. */
const LATE_PING_MS = 25;
const BEFORE_MS = { load: 2_500, idle: 1_000 };
const FAILED_MS = { load: 2_500, idle: 1_500 };
const SETTLED_MS = 500;
const REPAIRED_MS = 2_000;
const AFTER_MS = 1_000;
/** What is under way when the senders end has arrived by then. */
const DRAIN_MS = 500;
const SETTLED_TENTHS = 5;
/** One link of *baseline*: its payload at 1388 of 1500 bytes, less both UDP streams with their headers. */
export const SURVIVOR_MBIT = (50 * 1388) / 1500 - 2 * 2.2;
const FULL_SHARE = 0.85;

export async function failover(
  bed: Bed,
  event: Event,
  isLoaded: boolean,
  way: Way = 'up',
): Promise<Noticed> {
  const { a, b } = profileNamed('baseline');
  const realtime = ['--realtime', `udp:${REALTIME_PORT},duplicate`];
  const hosts = await bonded(bed, { figures: [a, b], options: realtime });
  const [client, server] = [hosts.client, hosts.server];
  const receivers = await Promise.all(
    [server, client].map((host) => startMeter(host, 'receive', NORMAL, REALTIME, STREAM)),
  );
  const ping = client.start(['ping', '-n', '-D', '-i', `${PING_MS / 1000}`, SERVER_IP]);
  const senders = await Promise.all([
    startMeter(client, 'send', SERVER_IP, NORMAL, REALTIME),
    startMeter(server, 'send', CLIENT_IP, NORMAL, REALTIME),
  ]);
  const isUp = way === 'up';
  const stream = isLoaded
    ? await startMeter(isUp ? client : server, 'send', isUp ? SERVER_IP : CLIENT_IP, STREAM)
    : undefined;
  const kind = isLoaded ? 'load' : 'idle';
  const link = hosts.links[0]!;
  const processors = processorTimes();
  await pass(BEFORE_MS[kind]);
  const [failedAtMs, failed] = [Date.now(), tenthNow()];
  await event.fail(link, hosts);
  await pass(SETTLED_MS);
  const settled = await link.stats();
  await pass(FAILED_MS[kind] - SETTLED_MS);
  const repairing = await link.stats();
  const repaired = tenthNow();
  await event.repair(link, hosts);
  await pass(REPAIRED_MS);
  const before = await link.stats();
  await pass(AFTER_MS);
  const after = await link.stats();
  const ended = tenthNow();
  const idle = idleShare(processors, processorTimes());
  await ping.stop('SIGINT');
  const sent = await Promise.all(senders.map(readMeter));
  const streamSent = stream === undefined ? undefined : await readMeter(stream);
  await pass(DRAIN_MS);
  const received = await Promise.all(receivers.map(readMeter));

  const lost = (port: string): readonly [number, number] => [
    sent[0]![port]!.datagrams - received[0]![port]!.datagrams,
    sent[1]![port]!.datagrams - received[1]![port]!.datagrams,
  ];
  const arrived = received[isUp ? 0 : 1]![STREAM]!;
  const mbit = (from: number, to: number): number => meanMbit(arrived, from, to);
  const share = (from: WanStats, to: WanStats): number => {
    const way = isUp ? 'aToB' : 'bToA';
    const bytes = to[way].deliveredBytes - from[way].deliveredBytes;
    return (bytes * 8) / ((to.nowMs - from.nowMs) * 1000 * a.rateMbit);
  };
  return {
    beforeMbit: mbit(failed - 10, failed),
    failedMbit: mbit(failed + 5, repaired),
    repairedMbit: mbit(repaired + 20, ended),
    settledMs: settledMs(arrived, failed, ended),
    used: share(settled, repairing),
    usedAgain: share(before, after),
    tcpEnded: streamSent?.[STREAM]!.ended ?? '',
    ...readPings(ping.output, failedAtMs),
    normalLost: lost(NORMAL),
    realtimeLost: lost(REALTIME),
    idle,
    unread: unread([client, server]),
    untaken: [client, server].reduce((sum, host) => sum + dropped(host), 0),
    twice: received.reduce((sum, one) => sum + one[NORMAL]!.twice + one[REALTIME]!.twice, 0),
  };
}

async function readMeter(meter: Daemon): Promise<Meter> {
  await meter.stop('SIGTERM');
  return countedBy(meter);
}

/** Datagrams; the tunnel's own sockets are among them. */
const unread = (hosts: readonly Host[]): number =>
  hosts.reduce((sum, host) => sum + counter(host, 'Udp', 'RcvbufErrors'), 0);

const dropped = (host: Host): number =>
  Number(host.run('cat /sys/class/net/vpn0/statistics/tx_dropped'));

interface ProcessorTimes {
  readonly idle: number;
  readonly all: number;
}

function processorTimes(): ProcessorTimes {
  let [idle, all] = [0, 0];
  for (const { times } of cpus()) {
    idle += times.idle;
    all += Object.values(times).reduce((sum, ms) => sum + ms, 0);
  }
  return { idle, all };
}

const idleShare = (from: ProcessorTimes, to: ProcessorTimes): number =>
  (to.idle - from.idle) / Math.max(1, to.all - from.all);

/** Between two tenths of a second, the second left out. */
function meanMbit({ bytes }: Counted, from: number, to: number): number {
  let sum = 0;
  for (let tenth = from; tenth < to; tenth++) sum += bytes[tenth] ?? 0;
  return (sum * 8) / ((to - from) * 1e5);
}

function settledMs(arrived: Counted, failed: number, ended: number): number {
  for (let from = failed; from + SETTLED_TENTHS <= ended; from++) {
    const mbit = meanMbit(arrived, from, from + SETTLED_TENTHS);
    const first = meanMbit(arrived, from, from + 1);
    if (Math.min(mbit, first) >= FULL_SHARE * SURVIVOR_MBIT) return (from - failed) * 100;
  }
  return Number.POSITIVE_INFINITY;
}

/** What `ping -D` printed: who was answered when, from `fromMs` on. */
function readPings(
  text: string,
  fromMs: number,
): Pick<Noticed, 'gapMs' | 'clockGapMs' | 'pingsLost' | 'pingsTwice'> {
  const pattern = /^\[([\d.]+)\] \d+ bytes .* icmp_seq=(\d+) .* time=([\d.]+) ms( \(DUP!\))?/gm;
  const sentMs = new Map<number, number>();
  const answersMs: number[] = [];
  let pingsTwice = 0;
  for (const [, at, number, rtt, twice] of text.matchAll(pattern)) {
    if (twice !== undefined) pingsTwice++;
    else sentMs.set(Number(number), Number(at) * 1000 - Number(rtt));
    answersMs.push(Number(at) * 1000);
  }
  const known = [...sentMs.keys()].sort((x, y) => x - y);
  let pingsLost = 0;
  // Those without an answer were sent at equal distances between their neighbours.
  for (const [i, next] of known.entries()) {
    const last = known[i - 1] ?? next;
    const [lastMs, nextMs] = [sentMs.get(last)!, sentMs.get(next)!];
    for (let number = last + 1; number < next; number++) {
      sentMs.set(number, lastMs + ((nextMs - lastMs) * (number - last)) / (next - last));
      pingsLost++;
    }
  }
  const asked = [...sentMs.values()].sort((x, y) => x - y);
  answersMs.sort((x, y) => x - y);
  let [gapMs, clockGapMs] = [0, 0];
  for (const [i, atMs] of answersMs.entries()) {
    const lastMs = answersMs[i - 1] ?? atMs;
    if (atMs < fromMs) continue;
    const meanwhile = [lastMs, ...asked.filter((ms) => ms > lastMs && ms < atMs), atMs];
    const stalledMs = meanwhile
      .map((ms, j) => Math.max(0, ms - (meanwhile[j - 1] ?? ms) - LATE_PING_MS))
      .reduce((sum, ms) => sum + ms, 0);
    clockGapMs = Math.max(clockGapMs, atMs - lastMs);
    gapMs = Math.max(gapMs, atMs - lastMs - stalledMs);
  }
  return { gapMs, clockGapMs, pingsLost, pingsTwice };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      way: { type: 'string', default: 'up' },
      idle: { type: 'boolean', default: false },
      load: { type: 'boolean', default: false },
    },
  });
  const chosen = values.only?.split(',');
  const way = values.way === 'down' ? 'down' : 'up';
  const isEither = values.idle === values.load;
  console.log(
    '| event | load | before | failed | repaired | settled ms | used, again | TCP | ping gap ms (clock) | pings lost | UDP lost | realtime lost | twice | unread, untaken | idle |',
  );
  for (const event of EVENTS.filter(({ name }) => chosen?.includes(name) ?? true)) {
    for (const isLoaded of [true, false]) {
      if (!isEither && isLoaded !== values.load) continue;
      const bed = new Bed();
      try {
        const seen = await failover(bed, event, isLoaded, way);
        const load = [seen.beforeMbit, seen.failedMbit, seen.repairedMbit].map((x) => x.toFixed(1));
        const cells = [
          event.name,
          isLoaded ? `TCP ${way}` : 'idle',
          ...(isLoaded ? [...load, seen.settledMs] : ['', '', '', '']),
          [seen.used, seen.usedAgain].map((share) => `${(100 * share).toFixed(0)} %`).join(', '),
          isLoaded ? seen.tcpEnded || 'lives' : '',
          `${seen.gapMs.toFixed(0)} (${seen.clockGapMs.toFixed(0)})`,
          seen.pingsLost,
          seen.normalLost.join(' + '),
          seen.realtimeLost.join(' + '),
          seen.twice + seen.pingsTwice,
          `${seen.unread}, ${seen.untaken}`,
          `${(100 * seen.idle).toFixed(0)} %`,
        ];
        console.log(`| ${cells.join(' | ')} |`);
      } catch (error) {
        console.log(`${event.name}: ${(error as Error).message}\n${bed.logs()}`);
      } finally {
        await bed.close();
      }
    }
  }
}

if (import.meta.main) {
  await main();
  process.exit(0);
}
