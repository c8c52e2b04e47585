import { deepEqual, equal, ok } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../../test/random.ts';
import { linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { LinkHistory } from './history.ts';

const SEED = 20_261;

describe('sums and rates of links', () => {
  it(`go on over sessions and are as a slow model has them (seed ${SEED})`, () => {
    const random = new Random(SEED);
    const history = new LinkHistory();
    // What the tunnel counts in this session, and what went over a link in all.
    const now = { a: 0, b: 0 };
    const all = { a: 0, b: 0 };
    const log: { atMs: number; a: number; b: number }[] = [];
    for (let atMs = 0; atMs < 60_000; atMs += 250) {
      if (random.below(40) === 0) now.a = now.b = 0;
      for (const name of ['a', 'b'] as const) {
        const more = 1 + random.below(5_000);
        now[name] += more;
        all[name] += more;
      }
      const links = (['a', 'b'] as const).map((name, id) =>
        linkStatus({ id, name, sentBytes: now[name] * 100, sentPackets: now[name] }),
      );
      history.observe(tunnelStatus(links), atMs);
      log.push({ atMs, ...all });
      equal(history.of('a').sentBytes, all.a * 100, `seed ${SEED}, ${atMs} ms`);
      equal(history.of('b').sentPackets, all.b, `seed ${SEED}, ${atMs} ms`);
      equal(history.sentBytes, (all.a + all.b) * 100, `seed ${SEED}, ${atMs} ms`);
      if (atMs === 0 || atMs % 1_000 !== 0) continue;
      const before = log.find((one) => one.atMs === atMs - 1_000)!;
      equal(history.of('a').upRate, (all.a - before.a) * 100, `seed ${SEED}, ${atMs} ms`);
      const share = (all.a - before.a) / (all.a - before.a + all.b - before.b);
      ok(Math.abs(history.of('a').share - share) < 1e-9, `seed ${SEED}, ${atMs} ms`);
    }
  });

  it('know when a link goes and comes, and count how often', () => {
    const history = new LinkHistory();
    const observe = (atMs: number, ...links: Parameters<typeof linkStatus>[0][]) =>
      history.observe(tunnelStatus(links.map((link) => linkStatus(link))), atMs);
    deepEqual(observe(0, {}), [{ link: 'dsl', from: 'down', to: 'up' }]);
    deepEqual(observe(250, {}), []);
    deepEqual(observe(500, { state: 'suspect' }), [{ link: 'dsl', from: 'up', to: 'suspect' }]);
    deepEqual(observe(750, { state: 'down' }), [{ link: 'dsl', from: 'suspect', to: 'down' }]);
    equal(history.of('dsl').disconnects, 1);
    deepEqual(observe(1_000, {}), [{ link: 'dsl', from: 'down', to: 'up' }]);
    // A session without it.
    deepEqual(observe(1_250), [{ link: 'dsl', from: 'up', to: 'down' }]);
    equal(history.of('dsl').disconnects, 2);
    equal(history.of('dsl').sinceMs, 1_250);
  });

  it('forget the link that is down for longest when there are too many', () => {
    const history = new LinkHistory();
    for (let i = 0; i < 200; i++) {
      history.observe(tunnelStatus([linkStatus({ id: i % 255, name: `wan${i}` })]), i * 250);
    }
    equal(history.of('wan0').sentBytes, 0);
    equal(history.of('wan199').sentBytes, 140_000);
    // What they carried is not forgotten.
    equal(history.sentBytes, 200 * 140_000);
  });
});
