/**
 * What happens to one of two links, and to both, must not be noticed: no TCP connection is lost, no ping
 * waits for long, and what is sent twice arrives. With the real executable, over emulated links of 20 ms
 * and 50 Mbit/s. A quick run asks for what holds on the busiest machine; VPN_TEST_LONG=1 adds the other events
 * and directions, and everything that is timed, for a machine that has nothing else to do.
 */
import assert from 'node:assert/strict';
import { bonded, startBonded } from './bonded.ts';
import { connected, SERVER_IP } from './ends.ts';
import { EVENTS, failover, SURVIVOR_MBIT, type Noticed, type Way } from './failover.ts';
import { startMeter } from './helpers.ts';
import { netTest, pass, Spoiled, until, Bed } from './netns.ts';
import { profileNamed } from './profiles.ts';
import { ping } from './traffic.ts';

const IS_LONG = process.env['VPN_TEST_LONG'] === '1';
const ALL_DEAD_MS = IS_LONG ? 60_000 : 12_000;
const { a: BASE } = profileNamed('baseline');

const MOST_GAP_MS = 200;
const MOST_LOST = 5;
/** Half a second, and a tenth at each end that is only partly inside. */
const MOST_SETTLED_MS = 700;
const FULL_MBIT = 0.85 * SURVIVOR_MBIT;
/** While the MTU is searched; then packets go in halves, which cost more. */
const SEARCHING_MBIT = 0.5 * SURVIVOR_MBIT;
/** A link that is used carries at least so much of its rate while the stream finds out how fast it may be. */
const LEAST_USED = 0.2;
/** With less processor time left than that, everything that is timed waits for the processor too. */
const LEAST_IDLE = 0.1;
const ATTEMPTS = IS_LONG ? 2 : 1;

type Load = Way | 'idle';
/** Those of a quick run come first. */
const RUNS: readonly (readonly [event: string, quick: readonly Load[], long: readonly Load[]])[] = [
  ['cut', ['up', 'idle'], ['down']],
  ['cut-up', [], ['up', 'down', 'idle']],
  ['cut-down', [], ['up', 'down', 'idle']],
  ['interface-deleted', ['up'], ['down', 'idle']],
  ['interface-down', [], ['up', 'down', 'idle']],
  ['address-removed', [], ['up', 'down', 'idle']],
  ['rebind', ['idle'], ['up', 'down']],
  ['loss-20', [], ['up', 'down']],
  ['mtu-1280', ['up'], ['down']],
];

for (const [name, quick, long] of RUNS) {
  const event = EVENTS.find((one) => one.name === name)!;
  for (const load of IS_LONG ? [...quick, ...long] : quick)
    netTest(
      `${event.title}, ${load === 'idle' ? 'idle' : `under a TCP stream ${load}`}: hardly noticed`,
      [],
      async () => {
        const seen = await calmly((bed) =>
          failover(bed, event, load !== 'idle', load === 'down' ? 'down' : 'up'),
        );
        const text = JSON.stringify(seen);
        const lost = seen.realtimeLost[0] + seen.realtimeLost[1];
        if (lost > 0 && lost <= seen.unread + seen.untaken) throw new Spoiled(text);
        assert.deepEqual(seen.realtimeLost, [0, 0], text);
        assert.equal(seen.twice + seen.pingsTwice, 0, text);
        if (load !== 'idle') assert.equal(seen.tcpEnded, '', text);
        if (!IS_LONG) return;
        assert.ok(Math.max(...seen.normalLost, seen.pingsLost) <= MOST_LOST, text);
        assert.ok(seen.gapMs <= MOST_GAP_MS, text);
        if (load === 'idle') return;
        assert.ok(seen.settledMs <= MOST_SETTLED_MS, text);
        const least = name === 'mtu-1280' ? SEARCHING_MBIT : FULL_MBIT;
        assert.ok(seen.failedMbit >= least, text);
        assert.ok(seen.usedAgain >= LEAST_USED, text);
        if (event.carries === 'both' || event.carries === load)
          assert.ok(seen.used >= LEAST_USED, text);
      },
    );
}

/** On a bed of its own; once more while others take the processors. */
async function calmly(run: (bed: Bed) => Promise<Noticed>): Promise<Noticed> {
  for (let attempt = 1; ; attempt++) {
    const bed = new Bed();
    try {
      const seen = await run(bed);
      if (seen.idle >= LEAST_IDLE || attempt === ATTEMPTS) return seen;
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${bed.logs()}`);
    } finally {
      await bed.close();
    }
  }
}

netTest('a first link that is dead at the start: connected over the other', [], async (bed) => {
  const { links, ends } = await startBonded(bed, { figures: [{ ...BASE, isCut: true }, BASE] });
  await ends.client.daemon.line(/connecting to/);
  await ends.client.daemon.line(/connected to 10\.101\.0\.2/);
  await connected(ends.client);
  await links[0]!.set({ both: { isCut: false } });
  await until('packets back over the first', async () => {
    const { bToA } = await links[0]!.stats();
    return bToA.delivered > 10;
  });
});

netTest(`all links dead for ${ALL_DEAD_MS / 1000} s: it resumes by itself`, [], async (bed) => {
  const { client, server, links, ends } = await bonded(bed, { figures: [BASE, BASE] });
  const receiver = await startMeter(server, 'receive', 'tcp:9001');
  const sender = await startMeter(client, 'send', SERVER_IP, 'tcp:9001');
  await pass(1_000);
  for (const link of links) await link.set({ both: { isCut: true } });
  assert.equal(ping(client, SERVER_IP, '-c 3 -i 0.2 -W 1').received, 0);
  await pass(ALL_DEAD_MS);
  for (const link of links) await link.set({ both: { isCut: false } });
  await connected(ends.client);
  assert.equal(ping(client, SERVER_IP, '-q -c 50 -i 0.02 -W 2').received, 50);
  for (const meter of [sender, receiver]) {
    await meter.stop('SIGTERM');
    assert.match(meter.output, /"ended":""/);
  }
});
