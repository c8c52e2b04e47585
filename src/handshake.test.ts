import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  fillSlots,
  firstMessage,
  HERE,
  initiator,
  KEYS,
  payload1,
  Server,
  THERE,
  toHex,
  typeOf,
} from '../test/handshakes.ts';
import { PENDING_MS, REFUSED_MS } from './constants.ts';
import { Initiator, messageMac, noCookie } from './handshake.ts';
import { sharedKeys } from './sharedkey.ts';
import { Responder } from './responder.ts';
import {
  COOKIE_MESSAGE_BYTES,
  MESSAGE1_BYTES,
  MESSAGE1_MAC1_AT,
  MESSAGE1_MAC2_AT,
  MESSAGE2_BYTES,
  MessageType,
  VerdictCode,
  VERSION_MESSAGE_BYTES,
} from './wire.ts';

/** Every message that differs from `message` in one bit. */
function* flips(message: Uint8Array): Generator<readonly [flipped: Uint8Array, bit: number]> {
  for (let bit = 0; bit < message.length * 8; bit++) {
    const flipped = message.slice();
    flipped[bit >> 3] ^= 1 << (bit & 7);
    yield [flipped, bit];
  }
}

describe('a handshake', () => {
  it('gives both ends the same keys, and what each says to the other', () => {
    const server = new Server();
    const client = initiator();
    const answer = server.answer(client.message, HERE, 0)!;
    assert.deepEqual([client.message.length, answer.length], [MESSAGE1_BYTES, MESSAGE2_BYTES]);
    const accepted = client.readMessage2(answer)!;
    const [pending] = server.responder.pending;
    assert.deepEqual(pending.client, payload1(1));
    assert.deepEqual(accepted.payload, pending.answer);
    assert.deepEqual(accepted.keys, pending.keys);
    assert.notDeepEqual(accepted.keys.k1, accepted.keys.k2);
    assert.notDeepEqual(accepted.keys.k1, new Uint8Array(32));
  });

  it('gives other keys each time', () => {
    const server = new Server();
    const all = [1, 2, 3].map((instance) => {
      const client = initiator(0, instance);
      return toHex(client.readMessage2(server.answer(client.message, HERE, 0)!)!.keys.k1);
    });
    assert.equal(new Set(all).size, 3);
  });

  it('reads its answer once: the same keys again would mean the same nonces again', () => {
    const server = new Server();
    const client = initiator();
    const answer = server.answer(client.message, HERE, 0)!;
    assert.ok(client.readMessage2(answer));
    assert.equal(client.readMessage2(answer), undefined);
  });

  it('is nothing but silence without the shared key', () => {
    const others = sharedKeys(new Uint8Array(32).fill(6));
    const stranger = new Initiator(others, payload1(1), noCookie(), 0);
    const server = new Server();
    assert.equal(server.answer(stranger.message, HERE, 0), undefined);
    const answer = server.answer(initiator().message, HERE, 0)!;
    assert.equal(stranger.readMessage2(answer), undefined);
    // The MAC key alone is not enough.
    const half = new Initiator({ ...others, mac: KEYS.mac }, payload1(1), noCookie(), 0);
    const { decisions } = server;
    assert.equal(server.answer(half.message, HERE, 0), undefined);
    assert.equal(server.decisions, decisions);
  });

  it('leaves nothing to read after it was wiped', () => {
    const server = new Server();
    const client = initiator();
    const answer = server.answer(client.message, HERE, 0)!;
    client.wipe();
    client.wipe();
    assert.equal(client.readMessage2(answer), undefined);
  });

  it('with a verdict that refuses holds its slot for a second, and no keys', () => {
    for (const verdict of [
      VerdictCode.busy,
      VerdictCode.noCommonCipher,
      VerdictCode.addressesDiffer,
      VerdictCode.modesDiffer,
    ]) {
      const server = new Server();
      server.verdict = verdict;
      const client = initiator();
      const answer = server.answer(client.message, HERE, 0)!;
      assert.equal(client.readMessage2(answer)?.payload.verdict, verdict);
      assert.equal(server.responder.pending[0].keys, undefined);
      server.responder.expire(REFUSED_MS - 1);
      assert.equal(server.dropped.length, 0);
      server.responder.expire(REFUSED_MS);
      assert.deepEqual([server.dropped.length, server.responder.pending.length], [1, 0]);
    }
  });
});

describe('no bit may be wrong', () => {
  it('in message 1', () => {
    const server = new Server();
    const { message } = initiator();
    for (const [flipped, bit] of flips(message.subarray(0, MESSAGE1_MAC2_AT))) {
      const whole = Uint8Array.from([...flipped, ...message.subarray(MESSAGE1_MAC2_AT)]);
      assert.equal(server.answer(whole, HERE, 0), undefined, `bit ${bit}`);
    }
    assert.deepEqual([server.decisions, server.responder.pending.length], [0, 0]);
    assert.equal(typeOf(server.answer(message, HERE, 0)), MessageType.message2);
  });

  it('in message 2', () => {
    const client = initiator();
    const answer = new Server().answer(client.message, HERE, 0)!;
    for (const [flipped, bit] of flips(answer)) {
      assert.equal(client.readMessage2(flipped), undefined, `bit ${bit}`);
    }
    // Nor with a MAC that is right, as only a holder of the key can make it.
    for (const [flipped, bit] of flips(answer.subarray(0, 84))) {
      const whole = Uint8Array.from([...flipped, ...messageMac(KEYS.mac, flipped, 84)]);
      assert.equal(client.readMessage2(whole), undefined, `bit ${bit}`);
    }
    assert.ok(client.readMessage2(answer), 'the true one is still read');
  });

  it('in a cookie message', () => {
    const server = new Server();
    fillSlots(server, 0);
    const client = initiator();
    const before = client.message.slice();
    const answer = server.answer(client.message, HERE, 0)!;
    assert.deepEqual([answer[0], answer.length], [MessageType.cookie, COOKIE_MESSAGE_BYTES]);
    const cookie = noCookie();
    for (const [flipped, bit] of flips(answer)) {
      assert.equal(client.takeCookie(flipped, cookie, 5), false, `bit ${bit}`);
    }
    assert.deepEqual([client.message, cookie], [before, noCookie()]);
    assert.equal(client.takeCookie(answer, cookie, 5), true);
  });

  it('in a version message', () => {
    const client = initiator();
    const message = client.message.slice();
    message[1] = 9;
    message.set(messageMac(KEYS.mac, message, MESSAGE1_MAC1_AT), MESSAGE1_MAC1_AT);
    const server = new Server();
    const answer = server.answer(message, HERE, 0)!;
    assert.deepEqual([answer[0], answer.length], [MessageType.version, VERSION_MESSAGE_BYTES]);
    assert.equal(server.decisions, 0);
    const peer = initiator();
    peer.message.set(message);
    for (const [flipped, bit] of flips(answer)) {
      assert.equal(peer.readVersion(flipped), undefined, `bit ${bit}`);
    }
    assert.equal(peer.readVersion(answer), 1);
    assert.equal(client.readVersion(answer), undefined, 'it is not the answer to another message');
  });

  it('in the payload that the server accepts with: an epoch and a cipher that exist', () => {
    const rows: readonly (readonly [cipher: number, epoch: number, usable: boolean])[] = [
      [1, 0, true],
      [2, 3, true],
      [0, 0, false],
      [3, 0, false],
      [33, 0, false],
      [2, 4, false],
      [2, 255, false],
    ];
    for (const [cipher, epoch, usable] of rows) {
      const answer = {
        instance: new Uint8Array(8),
        session: 1,
        verdict: 0,
        cipher,
        epoch,
        ipv6: false,
      };
      const responder = new Responder(
        KEYS,
        () => answer,
        () => undefined,
      );
      const client = initiator();
      const message2 = responder.readMessage1(client.message, HERE, 0, 0)!.answer;
      assert.equal(
        client.readMessage2(message2) !== undefined,
        usable,
        `cipher ${cipher}, epoch ${epoch}`,
      );
    }
  });
});

describe('a message that comes back to its sender', () => {
  it('is not read, in either direction, whole or with something behind it', () => {
    const server = new Server();
    const client = initiator();
    const answer = server.answer(client.message, HERE, 0)!;
    const reflected = [client.message, answer];
    for (const message of [...reflected]) {
      for (const extra of [1, 16, 32, 48]) {
        reflected.push(Uint8Array.from([...message, ...new Uint8Array(extra)]));
        reflected.push(message.slice(0, -extra));
      }
    }
    const { decisions } = server;
    for (const message of reflected) {
      if (message !== client.message) assert.equal(server.answer(message, HERE, 0), undefined);
      if (message !== answer) assert.equal(client.readMessage2(message), undefined);
      assert.equal(client.takeCookie(message, noCookie(), 0), false);
      assert.equal(client.readVersion(message), undefined);
    }
    assert.equal(server.decisions, decisions);
  });
});

describe('message 1', () => {
  it('gets the same answer again while it is pending, from anywhere, and costs nothing', () => {
    const server = new Server();
    const { message } = initiator();
    const answer = server.answer(message, HERE, 0);
    for (let nowMs = 0; nowMs < PENDING_MS; nowMs += 500) {
      assert.deepEqual(server.answer(message, nowMs % 1_000 === 0 ? HERE : THERE, nowMs), answer);
    }
    assert.deepEqual([server.decisions, server.responder.pending.length], [1, 1]);
  });

  it('of two rekeys gets an epoch of its own', () => {
    const server = new Server();
    server.answer(firstMessage(), HERE, 0);
    server.answer(firstMessage(), HERE, 0);
    assert.deepEqual(
      server.responder.pending.map(({ answer }) => answer.epoch),
      [1, 2],
    );
    assert.equal(typeOf(server.answer(firstMessage(), HERE, 0)), MessageType.cookie);
  });

  it('is sent again after the times in the list, then given up', () => {
    const client = initiator(1_000);
    const sentMs: number[] = [];
    for (let nowMs = 1_000; !client.isSpent(nowMs); nowMs++) {
      if (nowMs < client.sendAtMs) continue;
      sentMs.push(nowMs);
      client.sent(nowMs);
    }
    assert.deepEqual(sentMs, [1_000, 1_250, 1_750, 2_750, 3_750, 4_750]);
    assert.ok(client.isSpent(6_000) && !client.isSpent(5_999));
  });
});
