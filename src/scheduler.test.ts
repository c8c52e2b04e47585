import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lonelyLink } from '../test/oneway.ts';
import { Random } from '../test/random.ts';
import type { Link } from './link.ts';
import { PLAIN_LINK, type LinkSettings } from './peering.ts';
import { Scheduler } from './scheduler.ts';

interface Measured {
  readonly rate?: number;
  readonly delayMs: number;
  readonly state?: Link['state'];
  readonly loss?: number;
  readonly settings?: Partial<LinkSettings>;
}

/** Bytes per millisecond of 10 Mbit/s. */
const TEN_MBIT = 1_250;
const PLENTY = 10 ** 8;

function linkOf(place: number, measured: Measured): Link {
  const { rate = TEN_MBIT, delayMs, state = 'up', loss = 0, settings = {} } = measured;
  const link = lonelyLink(place, { ...PLAIN_LINK, ...settings });
  link.place = place;
  link.state = state;
  const { capacity } = link;
  capacity.ackMs = 2 * delayMs;
  // As if the clocks of both ends differed by 30 000 units: only differences count.
  capacity.delay = (4 * delayMs + 30_000) & 0xffff;
  capacity.loss = loss;
  if (rate > 0) capacity.assume(rate, 0);
  return link;
}

function schedule(measured: readonly Measured[]): { links: Link[]; scheduler: Scheduler } {
  const links = measured.map((one, place) => linkOf(place, one));
  const scheduler = new Scheduler();
  scheduler.order(links);
  return { links, scheduler };
}

const places = (links: readonly Link[]): number[] => links.map(({ place }) => place);

/** Uses up what pacing allows, so that the link has no room at `nowMs`; nothing limits one not measured. */
function fill(link: Link, nowMs: number): void {
  if (link.capacity.limit === 0) return;
  while (link.hasRoom(nowMs)) link.capacity.spend(1_500);
}

describe('the links that carry bulk', () => {
  const table: readonly (readonly [
    what: string,
    links: readonly Measured[],
    bulk: number[],
    alive: number[],
  ])[] = [
    [
      'the quickest first',
      [{ delayMs: 40 }, { delayMs: 10 }, { delayMs: 20 }],
      [1, 2, 0],
      [1, 2, 0],
    ],
    [
      'a backup only without others',
      [{ delayMs: 10, settings: { isBackup: true } }, { delayMs: 30 }],
      [1],
      [0, 1],
    ],
    [
      'the backup when the other is suspect',
      [
        { delayMs: 10, settings: { isBackup: true } },
        { delayMs: 30, state: 'suspect' },
      ],
      [0],
      [0],
    ],
    [
      'not the suspect, not the dead',
      [{ delayMs: 9, state: 'suspect' }, { delayMs: 30 }],
      [1],
      [1],
    ],
    [
      'none is up: all that have a socket',
      [
        { delayMs: 30, state: 'suspect' },
        { delayMs: 10, state: 'suspect' },
        { delayMs: 1, state: 'down' },
      ],
      [1, 0],
      [1, 0],
    ],
    [
      'all are down: none',
      [
        { delayMs: 30, state: 'down' },
        { delayMs: 9, state: 'down' },
      ],
      [],
      [],
    ],
    [
      'not one whose latency is above its limit',
      [{ delayMs: 10, settings: { latencyLimitMs: 15 } }, { delayMs: 30 }],
      [1],
      [0, 1],
    ],
    [
      'nor one whose loss is, unless all are bad',
      [
        { delayMs: 10, loss: 0.2, settings: { lossLimit: 0.1 } },
        { delayMs: 30, loss: 0.2, settings: { lossLimit: 0.1 } },
      ],
      [0, 1],
      [0, 1],
    ],
    [
      'a good backup before a bad link',
      [
        { delayMs: 10, loss: 0.2, settings: { lossLimit: 0.1 } },
        { delayMs: 30, settings: { isBackup: true } },
      ],
      [1],
      [0, 1],
    ],
    [
      'lossy links are used',
      [
        { delayMs: 10, loss: 0.2 },
        { delayMs: 12, loss: 0.3 },
      ],
      [0, 1],
      [0, 1],
    ],
    ['not one by a satellite for as little', [{ delayMs: 10 }, { delayMs: 600 }], [0], [0, 1]],
    [
      'but one by a satellite that brings most',
      [{ delayMs: 10 }, { delayMs: 600, rate: 10 * TEN_MBIT }],
      [0, 1],
      [0, 1],
    ],
  ];
  for (const [what, measured, bulk, alive] of table) {
    it(what, () => {
      const { scheduler } = schedule(measured);
      assert.deepEqual(places(scheduler.bulk), bulk);
      assert.deepEqual(places(scheduler.alive), alive);
    });
  }

  it('is never empty while there is a socket, and in order of delay, whatever their states', () => {
    for (let seed = 1; seed <= 500; seed++) {
      const random = new Random(seed);
      const measured = Array.from({ length: 1 + random.below(5) }, (): Measured => {
        const isBackup = random.below(3) === 0;
        const settings = { isBackup, lossLimit: random.below(2) * 0.1 };
        const state = (['up', 'up', 'suspect', 'down'] as const)[random.below(4)];
        const rate = random.below(4) * TEN_MBIT;
        return { delayMs: 1 + random.below(400), rate, state, loss: random.next() / 4, settings };
      });
      const { links, scheduler } = schedule(measured);
      const hasSocket = links.some(({ state }) => state !== 'down');
      assert.equal(scheduler.bulk.length > 0, hasSocket, `seed ${seed}`);
      if (!hasSocket) continue;
      const delays = scheduler.bulk.map(({ place }) => measured[place].delayMs);
      assert.deepEqual(
        delays,
        delays.toSorted((a, b) => a - b),
        `seed ${seed}`,
      );
      assert.ok(scheduler.bulk.every((link) => scheduler.alive.includes(link)));
      // Nothing starves: with enough waiting there is a link as long as one of them has room.
      const open = scheduler.bulk[random.below(scheduler.bulk.length)];
      for (const link of links) if (link !== open) fill(link, 10);
      const chosen = scheduler.next(PLENTY, 10);
      const isUnlimited = chosen !== open && chosen?.capacity.limit === 0;
      assert.ok(chosen === open || isUnlimited, `seed ${seed}`);
      fill(open, 10);
      assert.equal(scheduler.next(PLENTY, 10)?.capacity.limit ?? 0, 0, `seed ${seed}`);
    }
  });
});

describe('the next packet', () => {
  it('goes over the quickest link that has room; over a slower one only when enough waits', () => {
    const { links, scheduler } = schedule([{ delayMs: 20 }, { delayMs: 60 }]);
    const [quick, slow] = links;
    const nowMs = 10;
    assert.equal(scheduler.next(1, nowMs), quick);
    assert.equal(scheduler.ahead, 0);
    assert.equal(scheduler.next(PLENTY, nowMs), quick);
    fill(quick, nowMs);
    // In the 40 ms that the other takes longer, the quick one sends 50 000 bytes itself.
    assert.equal(scheduler.next(1_500, nowMs), undefined);
    assert.equal(scheduler.next(20_000, nowMs), undefined);
    assert.equal(scheduler.next(80_000, nowMs), slow);
    assert.ok(scheduler.ahead > 30_000 && scheduler.ahead <= 50_000, `${scheduler.ahead} bytes`);
    fill(slow, nowMs);
    assert.equal(scheduler.next(PLENTY, nowMs), undefined);
  });

  it('takes links of like delay as one', () => {
    const { links, scheduler } = schedule([{ delayMs: 20 }, { delayMs: 21 }]);
    fill(links[0], 10);
    assert.equal(scheduler.next(1, 10), links[1]);
    assert.equal(scheduler.ahead, 0);
  });

  it('finds its link also right after the rate of one changed tenfold', () => {
    for (const factor of [0.1, 10]) {
      const { links, scheduler } = schedule([{ delayMs: 20 }, { delayMs: 60 }]);
      const [quick, slow] = links;
      quick.capacity.assume(TEN_MBIT * factor, 0);
      scheduler.order(links);
      fill(quick, 10);
      assert.equal(scheduler.next(PLENTY, 10), slow, `${factor}`);
      // What has to wait for the slow one follows the quick one's rate.
      const worth = scheduler.ahead / (TEN_MBIT * factor);
      assert.ok(worth > 20 && worth <= 40, `${factor}: ${worth.toFixed(1)} ms`);
    }
  });

  it('comes round also when the clock of the stamps does', () => {
    const { links, scheduler } = schedule([{ delayMs: 20 }, { delayMs: 60 }]);
    links[0].capacity.delay = 0xfff0;
    links[1].capacity.delay = 0x0010;
    scheduler.order(links);
    assert.deepEqual(places(scheduler.bulk), [0, 1]);
  });

  it('may wait until links are measured, and afterwards no longer than keeps them busy', () => {
    const { scheduler } = schedule([{ delayMs: 20 }, { delayMs: 20, rate: 0 }]);
    assert.ok(scheduler.mostWaiting > 10 ** 6);
    for (const rate of [100, TEN_MBIT, 10 * TEN_MBIT]) {
      const { mostWaiting } = schedule([
        { delayMs: 20, rate },
        { delayMs: 30, rate },
      ]).scheduler;
      assert.ok(mostWaiting >= 32 * 1024, `${rate}`);
      assert.ok(mostWaiting >= 50 * 2 * rate, `${rate}: the links would run dry`);
      assert.ok(mostWaiting <= 32 * 1024 + 1_000 * 2 * rate, `${rate}: ${mostWaiting} bytes wait`);
    }
  });
});

describe('a packet that must not wait', () => {
  it('takes the quickest link, and another for its copy', () => {
    const { links, scheduler } = schedule([{ delayMs: 30 }, { delayMs: 10 }, { delayMs: 20 }]);
    assert.equal(scheduler.quickest(), links[1]);
    assert.equal(scheduler.quickest(links[1]), links[2]);
    fill(links[1], 10);
    assert.equal(scheduler.quickest(), links[1], 'also without room');
  });

  it('takes a backup only for want of another', () => {
    const { links, scheduler } = schedule([
      { delayMs: 10, settings: { isBackup: true } },
      { delayMs: 30 },
    ]);
    assert.equal(scheduler.quickest(), links[1]);
    assert.equal(scheduler.quickest(links[1]), links[0]);
    const { scheduler: single, links: one } = schedule([{ delayMs: 10 }]);
    assert.equal(single.quickest(one[0]), undefined);
  });
});

describe('a repair', () => {
  it('goes where it arrives first and most likely', () => {
    const both = [{ delayMs: 20 }, { delayMs: 22 }];
    const table: readonly (readonly [
      what: string,
      links: readonly Measured[],
      lostOn: number,
      place: number,
    ])[] = [
      ['the quickest', [{ delayMs: 20 }, { delayMs: 60 }], 0, 0],
      ['the quickest, also if it was lost there', [{ delayMs: 20 }, { delayMs: 60 }], 1, 0],
      ['of two alike the one that did not lose it', both, 1, 1],
      ['of two alike the first', both, 0, 0],
      ['one that loses less', [{ delayMs: 20, loss: 0.3 }, { delayMs: 22 }], 0, 1],
      ['no backup', [{ delayMs: 20, settings: { isBackup: true } }, { delayMs: 40 }], 0, 1],
      ['a backup that is all there is', [{ delayMs: 20, settings: { isBackup: true } }], 1, 0],
    ];
    for (const [what, measured, lostOn, place] of table) {
      assert.equal(schedule(measured).scheduler.forRepair(lostOn, 10)?.place, place, what);
    }
  });

  it('the second copy goes over another link, and none over one without room', () => {
    const { links, scheduler } = schedule([{ delayMs: 20 }, { delayMs: 30 }]);
    const place = (other?: Link): number | undefined => scheduler.forRepair(0, 10, other)?.place;
    assert.equal(place(links[0]), 1);
    fill(links[0], 10);
    assert.equal(place(), 1);
    fill(links[1], 10);
    assert.equal(place(), undefined);
  });

  it('rather waits for a quick link than takes a slow one', () => {
    const { links, scheduler } = schedule([{ delayMs: 20 }, { delayMs: 320 }]);
    fill(links[0], 10);
    assert.equal(scheduler.forRepair(0, 10)?.place, undefined);
  });
});
