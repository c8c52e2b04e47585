/**
 * What happens to one of two links of the profile *baseline*, simulated, and what is noticed of it: under
 * the load of one TCP stream, and idle. Beside it run a ping every 10 ms and two UDP streams of 2 Mbit/s,
 * one of them in the realtime class and duplicated.
 *
 *   node test/failover-sim.ts [--only cut,rebind] [--way down] [--seed 3]
 */
import { constants as os } from 'node:os';
import { parseArgs } from 'node:util';
import type { RealtimeRule } from '../src/peering.ts';
import { profileNamed } from './profiles.ts';
import { SimBond, type BondLink } from './simbond.ts';
import { Flows, Ping, Steady, Stream, type Way } from './simflows.ts';

interface Event {
  readonly name: string;
  readonly fail: (link: BondLink) => void;
  readonly repair: (link: BondLink) => void;
}

const cut = { isCut: true };
const healed = { isCut: false };
const EVENTS: readonly Event[] = [
  { name: 'cut', fail: (link) => link.set(cut), repair: (link) => link.set(healed) },
  { name: 'cut-up', fail: ({ up }) => up.set(cut), repair: ({ up }) => up.set(healed) },
  { name: 'cut-down', fail: ({ down }) => down.set(cut), repair: ({ down }) => down.set(healed) },
  {
    name: 'interface',
    fail: (link) => {
      link.errno = os.errno.ENETDOWN;
      link.set(cut);
    },
    repair: (link) => {
      link.errno = 0;
      link.set(healed);
    },
  },
  { name: 'rebind', fail: (link) => link.rebind(50_000), repair: () => {} },
  {
    name: 'loss-20',
    fail: (link) => link.set({ lossRatio: 0.2 }),
    repair: (link) => link.set({ lossRatio: 0 }),
  },
  {
    name: 'mtu-1280',
    fail: (link) => link.set({ mtu: 1280 }),
    repair: (link) => link.set({ mtu: 1500 }),
  },
  {
    name: 'rate-5',
    fail: (link) => link.set({ rateMbit: 5 }),
    repair: (link) => link.set({ rateMbit: 50 }),
  },
];

export interface Noticed {
  /** Payload of the stream: before; from half a second after the failure on; from two seconds after the repair on. */
  readonly beforeMbit: number;
  readonly failedMbit: number;
  readonly repairedMbit: number;
  readonly timeouts: number;
  /** Longest time between two answers to a ping, from the failure until the end. */
  readonly longestGapMs: number;
  readonly pingsLost: number;
  readonly normalLost: number;
  readonly realtimeLost: number;
  readonly damaged: number;
  readonly duplicated: number;
}

const REALTIME: RealtimeRule = { protocol: 'udp', port: 5_060, isDuplicated: true };
const VOICE = { mbit: 2, bytes: 1_000, isExpedited: false };
const NORMAL_PORT = 9_000;
const PING_MS = 10;
/** From the start of the flows on. */
const BEFORE_MS = 2_000;
const FAIL_MS = 5_000;
const SETTLED_MS = 500;
const REPAIR_MS = 9_000;
const REPAIRED_MS = 2_000;
const END_MS = 14_000;
const DRAIN_MS = 2_000;

export async function failover(
  event: Event,
  isLoaded: boolean,
  way: Way,
  seed: number,
): Promise<Noticed> {
  const { a, b } = profileNamed('baseline');
  const realtime = { realtime: [REALTIME] };
  const net = new SimBond({
    figures: [a, b],
    seed,
    isSealed: false,
    client: realtime,
    server: realtime,
  });
  await net.connect();
  const flows = new Flows(net);
  const stream = isLoaded ? new Stream(flows, way, flows.source(way).tunMtu) : undefined;
  const ping = new Ping(flows, way, PING_MS);
  const normal = new Steady(flows, way, { ...VOICE, port: NORMAL_PORT });
  const urgent = new Steady(flows, way, { ...VOICE, port: REALTIME.port });
  const fromMs = net.clock.nowMs;
  const until = async (ms: number): Promise<number> => {
    await net.clock.run(fromMs + ms - net.clock.nowMs);
    return stream?.receivedBytes ?? 0;
  };
  const mbit = (bytes: number, ms: number): number => (bytes * 8) / (ms * 1000);

  const atBefore = await until(BEFORE_MS);
  const atFail = await until(FAIL_MS);
  ping.longestGapMs = 0;
  event.fail(net.links[0]!);
  const atSettled = await until(FAIL_MS + SETTLED_MS);
  const atRepair = await until(REPAIR_MS);
  event.repair(net.links[0]!);
  const atRepaired = await until(REPAIR_MS + REPAIRED_MS);
  const atEnd = await until(END_MS);
  normal.isStopped = urgent.isStopped = true;
  const asked = ping.sent;
  await until(END_MS + DRAIN_MS);
  return {
    beforeMbit: mbit(atFail - atBefore, FAIL_MS - BEFORE_MS),
    failedMbit: mbit(atRepair - atSettled, REPAIR_MS - FAIL_MS - SETTLED_MS),
    repairedMbit: mbit(atEnd - atRepaired, END_MS - REPAIR_MS - REPAIRED_MS),
    timeouts: stream?.sender.timeouts ?? 0,
    longestGapMs: ping.longestGapMs,
    // Of those asked meanwhile some are still on their way.
    pingsLost: Math.max(0, asked - ping.rttMs.length),
    normalLost: normal.sent - normal.received,
    realtimeLost: urgent.sent - urgent.received,
    damaged: flows.damaged,
    duplicated: flows.duplicated,
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      way: { type: 'string', default: 'up' },
      seed: { type: 'string', default: '1' },
    },
  });
  const chosen = values.only?.split(',');
  const way = values.way === 'down' ? 'down' : 'up';
  console.log(
    'event     | load | before failed repaired Mbit/s | timeouts | ping gap ms | pings lost | UDP lost | realtime lost | damaged twice',
  );
  for (const event of EVENTS.filter(({ name }) => chosen?.includes(name) ?? true)) {
    for (const isLoaded of [true, false]) {
      const seen = await failover(event, isLoaded, way, Number(values.seed));
      const rates = [seen.beforeMbit, seen.failedMbit, seen.repairedMbit];
      console.log(
        [
          event.name.padEnd(9),
          isLoaded ? 'TCP ' : 'idle',
          isLoaded ? rates.map((rate) => rate.toFixed(1).padStart(8)).join(' ') : ''.padStart(26),
          `${seen.timeouts}`.padStart(8),
          seen.longestGapMs.toFixed(0).padStart(11),
          `${seen.pingsLost}`.padStart(10),
          `${seen.normalLost}`.padStart(8),
          `${seen.realtimeLost}`.padStart(13),
          `${seen.damaged} ${seen.duplicated}`,
        ].join(' | '),
      );
    }
  }
}

if (import.meta.main) await main();
