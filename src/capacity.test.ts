import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DATAGRAM_BYTES, OneWay, type OneWayPath } from '../test/oneway.ts';
import { Random } from '../test/random.ts';
import { Capacity } from './capacity.ts';

/** A megabit per second in bytes per millisecond. */
const MBIT = 125;
/** Found, and used: the bounds of the issue. */
const NEAR = 0.1;

const pathOf = (mbit: number, delayMs: number, jitterMs = 0, loss = 0): OneWayPath => ({
  rate: mbit * MBIT,
  delayMs,
  jitterMs,
  queueMs: 60,
  loss,
});

/** Runs; the rate, once it is known, must never be so far below that of the link that it starves. */
function runFed(way: OneWay, ms: number, least: number, what: string): void {
  const { capacity } = way.link;
  way.run(ms, () => {
    if (capacity.rate === 0) return;
    const share = capacity.rate / way.path.rate;
    assert.ok(share >= least, `${what}: ${(100 * share).toFixed(1)} % at ${way.nowMs} ms`);
  });
}

/** In the last second the link was found to carry what it carries, and did. */
function checkFound(way: OneWay, what: string): void {
  const { capacity } = way.link;
  const before = way.received;
  way.run(1_000);
  const { rate, loss } = way.path;
  const used = (way.received - before) / (1_000 * rate * (1 - loss));
  assert.ok(used > 1 - NEAR, `${what}: ${(100 * used).toFixed(1)} % of the link is used`);
  const found = capacity.rate / (rate * (1 - loss));
  assert.ok(Math.abs(found - 1) < NEAR, `${what}: ${(100 * found).toFixed(1)} % of its rate found`);
}

describe('the rate of a link', () => {
  const table: readonly (readonly [path: OneWayPath, riseMs: number])[] = [
    [pathOf(50, 20), 6_000],
    [pathOf(12, 20), 6_000],
    [pathOf(200, 8), 6_000],
    [pathOf(50, 20, 0, 0.02), 6_000],
    [pathOf(50, 20, 5), 6_000],
    [pathOf(40, 30, 5, 0.005), 8_000],
    [pathOf(50, 20, 20), 12_000],
    [pathOf(50, 100), 10_000],
  ];
  for (const [path, riseMs] of table) {
    const { rate, delayMs, jitterMs, loss } = path;
    const what = `${rate / MBIT} Mbit/s, ${delayMs} ± ${jitterMs} ms, ${100 * loss} % loss`;
    it(`is found, also after a tenfold drop and a tenfold rise: ${what}`, () => {
      const way = new OneWay(1, path);
      runFed(way, 8_000, NEAR, 'start');
      checkFound(way, 'start');
      way.path.rate /= 10;
      runFed(way, 6_000, NEAR, 'drop');
      // A tenth of the link is little to measure its jitter by, so only its use counts here.
      const before = way.received;
      way.run(1_000);
      assert.ok(
        way.received - before > (1 - 2 * NEAR) * 1_000 * way.path.rate * (1 - loss),
        'drop',
      );
      way.path.rate *= 10;
      runFed(way, riseMs, 0.8 * NEAR, 'rise');
      checkFound(way, 'rise');
    });
  }

  it('is found from any start', () => {
    for (let seed = 1; seed <= 8; seed++) {
      const random = new Random(seed);
      // A maximum of few samples with jitter in them is too much: that is for links with many.
      const jitterMs = random.below(2) * 4;
      const mbits = (jitterMs === 0 ? 5 : 25) + 75 * random.next();
      const path = pathOf(mbits, 5 + 55 * random.next(), jitterMs);
      const way = new OneWay(seed, path);
      const share = 0.15 + 3 * random.next();
      way.link.capacity.assume(share * path.rate, way.nowMs);
      const what = `seed ${seed}: ${mbits.toFixed(1)} Mbit/s taken for ${share.toFixed(2)} times that`;
      runFed(way, 8_000, NEAR, what);
      checkFound(way, what);
    }
  });

  it('is never limited by what nobody asked of the link', () => {
    const way = new OneWay(3, pathOf(50, 20));
    way.offered = 5 * MBIT;
    way.run(5_000);
    const { capacity } = way.link;
    assert.ok(capacity.limit === 0 || capacity.limit > 0.9 * 50 * MBIT, 'a quiet start');
    way.offered = Number.POSITIVE_INFINITY;
    way.run(4_000);
    checkFound(way, 'busy');
    way.offered = 2 * MBIT;
    way.run(10_000);
    assert.ok(capacity.rate > (1 - NEAR) * 50 * MBIT, 'what was found is not forgotten');
    way.offered = Number.POSITIVE_INFINITY;
    const before = way.received;
    way.run(500);
    assert.ok(way.received - before > 0.8 * 500 * 50 * MBIT, 'and used at once');
  });

  it('a link with a full queue is drained: what waits stays short', () => {
    for (const path of [pathOf(50, 20), pathOf(12, 20), pathOf(50, 100)]) {
      const way = new OneWay(5, { ...path, queueMs: 200 });
      way.run(8_000);
      let flying = 0;
      let steps = 0;
      way.run(3_000, () => {
        flying += way.link.flight.bytes;
        steps++;
      });
      const queueMs = flying / steps / path.rate - 2 * path.delayMs;
      assert.ok(
        queueMs < 40,
        `${path.rate / MBIT} Mbit/s: ${queueMs.toFixed(0)} ms in flight too many`,
      );
    }
  });

  it('is capped as configured, from the first packet on', () => {
    const way = new OneWay(2, pathOf(50, 20));
    way.link.capacity.maxRate = 10 * MBIT;
    way.run(5_000);
    const mbit = way.received / 5_000 / MBIT;
    assert.ok(mbit > 9 && mbit <= 10.1, `${mbit.toFixed(2)} Mbit/s`);
    assert.ok(way.link.capacity.limit <= 10 * MBIT);
  });
});

describe('pacing', () => {
  it('gives no more than the rate over any time, and a short burst', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      const capacity = new Capacity();
      const rate = MBIT * (1 + random.below(300));
      capacity.assume(rate, 0);
      const { limit } = capacity;
      let sent = 0;
      let nowMs = 0;
      while (nowMs < 500) {
        nowMs += random.next() ** 3 * 10;
        while (capacity.hasRoom(0, nowMs)) {
          capacity.spend(DATAGRAM_BYTES);
          sent += DATAGRAM_BYTES;
        }
        const most = limit * (nowMs + 5) + 3 * DATAGRAM_BYTES;
        assert.ok(sent <= most, `seed ${seed}: ${sent} bytes in ${nowMs} ms`);
        const wakeMs = capacity.creditAtMs(nowMs);
        assert.ok(wakeMs > nowMs && capacity.hasRoom(0, wakeMs), `seed ${seed}: wakes too early`);
      }
      assert.ok(sent > 0.3 * limit * nowMs, `seed ${seed}`);
    }
  });

  it('is off while the rate is not known, and again when it is forgotten', () => {
    const capacity = new Capacity();
    const isOpen = (): boolean => capacity.hasRoom(0, 5) && capacity.creditAtMs(5) === 5;
    assert.ok(isOpen());
    capacity.assume(100, 0);
    capacity.hasRoom(0, 5);
    capacity.spend(10_000);
    assert.equal(isOpen(), false);
    capacity.restart();
    assert.ok(isOpen());
  });
});
