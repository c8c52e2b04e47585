/** One measurement in the simulated network: TCP streams over some links, with a ping beside them. */
import type { TunnelConfig } from '../src/peering.ts';
import type { Counters } from '../src/vpn.ts';
import type { LinkFigures } from './profiles.ts';
import { SimBond, type BondLink } from './simbond.ts';
import { Flows, Ping, Stream, type Way } from './simflows.ts';

export interface Run {
  readonly links: readonly LinkFigures[];
  readonly streams: number;
  readonly way: Way;
  /** Measured from this time on, counted from the start of the streams, and for how long. */
  readonly startMs: number;
  readonly measureMs: number;
  readonly seed: number;
  /** See `BondOptions`; here not, unless asked for. */
  readonly isSealed?: boolean;
  /** What is different from the plain configuration. */
  readonly client?: Partial<TunnelConfig> | undefined;
  readonly server?: Partial<TunnelConfig> | undefined;
  /** Called when the streams start, to make further flows and to schedule what is to happen to the links. */
  readonly on?: (net: SimBond, flows: Flows) => void;
  /** Gets each sample at once. */
  readonly onSample?: (sample: Sample, net: SimBond) => void;
}

export interface WayFigures {
  readonly entered: number;
  readonly overflowed: number;
  readonly lost: number;
  readonly deliveredBytes: number;
}

export interface LinkStats {
  readonly up: WayFigures;
  readonly down: WayFigures;
}

/** Every 100 ms. */
export interface Sample {
  /** Since the start of the streams. */
  readonly atMs: number;
  /** Payload of all streams. */
  readonly mbit: number;
  /** What left each link on the way of the streams, and what waits in its queue. */
  readonly linkMbit: readonly number[];
  readonly queueMs: readonly number[];
  /** Of each stream. */
  readonly windows: readonly number[];
  readonly srttMs: readonly number[];
  readonly retransmissions: number;
}

export interface Result {
  /** Payload of all streams in the measured time, and in the first ten seconds of all. */
  readonly mbit: number;
  readonly firstTenMbit: number;
  readonly perStream: readonly number[];
  readonly retransmissions: number;
  readonly timeouts: number;
  readonly mtu: number;
  /** When the tunnel was up and the streams began. */
  readonly connectedAfterMs: number;
  readonly tunDrops: number;
  /** Of packets of any flow: nothing of the first two may happen. */
  readonly damaged: number;
  readonly duplicated: number;
  readonly overtaken: number;
  readonly linkStats: readonly LinkStats[];
  readonly counters: { readonly client: Counters; readonly server: Counters };
  readonly ping: {
    readonly sent: number;
    readonly answered: number;
    readonly medianMs: number;
    readonly highMs: number;
    readonly mostMs: number;
    readonly longestGapMs: number;
  };
  readonly samples: readonly Sample[];
}

const SAMPLE_MS = 100;
const PING_MS = 100;
const FIRST_MS = 10_000;

export async function measure(run: Run): Promise<Result> {
  const net = new SimBond({
    figures: run.links,
    seed: run.seed,
    isSealed: run.isSealed ?? false,
    client: run.client,
    server: run.server,
  });
  const madeMs = net.clock.nowMs;
  await net.connect();
  const { clock } = net;
  const fromMs = clock.nowMs;
  const flows = new Flows(net);
  const { tunMtu: mtu } = flows.source(run.way);
  const streams = Array.from({ length: run.streams }, () => new Stream(flows, run.way, mtu));
  const ping = new Ping(flows, run.way, PING_MS);
  run.on?.(net, flows);

  const samples: Sample[] = [];
  const sampler = new Sampler(net, run.way, streams);
  const received: number[][] = [bytesOf(streams)];
  const endMs = Math.max(run.startMs + run.measureMs, FIRST_MS);
  for (let atMs = SAMPLE_MS; atMs <= endMs; atMs += SAMPLE_MS) {
    await clock.run(SAMPLE_MS);
    const sample = sampler.take(atMs);
    samples.push(sample);
    received.push(bytesOf(streams));
    run.onSample?.(sample, net);
  }
  const mbitBetween = (stream: number, startMs: number, stopMs: number): number => {
    const at = (ms: number): number => received[Math.round(ms / SAMPLE_MS)]![stream]!;
    return ((at(stopMs) - at(startMs)) * 8) / ((stopMs - startMs) * 1000);
  };
  const of = (startMs: number, stopMs: number): number[] =>
    streams.map((_stream, i) => mbitBetween(i, startMs, stopMs));
  const perStream = of(run.startMs, run.startMs + run.measureMs);
  return {
    mbit: sum(perStream),
    firstTenMbit: sum(of(0, FIRST_MS)),
    perStream,
    retransmissions: sum(streams.map(({ sender }) => sender.retransmissions)),
    timeouts: sum(streams.map(({ sender }) => sender.timeouts)),
    mtu,
    connectedAfterMs: fromMs - madeMs,
    tunDrops: net.client.tunDrops + net.server.tunDrops,
    damaged: flows.damaged,
    duplicated: flows.duplicated,
    overtaken: flows.overtaken,
    linkStats: net.links.map(({ up, down }) => ({ up: figuresOf(up), down: figuresOf(down) })),
    counters: { client: net.client.tunnel!.counters, server: net.server.tunnel!.counters },
    ping: pingFigures(ping),
    samples,
  };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

const bytesOf = (streams: readonly Stream[]): number[] =>
  streams.map(({ receivedBytes }) => receivedBytes);

const figuresOf = (way: BondLink[Way]): WayFigures => ({
  entered: way.entered,
  overflowed: way.overflowed,
  lost: way.lost,
  deliveredBytes: way.deliveredBytes,
});

function pingFigures(ping: Ping): Result['ping'] {
  const sorted = ping.rttMs.toSorted((a, b) => a - b);
  const quantile = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return {
    sent: ping.sent,
    answered: sorted.length,
    medianMs: quantile(0.5),
    highMs: quantile(0.95),
    mostMs: quantile(1),
    longestGapMs: ping.longestGapMs,
  };
}

/** Rates since the last sample. */
class Sampler {
  private readonly ways: readonly BondLink[Way][];
  private readonly streams: readonly Stream[];
  private delivered: readonly number[];
  private received = 0;

  constructor(net: SimBond, way: Way, streams: readonly Stream[]) {
    this.ways = net.links.map((link) => link[way]);
    this.streams = streams;
    this.delivered = this.ways.map(({ deliveredBytes }) => deliveredBytes);
  }

  take(atMs: number): Sample {
    const { ways, streams } = this;
    const mbitOf = (bytes: number): number => (bytes * 8) / (SAMPLE_MS * 1000);
    const received = sum(bytesOf(streams));
    const sample = {
      atMs,
      mbit: mbitOf(received - this.received),
      linkMbit: ways.map(({ deliveredBytes }, i) => mbitOf(deliveredBytes - this.delivered[i]!)),
      queueMs: ways.map(({ queueMs }) => queueMs),
      windows: streams.map(({ sender }) => sender.cubic.window),
      srttMs: streams.map(({ sender }) => sender.srttMs),
      retransmissions: sum(streams.map(({ sender }) => sender.retransmissions)),
    };
    this.received = received;
    this.delivered = ways.map(({ deliveredBytes }) => deliveredBytes);
    return sample;
  }
}
