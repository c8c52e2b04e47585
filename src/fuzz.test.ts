/**
 * Every reader of what comes from the network, given what no sender of ours would send. What a peer may send that
 * has the keys, control messages and packets that open, is in hostile.test.ts; names in resolve.test.ts.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { native } from '../test/nativebed.ts';
import { fillSlots, HERE, initiator, KEYS, Server, THERE, toHex } from '../test/handshakes.ts';
import { mutated, randomBytes } from '../test/mutate.ts';
import { Random } from '../test/random.ts';
import { sealTable } from './batch.ts';
import { HALVES_MS, PENDING_SLOTS } from './constants.ts';
import { TAG_BYTES } from './crypto.ts';
import { Halves, PLACE_BYTES } from './halves.ts';
import { noCookie, messageMac } from './handshake.ts';
import type { Host, LinkSocket } from './host.ts';
import { Inbound } from './inbound.ts';
import { isSourceAllowed, packetVersion } from './inner.ts';
import { ReplayWindow } from './replay.ts';
import { Epoch } from './session.ts';
import {
  areFlagsValid,
  CLEAR_BIT,
  decodePayload1,
  decodePayload2,
  encodePayload1,
  encodePayload2,
  HEADER_BYTES,
  headerCounter,
  headerLink,
  headerSession,
  innerSendTime,
  innerSequence,
  innerSplit,
  MESSAGE1_BYTES,
  Mode,
  PAYLOAD1_BYTES,
  PAYLOAD2_BYTES,
  writeHeader,
  writeNonce,
} from './wire.ts';

const SEEDS = 8;

const isOneOf = (bytes: Uint8Array, seeds: readonly Uint8Array[]): boolean =>
  seeds.some((seed) => toHex(seed) === toHex(bytes));

describe('the server', () => {
  it('answers nothing but first messages of a holder of the key, and no more bytes than came', () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = new Random(seed);
      const server = new Server();
      const client = initiator();
      const answer = server.answer(client.message, HERE, 0)!;
      const datagrams = [0x80, 0x90].map((type) => Uint8Array.of(type, ...randomBytes(random, 59)));
      const seeds = [client.message, answer, ...datagrams, randomBytes(random, 36)];
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

/** A reader of what comes over one link under one key, and the other end that has the key. */
class Reader {
  private readonly counters = {
    unknown: 0,
    forged: 0,
    replayed: 0,
    malformed: 0,
    foreign: 0,
    refused: 0,
  };
  private readonly inbound: Inbound;
  private readonly sender: Epoch;
  private readonly receiver: Epoch;
  private arriving: readonly Uint8Array[] = [];
  private readonly socket: Pick<LinkSocket, 'receive'> = {
    receive: (slab, start, _end, table) => {
      let at = start;
      this.arriving.forEach((bytes, i) => {
        slab.set(bytes, at);
        table.offsets[i] = at;
        table.lengths[i] = bytes.length;
        at += bytes.length;
      });
      return this.arriving.length;
    },
  };

  constructor(modes: number, cipher: number, random: Random) {
    const host: Pick<Host, 'aead'> = { aead: native };
    this.inbound = new Inbound(host as Host, undefined, this.counters, modes);
    const keys = { k1: randomBytes(random, 32), k2: randomBytes(random, 32) };
    this.sender = new Epoch(native, 'server', 1, cipher, keys, 0);
    this.receiver = new Epoch(native, 'client', 1, cipher, keys, 0);
  }

  /** What the other end would send, of either type. */
  datagram(text: Uint8Array, isClear: boolean): Uint8Array {
    const { number, sealKey } = this.sender;
    const counter = this.sender.reserve(3, 1);
    const bytes = new Uint8Array(HEADER_BYTES + text.length + TAG_BYTES);
    const table = sealTable(1);
    table.sizes[0] = text.length;
    writeHeader(bytes, 0, isClear ? number | CLEAR_BIT : number, 3, 0x445566, counter);
    writeNonce(table.nonces, 0, 3, counter);
    const protect = isClear ? native.authenticate : native.seal;
    protect(sealKey, text, bytes, HEADER_BYTES, table, 1);
    return bytes;
  }

  /** Which of `datagrams` are taken: that they opened, and were not seen before. */
  taken(datagrams: readonly Uint8Array[]): boolean[] {
    this.arriving = datagrams;
    const count = this.inbound.receive(this.socket as LinkSocket);
    const epochFor = (session: number, epoch: number): Epoch | undefined =>
      session === 0x445566 && epoch === 1 ? this.receiver : undefined;
    this.inbound.parse(count, { epochFor });
    this.inbound.open(count);
    return datagrams.map((_, slot) => this.inbound.accept(slot) === this.receiver);
  }

  wipe(): void {
    this.sender.wipe();
    this.receiver.wipe();
  }
}

describe('of datagrams', () => {
  for (const modes of [0, Mode.cleartext]) {
    it(`nothing is taken but what was sent, with modes ${modes}`, () => {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const random = new Random(seed);
        const reader = new Reader(modes, 1 + (seed % 2), random);
        const made = Array.from({ length: 16 }, (_, i) =>
          reader.datagram(randomBytes(random, 7 + random.below(100)), i % 2 === 1),
        );
        // The other type of each, as if the bit were not under the tag.
        const turned = made.map((bytes) => bytes.with(0, bytes[0] ^ CLEAR_BIT));
        for (let round = 0; round < 40; round++) {
          const batch = Array.from({ length: 100 }, () => mutated(random, [...made, ...turned]));
          const forged = batch.filter((bytes) => !isOneOf(bytes, made));
          const taken = reader.taken([...forged, ...turned]);
          const found = [...forged, ...turned].find((_, i) => taken[i]);
          assert.equal(found && toHex(found), undefined, `seed ${seed}, round ${round}`);
        }
        const isRight = made.map((_, i) => i % 2 === 0 || modes === Mode.cleartext);
        assert.deepEqual(reader.taken(made), isRight, `seed ${seed}`);
        assert.ok(!reader.taken(made).includes(true), `seed ${seed}, repeated`);
        reader.wipe();
      }
    });
  }
});

it('decodes any payload into fields within their range, and back', () => {
  const random = new Random(3);
  for (let i = 0; i < 5_000; i++) {
    const bytes1 = randomBytes(random, PAYLOAD1_BYTES);
    const again1 = encodePayload1(decodePayload1(bytes1));
    assert.deepEqual(again1.subarray(0, 21), bytes1.subarray(0, 21));
    assert.ok(again1.subarray(21).every((byte) => byte === 0));
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
