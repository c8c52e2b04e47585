import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { endpoint, isSameRemote, parseIp } from './address.ts';
import { BASE_PATH_MTU } from './constants.ts';
import { decodeSection, section, type Section } from './feedback.ts';
import type { LinkSocket } from './host.ts';
import { Link } from './link.ts';
import { PLAIN_LINK } from './peering.ts';

const SOCKET: LinkSocket = {
  receive: () => 0,
  send: () => 0,
  errno: () => 0,
  watch: () => undefined,
  close: () => undefined,
};

const newLink = (): Link => new Link(3, SOCKET, PLAIN_LINK, (bytes) => bytes.fill(1));

describe('the round trip time', () => {
  it('starts with the first answer and follows RFC 6298 §2', () => {
    const link = newLink();
    link.probeAnswered(link.probe(0, 1_000), 1_100);
    assert.deepEqual([link.rttMs, link.rttVarianceMs, link.patienceMs], [100, 50, 300]);
    link.probeAnswered(link.probe(0, 2_000), 2_200);
    // RTTVAR = 3/4 · 50 + 1/4 · |100 − 200|, then SRTT = 7/8 · 100 + 1/8 · 200.
    assert.deepEqual([link.rttMs, link.rttVarianceMs, link.patienceMs], [112.5, 62.5, 362.5]);
  });

  it('comes to a steady value, whatever order the answers come in', () => {
    const link = newLink();
    const random = new Random(4);
    let nowMs = 0;
    for (let round = 0; round < 50; round++) {
      const tokens = Array.from({ length: 8 }, () => link.probe(0, nowMs));
      tokens.sort(() => random.next() - 0.5);
      for (const token of tokens) link.probeAnswered(token, nowMs + 40);
      nowMs += 1_000;
    }
    assert.ok(Math.abs(link.rttMs - 40) < 1e-6 && link.rttVarianceMs < 1, `${link.rttMs} ms`);
  });
});

describe('a probe', () => {
  it('is answered once', () => {
    const link = newLink();
    const token = link.probe(0, 0);
    link.probeAnswered(token, 10);
    link.probeAnswered(token, 500);
    assert.equal(link.rttMs, 10);
  });

  it('is not answered by a token that was never given', () => {
    const link = newLink();
    const given = new Set([link.probe(1_400, 0), link.probe(1_500, 0)]);
    for (let token = 0; token < 1_000; token++) {
      if (!given.has(token)) link.probeAnswered(token, 10);
    }
    link.probeAnswered(2 ** 32 - 1, 10);
    assert.equal(link.rttMs, 0);
  });

  it('is forgotten when 64 later ones went out', () => {
    const link = newLink();
    const first = link.probe(0, 0);
    const second = link.probe(0, 0);
    for (let i = 0; i < 63; i++) link.probe(0, 1);
    link.probeAnswered(first, 10);
    assert.equal(link.rttMs, 0, 'the first gave its place to the 65th');
    link.probeAnswered(second, 10);
    assert.equal(link.rttMs, 10);
  });

  it('goes on after the last token of 32 bits, and stays answerable once', () => {
    const link = newLink();
    Object.assign(link, { nextToken: 2 ** 32 - 2 });
    const tokens = [0, 1, 2, 3, 4].map((i) => link.probe(0, 100 * i));
    assert.deepEqual(tokens, [2 ** 32 - 2, 2 ** 32 - 1, 0, 1, 2]);
    link.probeAnswered(tokens[1], 150);
    assert.equal(link.rttMs, 50);
    link.probeAnswered(tokens[1], 10_000);
    assert.equal(link.rttMs, 50);
    // Token 0 means an empty place, so its answer teaches nothing; the next ones do again.
    link.probeAnswered(tokens[2], 10_000);
    assert.equal(link.rttMs, 50);
    link.probeAnswered(tokens[3], 350);
    assert.equal(link.rttMs, 50);
    assert.equal(link.rttVarianceMs, 18.75);
  });

  it('with a size teaches the path MTU, a small one does not', () => {
    const link = newLink();
    const size = link.pathMtu.due(0, 0, false);
    assert.ok(size > BASE_PATH_MTU);
    link.probeAnswered(link.probe(0, 0), 10);
    const token = link.probe(size, 0);
    for (let nowMs = 0; nowMs < 60_000; nowMs += 100) {
      while (link.pathMtu.due(nowMs, 10, false) !== 0);
      if (nowMs === 100) assert.equal(link.pathMtu.current, BASE_PATH_MTU);
      if (nowMs === 100) link.probeAnswered(token, nowMs);
    }
    assert.equal(link.pathMtu.current, size);
  });
});

describe('the room for packets', () => {
  it('is the path MTU without IP, UDP and our 32 bytes', () => {
    const link = newLink();
    link.moveTo(endpoint(parseIp('192.0.2.1')!, 443), 0);
    assert.equal(link.packetRoom, BASE_PATH_MTU - 60);
    link.moveTo(endpoint(parseIp('2001:db8::1')!, 443), 0);
    assert.equal(link.packetRoom, BASE_PATH_MTU - 80);
  });
});

it('moves to a source, and adopts our side of it alone', () => {
  const link = newLink();
  const first = endpoint(parseIp('192.0.2.1')!, 443);
  const table = new Uint8Array(80);
  table.set(first, 40);
  link.moveTo(table, 40);
  assert.deepEqual(link.endpoint, first);
  table.fill(9, 40);
  link.adoptLocalAddress(table, 40);
  assert.ok(isSameRemote(link.endpoint, 0, first, 0));
  assert.deepEqual(link.endpoint.subarray(24), new Uint8Array(16).fill(9));
});

it('has traffic for a second after a full-size packet, as long as the peer is heard', () => {
  const link = newLink();
  link.heardMs = 5_000;
  assert.equal(link.hasTraffic(5_000), false);
  link.sentFullSize(5_000);
  const traffic = (): boolean[] => [5_000, 5_999, 6_000].map((nowMs) => link.hasTraffic(nowMs));
  assert.deepEqual(traffic(), [true, true, false]);
  link.heardMs = Number.NEGATIVE_INFINITY;
  assert.deepEqual(traffic(), [false, false, false]);
});

describe('a report', () => {
  /** A link with a hundred datagrams under way under epoch 1, of which 40 are known to have arrived. */
  function busyLink(): Link {
    const link = newLink();
    for (let i = 0; i < 20; i++) link.flight.add(0, i, i + 1, 1_000, true, 100);
    for (let i = 0; i < 80; i++) link.flight.add(1, i, i + 21, 1_000, true, 110 + i);
    link.reported(reportOf(0, 19, [20]), 120);
    link.reported(reportOf(1, 19, [20]), 180);
    link.flight.settled();
    return link;
  }

  function reportOf(epoch: number, highest: number, runs: readonly number[]): Section {
    const part = section();
    const packets = runs.reduce((sum, length, i) => sum + (i % 2 === 0 ? length : 0), 0);
    Object.assign(part, { link: 3, epoch, highest, packets, arrival: 400 + packets });
    part.runs.set(runs);
    part.runCount = runs.length;
    return part;
  }

  /** Everything the link knows of what it sent. */
  const knowledge = ({ flight, capacity, reorderingMs }: Link): unknown =>
    structuredClone({ flight: { ...flight }, capacity: { ...capacity }, reorderingMs });

  it('on counters that were never sent, or of keys that were never used, changes nothing', () => {
    const table: readonly (readonly [epoch: number, highest: number, runs: readonly number[]])[] = [
      [1, 80, [80]],
      [1, 81, [1, 10, 60]],
      [1, 0xffff_ffff, [100]],
      [0, 20, [20]],
      [0, 50, [51]],
      [2, 5, [6]],
      [3, 0, [1]],
    ];
    for (const [epoch, highest, runs] of table) {
      const link = busyLink();
      const before = knowledge(link);
      const forged = reportOf(epoch, highest, runs);
      forged.reordering = 9_999;
      link.reported(forged, 200);
      assert.deepEqual(knowledge(link), before, `${highest} of epoch ${epoch}`);
    }
  });

  it('says nothing of other keys, however far its runs go', () => {
    const link = busyLink();
    link.flight.abandon();
    link.flight.settled();
    link.reported(reportOf(1, 79, [1, 70, 1_000]), 200);
    const { flight } = link;
    const arrived = [...flight.arrivedTickets.subarray(0, flight.arrivedCount)];
    // Counter 79, and of 0 to 8 what was not known yet: nothing.
    assert.deepEqual(arrived, [100]);
  });

  it('a second time, or late, takes nothing back and finds nothing new', () => {
    const link = busyLink();
    const latest = reportOf(1, 59, [30, 2, 28]);
    link.reported(latest, 200);
    assert.deepEqual([...link.flight.lostTickets.subarray(0, link.flight.lostCount)], [49, 50]);
    link.flight.settled();
    const before = knowledge(link);
    for (const again of [
      latest,
      reportOf(1, 25, [26]),
      reportOf(1, 19, [20]),
      reportOf(0, 19, [20]),
    ]) {
      link.reported(again, 201);
      assert.deepEqual(knowledge(link), before);
    }
  });

  it('before anything is counted teaches the rate of the link, and no more', () => {
    const link = newLink();
    link.reported(reportOf(0, 500, [501]), 100);
    assert.deepEqual([link.flight.highest, link.flight.arrivedCount], [-1, 0]);
    assert.equal(link.isMeasured, false, 'nobody knows when it was sent');
  });

  it('of random bytes never finds more than was sent, and each ticket once', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed);
      const link = newLink();
      const seen = new Map<number, number>();
      let ticket = 0;
      let nowMs = 0;
      for (let step = 0; step < 40; step++) {
        const epoch = step >> 4;
        for (let i = random.below(20); i > 0; i--) {
          link.flight.add(epoch, ticket - epoch * 7, ++ticket, 1_000, true, (nowMs += 1));
        }
        const body = new Uint8Array(28 + 2 * random.below(20));
        random.fill(body);
        body[1] = random.below(4);
        new DataView(body.buffer).setUint32(2, random.below(2 * ticket + 2));
        new DataView(body.buffer).setUint16(26, (body.length - 28) / 2);
        for (let at = 28; at < body.length; at += 2) body[at] = 0;
        const part = section();
        assert.equal(decodeSection(body, 0, part), body.length);
        link.reported(part, nowMs + 5);
        const { flight } = link;
        for (const one of flight.arrivedTickets.subarray(0, flight.arrivedCount)) {
          seen.set(one, (seen.get(one) ?? 0) + 1);
        }
        flight.settled();
        assert.ok(flight.bytes >= 0 && flight.lost >= 0, `seed ${seed}`);
      }
      for (const [one, times] of seen) {
        assert.ok(one >= 1 && one <= ticket && times === 1, `seed ${seed}: ${one}, ${times} times`);
      }
    }
  });
});
