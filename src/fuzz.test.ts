/** Every reader of what comes from the network, given what no sender of ours would send. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fillSlots, HERE, initiator, KEYS, Server, THERE, toHex } from '../test/handshakes.ts';
import { Random } from '../test/random.ts';
import { HALVES_MS, PENDING_SLOTS } from './constants.ts';
import { Halves, PLACE_BYTES } from './halves.ts';
import { noCookie, messageMac } from './handshake.ts';
import { isSourceAllowed, packetVersion } from './inner.ts';
import { ReplayWindow } from './replay.ts';
import {
  areFlagsValid,
  decodePayload1,
  decodePayload2,
  encodePayload1,
  encodePayload2,
  headerCounter,
  headerLink,
  headerSession,
  innerSendTime,
  innerSequence,
  innerSplit,
  MESSAGE1_BYTES,
  PAYLOAD1_BYTES,
  PAYLOAD2_BYTES,
} from './wire.ts';

const SEEDS = 8;

function randomBytes(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  random.fill(bytes);
  return bytes;
}

/** One of `seeds`, changed by flipping, cutting, lengthening, splicing; or nothing but noise. */
function mutated(random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  let bytes: Uint8Array = seeds[random.below(seeds.length)].slice();
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    const kind = random.below(7);
    if (kind === 0) bytes = randomBytes(random, random.below(200));
    else if (kind === 1) bytes = bytes.slice(0, random.below(bytes.length + 1));
    else if (kind === 2)
      bytes = Uint8Array.from([...bytes, ...randomBytes(random, random.below(64))]);
    else if (kind === 3)
      bytes.set(seeds[random.below(seeds.length)].subarray(0, bytes.length).subarray(0, 40));
    else if (bytes.length > 0) bytes[random.below(bytes.length)] ^= 1 << random.below(8);
  }
  return bytes;
}

const isOneOf = (bytes: Uint8Array, seeds: readonly Uint8Array[]): boolean =>
  seeds.some((seed) => toHex(seed) === toHex(bytes));

describe('the server', () => {
  it('answers nothing but first messages of a holder of the key, and no more bytes than came', () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = new Random(seed);
      const server = new Server();
      const client = initiator();
      const answer = server.answer(client.message, HERE, 0)!;
      const seeds = [client.message, answer, randomBytes(random, 60), randomBytes(random, 36)];
      const before = server.pendingE;
      for (let i = 0; i < 3_000; i++) {
        const message = mutated(random, seeds);
        const where = `seed ${seed}, message ${i}: ${toHex(message)}`;
        const isOurs = toHex(message.subarray(0, 132)) === toHex(client.message.subarray(0, 132));
        const found = server.answer(message, random.below(2) === 0 ? HERE : THERE, 1);
        if (isOurs && message.length === MESSAGE1_BYTES) assert.deepEqual(found, answer, where);
        else assert.equal(found, undefined, where);
      }
      assert.deepEqual([server.decisions, server.pendingE], [1, before], `seed ${seed}`);
      assert.equal(server.dropped.length, 0);
    }
  });

  it('stays within its bounds whatever a holder of the MAC key sends', () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = new Random(seed);
      const server = new Server();
      const seeds = [1, 2, 3].map((instance) => initiator(0, instance).message);
      let answered = 0;
      for (let i = 0; i < 1_500; i++) {
        const message = mutated(random, seeds);
        const mac1At = message.length - 32;
        if (mac1At >= 4) message.set(messageMac(KEYS.mac, message, mac1At), mac1At);
        // `answer` holds each answer against the length of its question, and the slots against their number.
        if (server.answer(message, HERE, i * 10) !== undefined) answered++;
      }
      assert.ok(answered > 0, `seed ${seed}`);
      for (const { client } of server.responder.pending) {
        assert.ok(
          [1, 2, 3].includes(client.instance[0]),
          `seed ${seed}: Noise lets nothing else pass`,
        );
      }
      assert.ok(server.responder.pending.length <= PENDING_SLOTS);
    }
  });
});

describe('the client', () => {
  it('takes nothing but the answers to its own message, and forgets nothing meanwhile', () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = new Random(seed);
      const client = initiator();
      const cookie = noCookie();
      const answer = new Server().answer(client.message, HERE, 0)!;
      const busy = new Server();
      fillSlots(busy, 0);
      const demand = busy.answer(client.message, HERE, 0)!;
      const other = initiator();
      const seeds = [
        client.message.slice(),
        answer,
        demand,
        busy.answer(other.message, HERE, 0)!,
        new Server().answer(other.message, HERE, 0)!,
        randomBytes(random, 36),
      ];
      const before = client.message.slice();
      const { sendAtMs } = client;
      for (let i = 0; i < 2_000; i++) {
        const message = mutated(random, seeds);
        if (isOneOf(message, [answer, demand])) continue;
        const where = `seed ${seed}, message ${i}: ${toHex(message)}`;
        assert.equal(client.readMessage2(message), undefined, where);
        assert.equal(client.takeCookie(message, cookie, 1), false, where);
        assert.equal(client.readVersion(message), undefined, where);
      }
      assert.deepEqual([client.message, client.sendAtMs, cookie], [before, sendAtMs, noCookie()]);
      assert.ok(client.takeCookie(demand, cookie, 2), `seed ${seed}`);
      assert.ok(client.readMessage2(answer), `seed ${seed}`);
    }
  });
});

it('decodes any payload into fields within their range, and back', () => {
  const random = new Random(3);
  for (let i = 0; i < 5_000; i++) {
    const bytes1 = randomBytes(random, PAYLOAD1_BYTES);
    const again1 = encodePayload1(decodePayload1(bytes1));
    assert.deepEqual(again1.subarray(0, 20), bytes1.subarray(0, 20));
    assert.ok(again1.subarray(20).every((byte) => byte === 0));
    const bytes2 = randomBytes(random, PAYLOAD2_BYTES);
    const payload2 = decodePayload2(bytes2);
    assert.ok(payload2.session >= 0 && payload2.session < 2 ** 24);
    assert.deepEqual(encodePayload2(payload2).subarray(0, 14), bytes2.subarray(0, 14));
  }
});

it('reads any header into numbers within their range', () => {
  const random = new Random(4);
  const window = new ReplayWindow();
  for (let i = 0; i < 20_000; i++) {
    const bytes = randomBytes(random, 20);
    const at = random.below(10);
    const counter = headerCounter(bytes, at);
    assert.ok(headerLink(bytes, at) < 256 && headerSession(bytes, at) < 2 ** 24);
    assert.ok(headerSession(bytes, at) >= 0 && counter >= 0 && counter < 2 ** 32);
    assert.ok(innerSequence(bytes, at) >= 0 && innerSequence(bytes, at) < 2 ** 24);
    assert.ok(innerSendTime(bytes, at) < 2 ** 16 && innerSplit(bytes, at) < 2 ** 16);
    const expanded = window.expand(counter);
    assert.ok(expanded >= 0 && expanded % 2 ** 32 === counter, `${expanded} for ${counter}`);
    assert.ok(Math.abs(expanded - (window.highest + 1)) <= 2 ** 31 || expanded < 2 ** 32);
    if (random.below(50) === 0) window.accept(expanded);
  }
});

it('finds a packet only where header and length allow it, and reads nothing behind its end', () => {
  const random = new Random(5);
  let found = 0;
  for (let i = 0; i < 50_000; i++) {
    const length = random.below(120);
    const bytes = randomBytes(random, length);
    if (random.below(2) === 0 && length >= 6) {
      bytes[0] = random.below(2) === 0 ? 0x45 : 0x60;
      const claimed = bytes[0] === 0x45 ? length : length - 40;
      bytes[bytes[0] === 0x45 ? 2 : 4] = claimed >> 8;
      bytes[bytes[0] === 0x45 ? 3 : 5] = claimed + (random.below(3) === 0 ? 1 : 0);
    }
    const behind = Uint8Array.from([...bytes, ...randomBytes(random, 60)]);
    const version = packetVersion(bytes, 0, length);
    assert.equal(packetVersion(behind, 0, length), version, toHex(bytes));
    areFlagsValid(bytes[0] ?? 0);
    if (version === 0) continue;
    found++;
    assert.ok(length >= (version === 4 ? 20 : 40) && bytes[0] >>> 4 === version);
    const from = version === 4 ? bytes.slice(12, 16) : bytes.slice(8, 24);
    assert.ok(isSourceAllowed(bytes, 0, version, [{ address: from, bits: 8 * from.length }]));
  }
  assert.ok(found > 1_000, `${found} packets`);
});

it('joins halves with any numbers on them without touching other memory or growing', () => {
  const GUARD = 64;
  const PLACES = 12;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = new Random(seed);
    const start = 70_000;
    const bytes = new Uint8Array(start + PLACES * PLACE_BYTES + GUARD);
    random.fill(bytes.subarray(0, start));
    bytes.fill(0xa5, start + PLACES * PLACE_BYTES);
    const datagrams = bytes.slice(0, start);
    const halves = new Halves(bytes, start, PLACES - 3);
    let joined = 0;
    for (let i = 0; i < 20_000; i++) {
      const split = random.below(3) === 0 ? random.below(65_536) : random.below(6);
      const length = random.below(3) === 0 ? random.below(3_000) : split % 3_000;
      const place = halves.add(
        random.below(2),
        random.below(4),
        split,
        random.below(2) === 0,
        random.below(start - 3_000),
        length,
        i,
      );
      assert.ok(halves.count <= PLACES - 3, `seed ${seed}, half ${i}`);
      if (place !== -1) {
        joined++;
        const end = halves.offsetOf(place) + halves.lengthOf(place);
        assert.ok(place < PLACES && halves.lengthOf(place) > 0, `seed ${seed}, half ${i}`);
        assert.ok(end <= start + (place + 1) * PLACE_BYTES, `seed ${seed}, half ${i}`);
      }
      if (random.below(5) === 0) halves.endBatch();
    }
    assert.ok(joined > 100, `seed ${seed}: ${joined} joined`);
    assert.deepEqual(bytes.slice(0, start), datagrams, `seed ${seed}: what came is only read`);
    assert.ok(bytes.subarray(start + PLACES * PLACE_BYTES).every((byte) => byte === 0xa5));
    halves.endBatch();
    halves.expire(20_000 + HALVES_MS);
    assert.equal(halves.count, 0);
  }
});
