/** The ciphers of the addon against those of node:crypto. */
import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { describe, it } from 'node:test';
import { fill, generator, native } from '../test/nativebed.ts';
import { NONCE_BYTES, datagramTable, sealTable } from './batch.ts';
import { Cipher } from './native.ts';

const HEADER = 9;
const TAG = 16;

function oracle(cipher: number, key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, text: Buffer) {
  const name = cipher === Cipher.aes256Gcm ? 'aes-256-gcm' : 'chacha20-poly1305';
  const seal = createCipheriv(name as 'aes-256-gcm', key, nonce, { authTagLength: TAG });
  seal.setAAD(aad, { plaintextLength: text.length });
  return Buffer.concat([seal.update(text), seal.final(), seal.getAuthTag()]);
}

function aeadTests(name: string, cipher: number): void {
  describe(`aead ${name}`, () => {
    const SEED = 0x5eed0 + cipher;
    const SIZES = [0, 1, 15, 16, 17, 255, 1280, 1420, 1500, 9000, 65000];

    it('seals as node:crypto does and opens what it sealed', () => {
      const draw = generator(SEED);
      const keyBytes = fill(new Uint8Array(32), draw);
      const key = native.aeadCreate(cipher, keyBytes);
      const sizes = [...SIZES, ...Array.from({ length: 30 }, () => draw(65001))];
      const ring = fill(new Uint8Array(sizes.reduce((sum, size) => sum + size, 0)), draw);
      const total = ring.length + sizes.length * (HEADER + TAG);
      const slab = fill(new Uint8Array(total), draw);
      const seal = sealTable(sizes.length);
      const open = datagramTable(sizes.length);
      fill(seal.nonces, draw);
      open.nonces.set(seal.nonces);
      let from = 0;
      let to = 0;
      // The last slot ends exactly where ring and slab end.
      sizes.forEach((size, i) => {
        seal.from[i] = from;
        seal.sizes[i] = size;
        seal.to[i] = open.offsets[i] = to;
        open.lengths[i] = HEADER + size + TAG;
        open.keys[i] = key;
        from += size;
        to += HEADER + size + TAG;
      });
      const headers = slab.slice();
      native.seal(key, ring, slab, HEADER, seal, sizes.length);
      sizes.forEach((size, i) => {
        const at = open.offsets[i]!;
        const plain = Buffer.from(ring.subarray(seal.from[i]!, seal.from[i]! + size));
        const aad = headers.subarray(at, at + HEADER);
        const nonce = seal.nonces.subarray(i * NONCE_BYTES, (i + 1) * NONCE_BYTES);
        const want = Buffer.concat([aad, oracle(cipher, keyBytes, nonce, aad, plain)]);
        const got = Buffer.from(slab.subarray(at, at + want.length));
        assert.ok(want.equals(got), `slot ${i} of ${size} bytes, seed ${SEED}`);
      });
      assert.equal(native.open(slab, HEADER, open, sizes.length), 0);
      sizes.forEach((size, i) => {
        const at = open.offsets[i]! + HEADER;
        assert.equal(open.lengths[i], HEADER + size + TAG);
        const plain = ring.subarray(seal.from[i]!, seal.from[i]! + size);
        assert.ok(Buffer.from(plain).equals(slab.subarray(at, at + size)), `slot ${i}`);
      });
      native.aeadFree(key);
      assert.throws(() => native.seal(key, ring, slab, HEADER, seal, 0), RangeError);
    });

    it('wipes what does not open, and leaves slots without a key alone', () => {
      const draw = generator(SEED + 1);
      const key = native.aeadCreate(cipher, fill(new Uint8Array(32), draw));
      const COUNT = 400;
      const STRIDE = 128;
      const ring = fill(new Uint8Array(64), draw);
      const slab = new Uint8Array(COUNT * STRIDE);
      const seal = sealTable(COUNT);
      const open = datagramTable(COUNT);
      fill(seal.nonces, draw);
      open.nonces.set(seal.nonces);
      for (let i = 0; i < COUNT; i++) {
        seal.sizes[i] = draw(65);
        seal.to[i] = open.offsets[i] = i * STRIDE;
        open.lengths[i] = HEADER + seal.sizes[i]! + TAG;
        open.keys[i] = i % 4 === 3 ? 0 : key;
      }
      native.seal(key, ring, slab, HEADER, seal, COUNT);
      // By slot: whole, one bit flipped anywhere, cut short, no key.
      let forged = 0;
      for (let i = 0; i < COUNT; i++) {
        const bit = draw(open.lengths[i]! * 8);
        if (i % 4 === 1) slab[i * STRIDE + (bit >> 3)]! ^= 1 << (bit & 7);
        if (i % 4 === 2) open.lengths[i] = draw(open.lengths[i]!);
        if (i % 4 === 1 || i % 4 === 2) forged++;
      }
      const before = slab.slice();
      const lengths = open.lengths.slice();
      assert.equal(native.open(slab, HEADER, open, COUNT), forged);
      for (let i = 0; i < COUNT; i++) {
        const here = slab.subarray(i * STRIDE, i * STRIDE + lengths[i]!);
        const kind = i % 4;
        if (kind === 0) {
          const text = here.subarray(HEADER, HEADER + seal.sizes[i]!);
          assert.deepEqual(text, ring.subarray(0, seal.sizes[i]!), `slot ${i}, seed ${SEED + 1}`);
        } else if (kind === 3) {
          assert.equal(open.lengths[i], lengths[i]);
          assert.deepEqual(here, before.subarray(i * STRIDE, i * STRIDE + lengths[i]!));
        } else {
          assert.equal(open.lengths[i], 0, `slot ${i}, seed ${SEED + 1}`);
          assert.ok(
            here.every((byte) => byte === 0),
            `slot ${i} is wiped`,
          );
        }
      }
      native.aeadFree(key);
    });
  });
}

aeadTests('AES-256-GCM', Cipher.aes256Gcm);
aeadTests('ChaCha20-Poly1305', Cipher.chacha20Poly1305);
