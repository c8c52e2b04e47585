import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lonelyLink } from '../test/oneway.ts';
import { linkVerdict } from './classes.ts';
import type { Link } from './link.ts';
import { PLAIN_LINK } from './peering.ts';
import { Pins } from './pins.ts';
import { FairQueue } from './queue.ts';
import { PacketStore } from './store.ts';

const BULK = 0;
const LENGTH = 1_000;
/** Bytes per millisecond of 10 Mbit/s. */
const TEN_MBIT = 1_250;

function linkOf(place: number, name: string): Link {
  const link = lonelyLink(place, { ...PLAIN_LINK, name, latencyLimitMs: 500 });
  link.state = 'up';
  link.capacity.assume(TEN_MBIT, 0);
  return link;
}

/** Links a and b, and filters for a, b and a again. */
function bed() {
  const store = new PacketStore(0);
  const shared = new FairQueue(store);
  const pins = new Pins(store);
  pins.setLinks(['a', 'b', 'a'], shared);
  const links = [linkOf(0, 'a'), linkOf(1, 'b'), linkOf(2, 'c')] as const;
  let rows = 0;
  /** A packet of one bucket waits for the link that `verdict` says. */
  const wait = (verdict: number): number => {
    const pin = pins.find(verdict, links);
    assert.ok(pin !== undefined);
    const row = rows++;
    store.lengths[row] = LENGTH;
    store.buckets[row] = 7;
    pin.queue.push(row);
    return row;
  };
  const pump = (nowMs: number): (readonly [string, number])[] => {
    const given: (readonly [string, number])[] = [];
    pins.pump(links, shared, nowMs, (link, row) => {
      link.capacity.spend(LENGTH);
      given.push([link.settings.name, row]);
    });
    return given;
  };
  return { pins, links, shared, wait, pump };
}

describe('a packet that filters put on links', () => {
  const both = linkVerdict(0) | linkVerdict(1);
  const table: readonly (readonly [
    what: string,
    verdict: number,
    change: (a: Link, b: Link) => void,
    name: string | undefined,
  ])[] = [
    ['none matches', BULK, () => {}, undefined],
    ['the first matches', linkVerdict(0), () => {}, 'a'],
    ['both match', both, () => {}, 'a'],
    ['both match, and the first is silent', both, (a) => (a.state = 'suspect'), 'b'],
    ['both match, and the first is down', both, (a) => (a.state = 'down'), 'b'],
    ['both match, and the first is bad', both, (a) => (a.capacity.ackMs = 600), 'b'],
    ['only one that is down matches', linkVerdict(2), (a) => (a.state = 'down'), undefined],
  ];
  for (const [what, verdict, change, name] of table) {
    it(`goes by ${name ?? 'any link'} when ${what}`, () => {
      const { pins, links } = bed();
      change(links[0], links[1]);
      assert.equal(pins.find(verdict, links)?.name, name);
    });
  }

  it('goes by no link that is not there', () => {
    const { pins, links } = bed();
    assert.equal(pins.find(both, [links[2]]), undefined);
  });
});

describe('what waits for a link of its own', () => {
  it('goes in order, as the link has room, and other links go on', () => {
    const { pins, wait, pump } = bed();
    const rows = Array.from({ length: 20 }, () => wait(linkVerdict(0)));
    const other = wait(linkVerdict(1));
    let given = pump(1);
    assert.ok(given.length < rows.length, 'the link has room for all');
    assert.deepEqual(given.at(-1), ['b', other]);
    for (let nowMs = 2; pins.count > 0 && nowMs < 100; nowMs++) given = [...given, ...pump(nowMs)];
    const ofA = given.filter(([name]) => name === 'a').map(([, row]) => row);
    assert.deepEqual(ofA, rows);
  });

  it('is shared when the link cannot take it any more', () => {
    const { pins, links, shared, wait, pump } = bed();
    const rows = [wait(linkVerdict(0)), wait(linkVerdict(0))];
    assert.ok(pins.isWanted(links[0]));
    links[0].state = 'suspect';
    assert.deepEqual(pump(1), []);
    assert.deepEqual([pins.count, shared.count], [0, 2]);
    assert.deepEqual([shared.shift(), shared.shift()], rows);
  });

  it('is shared when there are other filters', () => {
    const { pins, shared, wait } = bed();
    wait(linkVerdict(0));
    pins.setLinks(['b'], shared);
    assert.deepEqual([pins.count, shared.count], [0, 1]);
  });

  it('is half a second of the link at most', () => {
    const { pins, links, wait } = bed();
    const pin = pins.find(linkVerdict(0), links);
    assert.ok(pin !== undefined);
    links[0].capacity.ackMs = 450;
    let count = 0;
    for (; count < 10_000 && pins.admits(pin, LENGTH); count++) wait(linkVerdict(0));
    assert.ok(count > 0 && count * LENGTH <= 500 * TEN_MBIT, `${count} packets`);
  });
});
