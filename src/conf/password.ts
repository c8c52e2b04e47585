/**
 * `password` of a configuration file becomes the shared key (PROTOCOL §2.1). The salt and the cost are
 * fixed, because both ends must come to the same key and have nothing else in common: so anybody can
 * prepare a dictionary once for all users, and a key file is better than any password.
 */
import { KEY_BYTES, hashPassword, keyedHash } from '../crypto.ts';
import { Failure } from '../report.ts';

/** 16 bytes of ASCII, as libsodium wants them (crypto_pwhash_SALTBYTES). */
export const PASSWORD_SALT = 'vpn-password-key';
/**
 * Passes and memory. RFC 9106 §4 recommends three passes over 64 MiB for small hosts; half the memory,
 * since routers have little, and more passes for it. 0.1 s on a desktop processor.
 */
export const PASSWORD_PASSES = 8;
export const PASSWORD_MEMORY_BYTES = 30 * 1024 * 1024;

/**
 * Fills `key` (32 bytes) from the bytes of a password as they stand in the file. Blocks for about 0.1 s,
 * with 30 MiB of memory that are free again afterwards: for the start, before anything is measured.
 * Throws a `Failure` where there is no such memory.
 */
export function passwordKey(key: Uint8Array, password: Uint8Array): void {
  const salt = new TextEncoder().encode(PASSWORD_SALT);
  if (hashPassword(key, password, salt, PASSWORD_PASSES, PASSWORD_MEMORY_BYTES)) return;
  const what = 'cannot make a key of the password';
  throw new Failure(what, 'out of memory', 'free 32 MB of it, or use key_file');
}

/**
 * A mark by which a reload sees whether the password is still the same, without 0.1 s of Argon2 in a
 * running tunnel. `markKey` is 32 random bytes of this process, so that the mark says nothing outside.
 */
export function passwordMark(markKey: Uint8Array, password: Uint8Array): Uint8Array {
  const mark = new Uint8Array(KEY_BYTES);
  keyedHash(mark, markKey, password);
  return mark;
}
