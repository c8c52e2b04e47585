/**
 * What bonding gives on every profile, in the simulated network and from one seed: the table of the issue
 * as a test. `node test/bonding-sim.ts` prints the same with more streams, links and seeds.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  atLeastMbit,
  profileNamed,
  PROFILES,
  sumMbit,
  type LinkFigures,
  type Profile,
} from './profiles.ts';
import { measure, type Result } from './simrun.ts';

/** Where the measured time begins and ends is worth this much. */
const NOISE = 0.01;
/**
 * What namespaces gave over both links (doc/bonding.md), where the real thing and the model must
 * agree within 15 %.
 */
const IN_NAMESPACES: Readonly<Record<string, number>> = {
  baseline: 92,
  rtt_70: 92,
  bw_10to1: 100,
  jit_5: 92,
  loss_05: 91,
};
const AGREEMENT = 0.15;

function over(links: readonly LinkFigures[], isSlow: boolean): Promise<Result> {
  const [startMs, measureMs] = isSlow ? [15_000, 20_000] : [3_000, 10_000];
  return measure({ links, streams: 1, way: 'up', startMs, measureMs, seed: 1 });
}

/** What one link alone gives matters only where the profile asks for it or it might be more. */
async function wanted({ a, b, isSlow, ...profile }: Profile): Promise<number> {
  const isAsked = profile.atLeast.kind === 'a';
  const alone = isAsked ? (await over([a], isSlow)).mbit : 0;
  return atLeastMbit({ a, b, isSlow, ...profile }, alone, 0);
}

describe('one stream over two links', { concurrency: 2 }, () => {
  for (const profile of PROFILES) {
    it(`${profile.name}: as much as is asked for`, async () => {
      const least = await wanted(profile);
      const result = await over([profile.a, profile.b], profile.isSlow);
      const found = `${result.mbit.toFixed(1)} of ${least.toFixed(1)} Mbit/s`;
      assert.ok(result.mbit >= least * (1 - NOISE), found);
      assert.deepEqual([result.damaged, result.duplicated], [0, 0]);
      const real = IN_NAMESPACES[profile.name];
      if (real === undefined) return;
      assert.ok(Math.abs(result.mbit / real - 1) < AGREEMENT, `${found}, in namespaces ${real}`);
    });
  }
});

it('a host that does not run for up to 20 ms at a time still uses both links', async () => {
  const { a, b } = profileNamed('baseline');
  const result = await measure({
    links: [a, b],
    streams: 1,
    way: 'up',
    startMs: 3_000,
    measureMs: 10_000,
    seed: 1,
    on: (net) => {
      net.client.stallMs = 20;
      net.server.stallMs = 20;
    },
  });
  assert.ok(result.mbit > 0.85 * sumMbit(profileNamed('baseline')), `${result.mbit} Mbit/s`);
});
