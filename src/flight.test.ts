import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { Flight, NO_TICKET } from './flight.ts';

const PLACES = 16_384;

interface Sent {
  readonly epoch: number;
  readonly counter: number;
  readonly ticket: number;
  readonly size: number;
  readonly sentMs: number;
  state: 'flying' | 'arrived' | 'lost' | 'unawaited';
}

/** All that was sent, as a list, and everything looked for by going through it. */
class Model {
  readonly sent: Sent[] = [];
  readonly arrivedTickets: number[] = [];
  readonly lostTickets: number[] = [];
  spurious = 0;
  private newestArrivedMs = Number.NEGATIVE_INFINITY;
  private highest = -1;

  add(one: Sent): void {
    this.sent.push(one);
    this.lose((_, number) => number < this.sent.length - PLACES);
  }

  arrived(first: number, last: number): void {
    for (let number = Math.max(0, first, this.sent.length - PLACES); number <= last; number++) {
      const one = this.sent[number];
      this.highest = Math.max(this.highest, number);
      if (one.state === 'arrived' || one.state === 'unawaited') continue;
      if (one.state === 'lost') this.spurious++;
      else this.newestArrivedMs = Math.max(this.newestArrivedMs, one.sentMs);
      one.state = 'arrived';
      this.arrivedTickets.push(one.ticket);
    }
  }

  detect(allowanceMs: number, deadlineMs: number): void {
    this.lose(
      ({ sentMs }, number) =>
        (number < this.highest && sentMs <= this.newestArrivedMs - allowanceMs) ||
        sentMs <= deadlineMs,
    );
  }

  lose(isLost: (one: Sent, number: number) => boolean): void {
    this.sent.forEach((one, number) => {
      if (one.state !== 'flying' || !isLost(one, number)) return;
      one.state = 'lost';
      this.lostTickets.push(one.ticket);
    });
  }

  countOf(state: Sent['state']): number {
    return this.sent.filter((one) => one.state === state).length;
  }
}

/** A `Flight` beside its model; tickets are numbered from 1. */
class Pair {
  readonly flight = new Flight();
  readonly model = new Model();
  epoch = 0;
  counter = 0;

  send(size: number, isAwaited: boolean, nowMs: number): void {
    const ticket = isAwaited ? this.model.sent.length + 1 : NO_TICKET;
    const state = isAwaited ? 'flying' : 'unawaited';
    this.flight.add(this.epoch, this.counter, ticket, size, isAwaited, nowMs);
    const { epoch, counter } = this;
    this.model.add({ epoch, counter, ticket, size, sentMs: nowMs, state });
    this.counter++;
  }

  /** Takes what was found to compare it: each ticket once as lost, and once as arrived. */
  check(where: string): void {
    const { flight, model } = this;
    const found = (tickets: Uint32Array, count: number): number[] =>
      [...tickets.subarray(0, count)].sort((a, b) => a - b);
    const expected = (tickets: number[]): number[] => tickets.splice(0).sort((a, b) => a - b);
    assert.deepEqual(
      found(flight.arrivedTickets, flight.arrivedCount),
      expected(model.arrivedTickets),
      where,
    );
    assert.deepEqual(
      found(flight.lostTickets, flight.lostCount),
      expected(model.lostTickets),
      where,
    );
    flight.settled();
    const flying = model.sent.filter(({ state }) => state === 'flying');
    assert.equal(
      flight.bytes,
      flying.reduce((sum, { size }) => sum + size, 0),
      where,
    );
    assert.equal(flight.oldestMs(), flying[0]?.sentMs ?? Number.POSITIVE_INFINITY, where);
    assert.deepEqual(
      [flight.sent, flight.lost, flight.spurious],
      [model.sent.length - model.countOf('unawaited'), model.countOf('lost'), model.spurious],
      where,
    );
    const arrived = model.countOf('arrived');
    assert.equal(flight.sent, arrived + flight.lost + flying.length, where);
  }
}

describe('what is under way', () => {
  it('agrees with a list, in random order, with epochs, spurious losses and abandoned flights', () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = new Random(seed);
      const pair = new Pair();
      const { flight, model } = pair;
      let nowMs = 0;
      for (let step = 0; step < 500; step++) {
        const where = `seed ${seed}, step ${step}`;
        nowMs += random.below(4);
        const what = random.below(40);
        const awaited = random.below(12) > 0;
        if (what < 16) {
          for (let i = random.below(12); i >= 0; i--)
            pair.send(40 + random.below(1_460), awaited, nowMs);
        } else if (what < 30) {
          const end = model.sent.length - 1;
          const last = end - Math.floor(random.next() ** 2 * 60);
          const first = last - random.below(6);
          if (last < 0) continue;
          flight.arrived(first, last, nowMs);
          model.arrived(first, last);
        } else if (what < 38) {
          const allowanceMs = random.below(30);
          const deadlineMs = nowMs - 50 - random.below(100);
          flight.detect(allowanceMs, deadlineMs);
          model.detect(allowanceMs, deadlineMs);
        } else if (what === 38) {
          flight.abandon();
          model.lose(() => true);
        } else {
          pair.epoch = (pair.epoch + 1) % 4;
          pair.counter = 0;
        }
        pair.check(where);
      }
    }
  });

  it('counts the oldest as lost when it needs their places, and all the same when they come after all', () => {
    const pair = new Pair();
    const { flight, model } = pair;
    for (let i = 0; i < PLACES + 100; i++) {
      pair.flight.add(0, i, i + 1, 100, true, i);
      model.sent.push({
        epoch: 0,
        counter: i,
        ticket: i + 1,
        size: 100,
        sentMs: i,
        state: 'flying',
      });
    }
    model.lose((_, number) => number < 100);
    pair.check('100 more than there are places');
    flight.arrived(0, PLACES + 99, PLACES + 100);
    model.arrived(0, PLACES + 99);
    pair.check('all arrived: of the first 100 nobody knows any more');
    assert.deepEqual([flight.bytes, flight.lost, flight.spurious], [0, 100, 0]);
  });

  it('calls lost what was overtaken for longer than the allowance, or is overdue', () => {
    const table: readonly (readonly [allowanceMs: number, deadlineMs: number, lost: number[]])[] = [
      [0, -1, [1, 2, 3]],
      [10, -1, [1, 2, 3]],
      [11, -1, [1]],
      [30, -1, []],
      [30, 0, [1]],
      [30, 30, [1, 2, 3, 5]],
    ];
    for (const [allowanceMs, deadlineMs, lost] of table) {
      const flight = new Flight();
      // Sent at 0, 10, 10, 20 and 30; the fourth has arrived.
      [0, 10, 10, 20, 30].forEach((atMs, i) => flight.add(0, i, i + 1, 100, true, atMs));
      flight.arrived(3, 3, 60);
      flight.detect(allowanceMs, deadlineMs);
      const found = [...flight.lostTickets.subarray(0, flight.lostCount)];
      assert.deepEqual(found, lost, `${allowanceMs} ms, overdue up to ${deadlineMs}`);
    }
  });

  it('says when anything arrived, and when the newest of it was sent', () => {
    const flight = new Flight();
    assert.equal(flight.oldestMs(), Number.POSITIVE_INFINITY);
    [1, 2, 3].forEach((atMs, i) => flight.add(0, i, i + 1, 100, true, atMs));
    flight.arrived(1, 1, 50);
    assert.deepEqual([flight.progressMs, flight.newestArrivedMs, flight.highest], [50, 2, 1]);
    flight.arrived(0, 1, 60);
    assert.deepEqual([flight.progressMs, flight.newestArrivedMs], [60, 2]);
    flight.arrived(0, 1, 70);
    assert.equal(flight.progressMs, 60, 'nothing new');
    assert.deepEqual([flight.sentAtMs(2), flight.sentAtMs(3), flight.sentAtMs(-1)], [3, NaN, NaN]);
  });
});

describe('counters of an epoch', () => {
  it('become numbers that go on across epochs; what was never counted has none', () => {
    const flight = new Flight();
    assert.equal(flight.expand(0, 0), Number.NaN);
    const send = (epoch: number, from: number, to: number): void => {
      for (let counter = from; counter <= to; counter++)
        flight.add(epoch, counter, 1, 100, true, 0);
    };
    // Nobody counted the first 500, nor those that went over the link between.
    send(0, 500, 509);
    send(1, 0, 4);
    send(1, 8, 9);
    const table: readonly (readonly [epoch: number, counter: number, number: number])[] = [
      [0, 500, 0],
      [0, 509, 9],
      [0, 499, NaN],
      [0, 510, NaN],
      [0, 0xffff_ffff, NaN],
      [1, 0, 10],
      [1, 4, 14],
      [1, 9, 19],
      [1, 10, NaN],
      [2, 0, NaN],
      [3, 509, NaN],
    ];
    for (const [epoch, counter, number] of table) {
      assert.equal(flight.expand(epoch, counter), number, `${counter} of epoch ${epoch}`);
    }
    assert.deepEqual([flight.firstOf(0), flight.firstOf(1)], [0, 10]);
    assert.equal(flight.sent, 17, 'gaps are not counted as sent');
  });

  it('have 32 bits in reports and more here', () => {
    const flight = new Flight();
    const first = 2 ** 32 - 3;
    for (let i = 0; i < 6; i++) flight.add(2, first + i, i + 1, 100, true, 0);
    const numbers = [0, 1, 2, 3, 4, 5].map((i) => flight.expand(2, (first + i) % 2 ** 32));
    assert.deepEqual(numbers, [0, 1, 2, 3, 4, 5]);
    assert.equal(flight.expand(2, 3), Number.NaN);
  });

  it('start again under new keys of the same epoch, when the peer forgot the old ones', () => {
    const flight = new Flight();
    for (let counter = 0; counter < 10; counter++)
      flight.add(1, counter, counter + 1, 100, true, 0);
    for (let counter = 0; counter < 3; counter++)
      flight.add(1, counter, counter + 11, 100, true, 5);
    assert.deepEqual([flight.expand(1, 0), flight.expand(1, 2)], [10, 12]);
    assert.equal(flight.expand(1, 9), Number.NaN, 'the old ones were never received');
    flight.arrived(flight.expand(1, 0), flight.expand(1, 2), 20);
    assert.deepEqual([...flight.arrivedTickets.subarray(0, flight.arrivedCount)], [11, 12, 13]);
  });
});
