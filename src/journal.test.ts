import assert from 'node:assert/strict';
import { chmodSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { JournalDirectory } from './journal.ts';
import { JOURNAL_VERSION, parseJournal } from './record.ts';
import type { Header } from './record.ts';
import { scratchFolder } from '../test/scratch.ts';

const header: Header = {
  version: JOURNAL_VERSION,
  bootId: 'boot',
  netns: '7',
  netnsInode: 1,
  role: 'client',
  tun: 'tun0',
  tag: 'tun0.4097',
  mark: 4097,
  tables: [4097],
  preferences: [28000],
};
const undo = (word: string): { readonly undo: readonly string[] } => ({ undo: ['ip', word] });

describe('the journal', () => {
  let path: string;
  let directory: JournalDirectory;

  beforeEach(async () => {
    path = join(scratchFolder(), 'vpn');
    directory = new JournalDirectory(path, () => true);
    await directory.locked(() => undefined);
    rmSync(join(path, 'lock'));
  });
  afterEach(() => rmSync(join(path, '..'), { recursive: true }));

  it('keeps what was not undone, in order', () => {
    const journal = directory.create(header);
    const numbers = ['a', 'b', 'c'].map((word) => journal.append(undo(word)));
    journal.undone(numbers[1] ?? 0);
    const read = parseJournal(readFileSync(journal.path, 'utf8'));
    assert.deepEqual(read?.header, header);
    assert.deepEqual(
      read?.remaining.map(({ record }) => record),
      [undo('a'), undo('c')],
    );
    journal.undone(numbers[0] ?? 0);
    journal.undone(numbers[2] ?? 0);
    journal.close();
    assert.deepEqual(readdirSync(path), []);
  });

  it('is private, and stays when something remains', () => {
    const journal = directory.create(header);
    journal.append(undo('a'));
    journal.close();
    assert.equal(statSync(path).mode & 0o777, 0o700);
    assert.equal(statSync(journal.path).mode & 0o777, 0o600);
    const [found] = directory.scan();
    assert.deepEqual(found?.remaining[0]?.record, undo('a'));
    assert.equal(found?.journal?.append(undo('b')), 2);
    found?.journal?.discard();
    assert.deepEqual(readdirSync(path), []);
  });

  it('cut anywhere gives the records before the cut, whole', () => {
    const journal = directory.create(header);
    for (const word of ['a', 'b', 'c']) journal.append(undo(word));
    const text = readFileSync(journal.path, 'utf8');
    journal.discard();
    const ends = [...text.matchAll(/\n/g)].map((match) => match.index);
    for (let cut = 0; cut <= text.length; cut += 1) {
      const whole = ends.filter((end) => end <= cut).length;
      const read = parseJournal(text.slice(0, cut));
      if (whole === 0) assert.equal(read, undefined);
      else assert.equal(read?.remaining.length, whole - 1);
    }
  });

  it('passes over lines that are none', () => {
    const text = `${JSON.stringify(header)}\nnull\n3\n{"number":1}\n{"number":2,"record":{"undo":3}}\n\0\n`;
    assert.deepEqual(parseJournal(text)?.remaining, []);
    assert.equal(parseJournal(''), undefined);
    assert.equal(parseJournal('[]'), undefined);
  });

  it('is not kept where others can write', async () => {
    chmodSync(path, 0o777);
    await assert.rejects(
      directory.locked(() => undefined),
      /another user can write there/,
    );
  });

  it('locks one at a time', async () => {
    const order: string[] = [];
    const one = directory.locked(async () => {
      await new Promise((resolve) => setTimeout(resolve, 50));
      order.push('one');
    });
    await Promise.all([one, directory.locked(() => order.push('two'))]);
    assert.deepEqual(order, ['one', 'two']);
  });
});
