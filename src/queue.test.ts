import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { FairQueue } from './queue.ts';
import { PacketStore } from './store.ts';
import { BUCKETS } from './wire.ts';

const STORE = new PacketStore(0);
const MTU = 1_500;

/** Fills rows of the store as reading would; they are never released, and so never the same twice. */
class Rows {
  private row = 0;

  add(bucket: number, length: number): number {
    const row = this.row++;
    STORE.buckets[row] = bucket;
    STORE.lengths[row] = length;
    return row;
  }
}

/** What waits, as one list per bucket, the earliest first. */
class Model {
  readonly buckets = Array.from({ length: BUCKETS }, (): number[] => []);
  bytes = 0;
  count = 0;

  push(row: number): void {
    this.buckets[STORE.buckets[row]].push(row);
    this.bytes += STORE.lengths[row];
    this.count++;
  }

  remove(row: number): number {
    const list = this.buckets[STORE.buckets[row]];
    const index = list.indexOf(row);
    assert.notEqual(index, -1, `row ${row} does not wait`);
    list.splice(index, 1);
    this.bytes -= STORE.lengths[row];
    this.count--;
    return index;
  }

  bytesOf(bucket: number): number {
    return this.buckets[bucket].reduce((sum, row) => sum + STORE.lengths[row], 0);
  }

  get most(): number {
    return Math.max(...this.buckets.map((_, bucket) => this.bytesOf(bucket)));
  }
}

describe('the fair queue', () => {
  it('agrees with a list per bucket: order within it, counts, and who is picked', () => {
    for (let seed = 1; seed <= 5; seed++) {
      const random = new Random(seed);
      const queue = new FairQueue(STORE);
      const model = new Model();
      const rows = new Rows();
      for (let step = 0; step < 3_000; step++) {
        const where = `seed ${seed}, step ${step}`;
        const what = random.below(10);
        if (what < 5) {
          const bucket = random.below(3) === 0 ? random.below(BUCKETS) : random.below(4);
          const row = rows.add(bucket, 1 + random.below(MTU));
          queue.push(row);
          model.push(row);
        } else if (what < 8) {
          const row = queue.shift();
          assert.equal(row === -1, model.count === 0, where);
          if (row !== -1)
            assert.equal(model.remove(row), 0, `${where}: not the first of its bucket`);
        } else {
          const { most } = model;
          const row = queue.pick(random.below(model.bytes + MTU));
          assert.equal(row === -1, model.count === 0, where);
          if (row === -1) continue;
          assert.equal(
            model.bytesOf(STORE.buckets[row]),
            most,
            `${where}: not of the fullest bucket`,
          );
          model.remove(row);
        }
        assert.deepEqual([queue.bytes, queue.count], [model.bytes, model.count], where);
        const bucket = random.below(BUCKETS);
        assert.equal(queue.bytesOf(bucket), model.bytesOf(bucket), where);
      }
      while (model.count > 0) assert.equal(model.remove(queue.shift()), 0);
      assert.equal(queue.shift(), -1);
      assert.deepEqual([queue.bytes, queue.count, queue.buckets], [0, 0, 0]);
    }
  });

  it('gives buckets that always have something waiting equal bytes, whatever their sizes', () => {
    for (let seed = 1; seed <= 5; seed++) {
      const random = new Random(seed);
      const queue = new FairQueue(STORE);
      const rows = new Rows();
      const sizes = Array.from({ length: 8 }, () => 40 + random.below(MTU - 40));
      const sent = sizes.map(() => 0);
      sizes.forEach((size, bucket) => {
        for (let i = 0; i < 4; i++) queue.push(rows.add(bucket, size));
      });
      for (let i = 0; i < 8_000; i++) {
        const row = queue.shift();
        const bucket = STORE.buckets[row];
        sent[bucket] += STORE.lengths[row];
        STORE.lengths[row] = sizes[bucket];
        queue.push(row);
        // Deficit round robin: at no time more than a turn and a packet apart.
        const apart = Math.max(...sent) - Math.min(...sent);
        assert.ok(apart <= 3 * 3_000, `seed ${seed}, packet ${i}: ${apart} bytes apart`);
      }
    }
  });

  it('a lone packet goes before those that have waited; a flow of them takes no more than its share', () => {
    const queue = new FairQueue(STORE);
    const rows = new Rows();
    for (let i = 0; i < 200; i++) queue.push(rows.add(1, MTU));
    for (let i = 0; i < 10; i++) queue.shift();
    const lone = rows.add(2, 100);
    queue.push(lone);
    assert.equal(queue.shift(), lone);
    // One that comes back whenever it was served is not lone any more.
    let own = 0;
    let others = 0;
    queue.push(rows.add(3, MTU));
    for (let i = 0; i < 100; i++) {
      const row = queue.shift();
      if (STORE.buckets[row] === 3) own++;
      else others++;
      if (STORE.buckets[row] === 3) queue.push(rows.add(3, MTU));
    }
    assert.ok(own <= 55 && others >= 45, `${own} against ${others}`);
  });

  it('picks from so far back that the quicker links come to it when it is there', () => {
    const rows = new Rows();
    const queue = new FairQueue(STORE);
    const own = Array.from({ length: 100 }, () => rows.add(5, 1_000));
    for (const row of own) queue.push(row);
    const table: readonly (readonly [ahead: number, place: number])[] = [
      [100_000, 99],
      [50_000, 50],
      [10_000, 10],
    ];
    for (const [ahead, place] of table) {
      const row = queue.pick(ahead);
      const found = own.indexOf(row);
      assert.ok(Math.abs(found - place) <= 2, `${ahead} bytes ahead: place ${found}`);
    }
    assert.equal(queue.pick(0), own[0]);
    // Of two buckets served in turn each has half of what is ahead.
    const two = new FairQueue(STORE);
    const [a, b] = [6, 7].map((bucket) =>
      Array.from({ length: 100 }, () => rows.add(bucket, 1_000)),
    );
    for (let i = 0; i < 100; i++) {
      two.push(a[i]);
      two.push(b[i]);
    }
    const found = [a, b].map((list) => list.indexOf(two.pick(100_000)));
    assert.ok(Math.abs(Math.max(...found) - 50) <= 2, `places ${found.join(', ')}`);
  });

  it('is empty after clear, and works on', () => {
    const queue = new FairQueue(STORE);
    const rows = new Rows();
    for (let i = 0; i < 300; i++) queue.push(rows.add(i % 7, MTU));
    for (let i = 0; i < 20; i++) queue.shift();
    queue.clear();
    assert.deepEqual([queue.shift(), queue.pick(0), queue.bytes, queue.count], [-1, -1, 0, 0]);
    const row = rows.add(1, 9);
    queue.push(row);
    assert.deepEqual([queue.bytesOf(1), queue.buckets, queue.shift()], [9, 1, row]);
  });
});
