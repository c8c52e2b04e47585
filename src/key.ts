/**
 * The key file: reading it into secure memory, and making one.
 *
 * A key file holds 32 bytes, as they are (dsvpn's) or in base64 on one line. On its way the key is
 * never a string, because strings cannot be wiped; hence base64 by hand.
 */
import { closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { KEY_BYTES, random, secret, wipe } from './crypto.ts';
import { Failure, print, reason, warn } from './report.ts';

const BASE64_CHARACTERS = 44;
/** Room for a key in base64 with a line end, and for seeing that a file is longer. */
const MOST_FILE_BYTES = 128;
const ALPHABET = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
const EQUALS = 0x3d;
const NEWLINE = 0x0a;
const SPACES = [0x20, 0x09, 0x0d, NEWLINE];
const OTHERS_MAY_READ = 0o004;
const COPY = 'copy the whole file';
const CREATE = 'create one with vpn keygen FILE';

/**
 * The shared key in `path`, in secure memory; the caller wipes it. A file that every user can read
 * costs a warning. Throws a `Failure`.
 */
export function readKey(path: string): Uint8Array {
  const bytes = secret(MOST_FILE_BYTES);
  try {
    const file = bytes.subarray(0, readFile(path, bytes));
    if (file.length === KEY_BYTES) return rawKey(path, file);
    return base64Key(path, withoutTrailingSpace(file));
  } finally {
    wipe(bytes);
  }
}

/** A new key to stdout. */
export function printNewKey(): void {
  if (isRegularAndReadableByOthers(1)) {
    warn('standard output', 'readable by every user', 'run chmod 600 on it');
  }
  withNewKey((line) => print(line));
}

/** A new key to a new file that only its owner can read. Throws a `Failure`. */
export function writeNewKey(path: string): void {
  const what = `cannot create key file "${path}"`;
  let fd: number;
  try {
    // 'x' is O_EXCL: a key that is in use must not be lost to a mistyped name.
    fd = openSync(path, 'wx', 0o600);
  } catch (error) {
    throw new Failure(what, reason(error), 'give another name');
  }
  try {
    withNewKey((line) => {
      for (let written = 0; written < line.length;) {
        written += writeSync(fd, line, written);
      }
    });
  } catch (error) {
    unlinkSync(path);
    throw new Failure(what, reason(error), 'give another name');
  } finally {
    closeSync(fd);
  }
}

function withNewKey(use: (line: Uint8Array) => void): void {
  const key = secret(KEY_BYTES);
  const line = secret(BASE64_CHARACTERS + 1);
  try {
    random(key);
    encode(key, line);
    line[BASE64_CHARACTERS] = NEWLINE;
    use(line);
  } finally {
    wipe(key, line);
  }
}

/** Fills `bytes` from the file, or from a pipe, and returns how many there were. */
function readFile(path: string, bytes: Uint8Array): number {
  const what = `cannot read key file "${path}"`;
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const isMissing = reason(error).startsWith('no such file');
    const why = isMissing ? 'no such file' : reason(error);
    throw new Failure(what, why, isMissing ? CREATE : 'check its owner and mode');
  }
  try {
    if (isRegularAndReadableByOthers(fd)) {
      warn(`key file "${path}"`, 'readable by every user', `run chmod 600 ${path}`);
    }
    let size = 0;
    while (size < bytes.length) {
      const read = readSync(fd, bytes, size, bytes.length - size, null);
      if (read === 0) break;
      size += read;
    }
    return size;
  } catch (error) {
    throw new Failure(what, reason(error), 'give a file');
  } finally {
    closeSync(fd);
  }
}

function isRegularAndReadableByOthers(fd: number): boolean {
  const status = fstatSync(fd);
  return status.isFile() && (status.mode & OTHERS_MAY_READ) !== 0;
}

function rawKey(path: string, file: Uint8Array): Uint8Array {
  if (file.every((byte) => byte >= 0x20 && byte < 0x7f)) {
    // Allowed, since dsvpn allows it, but 32 random bytes never look like this.
    warn(`key file "${path}"`, '32 printable characters, taken as they are', `if cut off, ${COPY}`);
  }
  if (file.every((byte) => byte === 0)) {
    throw new Failure(`key file "${path}"`, 'holds nothing but zeros', CREATE);
  }
  const key = secret(KEY_BYTES);
  key.set(file);
  return key;
}

function base64Key(path: string, text: Uint8Array): Uint8Array {
  const what = `key file "${path}"`;
  if (text.length === 0) throw new Failure(what, 'empty', CREATE);
  const bad = text.some((byte) => !ALPHABET.includes(byte) && byte !== EQUALS);
  if (bad || text.length > BASE64_CHARACTERS + KEY_BYTES) {
    throw new Failure(what, 'neither 32 bytes nor base64', CREATE);
  }
  if (text.length !== BASE64_CHARACTERS) {
    const why = `expected ${BASE64_CHARACTERS} base64 characters, got ${text.length}`;
    throw new Failure(what, why, 'copy the whole line');
  }
  const key = secret(KEY_BYTES);
  if (!decode(text, key)) throw new Failure(what, 'not base64 of 32 bytes', 'copy the whole line');
  return key;
}

function withoutTrailingSpace(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  while (end > 0 && SPACES.includes(bytes[end - 1])) end--;
  return bytes.subarray(0, end);
}

/** 32 bytes to 44 characters (RFC 4648 §4). */
function encode(key: Uint8Array, text: Uint8Array): void {
  for (let i = 0, at = 0; i < key.length; i += 3, at += 4) {
    // Behind the end of a typed array is `undefined`, which counts as zero here.
    const bits = (key[i] << 16) | (key[i + 1] << 8) | key[i + 2];
    for (let j = 0; j < 4; j++) text[at + j] = ALPHABET[(bits >> (18 - 6 * j)) & 63];
  }
  text[BASE64_CHARACTERS - 1] = EQUALS;
}

/** The reverse. False if the padding is not where it belongs, or hides bits (RFC 4648 §3.5). */
function decode(text: Uint8Array, key: Uint8Array): boolean {
  for (let i = 0, at = 0; at < BASE64_CHARACTERS; i += 3, at += 4) {
    let bits = 0;
    for (let j = 0; j < 4; j++) {
      const isPadding = at + j === BASE64_CHARACTERS - 1;
      if (isPadding !== (text[at + j] === EQUALS)) return false;
      bits = (bits << 6) | (isPadding ? 0 : ALPHABET.indexOf(text[at + j]));
    }
    // Writes behind the end of a typed array do nothing, but the bits there must be zero.
    if (i + 2 === KEY_BYTES && (bits & 0xff) !== 0) return false;
    key[i] = bits >> 16;
    key[i + 1] = bits >> 8;
    key[i + 2] = bits;
  }
  return true;
}
