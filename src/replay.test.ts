import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { REPLAY_WINDOW } from './constants.ts';
import { Random } from '../test/random.ts';
import { ReplayWindow } from './replay.ts';

describe('the replay window', () => {
  it('accepts and refuses as this table says', () => {
    const W = REPLAY_WINDOW;
    const window = new ReplayWindow();
    const rows: readonly (readonly [counter: number, accepted: boolean])[] = [
      [0, true],
      [0, false],
      [1, true],
      [9, true],
      [8, true],
      [8, false],
      [W, true],
      [W - 1, true],
      [1, false],
      [2, true],
      [W + 10, true],
      [10, false],
      [11, true],
      [11, false],
      [5 * W, true],
      [4 * W, false],
      [4 * W + 1, true],
      [2 ** 33, true],
      [2 ** 33 - W, false],
      [2 ** 33 - W + 1, true],
      [2 ** 33, false],
    ];
    rows.forEach(([counter, accepted], i) => {
      assert.equal(window.accept(counter), accepted, `row ${i}: ${counter}`);
    });
  });

  it('agrees with a set of all counters seen', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      const window = new ReplayWindow();
      const seen = new Set<number>();
      let highest = -1;
      for (let i = 0; i < 20_000; i++) {
        const reach = random.below(10) === 0 ? 3 * REPLAY_WINDOW : 200;
        const counter = Math.max(0, highest + random.below(reach) - Math.floor(reach * 0.45));
        const expected = counter > highest - REPLAY_WINDOW && !seen.has(counter);
        assert.equal(window.accept(counter), expected, `seed ${seed}, step ${i}: ${counter}`);
        if (expected) seen.add(counter);
        highest = Math.max(highest, counter);
      }
      assert.equal(window.highest, highest);
    }
  });

  it('finds the counter nearest to the next expected one', () => {
    const rows: readonly (readonly [highest: number, low: number, counter: number])[] = [
      [-1, 0, 0],
      [-1, 7, 7],
      [100, 90, 90],
      [2 ** 32 - 1, 0, 2 ** 32],
      [2 ** 32 - 2, 3, 2 ** 32 + 3],
      [2 ** 32 + 2, 0xffff_ffff, 2 ** 32 - 1],
      [2 ** 33 - 1, 0, 2 ** 33],
      [3 * 2 ** 32 + 5, 4, 3 * 2 ** 32 + 4],
    ];
    for (const [highest, low, counter] of rows) {
      const window = new ReplayWindow();
      if (highest >= 0) window.accept(highest);
      assert.equal(window.expand(low), counter, `after ${highest}: ${low}`);
    }
  });

  it('tells the runs of what it received as a set does, from the highest down', () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = new Random(seed);
      const window = new ReplayWindow();
      const seen = new Set<number>();
      const start = seed % 3 === 0 ? 2 ** 32 - 5_000 : 0;
      const loss = random.next() ** 3;
      let counter = start;
      for (let step = 0; step < 60; step++) {
        for (let i = random.below(400); i > 0; i--) {
          counter += random.below(50) === 0 ? random.below(200) : 1;
          if (random.next() >= loss && window.accept(counter)) seen.add(counter);
          const late = Math.max(start, counter - random.below(3_000));
          if (random.below(8) === 0 && window.accept(late)) seen.add(late);
        }
        const floor = random.below(4) === 0 ? 0 : window.highest - random.below(10_000);
        const limit = random.below(5) === 0 ? random.below(20) : 600;
        const to = new Uint16Array(620).fill(0xffff);
        const count = window.runs(floor, to, limit);
        const expected = runsOf(seen, window.highest, floor);
        const where = `seed ${seed}, step ${step}: from ${window.highest} down to ${floor}`;
        assert.deepEqual([...to.subarray(0, count)], expected.slice(0, limit), where);
        assert.ok(
          to.subarray(count).every((length) => length === 0xffff),
          `${where}: wrote beyond`,
        );
      }
    }
  });
});

/** Lengths of runs, received and missing in turn, one counter at a time. */
function runsOf(seen: Set<number>, highest: number, floor: number): number[] {
  const runs: number[] = [];
  let isReceived = false;
  for (
    let counter = highest;
    counter >= Math.max(floor, 0, highest - REPLAY_WINDOW + 1);
    counter--
  ) {
    if (seen.has(counter) !== isReceived) {
      isReceived = !isReceived;
      runs.push(0);
    }
    runs[runs.length - 1]++;
  }
  return runs;
}
