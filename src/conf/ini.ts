/**
 * The configuration file's form: sections, keys and values, in order, each with its line.
 *
 * The form is MLVPN's (mlvpn.conf(5)): `[section]`, `key = value`, `# comment`, and double quotes around
 * a value that has a `#` or a space at an end. Where MLVPN drops a line without a word, this reader says so. What a
 * section, a key or a value means is none of its business.
 *
 * It works on bytes: the value of a secret key never becomes a string, since strings cannot be wiped.
 */
import type { Problems } from './problem.ts';

export interface Entry {
  readonly key: string;
  readonly line: number;
  /** '' for a key without a value, and for a value that was not to be decoded. */
  readonly value: string;
  /** The value as it stands in the file: borrowed, and wiped with the file's bytes. */
  readonly bytes: Uint8Array;
}

export interface Section {
  readonly name: string;
  readonly line: number;
  readonly entries: readonly Entry[];
}

/** Whether the value of `key` in `section` may become a string. */
export type MayDecode = (section: string, key: string) => boolean;

const TAB = 0x09;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const HASH = 0x23;
const SEMICOLON = 0x3b;
const EQUALS = 0x3d;
const BRACKET = 0x5b;
const CLOSING_BRACKET = 0x5d;
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];
/** What of an unknown key is shown: enough for a misspelt one, too little for a stray secret. */
const KEY = /^[A-Za-z0-9_][\w.:%,-]{0,31}$/;

/** Reads the file's bytes, which stay the caller's. What cannot be read is a problem, and left out. */
export function parseIni(
  bytes: Uint8Array,
  mayDecode: MayDecode,
  problems: Problems,
): readonly Section[] {
  const sections: { name: string; line: number; entries: Entry[] }[] = [];
  let number = 0;
  for (const line of lines(bytes)) {
    number++;
    const content = trimmed(line);
    if (content.length === 0 || content[0] === HASH || content[0] === SEMICOLON) continue;
    if (content.includes(0)) {
      problems.error(number, 'zero byte', 'this is no text file', 'write it again');
      continue;
    }
    if (content[0] === BRACKET) {
      const name = sectionName(content, number, problems);
      // Keys below a section that cannot be read are still looked at, so as not to pass for another's.
      sections.push({ name: name ?? '', line: number, entries: [] });
      continue;
    }
    const section = sections.at(-1);
    if (section === undefined) {
      problems.error(number, 'key before the first section', '', 'write [general] above it');
      continue;
    }
    const entry = parseEntry(content, section.name, number, mayDecode, problems);
    if (entry !== undefined) section.entries.push(entry);
  }
  return sections.filter(({ name }) => name !== '');
}

function* lines(bytes: Uint8Array): Generator<Uint8Array> {
  const hasMark = BYTE_ORDER_MARK.every((byte, i) => bytes[i] === byte);
  let start = hasMark ? BYTE_ORDER_MARK.length : 0;
  while (start < bytes.length) {
    const newline = bytes.indexOf(NEWLINE, start);
    const end = newline < 0 ? bytes.length : newline;
    yield bytes.subarray(start, end);
    start = end + 1;
  }
}

function sectionName(content: Uint8Array, line: number, problems: Problems): string | undefined {
  const end = content.indexOf(CLOSING_BRACKET);
  const name = end < 0 ? undefined : decoded(trimmed(content.subarray(1, end)));
  if (name === undefined || !isCommentOrNothing(content.subarray(end + 1))) {
    problems.error(line, 'section', 'not [name]', 'write its name in one pair of brackets');
    return undefined;
  }
  if (name === '') {
    problems.error(line, 'section', 'has no name', 'write [general], [filters] or [LINK]');
    return undefined;
  }
  return name;
}

function parseEntry(
  content: Uint8Array,
  section: string,
  line: number,
  mayDecode: MayDecode,
  problems: Problems,
): Entry | undefined {
  const keyEnd = content.findIndex((byte) => isSpace(byte) || byte === EQUALS || byte === QUOTE);
  const key = decoded(content.subarray(0, keyEnd < 0 ? content.length : keyEnd));
  if (key === undefined || !KEY.test(key)) {
    problems.error(line, 'line', 'does not start with a key', 'write it as key = "value"');
    return undefined;
  }
  const afterKey = trimmed(content.subarray(key.length));
  const hasEquals = afterKey[0] === EQUALS;
  const text = hasEquals ? trimmed(afterKey.subarray(1)) : afterKey;
  if (!hasEquals && isCommentOrNothing(text)) {
    problems.error(line, `key "${key}"`, 'has no value', `write ${key} = "value"`);
    return undefined;
  }
  if (!hasEquals) {
    problems.warn(line, `key "${key}"`, 'no "=" before its value, taken as if', 'write it');
  }
  const bytes = valueOf(text, key, line, problems);
  if (bytes === undefined) return undefined;
  if (!mayDecode(section, key)) return { key, line, value: '', bytes };
  const value = decoded(bytes);
  if (value === undefined) {
    problems.error(line, `key "${key}"`, 'its value is not UTF-8', 'save the file as UTF-8');
    return undefined;
  }
  return { key, line, value, bytes };
}

/** The value without quotes and comment. */
function valueOf(
  text: Uint8Array,
  key: string,
  line: number,
  problems: Problems,
): Uint8Array | undefined {
  if (text[0] === QUOTE) {
    const end = text.indexOf(QUOTE, 1);
    if (end < 0) {
      problems.error(line, `key "${key}"`, 'its quote is not closed', 'add the second quote');
      return undefined;
    }
    if (!isCommentOrNothing(text.subarray(end + 1))) {
      const remedy = 'a value has no quotes inside: take out what is behind it';
      problems.error(line, `key "${key}"`, 'text behind the closing quote', remedy);
      return undefined;
    }
    return text.subarray(1, end);
  }
  const hash = text.indexOf(HASH);
  const value = trimmed(hash < 0 ? text : text.subarray(0, hash));
  if (value.includes(QUOTE)) {
    problems.error(line, `key "${key}"`, 'quote inside its value', 'put all of it into quotes');
    return undefined;
  }
  if (hash > 0 && !isSpace(text[hash - 1])) {
    // As MLVPN; but in a password it is a surprise.
    const remedy = 'if it is not, put the value into quotes';
    problems.warn(line, `key "${key}"`, '"#" inside its value, taken as a comment', remedy);
  }
  return value;
}

/** Only behind a quoted value and a section a `;` is a comment: elsewhere MLVPN takes it as it is. */
function isCommentOrNothing(bytes: Uint8Array): boolean {
  const rest = trimmed(bytes);
  return rest.length === 0 || rest[0] === HASH || rest[0] === SEMICOLON;
}

function isSpace(byte: number): boolean {
  return byte === SPACE || byte === TAB || byte === RETURN;
}

function trimmed(bytes: Uint8Array): Uint8Array {
  let start = 0;
  let end = bytes.length;
  while (start < end && isSpace(bytes[start])) start++;
  while (end > start && isSpace(bytes[end - 1])) end--;
  return bytes.subarray(start, end);
}

/** undefined if it is not UTF-8. */
function decoded(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
