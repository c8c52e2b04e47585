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

    /** Datagrams of all sizes one behind the other, each sealed or only authenticated, as byte 0 says. */
    function mixed(seed: number, sizes: readonly number[]) {
      const draw = generator(seed);
      const keyBytes = fill(new Uint8Array(32), draw);
      const key = native.aeadCreate(cipher, keyBytes);
      const ring = fill(new Uint8Array(sizes.reduce((sum, size) => sum + size, 0)), draw);
      const slab = fill(new Uint8Array(ring.length + sizes.length * (HEADER + TAG)), draw);
      const nonces = fill(new Uint8Array(sizes.length * NONCE_BYTES), draw);
      const open = datagramTable(sizes.length);
      open.nonces.set(nonces);
      const batches = [sealTable(sizes.length), sealTable(sizes.length)];
      const counts = [0, 0];
      let from = 0;
      let to = 0;
      sizes.forEach((size, i) => {
        const clear = (open.clear[i] = draw(2));
        const batch = batches[clear]!;
        const slot = counts[clear]!++;
        slab[to] = clear === 1 ? 0x90 : 0x80;
        batch.from[slot] = from;
        batch.sizes[slot] = size;
        batch.to[slot] = open.offsets[i] = to;
        batch.nonces.set(
          nonces.subarray(i * NONCE_BYTES, (i + 1) * NONCE_BYTES),
          slot * NONCE_BYTES,
        );
        open.lengths[i] = HEADER + size + TAG;
        open.keys[i] = key;
        from += size;
        to += HEADER + size + TAG;
      });
      native.seal(key, ring, slab, HEADER, batches[0]!, counts[0]!);
      native.authenticate(key, ring, slab, HEADER, batches[1]!, counts[1]!);
      return { keyBytes, key, ring, slab, open, counts };
    }

    it('authenticates what stays in the clear, beside what is sealed under the same key', () => {
      const draw = generator(SEED + 2);
      const sizes = [...SIZES, ...SIZES, ...Array.from({ length: 200 }, () => draw(1500))];
      const { keyBytes, key, ring, slab, open, counts } = mixed(SEED + 3, sizes);
      assert.ok(counts.every((count) => count > sizes.length / 4));
      let from = 0;
      sizes.forEach((size, i) => {
        const at = open.offsets[i]!;
        const header = slab.subarray(at, at + HEADER);
        const plain = Buffer.from(ring.subarray(from, from + size));
        const nonce = open.nonces.subarray(i * NONCE_BYTES, (i + 1) * NONCE_BYTES);
        const all = Buffer.concat([header, plain]);
        const want =
          open.clear[i] === 1
            ? Buffer.concat([all, oracle(cipher, keyBytes, nonce, all, Buffer.alloc(0))])
            : Buffer.concat([header, oracle(cipher, keyBytes, nonce, header, plain)]);
        const got = slab.subarray(at, at + want.length);
        assert.ok(want.equals(got), `slot ${i} of ${size} bytes, seed ${SEED + 3}`);
        from += size;
      });
      assert.equal(native.open(slab, HEADER, open, sizes.length), 0);
      from = 0;
      sizes.forEach((size, i) => {
        const at = open.offsets[i]! + HEADER;
        assert.equal(open.lengths[i], HEADER + size + TAG);
        const plain = ring.subarray(from, from + size);
        assert.ok(Buffer.from(plain).equals(slab.subarray(at, at + size)), `slot ${i}`);
        from += size;
      });
      native.aeadFree(key);
    });

    it('opens nothing of which any one bit is another, in either form', () => {
      const SIZE = 57;
      const bits = (HEADER + SIZE + TAG) * 8;
      const { key, slab, open } = mixed(
        SEED + 4,
        Array.from({ length: 2 * bits }, () => SIZE),
      );
      for (let i = 0; i < 2 * bits; i++) {
        const bit = i % bits;
        slab[open.offsets[i]! + (bit >> 3)]! ^= 0x80 >> (bit & 7);
        // As the receiver finds it, which has only byte 0 to go by.
        open.clear[i] = (slab[open.offsets[i]!]! & 0x10) >> 4;
      }
      assert.equal(native.open(slab, HEADER, open, 2 * bits), 2 * bits, `seed ${SEED + 4}`);
      assert.ok(open.lengths.every((length) => length === 0));
      assert.ok(slab.every((byte) => byte === 0));
      native.aeadFree(key);
    });

    it('never takes one form for the other', () => {
      const draw = generator(SEED + 5);
      const sizes = [...SIZES, ...Array.from({ length: 100 }, () => draw(200))];
      for (const isTold of [false, true]) {
        const { key, slab, open } = mixed(SEED + 6, sizes);
        for (let i = 0; i < sizes.length; i++) {
          open.clear[i]! ^= 1;
          if (isTold) slab[open.offsets[i]!]! ^= 0x10;
        }
        // The one datagram whose two forms are of the same bytes differs in byte 0, which says so.
        const same = isTold ? 0 : sizes.filter((size) => size === 0).length;
        const refused = native.open(slab, HEADER, open, sizes.length);
        assert.equal(refused, sizes.length - same, `seed ${SEED + 6}`);
        native.aeadFree(key);
      }
    });

    it('refuses places outside ring, slab and table', () => {
      const key = native.aeadCreate(cipher, new Uint8Array(32));
      const table = sealTable(1);
      table.sizes[0] = 10;
      const attempt =
        (ring: number, slab: number, count = 1) =>
        (): void =>
          native.authenticate(
            key,
            new Uint8Array(ring),
            new Uint8Array(slab),
            HEADER,
            table,
            count,
          );
      attempt(10, HEADER + 10 + TAG)();
      assert.throws(attempt(9, 100), RangeError);
      assert.throws(attempt(10, HEADER + 10 + TAG - 1), RangeError);
      assert.throws(attempt(100, 100, 2), RangeError);
      native.aeadFree(key);
      assert.throws(attempt(100, 100), RangeError);
    });
  });
}

aeadTests('AES-256-GCM', Cipher.aes256Gcm);
aeadTests('ChaCha20-Poly1305', Cipher.chacha20Poly1305);
