/**
 * Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b (Noise Protocol Framework, revision 34), and only that:
 *
 *     -> psk, e
 *     <- e, ee
 *
 * Methods are named after the tokens. Written here and not taken from a package because reading must
 * not change the state before the tag is checked, and every intermediate key has to be wiped; the
 * published vectors decide (noise.test.ts).
 */
import {
  derive,
  hash,
  HASH_BYTES,
  KEY_BYTES,
  open,
  publicKey,
  random,
  release,
  seal,
  secret,
  sharedSecret,
  TAG_BYTES,
  wipe,
} from './crypto.ts';

const PROTOCOL_NAME = 'Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b';
/** Each cipher key seals once (Noise §5.2: the nonce starts at 0 with each new key). */
const FIRST_NONCE = new Uint8Array(12);
const EMPTY = new Uint8Array(0);

/** Bytes that a handshake message has over its payload: e and the tag. */
export const NOISE_OVERHEAD_BYTES = KEY_BYTES + TAG_BYTES;

/** The keys of both directions. Whoever gets them wipes them. */
export interface TransportKeys {
  /** Initiator to responder. */
  readonly k1: Uint8Array;
  /** Responder to initiator. */
  readonly k2: Uint8Array;
}

/** What a wiped state has instead of keys: every primitive refuses it. */
const GONE = new Uint8Array(0);

/** Noise §5.2: chaining key, handshake hash, and the key that seals the next payload. */
class SymmetricState {
  chainingKey = secret(HASH_BYTES);
  readonly handshakeHash = new Uint8Array(HASH_BYTES);
  cipherKey = secret(HASH_BYTES);
  private temp = secret(HASH_BYTES);

  constructor(prologue: Uint8Array) {
    // §5.2 InitializeSymmetric: the name is no longer than the hash, so it is padded with zeros.
    new TextEncoder().encodeInto(PROTOCOL_NAME, this.handshakeHash);
    this.chainingKey.set(this.handshakeHash);
    this.mixHash(prologue);
  }

  mixHash(bytes: Uint8Array): void {
    hash(this.handshakeHash, this.handshakeHash, bytes);
  }

  mixKey(material: Uint8Array): void {
    derive([this.temp, this.cipherKey], this.chainingKey, material);
    this.chainingKey.set(this.temp);
  }

  mixKeyAndHash(material: Uint8Array): void {
    const mixed = secret(HASH_BYTES);
    derive([this.temp, mixed, this.cipherKey], this.chainingKey, material);
    this.chainingKey.set(this.temp);
    this.mixHash(mixed);
    release(mixed);
  }

  sealAndHash(out: Uint8Array, payload: Uint8Array): void {
    seal(out, this.key(), FIRST_NONCE, this.handshakeHash, payload);
    this.mixHash(out);
  }

  openAndHash(out: Uint8Array, sealed: Uint8Array): boolean {
    if (!open(out, this.key(), FIRST_NONCE, this.handshakeHash, sealed)) return false;
    this.mixHash(sealed);
    return true;
  }

  /** §5.2 MixKey: of a 64-byte hash only the first 32 bytes are the key. */
  private key(): Uint8Array {
    return this.cipherKey.subarray(0, KEY_BYTES);
  }

  split(): TransportKeys {
    const long1 = secret(HASH_BYTES);
    const long2 = secret(HASH_BYTES);
    derive([long1, long2], this.chainingKey, EMPTY);
    const k1 = secret(KEY_BYTES);
    const k2 = secret(KEY_BYTES);
    k1.set(long1.subarray(0, KEY_BYTES));
    k2.set(long2.subarray(0, KEY_BYTES));
    release(long1, long2);
    return { k1, k2 };
  }

  clone(prologue: Uint8Array): SymmetricState {
    const copy = new SymmetricState(prologue);
    copy.chainingKey.set(this.chainingKey);
    copy.handshakeHash.set(this.handshakeHash);
    copy.cipherKey.set(this.cipherKey);
    return copy;
  }

  wipe(): void {
    if (this.temp === GONE) return;
    wipe(this.handshakeHash);
    release(this.chainingKey, this.cipherKey, this.temp);
    this.chainingKey = this.cipherKey = this.temp = GONE;
  }
}

function ephemeral(fixed: Uint8Array | undefined): Uint8Array {
  const key = secret(KEY_BYTES);
  if (fixed === undefined) random(key);
  else key.set(fixed);
  return key;
}

/** The side that writes message 1. One use: one message each way, then `wipe`. */
export class NoiseInitiator {
  /** Our public ephemeral: the first 32 bytes of message 1. */
  readonly e = new Uint8Array(KEY_BYTES);
  private readonly state: SymmetricState;
  private readonly prologue: Uint8Array;
  private readonly ephemeralKey: Uint8Array;
  private isOver = false;

  /** `fixedEphemeral` is for test vectors only. `psk` is borrowed for the call. */
  constructor(psk: Uint8Array, prologue: Uint8Array, fixedEphemeral?: Uint8Array) {
    this.prologue = prologue;
    this.state = new SymmetricState(prologue);
    this.ephemeralKey = ephemeral(fixedEphemeral);
    publicKey(this.e, this.ephemeralKey);
    this.state.mixKeyAndHash(psk);
  }

  /** -> psk, e. `message` is NOISE_OVERHEAD_BYTES longer than `payload`. Call once. */
  writeMessage1(message: Uint8Array, payload: Uint8Array): void {
    message.set(this.e);
    this.state.mixHash(this.e);
    // §9.2: in a psk handshake, e is mixed into the key as well.
    this.state.mixKey(this.e);
    this.state.sealAndHash(message.subarray(KEY_BYTES), payload);
  }

  /**
   * <- e, ee. Undefined, and nothing changed, if `message` is not the answer to our message 1: works
   * on a copy of the state, since what came may be forged and the true answer may still come. The true
   * one is read once: the same keys a second time, with counters from 0 again, would repeat nonces.
   */
  readMessage2(payload: Uint8Array, message: Uint8Array): TransportKeys | undefined {
    if (this.isOver) return undefined;
    const state = this.state.clone(this.prologue);
    const shared = secret(KEY_BYTES);
    try {
      const re = message.subarray(0, KEY_BYTES);
      state.mixHash(re);
      state.mixKey(re);
      if (!sharedSecret(shared, this.ephemeralKey, re)) return undefined;
      state.mixKey(shared);
      if (!state.openAndHash(payload, message.subarray(KEY_BYTES))) return undefined;
      this.wipe();
      return state.split();
    } finally {
      release(shared);
      state.wipe();
    }
  }

  wipe(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.state.wipe();
    release(this.ephemeralKey);
  }
}

/** The side that reads message 1. One use: `readMessage1`, `writeMessage2`, `wipe`. */
export class NoiseResponder {
  private readonly state: SymmetricState;
  private readonly re = new Uint8Array(KEY_BYTES);

  constructor(psk: Uint8Array, prologue: Uint8Array) {
    this.state = new SymmetricState(prologue);
    this.state.mixKeyAndHash(psk);
  }

  /** -> psk, e. False if the sender does not have the psk: then only `wipe` may follow. */
  readMessage1(payload: Uint8Array, message: Uint8Array): boolean {
    this.re.set(message.subarray(0, KEY_BYTES));
    this.state.mixHash(this.re);
    this.state.mixKey(this.re);
    return this.state.openAndHash(payload, message.subarray(KEY_BYTES));
  }

  /** <- e, ee. Undefined if the initiator's point is of low order. */
  writeMessage2(
    message: Uint8Array,
    payload: Uint8Array,
    fixedEphemeral?: Uint8Array,
  ): TransportKeys | undefined {
    const key = ephemeral(fixedEphemeral);
    const shared = secret(KEY_BYTES);
    try {
      const e = message.subarray(0, KEY_BYTES);
      publicKey(e, key);
      this.state.mixHash(e);
      this.state.mixKey(e);
      if (!sharedSecret(shared, key, this.re)) return undefined;
      this.state.mixKey(shared);
      this.state.sealAndHash(message.subarray(KEY_BYTES), payload);
      return this.state.split();
    } finally {
      release(key, shared);
    }
  }

  wipe(): void {
    this.state.wipe();
  }
}
