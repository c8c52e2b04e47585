import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { HOST_FILES, isSameFile, plainFile, textOf } from './hostfiles.ts';

describe('a file of the host', () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'vpnf-'));
    path = join(folder, 'resolv.conf');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const make: Readonly<Record<string, () => void>> = {
    nothing: () => undefined,
    'a file': () => {
      writeFileSync(path, 'nameserver 192.0.2.1\n');
      chmodSync(path, 0o640);
    },
    'bytes that are no text': () => writeFileSync(path, Buffer.from([0, 255, 10, 128])),
    'a link': () => symlinkSync('elsewhere', path),
  };
  for (const [name, prepare] of Object.entries(make))
    it(`that was ${name} is that again`, () => {
      prepare();
      const found = HOST_FILES.read(path);
      HOST_FILES.write(path, plainFile('nameserver 192.0.2.2\n'));
      assert.equal(HOST_FILES.text(path), 'nameserver 192.0.2.2\n');
      assert.equal(statSync(path).mode & 0o777, 0o644);
      HOST_FILES.write(path, found);
      assert.deepEqual(HOST_FILES.read(path), found);
      assert.ok(isSameFile(HOST_FILES.read(path), found));
      assert.equal(readdirSync(folder).length, name === 'nothing' ? 0 : 1);
    });

  it('does not write through a link', () => {
    writeFileSync(join(folder, 'elsewhere'), 'theirs');
    symlinkSync('elsewhere', path);
    assert.equal(HOST_FILES.text(path), 'theirs');
    HOST_FILES.write(path, plainFile('ours'));
    assert.equal(HOST_FILES.text(join(folder, 'elsewhere')), 'theirs');
    assert.equal(textOf(HOST_FILES.read(path)), 'ours');
  });

  it('is left whole, and nothing beside it, when a write was killed', () => {
    writeFileSync(path, 'theirs');
    writeFileSync(`${path}.vpn-new`, 'ou');
    HOST_FILES.tidy(path);
    assert.deepEqual(readdirSync(folder), ['resolv.conf']);
    writeFileSync(`${path}.vpn-new`, 'ou');
    HOST_FILES.write(path, plainFile('ours'));
    assert.deepEqual(readdirSync(folder), ['resolv.conf']);
  });

  it('is neither a folder nor endless', () => {
    assert.throws(() => HOST_FILES.read(folder), /not a file of at most 65536 bytes/);
    writeFileSync(path, Buffer.alloc(70_000));
    assert.throws(() => HOST_FILES.read(path), /not a file/);
    assert.throws(() => HOST_FILES.write(join(path, 'x'), plainFile('')));
    assert.ok(existsSync(path));
  });
});
