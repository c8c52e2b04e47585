/**
 * The primitives, by purpose and not by algorithm, on libsodium. Bulk data does not pass here: the
 * addon seals it in batches (aead.cc).
 *
 * Secrets live in memory from `secret()`: guarded, locked, left out of core dumps (libsodium,
 * "Secure memory"), and are wiped by whoever made them. JavaScript gives no guarantee for copies the
 * engine makes; none of these functions makes one.
 */
import sodium from 'sodium-native';

export const KEY_BYTES = 32;
export const HASH_BYTES = 64;
export const TAG_BYTES = 16;
/** crypto_pwhash_ALG_ARGON2ID13. */
const ARGON2ID13 = 2;
/** Block of BLAKE2b (RFC 7693 §2.1), for HMAC (RFC 2104). */
const HASH_BLOCK_BYTES = 128;

/** Wiped secure memory that `release` gave back, by size. */
const spare = new Map<number, Uint8Array[]>();

/** Zeroed secure memory. Each one takes whole pages: for keys, not for buffers. */
export function secret(bytes: number): Uint8Array {
  return spare.get(bytes)?.pop() ?? sodium.sodium_malloc(bytes);
}

export function wipe(...secrets: readonly Uint8Array[]): void {
  for (const bytes of secrets) sodium.sodium_memzero(bytes);
}

/**
 * Wipes what came from `secret`, and lets the next caller have it: once, and not to be used any more.
 * What is only wiped stays mapped until the garbage collector comes by, which sees a few bytes where
 * there are four mappings; a burst of handshakes would reach the kernel's limit (vm.max_map_count).
 */
export function release(...secrets: readonly Uint8Array[]): void {
  wipe(...secrets);
  for (const bytes of secrets) {
    const same = spare.get(bytes.length);
    if (same === undefined) spare.set(bytes.length, [bytes]);
    else same.push(bytes);
  }
}

/** Fills `bytes` from the system's generator. */
export function random(bytes: Uint8Array): void {
  sodium.randombytes_buf(bytes);
}

/** BLAKE2b-512 of the concatenation of `messages`. */
export function hash(out: Uint8Array, ...messages: readonly Uint8Array[]): void {
  sodium.crypto_generichash_batch(out, messages);
}

/** Keyed BLAKE2b (RFC 7693 §2.9) with `out.length` bytes of output, 16 to 64. */
export function keyedHash(
  out: Uint8Array,
  key: Uint8Array,
  ...messages: readonly Uint8Array[]
): void {
  sodium.crypto_generichash_batch(out, messages, key);
}

/* Scratch of hmac() and derive(), made once since secure memory costs pages; wiped after each use. */
const hmacPad = secret(HASH_BLOCK_BYTES);
const hmacInner = secret(HASH_BYTES);
const hkdfKey = secret(HASH_BYTES);

/** HMAC-BLAKE2b-512, as Noise §4.3 asks for. `key` is at most one block. `out` may be an input. */
function hmac(out: Uint8Array, key: Uint8Array, ...messages: readonly Uint8Array[]): void {
  hmacPad.fill(0);
  hmacPad.set(key);
  for (let i = 0; i < HASH_BLOCK_BYTES; i++) hmacPad[i] ^= 0x36;
  hash(hmacInner, hmacPad, ...messages);
  for (let i = 0; i < HASH_BLOCK_BYTES; i++) hmacPad[i] ^= 0x36 ^ 0x5c;
  hash(out, hmacPad, hmacInner);
  wipe(hmacPad, hmacInner);
}

/** HKDF of Noise §4.3: fills each of `outputs` (two or three, 64 bytes) in turn. */
export function derive(
  outputs: readonly Uint8Array[],
  chainingKey: Uint8Array,
  material: Uint8Array,
): void {
  hmac(hkdfKey, chainingKey, material);
  let previous: Uint8Array = new Uint8Array(0);
  outputs.forEach((output, i) => {
    hmac(output, hkdfKey, previous, Uint8Array.of(i + 1));
    previous = output;
  });
  wipe(hkdfKey);
}

/** The X25519 public key (RFC 7748) of `secretKey`. */
export function publicKey(out: Uint8Array, secretKey: Uint8Array): void {
  sodium.crypto_scalarmult_base(out, secretKey);
}

/** The X25519 shared secret into `out`. Whether it is one: false for points of low order (RFC 7748 §6.1). */
export function sharedSecret(out: Uint8Array, secretKey: Uint8Array, peer: Uint8Array): boolean {
  try {
    sodium.crypto_scalarmult(out, secretKey, peer);
  } catch {
    // libsodium refuses points of low order by itself.
    return false;
  }
  return !sodium.sodium_is_zero(out, KEY_BYTES);
}

/** ChaCha20-Poly1305 (RFC 8439): `out` is 16 bytes longer than `message`. For handshakes only. */
export function seal(
  out: Uint8Array,
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  message: Uint8Array,
): void {
  sodium.crypto_aead_chacha20poly1305_ietf_encrypt(out, message, ad, null, nonce, key);
}

/** Whether `sealed` opens; only then `out` is written. */
export function open(
  out: Uint8Array,
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  sealed: Uint8Array,
): boolean {
  try {
    sodium.crypto_aead_chacha20poly1305_ietf_decrypt(out, null, sealed, ad, nonce, key);
    return true;
  } catch {
    return false;
  }
}

/** XChaCha20-Poly1305, whose 24-byte nonce may be random: for cookies. */
export function sealCookie(
  out: Uint8Array,
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  cookie: Uint8Array,
): void {
  sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(out, cookie, ad, null, nonce, key);
}

export function openCookie(
  out: Uint8Array,
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  sealed: Uint8Array,
): boolean {
  try {
    sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(out, null, sealed, ad, nonce, key);
    return true;
  } catch {
    return false;
  }
}

/**
 * Argon2id (RFC 9106, version 0x13) with one lane into `out`; `salt` is 16 bytes. Blocks. False if there
 * is not so much memory.
 */
export function hashPassword(
  out: Uint8Array,
  password: Uint8Array,
  salt: Uint8Array,
  passes: number,
  memoryBytes: number,
): boolean {
  try {
    sodium.crypto_pwhash(out, password, salt, passes, memoryBytes, ARGON2ID13);
    return true;
  } catch {
    // With arguments in range libsodium has no other reason.
    return false;
  }
}

/** Comparison in constant time; false for unequal lengths. */
export function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && sodium.sodium_memcmp(a, b);
}
