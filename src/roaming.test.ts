import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { endpoint, isSameRemote } from './address.ts';
import { Roaming } from './roaming.ts';

/** Header, inner header, 8 bytes, tag. */
const CHALLENGE_DATAGRAM_BYTES = 40;
const RTT_MS = 40;
/** max(50 ms, 2 × RTT). */
const GRACE_MS = 80;

const at = (host: number): Uint8Array => endpoint(Uint8Array.of(192, 0, 2, host), 443);
const PRESENT = at(1);
const NEW = at(2);
const OTHER = at(3);

function newRoaming(): Roaming {
  const random = new Random(7);
  return new Roaming((bytes) => random.fill(bytes));
}

const heard = (roaming: Roaming, from: Uint8Array, nowMs: number, size = 100): void =>
  roaming.heardElsewhere(from, 0, size, nowMs);

/** And sends what is to be sent to the candidate. */
function decide(roaming: Roaming, nowMs: number): string {
  const decision = roaming.decide(nowMs, RTT_MS, CHALLENGE_DATAGRAM_BYTES);
  if (decision === 'challenge') {
    assert.ok(roaming.take(roaming.candidate, 0, CHALLENGE_DATAGRAM_BYTES));
  }
  return decision;
}

/** The reply to one of the two challenges, from `from`. */
function reply(
  roaming: Roaming,
  which: 'candidate' | 'present',
  from: Uint8Array,
  nowMs: number,
): void {
  const challenge = which === 'candidate' ? roaming.candidateChallenge : roaming.presentChallenge;
  roaming.replied(challenge.slice(), from, 0, PRESENT, nowMs);
}

/** What comes of `replies`, looked at every 5 ms for two and a half seconds after the first datagram. */
function outcome(
  replies: readonly (readonly ['candidate' | 'present', Uint8Array, number])[],
): number | undefined {
  const roaming = newRoaming();
  heard(roaming, NEW, 0);
  for (let nowMs = 0; nowMs <= 2_500; nowMs += 5) {
    for (const [which, from, atMs] of replies) {
      if (atMs === nowMs) reply(roaming, which, from, nowMs);
    }
    if (decide(roaming, nowMs) === 'moved') return nowMs;
  }
  return undefined;
}

describe('a link', () => {
  it('moves, or stays, as this table says', () => {
    const rows: readonly (readonly [
      name: string,
      replies: readonly (readonly ['candidate' | 'present', Uint8Array, number])[],
      movedAtMs: number | undefined,
    ])[] = [
      ['nobody replies', [], undefined],
      ['the candidate alone replies', [['candidate', NEW, 40]], 40 + GRACE_MS],
      ['the candidate replies late', [['candidate', NEW, 1_900]], 1_900 + GRACE_MS],
      ['the candidate replies too late', [['candidate', NEW, 2_005]], undefined],
      ['the present endpoint alone replies', [['present', PRESENT, 40]], undefined],
      [
        'both reply, the present first',
        [
          ['present', PRESENT, 30],
          ['candidate', NEW, 40],
        ],
        undefined,
      ],
      [
        'both reply, the present last',
        [
          ['candidate', NEW, 40],
          ['present', PRESENT, 115],
        ],
        undefined,
      ],
      [
        'the present replies after the grace',
        [
          ['candidate', NEW, 40],
          ['present', PRESENT, 125],
        ],
        120,
      ],
      [
        'a later reply does not put it off',
        [
          ['candidate', NEW, 40],
          ['candidate', NEW, 100],
        ],
        120,
      ],
      ['the candidate sends what the present was asked', [['present', NEW, 40]], undefined],
      ['the present sends what the candidate was asked', [['candidate', PRESENT, 40]], undefined],
      [
        'a third sends both',
        [
          ['candidate', OTHER, 40],
          ['present', OTHER, 40],
        ],
        undefined,
      ],
      [
        'a third does not stop it',
        [
          ['candidate', NEW, 40],
          ['present', OTHER, 50],
        ],
        120,
      ],
    ];
    for (const [name, replies, movedAtMs] of rows) assert.equal(outcome(replies), movedAtMs, name);
  });

  it('moves to the candidate, whole endpoint and once', () => {
    const roaming = newRoaming();
    const table = new Uint8Array(80);
    table.set(NEW, 40);
    table.fill(9, 64);
    roaming.heardElsewhere(table, 40, 100, 0);
    reply(roaming, 'candidate', NEW, 10);
    assert.equal(decide(roaming, 10 + GRACE_MS), 'moved');
    assert.deepEqual(roaming.candidate, table.slice(40));
    assert.equal(decide(roaming, 10 + GRACE_MS), 'none');
    assert.equal(roaming.hasCandidate, false);
  });

  it('waits at least 50 ms for the present endpoint, however short the round trip', () => {
    const roaming = newRoaming();
    heard(roaming, NEW, 0);
    reply(roaming, 'candidate', NEW, 0);
    assert.notEqual(roaming.decide(49, 1, CHALLENGE_DATAGRAM_BYTES), 'moved');
    assert.equal(roaming.decide(50, 1, CHALLENGE_DATAGRAM_BYTES), 'moved');
  });

  it('takes no reply of wrong bytes or length, and none to an older challenge', () => {
    const roaming = newRoaming();
    heard(roaming, NEW, 0);
    const older = roaming.candidateChallenge.slice();
    for (let bit = 0; bit < 64; bit++) {
      const forged = older.slice();
      forged[bit >> 3] ^= 1 << (bit & 7);
      roaming.replied(forged, NEW, 0, PRESENT, 10);
    }
    roaming.replied(older.subarray(0, 7), NEW, 0, PRESENT, 10);
    roaming.replied(new Uint8Array(0), NEW, 0, PRESENT, 10);
    assert.equal(decide(roaming, 2_000), 'none', 'forgotten');
    heard(roaming, NEW, 3_000);
    roaming.replied(older, NEW, 0, PRESENT, 3_010);
    assert.equal(decide(roaming, 4_900) === 'moved', false);
  });

  it('asks with different bytes here and there', () => {
    const roaming = newRoaming();
    heard(roaming, NEW, 0);
    assert.notDeepEqual(roaming.candidateChallenge, roaming.presentChallenge);
  });
});

describe('challenges', () => {
  it('are repeated every 200 ms until the candidate is forgotten', () => {
    const roaming = newRoaming();
    for (let i = 0; i < 4; i++) heard(roaming, NEW, 0, 57);
    const asked: number[] = [];
    for (let nowMs = 0; nowMs < 3_000; nowMs += 5) {
      if (decide(roaming, nowMs) === 'challenge') asked.push(nowMs);
    }
    assert.deepEqual(asked, [0, 200, 400, 600, 800, 1_000, 1_200, 1_400, 1_600, 1_800]);
  });

  it('to the candidate never exceed three times what came from it', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = new Random(seed);
      const roaming = newRoaming();
      const received = new Map<number, number>();
      const sent = new Map<number, number>();
      const add = (sums: Map<number, number>, host: number, bytes: number): void => {
        sums.set(host, (sums.get(host) ?? 0) + bytes);
      };
      for (let nowMs = 0; nowMs < 20_000; nowMs += 10) {
        if (random.below(100) === 0) {
          const host = 2 + random.below(3);
          const size = 32 + random.below(20);
          add(received, host, size);
          heard(roaming, at(host), nowMs, size);
        }
        if (decide(roaming, nowMs) !== 'challenge') continue;
        const host = roaming.candidate[11];
        add(sent, host, CHALLENGE_DATAGRAM_BYTES);
        assert.ok(sent.get(host)! <= 3 * received.get(host)!, `seed ${seed}, ${nowMs} ms`);
      }
      assert.ok(sent.size > 1, `seed ${seed}: nobody was asked`);
    }
  });

  it('and answers are taken from the same credit; other addresses have none to lose', () => {
    const roaming = newRoaming();
    const sent = (to: Uint8Array, size: number): boolean => roaming.take(to, 0, size);
    heard(roaming, NEW, 0, 57);
    assert.equal(decide(roaming, 0), 'challenge');
    assert.deepEqual(
      [sent(NEW, 38), sent(OTHER, 38), sent(NEW, 38), sent(NEW, 38)],
      [true, true, true, false],
    );
    assert.equal(
      decide(roaming, 200),
      'none',
      'three datagrams for one, though 171 bytes are not reached',
    );
    heard(roaming, NEW, 300, 32);
    assert.equal(decide(roaming, 400), 'challenge');
    assert.deepEqual([sent(NEW, 112), sent(NEW, 111), sent(NEW, 0)], [false, true, true]);
    assert.equal(sent(NEW, 0), false);
  });

  it('wait without a deadline in the past when the credit is used up', () => {
    const roaming = newRoaming();
    heard(roaming, NEW, 0, 32);
    let asked = 0;
    let looks = 0;
    for (let nowMs = 0; roaming.hasCandidate; nowMs = roaming.deadlineMs(RTT_MS)) {
      if (decide(roaming, nowMs) === 'challenge') asked++;
      assert.ok(roaming.deadlineMs(RTT_MS) > nowMs, `at ${nowMs} ms`);
      assert.ok(++looks < 20);
    }
    assert.equal(asked, 2, '96 bytes are good for two challenges of 40');
    assert.equal(roaming.deadlineMs(RTT_MS), Number.POSITIVE_INFINITY);
  });
});

describe('many candidates', () => {
  it('are one at a time: a later one neither replaces nor feeds the first', () => {
    const roaming = newRoaming();
    heard(roaming, NEW, 0, 32);
    const challenge = roaming.candidateChallenge.slice();
    for (let host = 3; host < 250; host++) heard(roaming, at(host), 10, 1_000);
    assert.ok(isSameRemote(roaming.candidate, 0, NEW, 0));
    assert.deepEqual(roaming.candidateChallenge, challenge);
    const asked = [0, 200, 400, 600].filter((nowMs) => decide(roaming, nowMs) === 'challenge');
    assert.deepEqual(asked, [0, 200]);
  });

  it('cost one question in 200 ms while the present endpoint is alive', () => {
    const roaming = newRoaming();
    let asked = 0;
    for (let nowMs = 0; nowMs < 10_000; nowMs++) {
      heard(roaming, at(2 + (nowMs % 200)), nowMs);
      if (decide(roaming, nowMs) === 'challenge') asked++;
      if (roaming.hasCandidate) reply(roaming, 'present', PRESENT, nowMs);
    }
    assert.ok(asked > 0 && asked <= 50, `${asked} challenges in 10 s`);
  });

  it('that never reply let a true one in after two seconds', () => {
    const roaming = newRoaming();
    heard(roaming, OTHER, 0);
    let movedAtMs = 0;
    for (let nowMs = 0; nowMs < 5_000 && movedAtMs === 0; nowMs += 5) {
      heard(roaming, NEW, nowMs);
      if (roaming.hasCandidate && isSameRemote(roaming.candidate, 0, NEW, 0)) {
        reply(roaming, 'candidate', NEW, nowMs);
      }
      if (decide(roaming, nowMs) === 'moved') movedAtMs = nowMs;
    }
    assert.ok(movedAtMs >= 2_000 && movedAtMs < 2_500, `moved at ${movedAtMs}`);
  });
});
