import { deepEqual, equal, match, ok, throws } from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { readKey, writeNewKey } from './key.ts';
import { Failure } from './report.ts';

const folder = mkdtempSync(join(tmpdir(), 'vpn-test-'));
after(() => rmSync(folder, { recursive: true }));

let files = 0;
function keyFile(content: string | Uint8Array): string {
  const path = join(folder, `key${files++}`);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

const KEY = Buffer.from(Array.from({ length: 32 }, (_, i) => 255 - i));
const TEXT = KEY.toString('base64');

describe('reading a key file', () => {
  const rows: readonly (readonly [string, string | Uint8Array])[] = [
    ['32 bytes', KEY],
    ['base64', TEXT],
    ['base64 with a line end', `${TEXT}\n`],
    ['base64 with a line end of another system', `${TEXT}\r\n`],
  ];
  for (const [name, content] of rows) {
    it(`takes ${name}`, () => deepEqual(Buffer.from(readKey(keyFile(content))), KEY));
  }

  it('decodes what node encodes, for many keys', () => {
    for (let i = 0; i < 300; i++) {
      const key = randomBytes(32);
      const text = key.toString('base64');
      deepEqual(Buffer.from(readKey(keyFile(text))), key, text);
    }
  });

  const refused: readonly (readonly [string, string | Uint8Array, string])[] = [
    ['nothing', '', 'empty; create one with vpn keygen FILE'],
    ['a line end', '\n', 'empty; create one with vpn keygen FILE'],
    ['31 bytes', KEY.subarray(1), 'neither 32 bytes nor base64; create one with vpn keygen FILE'],
    [
      '33 bytes',
      Buffer.concat([KEY, KEY.subarray(0, 1)]),
      'neither 32 bytes nor base64; create one with vpn keygen FILE',
    ],
    [
      'much',
      Buffer.alloc(100_000, 'A'),
      'neither 32 bytes nor base64; create one with vpn keygen FILE',
    ],
    ['zeros', Buffer.alloc(32), 'holds nothing but zeros; create one with vpn keygen FILE'],
    [
      '43 characters',
      TEXT.slice(0, 43),
      'expected 44 base64 characters, got 43; copy the whole line',
    ],
    ['45 characters', `A${TEXT}`, 'expected 44 base64 characters, got 45; copy the whole line'],
    [
      'text',
      `${TEXT.slice(0, 20)}!${TEXT.slice(21)}`,
      'neither 32 bytes nor base64; create one with vpn keygen FILE',
    ],
    [
      'padding inside',
      `${TEXT.slice(0, 20)}=${TEXT.slice(21)}`,
      'not base64 of 32 bytes; copy the whole line',
    ],
    [
      '33 bytes in base64',
      randomBytes(33).toString('base64'),
      'not base64 of 32 bytes; copy the whole line',
    ],
    ['bits behind the key', `${'A'.repeat(42)}B=`, 'not base64 of 32 bytes; copy the whole line'],
  ];
  for (const [name, content, why] of refused) {
    it(`refuses ${name}`, () => {
      const path = keyFile(content);
      throws(() => readKey(path), { constructor: Failure, message: `key file "${path}": ${why}` });
    });
  }

  it('says that a file is missing, or a folder', () => {
    const path = join(folder, 'none');
    const message = `cannot read key file "${path}": no such file; create one with vpn keygen FILE`;
    throws(() => readKey(path), { constructor: Failure, message });
    mkdirSync(join(folder, 'folder'));
    throws(
      () => readKey(join(folder, 'folder')),
      /: illegal operation on a directory; give a file$/,
    );
  });
});

describe('making a key file', () => {
  it('writes base64 that only the owner can read, and never over a file', () => {
    const path = join(folder, 'new');
    writeNewKey(path);
    equal(statSync(path).mode & 0o777, 0o600);
    const text = readFileSync(path, 'utf8');
    match(text, /^[A-Za-z0-9+/]{43}=\n$/);
    deepEqual(Buffer.from(readKey(path)), Buffer.from(text, 'base64'));
    const message = `cannot create key file "${path}": file already exists; give another name`;
    throws(() => writeNewKey(path), { constructor: Failure, message });
    equal(readFileSync(path, 'utf8'), text);
  });

  it('makes another key each time', () => {
    const keys = Array.from({ length: 10 }, (_, i) => {
      const path = join(folder, `each${i}`);
      writeNewKey(path);
      return readFileSync(path, 'utf8');
    });
    equal(new Set(keys).size, keys.length);
    ok(keys.every((key) => key.length === 45));
  });
});
