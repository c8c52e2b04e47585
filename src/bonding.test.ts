import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Bed, wayOf, type Way } from '../test/bondingbed.ts';

describe('bonding', () => {
  it('delivers what it is given, as it was, under one sequence each; keeps nothing when done', () => {
    const table: readonly (readonly [what: string, ways: Way[], mostLost: number])[] = [
      ['one clean link', [wayOf()], 0],
      ['two', [wayOf(), wayOf({ delayMs: 30 })], 0],
      ['three with a rate', [10, 20, 40].map((delayMs) => wayOf({ delayMs, rate: 400 })), 0],
      ['loss', [wayOf({ loss: 0.02 }), wayOf({ delayMs: 30, loss: 0.02 })], 1],
      ['much loss', [wayOf({ loss: 0.2 }), wayOf({ delayMs: 30, loss: 0.1 })], 10],
      ['jitter', [wayOf({ jitterMs: 20 }), wayOf({ delayMs: 30, jitterMs: 10 })], 0],
      ['jitter and loss', [wayOf({ jitterMs: 20, loss: 0.05 }), wayOf({ loss: 0.02 })], 2],
      ['one lossy link alone', [wayOf({ loss: 0.02, rate: 1_250 })], 1],
    ];
    for (const [what, ways, mostLost] of table) {
      for (let seed = 1; seed <= (mostLost === 0 ? 1 : 2); seed++) {
        const bed = new Bed(
          seed,
          ways.map((way) => ({ ...way })),
        );
        const { random } = bed;
        bed.run(500, () => {
          for (let i = random.below(3); i > 0; i--) {
            // A quarter has to be split: the paths take 1280 bytes.
            const length =
              random.below(4) === 0 ? 1_250 + random.below(250) : 40 + random.below(1_000);
            bed.inject(length, random.below(4), random.below(10) === 0);
          }
        });
        bed.run(1_500);
        bed.checkEnd(`${what}, seed ${seed}`);
        const { abandoned, refusedBulk } = bed.bonding.counters;
        assert.equal(refusedBulk, 0, what);
        assert.ok(abandoned <= mostLost, `${what}, seed ${seed}: ${abandoned} given up`);
        assert.ok(bed.given.length > 400);
      }
    }
  });

  it('knows which halves have arrived, also late and after they were sent again', () => {
    for (let seed = 1; seed <= 5; seed++) {
      const ways = [wayOf({ jitterMs: 60, loss: 0.1 }), wayOf({ jitterMs: 30, loss: 0.1 })];
      const bed = new Bed(seed, ways);
      bed.run(150, () => bed.inject(1_250 + bed.random.below(200), bed.random.below(4)));
      bed.run(1_500);
      bed.checkEnd(`seed ${seed}`);
    }
  });

  it('loses nothing when a link dies under load, and uses it again when it is back', () => {
    for (const dead of [0, 1]) {
      const bed = new Bed(1, [wayOf(), wayOf({ delayMs: 25 })]);
      // Neither can carry all of it.
      for (const link of bed.links) link.capacity.maxRate = 500;
      const load = (): void => {
        bed.inject(700, 1);
        if (bed.random.below(4) === 0) bed.inject(700, 2);
      };
      bed.run(600, load);
      bed.ways[dead].isCut = true;
      bed.run(600, load);
      assert.equal(bed.links[dead].state, 'suspect');
      bed.ways[dead].isCut = false;
      // What a probe that is reported on would find.
      bed.links[dead].state = 'up';
      bed.bonding.scheduler.order(bed.links);
      const before = bed.counts[dead];
      bed.run(400, load);
      assert.ok(bed.counts[dead] > before + 50, `link ${dead} is used again`);
      bed.run(2_500);
      bed.checkEnd(`link ${dead}`);
      const { refusedBulk, abandoned } = bed.bonding.counters;
      assert.equal(bed.delivered.size, bed.given.length - refusedBulk, `link ${dead}`);
      assert.ok(refusedBulk < bed.given.length / 3 && abandoned === 0, `link ${dead}`);
    }
  });

  it('sends the duplicated class over two links at once, and bulk over one', () => {
    const bed = new Bed(1, [wayOf(), wayOf({ delayMs: 20 })]);
    for (let i = 0; i < 200; i++) bed.run(5, () => bed.inject(200, 3, i % 2 === 0));
    bed.run(500);
    bed.checkEnd('duplicates');
    for (const [number, { links, times }] of bed.delivered) {
      const { isRealtime } = bed.given[number];
      assert.deepEqual([links.size, times], isRealtime ? [2, 2] : [1, 1], `${number}`);
    }
  });

  it('goes on across new keys without a packet lost or sent twice', () => {
    const bed = new Bed(3, [wayOf(), wayOf({ delayMs: 15 })]);
    for (let round = 0; round < 6; round++) {
      bed.run(200, () => bed.inject(500, 1));
      bed.rekey();
    }
    bed.run(1_000);
    bed.checkEnd('new keys');
    assert.equal(bed.delivered.size, bed.given.length);
    assert.equal(bed.bonding.counters.repaired, 0);
    assert.ok([...bed.delivered.values()].every(({ times }) => times === 1));
  });

  it('refuses bulk when too much waits, that of the greedy first, and is never stuck', () => {
    const bed = new Bed(4, [wayOf({ rate: 250 })]);
    const lone: number[] = [];
    bed.run(3_000, () => {
      for (let i = 0; i < 4; i++) bed.inject(1_000, 1);
      if (bed.nowMs % 50 !== 0 || bed.nowMs < 1_500) return;
      lone.push(bed.given.length);
      bed.inject(300, 2);
    });
    assert.ok(bed.bonding.counters.refusedBulk > 1_000);
    bed.run(1_000);
    assert.ok(bed.bonding.queue.bytes <= 2 * bed.bonding.scheduler.mostWaiting);
    bed.run(8_000);
    bed.checkEnd('too much');
    const through = lone.filter((number) => bed.delivered.has(number)).length;
    assert.ok(through > lone.length * 0.9, `${through} of ${lone.length} lone packets`);
  });

  it('forgets everything with its session', () => {
    const bed = new Bed(5, [wayOf({ isCut: true }), wayOf({ isCut: true })]);
    bed.run(300, () => bed.inject(900, 1));
    assert.ok(bed.kept > 0);
    bed.bonding.clear();
    assert.equal(bed.kept, 0);
    assert.equal(bed.bonding.wakeAtMs(bed.nowMs), Number.POSITIVE_INFINITY);
  });
});
