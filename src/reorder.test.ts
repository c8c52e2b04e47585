import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TABLE_SLOTS } from './batch.ts';
import { Reorder, REORDER_PLACE_BYTES, WINDOW } from './reorder.ts';

const START = 4_096;
const HOLD_MS = 20;
const SEQUENCES = 2 ** 24;

/** A reorder buffer whose packets contain nothing but their bucket and sequence. */
class Bench {
  readonly bytes: Uint8Array;
  readonly reorder: Reorder;
  private readonly view: DataView;

  constructor(places = 100) {
    this.bytes = new Uint8Array(START + places * REORDER_PLACE_BYTES);
    this.view = new DataView(this.bytes.buffer);
    this.reorder = new Reorder(this.bytes, START, places);
  }

  /** Adds a packet of bucket 5 that orders, unless told otherwise. */
  add(
    sequence: number,
    nowMs = 0,
    { bucket = 5, isOrdered = true, holdMs = HOLD_MS } = {},
  ): boolean {
    const at = 8 * (this.reorder.count % (START / 8));
    this.view.setUint32(at, bucket);
    this.view.setUint32(at + 4, sequence);
    return this.reorder.add(bucket, sequence, isOrdered, at, 8, 0, holdMs, nowMs);
  }

  /** The sequences that may be written now; ends the batch. */
  written(): number[] {
    const { out, count } = this.reorder;
    const sequences = Array.from(out.offsets.subarray(0, count), (at) =>
      this.view.getUint32(at + 4),
    );
    this.reorder.endBatch();
    return sequences;
  }
}

describe('a bucket', () => {
  it('passes packets in order where they lie, and holds early ones', () => {
    const bench = new Bench();
    bench.add(0);
    assert.equal(bench.reorder.out.offsets[0], 0);
    bench.add(2);
    bench.add(3);
    bench.add(5);
    assert.deepEqual(bench.written(), [0]);
    assert.equal(bench.reorder.waiting, 3);
    bench.add(1);
    assert.deepEqual(bench.written(), [1, 2, 3]);
    bench.add(4);
    assert.deepEqual(bench.written(), [4, 5]);
    assert.equal(bench.reorder.waiting, 0);
    assert.equal(bench.reorder.deadlineMs(), Infinity);
  });

  it('does not wait for another', () => {
    const bench = new Bench();
    bench.add(1, 0, { bucket: 5 });
    bench.add(0, 0, { bucket: 6 });
    assert.deepEqual(bench.written(), [0]);
    assert.equal(bench.reorder.waiting, 1);
  });

  it('holds up to its window ahead; beyond, only as many are given up as must be', () => {
    const rows: readonly (readonly [ahead: number, abandoned: number])[] = [
      [1, 0],
      [WINDOW - 1, 0],
      [WINDOW, 1],
      [WINDOW + 1, 2],
      [3 * WINDOW, 2 * WINDOW + 1],
      [2 ** 22, 2 ** 22 - WINDOW + 1],
    ];
    for (const [ahead, abandoned] of rows) {
      const bench = new Bench();
      bench.add(ahead);
      assert.equal(bench.reorder.waiting, 1, `${ahead}`);
      assert.equal(bench.reorder.counters.abandoned, abandoned, `${ahead}`);
      assert.deepEqual(bench.written(), [], `${ahead}`);
      // The first that was not given up is in order still.
      bench.add(abandoned);
      assert.equal(bench.reorder.counters.late, 0, `${ahead}`);
      assert.equal(bench.reorder.counters.held, 1, `${ahead}`);
    }
  });

  it('gives up what is in front of a full window, and no more', () => {
    const bench = new Bench(WINDOW + 2_000);
    for (let sequence = 2; sequence <= WINDOW; sequence++) bench.add(sequence);
    // 0 had to go for the last one; 1 may still come.
    assert.deepEqual(bench.written(), []);
    bench.add(1);
    assert.deepEqual(
      bench.written(),
      Array.from({ length: WINDOW }, (_, i) => i + 1),
    );
  });

  it('starts anew at a jump that no loss explains', () => {
    const bench = new Bench();
    bench.add(0);
    bench.add(2);
    bench.add(2 ** 22 + 2);
    assert.deepEqual(bench.written(), [0, 2, 2 ** 22 + 2]);
    bench.add(2 ** 22 + 3);
    assert.deepEqual(bench.written(), [2 ** 22 + 3]);
    assert.equal(bench.reorder.waiting, 0);
  });

  it('delivers a late packet once, and knows as many as its window holds', () => {
    const next = 3 * WINDOW;
    const rows: readonly (readonly [behind: number, taken: boolean])[] = [
      [1, false],
      [2, true],
      [WINDOW - 1, true],
      [WINDOW, true],
      [WINDOW + 1, false],
      [2 * WINDOW, false],
    ];
    for (const [behind, taken] of rows) {
      const bench = new Bench();
      for (let sequence = 0; sequence < 2 * WINDOW; sequence++) {
        bench.add(sequence);
        bench.reorder.endBatch();
      }
      // The bits of what is skipped here were set one window ago.
      bench.add(next - 1, 0, { isOrdered: false });
      assert.deepEqual(bench.written(), [next - 1]);
      assert.equal(bench.add(next - behind), taken, `${behind} behind`);
      assert.equal(bench.add(next - behind), false, `${behind} behind, again`);
      assert.deepEqual(bench.written(), taken ? [next - behind] : [], `${behind} behind`);
      const { late, duplicate, tooOld } = bench.reorder.counters;
      const isKnown = behind <= WINDOW;
      const expected = isKnown ? [taken ? 1 : 0, taken ? 1 : 2, 0] : [0, 0, 2];
      assert.deepEqual([late, duplicate, tooOld], expected, `${behind} behind`);
    }
  });

  it('goes on beyond the end of the sequences', () => {
    const bench = new Bench();
    for (let part = 1; part < 4; part++) bench.add(part * 2 ** 22, 0, { isOrdered: false });
    bench.add(SEQUENCES - 2, 0, { isOrdered: false });
    bench.written();
    bench.add(1);
    bench.add(0);
    assert.deepEqual(bench.written(), []);
    bench.add(SEQUENCES - 1);
    assert.deepEqual(bench.written(), [SEQUENCES - 1, 0, 1]);
    assert.equal(bench.add(SEQUENCES - 1), false);
    assert.equal(bench.add(SEQUENCES - 3), true, 'skipped, and late');
  });
});

describe('a gap', () => {
  it('has a deadline that no later packet moves, also while packets keep coming', () => {
    const bench = new Bench();
    const written: number[] = [];
    for (let nowMs = 0; nowMs < 30; nowMs++) {
      assert.equal(bench.reorder.deadlineMs(), nowMs === 0 || nowMs > 20 ? Infinity : 20);
      bench.add(1 + nowMs, nowMs);
      const now = bench.written();
      assert.equal(now.length, nowMs < 20 ? 0 : nowMs === 20 ? 21 : 1, `at ${nowMs} ms`);
      written.push(...now);
    }
    assert.deepEqual(
      written,
      Array.from({ length: 30 }, (_, i) => i + 1),
    );
  });

  it('of another bucket ends in time too when only one bucket has traffic', () => {
    const bench = new Bench();
    bench.add(1, 0, { bucket: 9 });
    bench.add(0, 19.9);
    assert.deepEqual(bench.written(), [0]);
    bench.add(1, 20);
    assert.deepEqual(bench.written(), [1, 1]);
  });

  it('does not end before its deadline, nor does its end move the next', () => {
    const bench = new Bench();
    bench.add(1, 0);
    bench.add(3, 5);
    bench.add(4, 8);
    bench.reorder.expire(19.99);
    assert.deepEqual(bench.written(), []);
    bench.reorder.expire(20);
    assert.deepEqual(bench.written(), [1]);
    assert.equal(bench.reorder.deadlineMs(), 25);
    bench.reorder.expire(25);
    assert.deepEqual(bench.written(), [3, 4]);
    bench.add(2, 26);
    bench.add(0, 26);
    assert.deepEqual(bench.written(), [2, 0], 'late ones pass');
  });

  it('that is partly filled keeps its deadline', () => {
    const bench = new Bench();
    bench.add(9, 0);
    bench.add(4, 15);
    bench.add(0, 16);
    assert.deepEqual(bench.written(), [0]);
    assert.equal(bench.reorder.deadlineMs(), 20);
    bench.reorder.expire(20);
    assert.deepEqual(bench.written(), [4, 9]);
  });

  it('ends when the sender says that nothing will come', () => {
    const bench = new Bench();
    bench.add(3);
    bench.reorder.giveUp(5, 0, 1);
    bench.reorder.giveUp(5, 2, 1);
    assert.deepEqual(bench.written(), []);
    bench.add(1);
    assert.deepEqual(bench.written(), [1, 3]);
    assert.equal(bench.reorder.counters.abandoned, 2);
    bench.reorder.giveUp(5, 2, 1, 4);
    assert.equal(bench.reorder.counters.abandoned, 4, '2 and 3 were over, 4 and 5 were not');
    bench.add(6);
    assert.deepEqual(bench.written(), [6]);
    bench.add(4);
    bench.add(4);
    assert.deepEqual(bench.written(), [4], 'comes nevertheless: once');
  });

  it('does not open where the sender said before that nothing will come', () => {
    const bench = new Bench();
    bench.reorder.giveUp(5, 2, 0, 2);
    bench.add(0);
    bench.add(1);
    bench.add(4);
    assert.deepEqual(bench.written(), [0, 1, 4]);
    assert.equal(bench.reorder.counters.held, 0);
  });

  it('given up beyond the window is not heeded, nor does a mark outlive its sequence', () => {
    const bench = new Bench();
    bench.reorder.giveUp(5, WINDOW, 0);
    bench.reorder.giveUp(5, 1, 0, SEQUENCES);
    bench.add(WINDOW, 0, { isOrdered: false });
    assert.deepEqual(bench.written(), [WINDOW]);
    bench.add(WINDOW + 2);
    assert.deepEqual(bench.written(), [], 'its window-mate, 2, was given up');
    bench.add(WINDOW + 1);
    assert.deepEqual(bench.written(), [WINDOW + 1, WINDOW + 2]);
  });
});

describe('packets that nobody orders', () => {
  it('leave no mark behind when the sender had given them up', () => {
    const bench = new Bench();
    bench.reorder.giveUp(5, 3, 0);
    bench.add(3, 0, { isOrdered: false });
    for (let sequence = 4; sequence < WINDOW + 3; sequence++) {
      bench.add(sequence);
      bench.reorder.endBatch();
    }
    bench.add(WINDOW + 4);
    assert.deepEqual(bench.written(), [], 'the same place in the window is not given up');
    bench.add(WINDOW + 3);
    assert.deepEqual(bench.written(), [WINDOW + 3, WINDOW + 4]);
  });

  it('release what is held before them and directly behind', () => {
    const bench = new Bench();
    for (const sequence of [1, 3, 5, 6, 8]) bench.add(sequence);
    bench.add(4, 0, { isOrdered: false });
    assert.deepEqual(bench.written(), [1, 3, 4, 5, 6]);
    assert.equal(bench.reorder.counters.abandoned, 2);
    assert.equal(bench.reorder.deadlineMs(), HOLD_MS, '7 is still waited for');
    bench.add(2, 0, { isOrdered: false });
    bench.add(2, 0, { isOrdered: false });
    bench.add(8, 0, { isOrdered: false });
    assert.deepEqual(
      bench.written(),
      [2, 8],
      'late ones once; one that is held is not delivered twice',
    );
    assert.equal(bench.reorder.counters.duplicate, 2);
  });

  it('are all those of the realtime class', () => {
    const bench = new Bench();
    for (const bucket of [256, 511]) {
      for (const sequence of [3, 1, 3, 4, 1, 9]) bench.add(sequence, 0, { bucket });
      bench.reorder.giveUp(bucket, 10, 0);
      assert.deepEqual(bench.written(), [3, 1, 4, 9]);
    }
    assert.equal(bench.reorder.counters.held, 0);
  });

  it('are those too long for a place', () => {
    const { reorder } = new Bench();
    reorder.add(5, 1, true, 0, REORDER_PLACE_BYTES, 0, HOLD_MS, 0);
    assert.equal(reorder.waiting, 1);
    reorder.add(5, 3, true, 0, REORDER_PLACE_BYTES + 1, 0, HOLD_MS, 0);
    assert.deepEqual([reorder.waiting, reorder.count], [0, 2]);
  });
});

describe('places', () => {
  it('that ran out are got back from the gap that is due next', () => {
    const bench = new Bench(8);
    bench.add(1, 0, { bucket: 1, holdMs: 30 });
    bench.add(1, 1, { bucket: 2, holdMs: 10 });
    bench.add(2, 1, { bucket: 2 });
    bench.add(1, 2, { bucket: 3, holdMs: 40 });
    assert.equal(bench.reorder.counters.overflow, 0);
    bench.add(3, 3, { bucket: 1 });
    assert.deepEqual(bench.written(), [1, 2], 'of bucket 2');
    assert.deepEqual([bench.reorder.waiting, bench.reorder.counters.overflow], [3, 1]);
  });

  it('are bounded however many gaps come, and nothing is lost', () => {
    const bench = new Bench(3 * TABLE_SLOTS);
    const written: number[] = [];
    for (let i = 0; i < 20_000; i++) {
      bench.add(1 + 2 * Math.floor(i / 256), 0, { bucket: i % 256 });
      assert.ok(bench.reorder.waiting <= 2 * TABLE_SLOTS);
      if (i % 400 === 0) written.push(...bench.written());
    }
    bench.reorder.expire(HOLD_MS);
    written.push(...bench.written());
    assert.equal(written.length, 20_000);
  });

  it('released in a batch are not used again before it is written', () => {
    const bench = new Bench(4);
    bench.add(1);
    bench.add(0);
    for (let sequence = 3; sequence < 40; sequence += 2) bench.add(sequence);
    assert.deepEqual(bench.written().slice(0, 3), [0, 1, 3]);
    assert.ok(bench.reorder.waiting <= 2);
  });

  it('must exist', () => {
    const bytes = new Uint8Array(10 * REORDER_PLACE_BYTES);
    assert.throws(() => new Reorder(bytes, 1, 10), RangeError);
    assert.throws(() => new Reorder(bytes, 0, 0), RangeError);
    assert.throws(() => new Reorder(new Uint8Array(2 ** 27), 0, 65_535), RangeError);
  });
});

it('a new session finds all places free and no sequence known', () => {
  const bench = new Bench(8);
  for (let sequence = 0; sequence < WINDOW; sequence++) {
    bench.add(sequence);
    bench.reorder.endBatch();
  }
  bench.reorder.clear();
  for (let round = 0; round < 5; round++) {
    bench.add(0);
    for (const sequence of [2, 3, 5]) bench.add(sequence, 0, { bucket: 5 + round });
    bench.reorder.giveUp(5, 9, 0, 3);
    bench.add(10);
    bench.reorder.clear();
    assert.deepEqual([bench.reorder.waiting, bench.reorder.deadlineMs()], [0, Infinity]);
    assert.deepEqual(bench.written(), [0], 'what passed before is still written');
  }
  assert.equal(bench.add(SEQUENCES - 1), true);
  for (let sequence = 0; sequence < 20; sequence++) bench.add(sequence);
  assert.equal(bench.written().length, 21);
  const { late, duplicate, overflow } = bench.reorder.counters;
  assert.deepEqual([late, duplicate, overflow], [1, 0, 0], 'only the one before the first is late');
});
