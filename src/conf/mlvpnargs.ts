/**
 * `vpn --config FILE`: MLVPN's command line (mlvpn(1)), beside the options that every `vpn` has. Parsed
 * like getopt_long(3), with which MLVPN does it: letters may stand together (`-vvc FILE`, `-cFILE`), and a
 * long option may be cut short as long as it is the only one.
 */
import { OPTIONS, parseArguments } from '../options.ts';
import type { Arguments, OptionName } from '../options.ts';
import { UsageFailure } from '../report.ts';
import { COMMAND_LINE_ONLY, KEYS, SECTION_OPTIONS } from './schema.ts';
import type { Override } from './settings.ts';

export interface FileArguments {
  readonly config: string;
  readonly check: boolean;
  readonly dump: boolean;
  readonly help: boolean;
  readonly version: boolean;
  /** What the command line says of keys of the file. */
  readonly overrides: readonly Override[];
  /** Options that no file has: `dry-run` and those for tests. */
  readonly options: Arguments['options'];
}

interface FileOption {
  readonly long: string;
  readonly short?: string;
  readonly hasValue?: true;
  /** The key with the same meaning. */
  readonly key?: string;
}

/** MLVPN's, and those that go with a file. */
const FILE_OPTIONS: readonly FileOption[] = [
  { long: 'config', short: 'c', hasValue: true },
  { long: 'check' },
  { long: 'dump' },
  { long: 'user', short: 'u', hasValue: true, key: 'user' },
  { long: 'name', short: 'n', hasValue: true, key: 'name' },
  { long: 'debug', key: 'debug' },
  { long: 'debug-token', short: 'D', hasValue: true, key: 'debug_tokens' },
  { long: 'natural-title', key: 'natural_title' },
  { long: 'verbose', short: 'v' },
  { long: 'quiet', short: 'q' },
  { long: 'help', short: 'h' },
  { long: 'version', short: 'V' },
];

/** An option with its value, and the way it was written. */
interface Given {
  readonly option: FileOption;
  readonly value: string;
  readonly written: string;
}

interface Parsed {
  readonly given: readonly Given[];
  /** The first option without its value; not an error before it is known whose option it is. */
  readonly missing: string | undefined;
  /** Words and options that are not of this list, in order. */
  readonly rest: readonly string[];
}

/**
 * undefined if `argv` names no configuration file, so that it is another command line. Throws a
 * `UsageFailure`.
 */
export function fileArguments(argv: readonly string[]): FileArguments | undefined {
  const { given, missing, rest } = parse(argv);
  const files = valuesOf(given, 'config');
  if (files.length === 0) return undefined;
  if (missing !== undefined) {
    throw new UsageFailure(`option ${missing}`, 'value missing', `write ${missing} VALUE`);
  }
  if (files.length > 1) {
    throw new UsageFailure('option --config', 'given twice', 'start vpn once for each file');
  }
  const { words, options } = parseArguments(rest);
  if (words.length > 0) {
    const remedy = 'leave it out, or leave --config out';
    throw new UsageFailure(`word "${words[0]}"`, 'not beside --config', remedy);
  }
  const has = (long: string): boolean => given.some(({ option }) => option.long === long);
  return {
    config: files[0],
    check: has('check'),
    dump: has('dump'),
    help: has('help'),
    version: has('version'),
    overrides: [...ownOverrides(given), ...optionOverrides(options)],
    options: onlyHere(options),
  };
}

function parse(argv: readonly string[]): Parsed {
  const given: Given[] = [];
  const rest: string[] = [];
  let missing: string | undefined;
  let i = 0;
  const valueAfter = (written: string): string => {
    const value = argv[++i] ?? '';
    if (value === '') missing ??= written;
    return value;
  };
  for (; i < argv.length; i++) {
    const word = argv[i];
    if (word === '--') {
      rest.push(...argv.slice(i));
      break;
    }
    const isLong = word.startsWith('--');
    if (isLong) {
      const [name, attached] = splitAtEquals(word.slice(2));
      const option = findLong(name);
      if (option === undefined) {
        rest.push(word);
        continue;
      }
      const written = `--${option.long}`;
      if (option.hasValue !== true && attached !== undefined) {
        throw new UsageFailure(`option ${written}`, 'takes no value', `write ${written} alone`);
      }
      const value = option.hasValue === true ? attached || valueAfter(written) : '';
      given.push({ option, value, written });
      continue;
    }
    const letters = lettersOf(word);
    if (letters === undefined) rest.push(word);
    else {
      for (const { option, value } of letters) {
        const written = `-${option.short}`;
        const isMissing = option.hasValue === true && value === '';
        given.push({ option, value: isMissing ? valueAfter(written) : value, written });
      }
    }
  }
  return { given, missing, rest };
}

/** The options of a word such as `-vvcFILE`; undefined if it has a letter that is not of this list. */
function lettersOf(word: string): readonly { option: FileOption; value: string }[] | undefined {
  if (!/^-[^-]/.test(word)) return undefined;
  const found: { option: FileOption; value: string }[] = [];
  for (let at = 1; at < word.length; at++) {
    const option = FILE_OPTIONS.find(({ short }) => short === word[at]);
    if (option === undefined) return undefined;
    if (option.hasValue === true) return [...found, { option, value: word.slice(at + 1) }];
    found.push({ option, value: '' });
  }
  return found;
}

/** The option of a name, which may be cut short where no other begins so. */
function findLong(name: string): FileOption | undefined {
  const exact = FILE_OPTIONS.find(({ long }) => long === name);
  const all = [...FILE_OPTIONS.map(({ long }) => long), ...OPTIONS.map(({ long }) => long)];
  const fitting = new Set(all.filter((long) => long.startsWith(name)));
  if (exact !== undefined || name === '' || fitting.size !== 1) return exact;
  return FILE_OPTIONS.find(({ long }) => fitting.has(long));
}

function splitAtEquals(text: string): readonly [string, string | undefined] {
  const at = text.indexOf('=');
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function valuesOf(given: readonly Given[], name: string): readonly string[] {
  return given.filter(({ option }) => option.long === name).map(({ value }) => value);
}

/** Of MLVPN's options. The last of a kind wins, tokens add up, and -v and -q count against each other. */
function ownOverrides(given: readonly Given[]): readonly Override[] {
  const overrides = new Map<string, Override>();
  for (const { option, value, written } of given) {
    const { key } = option;
    if (key === undefined) continue;
    const before = key === 'debug_tokens' ? overrides.get(key)?.text : undefined;
    const text = before === undefined ? value || 'yes' : `${before} ${value}`;
    overrides.set(key, { key, text, option: written });
  }
  // Tokens without the log they are for would be lost.
  if (overrides.has('debug_tokens')) {
    overrides.set('debug', { key: 'debug', text: 'yes', option: '-D' });
  }
  const level = valuesOf(given, 'verbose').length - valuesOf(given, 'quiet').length;
  if (level > 0) {
    const text = String(Math.min(level, 9));
    overrides.set('verbose', { key: 'verbose', text, option: '-v' });
    overrides.set('quiet', { key: 'quiet', text: 'no', option: '-v' });
  }
  if (level < 0) overrides.set('quiet', { key: 'quiet', text: 'yes', option: '-q' });
  return [...overrides.values()];
}

/** Of the options that every `vpn` has. */
function optionOverrides(options: Arguments['options']): readonly Override[] {
  return [...options].flatMap(([name, values]) => {
    const option = `--${name}`;
    const isForEnds = OPTIONS.some(
      ({ long, commands }) => long === name && commands.some((command) => command === 'client'),
    );
    if (!isForEnds && name !== 'listen') {
      throw new UsageFailure(`option ${option}`, 'not beside --config', 'see vpn --help');
    }
    if (SECTION_OPTIONS.includes(name)) {
      const remedy = 'give it a section of its own in the file';
      throw new UsageFailure(`option ${option}`, 'not beside --config', remedy);
    }
    if (Object.hasOwn(COMMAND_LINE_ONLY, name)) return [];
    const keys = KEYS.filter(
      ({ section, commandLine }) =>
        section === 'general' && 'option' in commandLine && commandLine.option === name,
    );
    if (name === 'route') return routeOverrides(values, option);
    return keys.map(({ name: key, commandLine }): Override => {
      const isInverse = 'inverse' in commandLine;
      return { key, text: isInverse ? 'no' : values.join(' ') || 'yes', option };
    });
  });
}

/** `--route` has one key for each family. */
function routeOverrides(routes: readonly string[], option: string): readonly Override[] {
  const isIpv6 = (route: string): boolean => route.includes(':');
  const byKey = {
    ip4_routes: routes.filter((route) => !isIpv6(route)),
    ip6_routes: routes.filter(isIpv6),
  };
  return Object.entries(byKey)
    .filter(([, list]) => list.length > 0)
    .map(([key, list]) => ({ key, text: list.join(' '), option }));
}

function onlyHere(options: Arguments['options']): Arguments['options'] {
  const isOnlyHere = ([name]: [OptionName, readonly string[]]): boolean =>
    Object.hasOwn(COMMAND_LINE_ONLY, name);
  return new Map([...options].filter(isOnlyHere));
}
