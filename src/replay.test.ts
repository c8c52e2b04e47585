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
});
