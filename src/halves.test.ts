import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { HALVES_MS } from './constants.ts';
import { Halves, PLACE_BYTES } from './halves.ts';

const START = 4_096;

/** Memory in which `places` packets have room, and datagrams below START. */
function newHalves(places: number, maxWaiting: number): { halves: Halves; bytes: Uint8Array } {
  const bytes = new Uint8Array(START + places * PLACE_BYTES + 77);
  return { halves: new Halves(bytes, START, maxWaiting), bytes };
}

/** The obvious model: a map from bucket and sequence to the half that waits. */
class Model {
  readonly waiting = new Map<
    string,
    { split: number; second: boolean; half: Uint8Array; sinceMs: number }
  >();
  dropped = 0;
  joined = 0;
  private readonly places: number;
  private readonly maxWaiting: number;

  constructor(places: number, maxWaiting: number) {
    this.places = places;
    this.maxWaiting = maxWaiting;
  }

  add(
    key: string,
    split: number,
    second: boolean,
    half: Uint8Array,
    nowMs: number,
  ): Uint8Array | undefined {
    const fits = second ? split + half.length <= PLACE_BYTES : half.length === split;
    if (!fits || half.length === 0 || split > PLACE_BYTES) {
      this.dropped++;
      return undefined;
    }
    const known = this.waiting.get(key);
    if (known !== undefined && known.split === split) {
      if (known.second === second) return undefined;
      this.waiting.delete(key);
      this.joined++;
      const [head, tail] = second ? [known.half, half] : [half, known.half];
      return Uint8Array.from([...head, ...tail]);
    }
    if (known !== undefined) this.drop(key);
    // A map remembers the order in which its keys came.
    if (this.waiting.size >= this.maxWaiting) this.drop([...this.waiting.keys()][0]);
    if (this.waiting.size + this.joined >= this.places) {
      this.dropped++;
      return undefined;
    }
    this.waiting.set(key, { split, second, half, sinceMs: nowMs });
    return undefined;
  }

  drop(key: string): void {
    if (this.waiting.delete(key)) this.dropped++;
  }

  expire(nowMs: number): void {
    for (const [key, { sinceMs }] of [...this.waiting]) {
      if (nowMs - sinceMs >= HALVES_MS) this.drop(key);
    }
  }
}

/** One half as it crosses the link. */
interface Half {
  readonly bucket: number;
  readonly sequence: number;
  readonly split: number;
  readonly second: boolean;
  readonly bytes: Uint8Array;
}

/** Both halves of a packet, one of them, one twice, or split once more elsewhere; in any order. */
function someHalves(random: Random, sequence: number): Half[] {
  const packet = new Uint8Array(2 + random.below(random.below(8) === 0 ? 2_200 : 300));
  random.fill(packet);
  const bucket = 128 * random.below(3);
  const halves: Half[] = [];
  for (let splits = random.below(6) === 0 ? 2 : 1; splits > 0; splits--) {
    const split = 1 + random.below(packet.length - 1);
    const both = { bucket, sequence, split };
    halves.push({ ...both, second: false, bytes: packet.slice(0, split) });
    halves.push({ ...both, second: true, bytes: packet.slice(split) });
  }
  if (random.below(4) === 0) halves.push(halves[random.below(halves.length)]);
  if (random.below(20) === 0)
    halves.push({ ...halves[0], bytes: packet.slice(0, 1 + random.below(3)) });
  return halves.filter(() => random.below(5) !== 0);
}

it('agrees with a map under loss, repetition, any order and contradicting splits', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    const maxWaiting = 1 + random.below(12);
    const places = maxWaiting + random.below(6);
    const { halves, bytes } = newHalves(places, maxWaiting);
    const model = new Model(places, maxWaiting);
    const flight: Half[] = [];
    const open: { readonly place: number; readonly packet: Uint8Array }[] = [];
    let nowMs = 0;
    for (let step = 0; step < 3_000; step++) {
      const where = `seed ${seed}, step ${step}`;
      nowMs += random.below(40);
      // Around the end of the sequences, and equal modulo 1024: those share a chain of the index.
      const sequence = step % 3 === 0 ? (2 ** 24 - 9 + step) % 2 ** 24 : 1_024 * random.below(9);
      if (flight.length < 20) flight.push(...someHalves(random, sequence));
      if (flight.length === 0) continue;
      const half = flight.splice(random.below(flight.length), 1)[0];
      const key = `${half.bucket}/${half.sequence}`;
      const at = random.below(START - half.bytes.length);
      bytes.set(half.bytes, at);
      const place = halves.add(
        half.bucket,
        half.sequence,
        half.split,
        half.second,
        at,
        half.bytes.length,
        nowMs,
      );
      const packet = model.add(key, half.split, half.second, half.bytes, nowMs);
      assert.equal(place !== -1, packet !== undefined, where);
      if (packet !== undefined) open.push({ place, packet });
      if (random.below(30) === 0) {
        halves.replaced(half.bucket, half.sequence);
        model.drop(key);
      }
      if (random.below(50) === 0) {
        halves.expire(nowMs);
        model.expire(nowMs);
      }
      if (random.below(4) === 0) {
        for (const { place: joined, packet: expected } of open) {
          const from = halves.offsetOf(joined);
          assert.deepEqual(bytes.subarray(from, from + halves.lengthOf(joined)), expected, where);
        }
        open.length = 0;
        halves.endBatch();
        model.joined = 0;
      }
      assert.equal(halves.count, model.waiting.size, where);
      assert.equal(halves.dropped, model.dropped, where);
    }
    halves.endBatch();
    halves.clear();
    assert.equal(halves.count, 0);
    // Every place is free again: as many wait as at the start.
    for (let i = 0; i < places + 3; i++) halves.add(0, i, 1, false, 0, 1, nowMs);
    assert.equal(halves.count, maxWaiting, `seed ${seed}`);
  }
});

describe('halves', () => {
  const add = (halves: Halves, sequence: number, second: boolean, nowMs = 0, split = 10): number =>
    halves.add(5, sequence, split, second, second ? 10 : 0, 10, nowMs);

  it('join in either order, with their bytes in the right order', () => {
    for (const secondFirst of [false, true]) {
      const { halves, bytes } = newHalves(4, 4);
      for (let i = 0; i < 20; i++) bytes[i] = i + 1;
      assert.equal(add(halves, 1, secondFirst), -1);
      const place = add(halves, 1, !secondFirst);
      assert.notEqual(place, -1);
      const from = halves.offsetOf(place);
      assert.deepEqual(
        [...bytes.subarray(from, from + halves.lengthOf(place))],
        Array.from({ length: 20 }, (_, i) => i + 1),
      );
    }
  });

  it('of other buckets, sequences or splits do not join', () => {
    const { halves } = newHalves(8, 8);
    add(halves, 1, false);
    assert.equal(halves.add(6, 1, 10, true, 10, 10, 0), -1);
    assert.equal(halves.add(5, 2, 10, true, 10, 10, 0), -1);
    assert.equal(halves.add(5, 1 + 1_024, 10, true, 10, 10, 0), -1);
    assert.equal(halves.count, 4);
    assert.equal(halves.add(5, 1, 9, true, 10, 10, 0), -1, 'the sender has split anew');
    assert.equal(halves.count, 4, 'the new half has taken the place of the old');
    assert.notEqual(halves.add(5, 1, 9, false, 0, 9, 0), -1);
  });

  it('hold up to a whole place and no byte more', () => {
    const rows: readonly (readonly [
      split: number,
      second: boolean,
      length: number,
      taken: boolean,
    ])[] = [
      [PLACE_BYTES, false, PLACE_BYTES, true],
      [PLACE_BYTES + 1, false, PLACE_BYTES + 1, false],
      [65_535, false, 65_535, false],
      [PLACE_BYTES - 1, true, 1, true],
      [PLACE_BYTES, true, 1, false],
      [65_535, true, 1, false],
      [10, false, 9, false],
      [10, false, 11, false],
      [10, true, 0, false],
      [0, false, 0, false],
    ];
    for (const [split, second, length, taken] of rows) {
      const { halves, bytes } = newHalves(2, 2);
      bytes.fill(1, 0, START);
      halves.add(5, 1, split, second, 0, length, 0);
      assert.deepEqual(
        [halves.count, halves.dropped],
        taken ? [1, 0] : [0, 1],
        `${split} ${length}`,
      );
      assert.ok(
        bytes.subarray(START + PLACE_BYTES).every((byte) => byte === 0),
        `${split} ${length}`,
      );
    }
  });

  it('that wait are bounded: the oldest gives way, and all go when their second is over', () => {
    const { halves } = newHalves(6, 4);
    for (let i = 0; i < 100; i++) add(halves, i, false, i);
    assert.deepEqual([halves.count, halves.dropped], [4, 96]);
    assert.notEqual(add(halves, 96, true, 100), -1, 'the last four wait');
    assert.equal(add(halves, 95, true, 100), -1, 'the one before them is gone');
    halves.expire(97 + HALVES_MS);
    assert.deepEqual([halves.count, halves.dropped], [3, 97], 'sequence 97 came at 97 ms');
    halves.expire(100 + HALVES_MS);
    assert.equal(halves.count, 0);
  });

  it('of intact packets join however many others are lost', () => {
    const { halves } = newHalves(40, 8);
    for (let i = 0; i < 10_000; i++) {
      add(halves, i, false, i / 100);
      // Every third packet has lost its second half.
      if (i % 3 !== 0) assert.notEqual(add(halves, i, true, i / 100), -1, `packet ${i}`);
      halves.endBatch();
    }
  });

  it('keep a joined packet until the batch ends, while others come and go', () => {
    const { halves, bytes } = newHalves(3, 2);
    bytes.fill(1, 0, 10).fill(2, 10, 20);
    add(halves, 1, false);
    const place = add(halves, 1, true);
    bytes.fill(7, 0, 20);
    for (let i = 2; i < 50; i++) {
      add(halves, i, false, i * HALVES_MS);
      halves.replaced(5, i);
    }
    halves.clear();
    const from = halves.offsetOf(place);
    assert.equal(
      Buffer.from(bytes.subarray(from, from + 20)).toString('hex'),
      '01'.repeat(10) + '02'.repeat(10),
    );
    assert.equal(halves.count, 0);
  });

  it('use every place for packets of one batch, then drop', () => {
    const { halves } = newHalves(5, 2);
    for (let i = 0; i < 7; i++) {
      add(halves, i, false);
      assert.equal(add(halves, i, true) !== -1, i < 5, `packet ${i}`);
    }
    halves.endBatch();
    add(halves, 9, false);
    assert.notEqual(add(halves, 9, true), -1);
  });

  it('give way to the whole packet', () => {
    const { halves } = newHalves(4, 4);
    add(halves, 1, false);
    halves.replaced(5, 1);
    halves.replaced(5, 1);
    assert.equal(halves.count, 0);
    assert.equal(add(halves, 1, true), -1);
  });
});
