/** The part of sodium-native that crypto.ts and key.ts use; the package has no types of its own. */
declare module 'sodium-native' {
  const sodium: {
    readonly crypto_generichash: (out: Uint8Array, message: Uint8Array, key?: Uint8Array) => void;
    readonly crypto_generichash_batch: (
      out: Uint8Array,
      messages: readonly Uint8Array[],
      key?: Uint8Array,
    ) => void;
    readonly crypto_scalarmult_base: (publicKey: Uint8Array, secretKey: Uint8Array) => void;
    readonly crypto_scalarmult: (
      shared: Uint8Array,
      secretKey: Uint8Array,
      publicKey: Uint8Array,
    ) => void;
    readonly crypto_aead_chacha20poly1305_ietf_encrypt: (
      out: Uint8Array,
      message: Uint8Array,
      ad: Uint8Array | null,
      secretNonce: null,
      nonce: Uint8Array,
      key: Uint8Array,
    ) => number;
    readonly crypto_aead_chacha20poly1305_ietf_decrypt: (
      out: Uint8Array,
      secretNonce: null,
      sealed: Uint8Array,
      ad: Uint8Array | null,
      nonce: Uint8Array,
      key: Uint8Array,
    ) => number;
    readonly crypto_aead_xchacha20poly1305_ietf_encrypt: (
      out: Uint8Array,
      message: Uint8Array,
      ad: Uint8Array | null,
      secretNonce: null,
      nonce: Uint8Array,
      key: Uint8Array,
    ) => number;
    readonly crypto_aead_xchacha20poly1305_ietf_decrypt: (
      out: Uint8Array,
      secretNonce: null,
      sealed: Uint8Array,
      ad: Uint8Array | null,
      nonce: Uint8Array,
      key: Uint8Array,
    ) => number;
    readonly crypto_pwhash: (
      out: Uint8Array,
      password: Uint8Array,
      salt: Uint8Array,
      passes: number,
      memoryBytes: number,
      algorithm: number,
    ) => void;
    readonly randombytes_buf: (out: Uint8Array) => void;
    readonly sodium_malloc: (bytes: number) => Buffer;
    readonly sodium_memzero: (bytes: Uint8Array) => void;
    readonly sodium_memcmp: (a: Uint8Array, b: Uint8Array) => boolean;
    readonly sodium_is_zero: (bytes: Uint8Array, length: number) => boolean;
  };
  export default sodium;
}
