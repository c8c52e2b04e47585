/** The table of keys against itself, the options of the command line, and vpn.conf(5). */
import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { settingsOf } from '../../test/confbed.ts';
import { OPTIONS } from '../options.ts';
import { COMMAND_LINE_ONLY, KEYS, SECTION_OPTIONS, keyHelp, keysOf, spellings } from './schema.ts';
import type { Key } from './schema.ts';

const PAGE = readFileSync(join(import.meta.dirname, '..', '..', 'doc', 'vpn.conf.5'), 'utf8');

/** Keys of MLVPN's manual and example file. */
const MLVPN_GENERAL = [
  ...['statuscommand', 'interface_name', 'tuntap', 'mode', 'password', 'timeout'],
  ...['reorder_buffer_size', 'loss_tolerance', 'loss_tolerence', 'latency_tolerance'],
  ...['latency_tolerence', 'cleartext_data', 'ip4', 'ip6', 'ip4_gateway', 'ip6_gateway'],
  ...['ip4_routes', 'ip6_routes', 'mtu', 'control_unix_path', 'control_bind_host'],
  'control_bind_port',
];
const MLVPN_LINK = [
  ...['bindhost', 'bindport', 'bindfib', 'remotehost', 'remoteport', 'bandwidth_upload', 'timeout'],
  ...['loss_tolerance', 'loss_tolerence', 'latency_tolerance', 'latency_tolerence'],
  'fallback_only',
];

const options: readonly string[] = OPTIONS.map(({ long }) => long);
const optionOf = ({ commandLine }: Key): string | undefined =>
  'option' in commandLine ? commandLine.option : undefined;

/** The paragraphs of the manual, by key, of one of its sections. */
function paragraphs(section: string): ReadonlyMap<string, string> {
  const [, text = ''] = new RegExp(`^\\.Sh ${section}\\n([^]*?)^\\.Sh `, 'm').exec(PAGE) ?? [];
  const items = text.split(/^\.It Ic /m).slice(1);
  return new Map(items.map((item) => [item.split(' ')[0], item.replace(/^\.El[^]*/m, '')]));
}

describe('the table of keys', () => {
  it("has every key of MLVPN's, in both spellings, and says which those are", () => {
    const known = (section: Key['section']): readonly string[] =>
      keysOf(section)
        .filter(({ mlvpn }) => mlvpn)
        .flatMap(spellings)
        .sort();
    deepEqual(known('general'), MLVPN_GENERAL.toSorted());
    deepEqual(known('link'), MLVPN_LINK.toSorted());
  });

  it('has no key twice', () => {
    const names = KEYS.flatMap((key) => spellings(key).map((name) => `${key.section} ${name}`));
    equal(new Set(names).size, names.length);
  });

  for (const { section, name, type, fallback } of KEYS) {
    if (fallback === undefined) continue;
    it(`has a default of the right type for ${name} of ${section}`, () => {
      equal(type.format(type.parse(fallback, name)), fallback);
    });
  }

  it('has one line of help for each key', () => {
    const lines = keyHelp();
    equal(lines.length, KEYS.length);
    deepEqual(
      lines.filter((line) => line.length > 100),
      [],
    );
  });

  it('leaves nothing of a file out of reach', () => {
    const text = '[general]\nmode = client\nkey_file = /k\n[l]\nremotehost = h\nremoteport = 1\n';
    const { general } = settingsOf(text);
    const withDefault = keysOf('general').filter(({ fallback }) => fallback !== undefined);
    deepEqual(
      withDefault.filter(({ name, mode }) => mode !== 'server' && !general.has(name)),
      [],
    );
  });
});

describe('options and keys', () => {
  const named = new Set(KEYS.map(optionOf));
  for (const option of options) {
    it(`has a key for --${option}, or a reason`, () => {
      const isElsewhere =
        Object.hasOwn(COMMAND_LINE_ONLY, option) || SECTION_OPTIONS.includes(option);
      ok(named.has(option) !== isElsewhere || option === 'listen', option);
    });
  }

  for (const key of KEYS) {
    it(`has an option, a word or a reason for ${key.name} of ${key.section}`, () => {
      const option = optionOf(key);
      if (option !== undefined) ok(options.includes(option), option);
      else match(JSON.stringify(key.commandLine), /^\{"(word|part|none)":"[^"]+"\}$/);
    });
  }
});

describe('vpn.conf(5)', () => {
  const sections = { general: paragraphs('GENERAL'), link: paragraphs('LINKS') };

  it('has the keys of the table, and no others', () => {
    for (const section of ['general', 'link'] as const) {
      const names = keysOf(section).map(({ name }) => name);
      deepEqual([...sections[section].keys()].sort(), names.toSorted());
    }
  });

  for (const key of KEYS) {
    const paragraph = sections[key.section].get(key.name) ?? '';

    it(`has the type and the default of ${key.name} of ${key.section}`, () => {
      const [head] = paragraph.split('\n');
      equal(head, `${key.name} No = Ar ${key.type.is}`);
      const [, value] = /^Default: (.*)\.$/m.exec(paragraph) ?? [];
      equal(value, key.fallback);
    });

    it(`says how far ${key.name} of ${key.section} goes, and what MLVPN did`, () => {
      equal(/upper bound/.test(paragraph), key.meaning === 'cap');
      equal(/without effect/.test(paragraph), key.meaning === 'ignored');
      if (key.mlvpn) match(paragraph, /MLVPN/);
      for (const alias of key.aliases ?? [])
        match(paragraph, new RegExp(`^\\.Ic ${alias}\\b`, 'm'));
      const option = optionOf(key);
      if (option !== undefined) match(paragraph, new RegExp(`^\\.Fl -${option}( |$)`, 'm'));
    });
  }

  it('says which keys need a restart', () => {
    const [, text = ''] = /^\.Sh RELOAD\n[^]*?restart:\n([^]*?)^\.Sh /m.exec(PAGE) ?? [];
    const told = text
      .match(/[a-z_0-9]{2,}/g)
      ?.filter((word) => !['of', 'and', 'general', 'Bq'].includes(word));
    const needed = KEYS.filter(({ reload }) => reload === 'restart').map(({ name }) => name);
    deepEqual(told?.sort(), needed.toSorted());
  });

  const examples = [...PAGE.matchAll(/^\[general\]\n[^]*?(?=^\.Ed)/gm)].map(([text]) => text);
  it('has examples that are right', () => {
    equal(examples.length, 2);
    for (const text of examples) ok(settingsOf(text).links.length === 2);
  });
});
