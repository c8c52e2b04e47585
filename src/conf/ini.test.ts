import { deepEqual, equal, ok } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../../test/random.ts';
import { parseIni } from './ini.ts';
import type { Section } from './ini.ts';
import { Problems } from './problem.ts';

interface Read {
  readonly sections: readonly Section[];
  readonly told: readonly string[];
}

function read(text: string | Uint8Array, mayDecode = (): boolean => true): Read {
  const problems = new Problems('f');
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
  const sections = parseIni(bytes, mayDecode, problems);
  return { sections, told: problems.all().map((problem) => problem.text) };
}

/** `section/key=value@line`, in order. */
function flat({ sections }: Read): readonly string[] {
  return sections.flatMap(({ name, entries }) =>
    entries.map(({ key, value, line }) => `${name}/${key}=${value}@${line}`),
  );
}

describe('the form of a configuration file', () => {
  const rows: readonly (readonly [string, string, readonly string[]])[] = [
    ['values with and without quotes', '[a]\nx = "1 2"\ny=3\n', ['a/x=1 2@2', 'a/y=3@3']],
    ['spaces and tabs around anything', ' [ a ] \n\tx\t=\t1 \n', ['a/x=1@2']],
    ['line ends of other systems', '[a]\r\nx = 1\r\n', ['a/x=1@2']],
    ['no line end at the end', '[a]\nx = 1', ['a/x=1@2']],
    ['a byte order mark', '\ufeff[a]\nx = 1', ['a/x=1@2']],
    ['comments', '# c\n; c\n[a] # c\nx = 1 # c\n', ['a/x=1@4']],
    ['comments behind quotes', '[a]\nx = "1" # c\ny = "2" ; c\n', ['a/x=1@2', 'a/y=2@3']],
    ['signs of a comment inside quotes', '[a]\nx = "a#b;c"\n', ['a/x=a#b;c@2']],
    ['a semicolon in a bare value', '[a]\nx = a;b ; c\n', ['a/x=a;b ; c@2']],
    ['spaces kept inside quotes', '[a]\nx = " a "\n', ['a/x= a @2']],
    ['values that are empty', '[a]\nx =\ny = ""\n', ['a/x=@2', 'a/y=@3']],
    ['equals signs in values', '[f]\nl = tcp[13] = 2\n', ['f/l=tcp[13] = 2@2']],
    ['order and repetition', '[f]\nb = 1\na = 2\nb = 3\n', ['f/b=1@2', 'f/a=2@3', 'f/b=3@4']],
    ['letters of other languages', '[a]\nx = grüße\n', ['a/x=grüße@2']],
  ];
  for (const [what, text, expected] of rows) {
    it(`has ${what}`, () => {
      const result = read(text);
      deepEqual(result.told, []);
      deepEqual(flat(result), expected);
    });
  }

  const strange: readonly (readonly [string, readonly string[], string])[] = [
    ['[a]\nx 64\n', ['a/x=64@2'], 'f:2: key "x": no "=" before its value, taken as if; write it'],
    [
      '[a]\nx = a#b\n',
      ['a/x=a@2'],
      'f:2: key "x": "#" inside its value, taken as a comment; if it is not, put the value into quotes',
    ],
    ['x = 1\n', [], 'f:1: key before the first section; write [general] above it'],
    ['[a\n', [], 'f:1: section: not [name]; write its name in one pair of brackets'],
    ['[a] b\n', [], 'f:1: section: not [name]; write its name in one pair of brackets'],
    ['[]\n', [], 'f:1: section: has no name; write [general], [filters] or [LINK]'],
    ['[a]\nx\n', [], 'f:2: key "x": has no value; write x = "value"'],
    ['[a]\nx # c\n', [], 'f:2: key "x": has no value; write x = "value"'],
    ['[a]\n= 1\n', [], 'f:2: line: does not start with a key; write it as key = "value"'],
    ['[a]\n"x" = 1\n', [], 'f:2: line: does not start with a key; write it as key = "value"'],
    ['[a]\nx = "1\n', [], 'f:2: key "x": its quote is not closed; add the second quote'],
    [
      '[a]\nx = "1" 2\n',
      [],
      'f:2: key "x": text behind the closing quote; a value has no quotes inside: take out what is behind it',
    ],
    ['[a]\nx = 1"2\n', [], 'f:2: key "x": quote inside its value; put all of it into quotes'],
    ['[a]\nx = 1\0\n', [], 'f:2: zero byte: this is no text file; write it again'],
  ];
  for (const [text, expected, message] of strange) {
    it(`says of ${JSON.stringify(text)}: ${message}`, () => {
      const result = read(text);
      deepEqual(result.told, [message]);
      deepEqual(flat(result), expected);
    });
  }

  it('says where a value is not UTF-8', () => {
    const bytes = Uint8Array.from([...Buffer.from('[a]\nx = '), 0xff, 0x0a]);
    deepEqual(read(bytes).told, ['f:2: key "x": its value is not UTF-8; save the file as UTF-8']);
  });

  it('does not take the keys below a broken section for those of the one above', () => {
    deepEqual(flat(read('[a]\nx = 1\n[b\ny = 2\n')), ['a/x=1@2']);
  });

  it('makes no string of a value that must not be one', () => {
    const { sections } = read('[a]\nx = "secret" # c\n', () => false);
    const [{ value, bytes }] = sections[0].entries;
    equal(value, '');
    equal(Buffer.from(bytes).toString(), 'secret');
  });

  it('reads back what was written, whatever the layout', () => {
    const seed = 5;
    const random = new Random(seed);
    const pick = <T>(list: readonly T[]): T => list[random.below(list.length)];
    const space = (): string => pick(['', ' ', '\t ']);
    for (let round = 0; round < 500; round++) {
      const lines: string[] = [];
      const expected: string[] = [];
      let section = '';
      for (let line = 1; line <= 12; line++) {
        if (section === '' || random.below(5) === 0) {
          section = `s${line}`;
          lines.push(`${space()}[${space()}${section}${space()}]${space()}`);
          continue;
        }
        const value = pick(['1', 'a b', 'a=b', 'x;y', '10.0.0.0/8 10.1.0.0/16', 'ü']);
        const isQuoted = random.below(2) === 0;
        const comment = pick(['', ' # c', ' # "c"']);
        const written = isQuoted ? `"${value}"` : value;
        lines.push(`${space()}k${line}${space()}=${space()}${written}${space()}${comment}`);
        expected.push(`${section}/k${line}=${value}@${line}`);
      }
      const result = read(lines.join(pick(['\n', '\r\n'])));
      const where = `seed ${seed}, round ${round}: ${JSON.stringify(lines)}`;
      deepEqual(result.told, [], where);
      deepEqual(flat(result), expected, where);
    }
  });

  it('ends with any bytes, and never shows more than a key', () => {
    const seed = 6;
    const random = new Random(seed);
    const alphabet = Buffer.from('[]="#; \t\r\n\0\xffabc=', 'latin1');
    for (let round = 0; round < 2000; round++) {
      const bytes = new Uint8Array(random.below(60));
      for (let i = 0; i < bytes.length; i++) bytes[i] = alphabet[random.below(alphabet.length)];
      const { sections, told } = read(bytes, () => false);
      const lines = Buffer.from(bytes).toString('latin1').split('\n').length;
      const where = `seed ${seed}, round ${round}`;
      ok(
        told.every((text) => text.length < 200 && !text.includes('\n')),
        where,
      );
      for (const { entries } of sections) {
        ok(
          entries.every(({ line, value }) => line <= lines && value === ''),
          where,
        );
      }
    }
  });
});
