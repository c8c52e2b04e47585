/**
 * The counters of each link add up: every datagram that was sent was received at the other end, or is
 * counted as lost. On the simulated network, which stands still while both ends are read.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Link } from '../src/link.ts';
import { SimBond } from './simbond.ts';
import { Flows, Steady, type Way } from './simflows.ts';

const FIGURES = [
  { delayMs: 20, rateMbit: 50, queueMs: 60, lossRatio: 0.02, duplicateRatio: 0.01 },
  { delayMs: 35, jitterMs: 5, rateMbit: 30, queueMs: 60, lossRatio: 0.01 },
];
const LOAD = { mbit: 65, bytes: 1_200, isExpedited: false };
/** Probes for the path MTU that are too large for our own interface. */
const REFUSED = 4;
/** Under way when the ends are read: probes and their answers. */
const FLYING = 4;

interface Counts {
  readonly sent: number;
  /** Of those sent, the ones whose sender waits to hear of them, with a few probes; reports are not. */
  readonly awaited: number;
  readonly received: number;
  readonly lost: number;
  readonly entered: number;
}

/** Datagrams of one way of one link, as both ends and the network have counted them. */
function countsOf(net: SimBond, id: number, way: Way): Counts {
  const [from, to] = way === 'up' ? [net.client, net.server] : [net.server, net.client];
  const [sender, receiver] = [from, to].map(({ tunnel }) =>
    tunnel!.links.find((link) => link.id === id)!,
  ) as [Link, Link];
  return {
    sent: sender.sentPackets,
    awaited: sender.flight.sent,
    received: receiver.reception.packets,
    lost: sender.flight.lost,
    entered: net.links[id]![way].entered,
  };
}

for (const seed of [1, 2, 3])
  test(`sent = received + lost, on each link and each way (seed ${seed})`, async () => {
    const net = new SimBond({ figures: FIGURES, seed, isSealed: false });
    await net.connect();
    // Until its first probes have arrived.
    await net.clock.run(1_000);
    const ways = [0, 1].flatMap((id) => (['up', 'down'] as const).map((way) => ({ id, way })));
    const before = ways.map(({ id, way }) => countsOf(net, id, way));
    const flows = new Flows(net);
    const steady = (['up', 'down'] as const).map(
      (way, i) => new Steady(flows, way, { ...LOAD, port: 9_000 + i }),
    );
    await net.clock.run(5_000);
    for (const flow of steady) flow.isStopped = true;
    await net.clock.run(2_000);
    for (const [i, { id, way }] of ways.entries()) {
      const [was, now] = [before[i]!, countsOf(net, id, way)];
      const change = (key: keyof Counts): number => now[key] - was[key];
      const text = `link ${id} ${way}, seed ${seed}: ${JSON.stringify(was)} to ${JSON.stringify(now)}`;
      const refused = change('sent') - change('entered');
      assert.ok(refused >= 0 && refused <= REFUSED, text);
      assert.ok(change('lost') > 10, text);
      // A report that is lost is told of by nobody: there are fewer than four deviations more than usual.
      const unheard = change('entered') - change('received') - change('lost');
      const reports = change('sent') - change('awaited');
      const usual = reports * FIGURES[id]!.lossRatio;
      assert.ok(unheard >= -FLYING, text);
      assert.ok(unheard <= usual + 4 * Math.sqrt(usual) + FLYING, text);
    }
  });
