import { deepEqual, equal, notDeepEqual } from 'node:assert/strict';
import { argon2Sync } from 'node:crypto';
import { describe, it } from 'node:test';
import { KEY_BYTES, random } from '../crypto.ts';
import {
  PASSWORD_MEMORY_BYTES,
  PASSWORD_PASSES,
  PASSWORD_SALT,
  passwordKey,
  passwordMark,
} from './password.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function keyOf(password: string): string {
  const key = new Uint8Array(KEY_BYTES);
  passwordKey(key, bytes(password));
  return Buffer.from(key).toString('hex');
}

describe('the key of a password', () => {
  const vectors: readonly (readonly [string, string])[] = [
    ['pleasechangeme!', '73d7ab9fca7a1840c1b482a486f86dd71a83082e823d698370eb2aca44a3764a'],
    [
      'you have not changed me yet?',
      'bc4e0fd1219e5d6d13f0265e30f44e674d6f5cd1bdbee90b9893588a9cb63a8a',
    ],
    ['x', '3d70b6bc7e6a5a0854ed484859cdf0be6a7175269fad1dc8fb93b451d31a2155'],
    ['grüße aus köln', 'ac2586e5b73812a68f82d3acdbea7009fb65de24dc84a64a0db428950dfc6666'],
  ];
  for (const [password, expected] of vectors) {
    it(`is that of the vector "${password}"`, () => {
      equal(keyOf(password), expected);
    });

    it(`is what OpenSSL makes of "${password}"`, () => {
      const parameters = {
        message: bytes(password),
        nonce: bytes(PASSWORD_SALT),
        parallelism: 1,
        tagLength: KEY_BYTES,
        memory: PASSWORD_MEMORY_BYTES / 1024,
        passes: PASSWORD_PASSES,
      };
      equal(keyOf(password), argon2Sync('argon2id', parameters).toString('hex'));
    });
  }

  it('costs at most 32 MB', () => {
    equal(PASSWORD_MEMORY_BYTES <= 32_000_000, true);
    // Argon2 rounds down to 4 KiB per lane: nothing to round, so that every implementation agrees.
    equal(PASSWORD_MEMORY_BYTES % 4096, 0);
  });
});

describe('the mark of a password', () => {
  const markKey = new Uint8Array(KEY_BYTES);
  random(markKey);

  it('is the same for the same password only', () => {
    deepEqual(passwordMark(markKey, bytes('a')), passwordMark(markKey, bytes('a')));
    notDeepEqual(passwordMark(markKey, bytes('a')), passwordMark(markKey, bytes('b')));
  });

  it('is another in another process', () => {
    const other = new Uint8Array(KEY_BYTES);
    random(other);
    notDeepEqual(passwordMark(markKey, bytes('a')), passwordMark(other, bytes('a')));
  });
});
