import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { it } from 'node:test';
import { NOISE_OVERHEAD_BYTES, NoiseInitiator, NoiseResponder } from './noise.ts';

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** The entry for this protocol in cacophony's vectors (vectors/cacophony.txt of that library). */
const PUBLISHED = {
  prologue: '4a6f686e2047616c74',
  psk: '54686973206973206d7920417573747269616e20706572737065637469766521',
  initiatorEphemeral: '893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a',
  responderEphemeral: 'bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b',
  messages: [
    [
      '4c756477696720766f6e204d69736573',
      'ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944ed63df2f5a12aee1185ee9c50305f2ecf12421dcb53c047a63b784cf7c54a105',
    ],
    [
      '4d757272617920526f746862617264',
      '95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088430e0fe7d5c0c9b92f7478716c8852f1b4f389edb75e3ebe546fafafd5b6f0f7',
    ],
    ['462e20412e20486179656b', '0fe04b26dcfbb69f8a6a94c61f1a26ef88769218d32f5d17c068a6'],
    ['4361726c204d656e676572', '2239e0c540c01f09eb1f4cc5258fd5acfefff18a5a3773f21b7bfe'],
  ],
} as const;

function sealWith(key: Uint8Array, plaintext: Uint8Array): string {
  const cipher = createCipheriv('chacha20-poly1305', key, new Uint8Array(12), {
    authTagLength: 16,
  });
  return toHex(Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]));
}

it('agrees with the published vectors', () => {
  const [[payload1, message1], [payload2, message2], first, second] = PUBLISHED.messages;
  const psk = hex(PUBLISHED.psk);
  const prologue = hex(PUBLISHED.prologue);
  const initiator = new NoiseInitiator(psk, prologue, hex(PUBLISHED.initiatorEphemeral));
  const responder = new NoiseResponder(psk, prologue);

  const wire1 = new Uint8Array(hex(payload1).length + NOISE_OVERHEAD_BYTES);
  initiator.writeMessage1(wire1, hex(payload1));
  assert.equal(toHex(wire1), message1);
  const read1 = new Uint8Array(hex(payload1).length);
  assert.ok(responder.readMessage1(read1, wire1));
  assert.equal(toHex(read1), payload1);

  const wire2 = new Uint8Array(hex(payload2).length + NOISE_OVERHEAD_BYTES);
  const theirs = responder.writeMessage2(wire2, hex(payload2), hex(PUBLISHED.responderEphemeral));
  assert.equal(toHex(wire2), message2);
  const read2 = new Uint8Array(hex(payload2).length);
  const ours = initiator.readMessage2(read2, wire2);
  assert.equal(toHex(read2), payload2);

  assert.ok(ours !== undefined && theirs !== undefined);
  assert.deepEqual([ours.k1, ours.k2].map(toHex), [theirs.k1, theirs.k2].map(toHex));
  assert.equal(sealWith(ours.k1, hex(first[0])), first[1]);
  assert.equal(sealWith(ours.k2, hex(second[0])), second[1]);
});

it('reads the true second message after any number of forged ones', () => {
  const psk = new Uint8Array(32).fill(7);
  const prologue = hex('00');
  const initiator = new NoiseInitiator(psk, prologue);
  const responder = new NoiseResponder(psk, prologue);
  const wire1 = new Uint8Array(NOISE_OVERHEAD_BYTES);
  initiator.writeMessage1(wire1, new Uint8Array(0));
  assert.ok(responder.readMessage1(new Uint8Array(0), wire1));
  const wire2 = new Uint8Array(NOISE_OVERHEAD_BYTES);
  assert.ok(responder.writeMessage2(wire2, new Uint8Array(0)));

  const none = new Uint8Array(0);
  for (let bit = 0; bit < wire2.length * 8; bit++) {
    const forged = wire2.slice();
    forged[bit >> 3] ^= 1 << (bit & 7);
    // X25519 ignores the top bit of a point (RFC 7748 §5), but the transcript hash does not.
    assert.equal(initiator.readMessage2(none, forged), undefined, `bit ${bit}`);
  }
  assert.ok(initiator.readMessage2(none, wire2));
});

it('refuses another psk, another prologue, a low-order point, and its own message', () => {
  const psk = new Uint8Array(32).fill(1);
  const none = new Uint8Array(0);
  const wire = new Uint8Array(NOISE_OVERHEAD_BYTES);
  new NoiseInitiator(psk, hex('aa')).writeMessage1(wire, none);
  assert.equal(
    new NoiseResponder(new Uint8Array(32).fill(2), hex('aa')).readMessage1(none, wire),
    false,
  );
  assert.equal(new NoiseResponder(psk, hex('ab')).readMessage1(none, wire), false);

  const initiator = new NoiseInitiator(psk, hex('aa'));
  const own = new Uint8Array(NOISE_OVERHEAD_BYTES);
  initiator.writeMessage1(own, none);
  assert.equal(initiator.readMessage2(none, own), undefined);
  assert.equal(initiator.readMessage2(none, new Uint8Array(NOISE_OVERHEAD_BYTES)), undefined);
});

it('reads the second message once, and never after it was wiped', () => {
  const psk = new Uint8Array(32).fill(3);
  const none = new Uint8Array(0);
  const answered = (): readonly [NoiseInitiator, Uint8Array] => {
    const initiator = new NoiseInitiator(psk, none);
    const responder = new NoiseResponder(psk, none);
    const wire = new Uint8Array(NOISE_OVERHEAD_BYTES);
    initiator.writeMessage1(wire, none);
    assert.ok(responder.readMessage1(none, wire));
    const answer = new Uint8Array(NOISE_OVERHEAD_BYTES);
    assert.ok(responder.writeMessage2(answer, none));
    responder.wipe();
    return [initiator, answer];
  };
  const [once, first] = answered();
  assert.ok(once.readMessage2(none, first));
  assert.equal(once.readMessage2(none, first), undefined);
  const [wiped, second] = answered();
  wiped.wipe();
  wiped.wipe();
  assert.equal(wiped.readMessage2(none, second), undefined);
});

it('gives nobody memory that is still in use', () => {
  const psk = new Uint8Array(32).fill(4);
  const none = new Uint8Array(0);
  const pairs = Array.from({ length: 20 }, () => {
    const initiator = new NoiseInitiator(psk, none);
    const wire1 = new Uint8Array(NOISE_OVERHEAD_BYTES);
    initiator.writeMessage1(wire1, none);
    const responder = new NoiseResponder(psk, none);
    assert.ok(responder.readMessage1(none, wire1));
    const wire2 = new Uint8Array(NOISE_OVERHEAD_BYTES);
    const theirs = responder.writeMessage2(wire2, none);
    responder.wipe();
    responder.wipe();
    return { initiator, wire2, theirs };
  });
  const all = pairs.map(({ initiator, wire2, theirs }) => {
    const ours = initiator.readMessage2(none, wire2);
    initiator.wipe();
    assert.deepEqual(ours, theirs);
    return ours;
  });
  const distinct = new Set(all.flatMap((keys) => [toHex(keys!.k1), toHex(keys!.k2)]));
  assert.equal(distinct.size, 40);
});
