import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import {
  areFlagsValid,
  COOKIE_MESSAGE_BYTES,
  decodePayload1,
  decodePayload2,
  encodePayload1,
  encodePayload2,
  Flag,
  HALF_INNER_BYTES,
  HEADER_BYTES,
  headerCounter,
  headerLink,
  headerSession,
  INNER_BYTES,
  innerFlags,
  innerSendTime,
  innerSequence,
  innerSplit,
  MESSAGE1_BYTES,
  MESSAGE2_BYTES,
  MIN_DATAGRAM_BYTES,
  VERSION_MESSAGE_BYTES,
  writeHeader,
  writeInner,
  writeNonce,
  writeSplit,
} from './wire.ts';

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

it('has the sizes of PROTOCOL §3 and §4', () => {
  assert.deepEqual(
    [MESSAGE1_BYTES, MESSAGE2_BYTES, COOKIE_MESSAGE_BYTES, VERSION_MESSAGE_BYTES],
    [148, 100, 60, 36],
  );
  assert.deepEqual(
    [HEADER_BYTES, INNER_BYTES, HALF_INNER_BYTES, MIN_DATAGRAM_BYTES],
    [9, 7, 9, 32],
  );
});

describe('the header of a datagram', () => {
  it('lies byte for byte as PROTOCOL §4 draws it', () => {
    const bytes = new Uint8Array(12).fill(0xee);
    writeHeader(bytes, 1, 3, 254, 0x010203, 5 * 2 ** 32 + 0xfedcba98);
    assert.equal(toHex(bytes), 'ee' + '83fe010203fedcba98' + 'eeee');
  });

  it('is read as it was written, whatever lies around it', () => {
    const random = new Random(1);
    const bytes = new Uint8Array(40);
    for (let i = 0; i < 2_000; i++) {
      random.fill(bytes);
      const before = bytes.slice();
      const at = random.below(bytes.length - HEADER_BYTES + 1);
      const link = random.below(255);
      const session = random.below(2 ** 24);
      const counter = random.below(2 ** 33);
      writeHeader(bytes, at, random.below(4), link, session, counter);
      assert.equal(headerLink(bytes, at), link);
      assert.equal(headerSession(bytes, at), session);
      assert.equal(headerCounter(bytes, at), counter % 2 ** 32);
      before.set(bytes.subarray(at, at + HEADER_BYTES), at);
      assert.deepEqual(bytes, before, 'nothing else was written');
    }
  });
});

it('makes nonces of link and whole counter', () => {
  const rows: readonly (readonly [link: number, counter: number, nonce: string])[] = [
    [0, 0, '000000000000000000000000'],
    [1, 1, '000000010000000000000001'],
    [254, 2 ** 32 - 1, '000000fe00000000ffffffff'],
    [254, 2 ** 32, '000000fe0000000100000000'],
    [7, 2 ** 33 - 1, '0000000700000001ffffffff'],
    [7, 2 ** 53 - 1, '00000007001fffffffffffff'],
  ];
  for (const [link, counter, nonce] of rows) {
    const bytes = new Uint8Array(14);
    // A slot is used again and again: every byte but the first three is written.
    bytes.fill(0xff, 4, 13);
    writeNonce(bytes, 1, link, counter);
    assert.equal(toHex(bytes.subarray(1, 13)), nonce, `link ${link}, counter ${counter}`);
  }
});

describe('the inner header', () => {
  it('lies byte for byte as PROTOCOL §5.1 says', () => {
    const bytes = new Uint8Array(11).fill(0xee);
    writeInner(bytes, 1, 0xab, 0x123456, 0x789a, Flag.half | Flag.second);
    writeSplit(bytes, 1, 0x02fe);
    assert.equal(toHex(bytes), 'ee' + 'ab123456789a0602fe' + 'ee');
    assert.equal(innerSequence(bytes, 1), 0x123456);
    assert.equal(innerSendTime(bytes, 1), 0x789a);
    assert.equal(innerFlags(bytes, 1), 0x06);
    assert.equal(innerSplit(bytes, 1), 0x02fe);
  });

  it('allows exactly the flags that PROTOCOL §5.2 allows together', () => {
    const valid = Array.from({ length: 256 }, (_, flags) => flags).filter(areFlagsValid);
    const packets = [0x00, 0x01, 0x02, 0x03, 0x06, 0x07];
    const classes = [0x00, 0x08, 0x10, 0x18];
    const all = classes.flatMap((bits) => packets.map((flags) => flags | bits));
    assert.deepEqual(valid, [...all, 0x80, 0x88]);
  });
});

describe('the payloads of the handshake', () => {
  const instance = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);

  it('lie byte for byte as PROTOCOL §3.1 and §3.2 say', () => {
    const payload1 = {
      instance,
      session: 0xa1b2c3,
      ciphers: 3,
      serverIp: Uint8Array.of(10, 0, 0, 1),
      clientIp: Uint8Array.of(10, 0, 0, 2),
      modes: 0x02,
    };
    const bytes1 = encodePayload1(payload1);
    assert.equal(toHex(bytes1), '0102030405060708a1b2c3030a0000010a00000202' + '00'.repeat(43));
    assert.deepEqual(decodePayload1(bytes1), payload1);

    const payload2 = { instance, session: 0xfffefd, verdict: 1, cipher: 2, epoch: 3, ipv6: true };
    const bytes2 = encodePayload2(payload2);
    assert.equal(toHex(bytes2), '0102030405060708fffefd01020301' + '00'.repeat(17));
    assert.deepEqual(decodePayload2(bytes2), payload2);
  });

  it('are copied out of the message, and their spare bytes are ignored', () => {
    const bytes = new Uint8Array(64).fill(0xff);
    const payload = decodePayload1(bytes);
    bytes.fill(0);
    assert.equal(toHex(payload.instance), 'ff'.repeat(8));
    assert.equal(toHex(payload.serverIp), 'ff'.repeat(4));
    assert.equal(decodePayload2(Uint8Array.from({ length: 32 }, () => 0xfe)).ipv6, false);
  });
});
