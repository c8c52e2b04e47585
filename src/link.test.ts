import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { endpoint, isSameRemote, parseIp } from './address.ts';
import { BASE_PATH_MTU } from './constants.ts';
import type { LinkSocket } from './host.ts';
import { Link } from './link.ts';

const SOCKET: LinkSocket = {
  receive: () => 0,
  send: () => 0,
  errno: () => 0,
  watch: () => undefined,
  close: () => undefined,
};

const newLink = (): Link => new Link(3, SOCKET, (bytes) => bytes.fill(1));

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
