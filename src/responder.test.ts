import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  fillSlots,
  firstMessage,
  HERE,
  initiator,
  Server,
  THERE,
  toHex,
  typeOf,
} from '../test/handshakes.ts';
import { Random } from '../test/random.ts';
import { COOKIE_MS, HANDSHAKE_RETRY_MS, PENDING_MS, PENDING_SLOTS } from './constants.ts';
import { type Initiator, noCookie } from './handshake.ts';
import { MESSAGE1_MAC2_AT, MessageType } from './wire.ts';

describe('first messages repeated by a stranger', () => {
  it('fill the slots and then cost a MAC and a cookie each', () => {
    const server = new Server();
    const recorded = Array.from({ length: 40 }, (_, i) => firstMessage(10 + i));
    for (let round = 0; round < 3; round++) {
      for (const message of recorded) server.answer(message, THERE, round);
    }
    assert.deepEqual(
      [server.decisions, server.responder.pending.length],
      [PENDING_SLOTS, PENDING_SLOTS],
    );
    assert.equal(server.dropped.length, 0);
    server.responder.expire(PENDING_MS);
    assert.equal(server.dropped.length, PENDING_SLOTS);
  });

  it('never push out the handshake of the true client, whichever came first', () => {
    const recorded = Array.from({ length: 40 }, (_, i) => firstMessage(i % 3));
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed);
      const server = new Server();
      const flood = (count: number, nowMs: number): void => {
        for (let i = 0; i < count; i++) {
          server.answer(
            recorded[random.below(recorded.length)],
            random.below(2) === 0 ? HERE : THERE,
            nowMs,
          );
        }
      };
      flood(random.below(30), 0);
      const cookie = noCookie();
      const client = initiator(0, 1 + random.below(2), cookie);
      let answer = server.answer(client.message, HERE, 10)!;
      flood(random.below(30), 20);
      if (answer[0] === MessageType.cookie) {
        assert.ok(client.takeCookie(answer, cookie, 30), `seed ${seed}`);
        answer = server.answer(client.message, HERE, 40)!;
      }
      const accepted = client.readMessage2(answer);
      assert.ok(accepted !== undefined, `seed ${seed}`);
      flood(100, 50);
      const e = toHex(client.message.subarray(4, 36));
      const pending = server.responder.pending.find((slot) => toHex(slot.e) === e);
      assert.deepEqual(pending?.keys, accepted.keys, `seed ${seed}`);
    }
  });

  it('do not make the server map memory without end', () => {
    const server = new Server();
    server.answer(firstMessage(), HERE, 0);
    server.answer(firstMessage(), HERE, 0);
    // No epoch is left, so each is opened, and nothing is kept of it.
    const message = firstMessage();
    for (let i = 0; i < 20_000; i++) server.answer(message, THERE, 0);
    assert.equal(server.responder.pending.length, 2);
  });
});

describe('a cookie', () => {
  /** The cookie message for `client` at `source` from a server whose slots are full. */
  function ask(server: Server, client: Initiator, source: Uint8Array, nowMs: number): Uint8Array {
    const answer = server.answer(client.message, source, nowMs);
    assert.equal(typeOf(answer), MessageType.cookie);
    return answer!;
  }

  it('gets its client a slot: of the oldest that proved nothing, else of the oldest', () => {
    const server = new Server();
    fillSlots(server, 0);
    const order = server.pendingE;
    const proved: string[] = [];
    for (let i = 0; i < PENDING_SLOTS + 2; i++) {
      const cookie = noCookie();
      const client = initiator(0, 50 + i);
      client.takeCookie(ask(server, client, HERE, 0), cookie, 0);
      assert.equal(typeOf(server.answer(client.message, HERE, 0)), MessageType.message2);
      proved.push(toHex(client.message.subarray(4, 36)));
      assert.deepEqual(server.pendingE, [...order.slice(i + 1), ...proved].slice(-PENDING_SLOTS));
    }
    assert.equal(server.dropped.length, PENDING_SLOTS + 2);
    assert.ok(
      server.dropped.every(({ keys }) => keys!.k1.every((byte) => byte === 0)),
      'wiped',
    );
  });

  it('counts for the address it was given to, and for no other', () => {
    const server = new Server();
    fillSlots(server, 0);
    const client = initiator();
    client.takeCookie(ask(server, client, HERE, 0), noCookie(), 0);
    assert.equal(typeOf(server.answer(client.message, THERE, 0)), MessageType.cookie);
    const scoped = HERE.slice();
    scoped[7] = 1;
    assert.equal(typeOf(server.answer(client.message, scoped, 0)), MessageType.cookie);
    assert.equal(server.dropped.length, 0);
    const elsewhereHere = HERE.slice();
    elsewhereHere.fill(7, 24);
    assert.equal(typeOf(server.answer(client.message, elsewhereHere, 0)), MessageType.message2);
  });

  it('counts for two to four minutes of the server, however rarely it is asked', () => {
    const rows: readonly (readonly [askedMs: readonly number[], usedMs: number, valid: boolean])[] =
      [
        [[], COOKIE_MS - 1, true],
        [[], COOKIE_MS, true],
        [[], 2 * COOKIE_MS - 1, true],
        [[], 2 * COOKIE_MS, false],
        [[], 100 * COOKIE_MS, false],
        [[COOKIE_MS], 2 * COOKIE_MS - 1, true],
        [[COOKIE_MS], 2 * COOKIE_MS, false],
      ];
    for (const [askedMs, usedMs, valid] of rows) {
      const server = new Server();
      fillSlots(server, 0);
      const client = initiator();
      client.takeCookie(ask(server, client, HERE, 0), noCookie(), 0);
      for (const nowMs of askedMs) server.answer(firstMessage(99), HERE, nowMs);
      server.responder.expire(usedMs);
      while (server.responder.pending.length < PENDING_SLOTS)
        server.answer(firstMessage(2), THERE, usedMs);
      const answer = server.answer(client.message, HERE, usedMs);
      const type = valid ? MessageType.message2 : MessageType.cookie;
      assert.equal(typeOf(answer), type, `used at ${usedMs} ms`);
    }
  });

  it('is void once a handshake was confirmed, so that what was recorded proves nothing', () => {
    const server = new Server();
    fillSlots(server, 0);
    const client = initiator();
    client.takeCookie(ask(server, client, HERE, 0), noCookie(), 0);
    const recorded = client.message.slice();
    assert.equal(typeOf(server.answer(recorded, HERE, 0)), MessageType.message2);
    server.responder.take(server.responder.pending.at(-1)!);
    assert.equal(server.responder.pending.length, 0);
    fillSlots(server, 1);
    assert.equal(typeOf(server.answer(recorded, HERE, 1)), MessageType.cookie);
  });

  it('serves the next handshake too, while it is under two minutes old', () => {
    const server = new Server();
    fillSlots(server, 0);
    const cookie = noCookie();
    const client = initiator();
    client.takeCookie(ask(server, client, HERE, 0), cookie, 0);
    const zeros = new Uint8Array(16);
    for (const [nowMs, used] of [
      [COOKIE_MS - 1, true],
      [COOKIE_MS, false],
    ] as const) {
      const mac2 = initiator(nowMs, 1, cookie).message.subarray(MESSAGE1_MAC2_AT);
      assert.equal(toHex(mac2) !== toHex(zeros), used, `${nowMs} ms`);
    }
    const next = initiator(10, 60, cookie);
    assert.equal(typeOf(server.answer(next.message, HERE, 10)), MessageType.message2);
  });

  it('makes the client send at once, but answers repeated in turn do not', () => {
    const client = initiator();
    const answers = [HERE, THERE].map((source) => {
      const server = new Server();
      fillSlots(server, 0);
      return ask(server, client, source, 0);
    });
    const cookie = noCookie();
    let sent = 0;
    for (let nowMs = 0; nowMs < 5_000 && !client.isSpent(nowMs); nowMs++) {
      client.takeCookie(answers[nowMs % 2], cookie, nowMs);
      if (nowMs < client.sendAtMs) continue;
      client.sent(nowMs);
      sent++;
    }
    assert.ok(sent <= HANDSHAKE_RETRY_MS.length + 1, `${sent} messages for 5000 answers`);
    const fresh = initiator();
    fresh.sent(0);
    const server = new Server();
    fillSlots(server, 0);
    assert.ok(fresh.takeCookie(ask(server, fresh, HERE, 0), noCookie(), 20));
    assert.equal(fresh.sendAtMs, 20);
  });
});

describe('a confirmed handshake', () => {
  it('drops the others, and what was pending is reported dropped once', () => {
    const server = new Server();
    fillSlots(server, 0);
    const [, , taken] = server.responder.pending;
    server.responder.take(taken);
    assert.equal(server.dropped.length, PENDING_SLOTS - 1);
    assert.ok(!server.dropped.includes(taken));
    assert.ok(
      taken.keys!.k1.some((byte) => byte !== 0),
      'its keys are the owner’s',
    );
    server.responder.expire(PENDING_MS);
    server.responder.wipe();
    assert.equal(new Set(server.dropped).size, PENDING_SLOTS - 1);
    assert.equal(server.dropped.length, PENDING_SLOTS - 1);
  });
});
