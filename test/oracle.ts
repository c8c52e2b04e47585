/**
 * The primitives of PROTOCOL.md once more, from node:crypto and from their specifications, so that
 * vectors are held against something else than the code that uses them. Slow, and no secret is safe here.
 */
import {
  createCipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  type KeyObject,
} from 'node:crypto';

const MASK = (1n << 64n) - 1n;
/** RFC 7693 §2.6, IV. */
const IV = [
  0x6a09e667f3bcc908n,
  0xbb67ae8584caa73bn,
  0x3c6ef372fe94f82bn,
  0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n,
  0x9b05688c2b3e6c1fn,
  0x1f83d9abfb41bd6bn,
  0x5be0cd19137e2179n,
];
/** RFC 7693 §2.7, SIGMA; rounds 10 and 11 are 0 and 1 again. */
const SIGMA = [
  '0123456789abcdef',
  'ea489fd61c02b753',
  'b8c052fdae367194',
  '7931dcbe265a40f8',
  '905724afe1bc683d',
  '2c6a0b834d75fe19',
  'c51fed4a0763928b',
  'db7ec13950f4862a',
  '6fe9b308c2d714a5',
  'a2847615fb9e3cd0',
];
/** RFC 7693 §3.1: the words each G of a round mixes, and its rotations. */
const COLUMNS = ['048c', '159d', '26ae', '37bf', '05af', '16bc', '278d', '349e'];

const rotate = (word: bigint, by: bigint): bigint => ((word >> by) | (word << (64n - by))) & MASK;

function compress(h: bigint[], block: Uint8Array, bytes: number, isLast: boolean): void {
  const view = new DataView(block.buffer, block.byteOffset);
  const m = Array.from({ length: 16 }, (_, i) => view.getBigUint64(8 * i, true));
  const v = [...h, ...IV];
  v[12] ^= BigInt(bytes);
  if (isLast) v[14] ^= MASK;
  for (let round = 0; round < 12; round++) {
    COLUMNS.forEach((column, i) => {
      const [a, b, c, d] = [...column].map((digit) => Number.parseInt(digit, 16));
      const word = (at: number): bigint => m[Number.parseInt(SIGMA[round % 10][at], 16)];
      v[a] = (v[a] + v[b] + word(2 * i)) & MASK;
      v[d] = rotate(v[d] ^ v[a], 32n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = rotate(v[b] ^ v[c], 24n);
      v[a] = (v[a] + v[b] + word(2 * i + 1)) & MASK;
      v[d] = rotate(v[d] ^ v[a], 16n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = rotate(v[b] ^ v[c], 63n);
    });
  }
  for (let i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

/** BLAKE2b with a key (which may be empty) and `size` bytes of output: RFC 7693 §3.3. */
export function blake2b(key: Uint8Array, message: Uint8Array, size: number): Buffer {
  const h = [...IV];
  h[0] ^= 0x01010000n ^ BigInt((key.length << 8) | size);
  const keyed =
    key.length === 0 ? message : Buffer.concat([key, Buffer.alloc(128 - key.length), message]);
  const blocks = Math.max(1, Math.ceil(keyed.length / 128));
  for (let i = 0; i < blocks; i++) {
    const block = new Uint8Array(128);
    block.set(keyed.subarray(128 * i, 128 * (i + 1)));
    compress(h, block, Math.min(keyed.length, 128 * (i + 1)), i === blocks - 1);
  }
  const out = Buffer.alloc(64);
  h.forEach((word, i) => out.writeBigUInt64LE(word, 8 * i));
  return out.subarray(0, size);
}

/** Either cipher of the data path, and that of Noise: ciphertext and tag. */
export function seal(
  cipher: 'aes-256-gcm' | 'chacha20-poly1305',
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  plaintext: Uint8Array,
): Buffer {
  // The two have their types apart.
  const sealing =
    cipher === 'aes-256-gcm'
      ? createCipheriv(cipher, key, nonce)
      : createCipheriv(cipher, key, nonce, { authTagLength: 16 });
  sealing.setAAD(ad, { plaintextLength: plaintext.length });
  return Buffer.concat([sealing.update(plaintext), sealing.final(), sealing.getAuthTag()]);
}

/** XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03 §2.3). */
export function xchachaSeal(
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  plaintext: Uint8Array,
): Buffer {
  const inner = Buffer.concat([Buffer.alloc(4), nonce.subarray(16)]);
  return seal('chacha20-poly1305', hchacha20(key, nonce.subarray(0, 16)), inner, ad, plaintext);
}

/**
 * HChaCha20 (§2.2 there) from the block function of ChaCha20: the block is state + rounds(state), so the
 * rounds alone are the block less the state. node:crypto takes counter and nonce as one 16-byte value.
 */
export function hchacha20(key: Uint8Array, nonce: Uint8Array): Buffer {
  const block = createCipheriv('chacha20', key, nonce).update(Buffer.alloc(64));
  const state = Buffer.concat([Buffer.from('expand 32-byte k'), key, nonce]);
  const out = Buffer.alloc(32);
  [0, 1, 2, 3, 12, 13, 14, 15].forEach((word, i) => {
    out.writeUInt32LE((block.readUInt32LE(4 * word) - state.readUInt32LE(4 * word)) >>> 0, 4 * i);
  });
  return out;
}

/** RFC 8410 §7 and §4: what stands before the 32 bytes of an X25519 key. */
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');
const PUBLIC_PREFIX = Buffer.from('302a300506032b656e032100', 'hex');

function privateKey(key: Uint8Array): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([PRIVATE_PREFIX, key]),
    format: 'der',
    type: 'pkcs8',
  });
}

export function x25519Public(key: Uint8Array): Buffer {
  const der = createPublicKey(privateKey(key)).export({ format: 'der', type: 'spki' });
  return der.subarray(PUBLIC_PREFIX.length);
}

export function x25519(key: Uint8Array, peer: Uint8Array): Buffer {
  const publicKey = createPublicKey({
    key: Buffer.concat([PUBLIC_PREFIX, peer]),
    format: 'der',
    type: 'spki',
  });
  return diffieHellman({ privateKey: privateKey(key), publicKey });
}

const hash = (...parts: Uint8Array[]): Buffer =>
  createHash('blake2b512').update(Buffer.concat(parts)).digest();
const hmac = (key: Uint8Array, ...parts: Uint8Array[]): Buffer =>
  createHmac('blake2b512', key).update(Buffer.concat(parts)).digest();

/** HKDF of Noise §4.3. */
function hkdf(chainingKey: Uint8Array, material: Uint8Array, outputs: number): Buffer[] {
  const key = hmac(chainingKey, material);
  const out: Buffer[] = [];
  for (let i = 1; i <= outputs; i++)
    out.push(hmac(key, out.at(-1) ?? Buffer.alloc(0), Buffer.of(i)));
  return out;
}

/** Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b from beginning to end, written out token by token. */
export function noiseNNpsk0(
  psk: Uint8Array,
  prologue: Uint8Array,
  initiator: { readonly ephemeral: Uint8Array; readonly payload: Uint8Array },
  responder: { readonly ephemeral: Uint8Array; readonly payload: Uint8Array },
): { message1: Buffer; message2: Buffer; k1: Buffer; k2: Buffer } {
  const name = Buffer.alloc(64);
  name.write('Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b');
  const zero = Buffer.alloc(12);
  let ck: Buffer = name;
  let h = hash(name, prologue);
  // psk
  const [ck1, pskHash] = hkdf(ck, psk, 3);
  ck = ck1;
  h = hash(h, pskHash);
  // e, mixed into the key too (Noise §9.2)
  const e1 = x25519Public(initiator.ephemeral);
  h = hash(h, e1);
  const [ck2, key1] = hkdf(ck, e1, 2);
  ck = ck2;
  const sealed1 = seal('chacha20-poly1305', key1.subarray(0, 32), zero, h, initiator.payload);
  h = hash(h, sealed1);
  // e
  const e2 = x25519Public(responder.ephemeral);
  h = hash(h, e2);
  [ck] = hkdf(ck, e2, 2);
  // ee
  const [ck3, key2] = hkdf(ck, x25519(responder.ephemeral, e1), 2);
  const sealed2 = seal('chacha20-poly1305', key2.subarray(0, 32), zero, h, responder.payload);
  const [k1, k2] = hkdf(ck3, Buffer.alloc(0), 2);
  return {
    message1: Buffer.concat([e1, sealed1]),
    message2: Buffer.concat([e2, sealed2]),
    k1: k1.subarray(0, 32),
    k2: k2.subarray(0, 32),
  };
}
