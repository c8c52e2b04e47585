/**
 * Sections to effective settings: what each key is in the end, and where that comes from. Looks at
 * nothing but the text: files, devices and names are for those who use the settings.
 */
import { basename } from 'node:path';
import { REALTIME_TARGETS } from '../filters.ts';
import type { FilterEntry } from '../filters.ts';
import { nearest } from '../nearest.ts';
import { checkSettings } from './checks.ts';
import type { Entry, Section } from './ini.ts';
import type { Problems } from './problem.ts';
import { FILTERS, GENERAL, KEYS, findKey, keysOf, kindOf, spellings } from './schema.ts';
import type { Key, Mode, SectionKind } from './schema.ts';
import { NAME_PATTERN } from './values.ts';
import type { Value } from './values.ts';

export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly line: number }
  | { readonly kind: 'command line' };

export interface Setting {
  readonly value: Value;
  readonly origin: Origin;
  /** In a link's section: taken over from [general]. */
  readonly inherited?: true;
}

/** The values of one section. A key that is not set reads as '', 0, false or an empty list. */
export class Values {
  private readonly settings: ReadonlyMap<string, Setting>;

  constructor(settings: ReadonlyMap<string, Setting>) {
    this.settings = settings;
  }

  /** undefined for a key that is not set and has no default. `key` is a canonical name. */
  get(key: string): Setting | undefined {
    return this.settings.get(key);
  }

  has(key: string): boolean {
    return this.settings.has(key);
  }

  /** The line that the value is from; 0 if it is not from the file. */
  lineOf(key: string): number {
    const origin = this.get(key)?.origin;
    return origin?.kind === 'file' ? origin.line : 0;
  }

  text(key: string): string {
    const value = this.get(key)?.value;
    return typeof value === 'string' ? value : '';
  }

  number(key: string): number {
    const value = this.get(key)?.value;
    return typeof value === 'number' ? value : 0;
  }

  flag(key: string): boolean {
    return this.get(key)?.value === true;
  }

  list(key: string): readonly string[] {
    const value = this.get(key)?.value;
    return Array.isArray(value) ? value : [];
  }
}

export interface FileLink {
  readonly name: string;
  readonly line: number;
  readonly values: Values;
}

/** One line of [filters]. */
export interface FileFilter extends FilterEntry {
  readonly line: number;
}

export interface Settings {
  readonly file: string;
  readonly mode: Mode;
  readonly general: Values;
  readonly links: readonly FileLink[];
  /** In the order in which they are tried. */
  readonly filters: readonly FileFilter[];
  /** The line of the password; 0 if there is none. */
  readonly passwordLine: number;
}

/** What the command line gives for a key of [general]: it wins over the file. */
export interface Override {
  readonly key: string;
  readonly text: string;
  /** As it was written, for an error. */
  readonly option: string;
}

/** Link keys that [general] has too, for all links. */
const INHERITED = ['timeout', 'loss_tolerance', 'latency_tolerance'];
const DEFAULT_NAME = 'vpn';
/** As `name=` of `--link` (linkconfig.ts). */
const LINK_NAME = /^[A-Za-z0-9_][\w.:%-]{0,31}$/;

/**
 * The effective settings; undefined if there are errors among `problems`. Throws a `UsageFailure` for a
 * value of the command line.
 */
export function effectiveSettings(
  sections: readonly Section[],
  overrides: readonly Override[],
  problems: Problems,
): Settings | undefined {
  const unique = withoutDuplicates(sections, problems);
  const generalSection = unique.find(({ name }) => name === GENERAL);
  const linkSections = unique
    .filter(({ name }) => kindOf(name) === 'link')
    .filter((section) => isLinkName(section, unique, problems));
  if (generalSection === undefined) {
    problems.error(0, 'no section [general]', '', 'add it, with mode and key_file');
    return undefined;
  }
  const given = entriesByKey('general', generalSection.entries, problems);
  const mode = modeOf(given.get('mode'), problems);
  const general = new Map<string, Setting>();
  for (const key of keysOf('general'))
    addSetting(general, key, given.get(key.name), mode, problems);
  for (const override of overrides) addOverride(general, override);
  addName(general, problems.file);
  const links = linkSections.map((section) => linkSettings(section, general, mode, problems));
  const filters = (unique.find(({ name }) => name === FILTERS)?.entries ?? [])
    .filter(({ value }) => value !== '')
    .map(({ key, value, line }) => ({ target: key, expression: value, line }));
  const password = given.get('password');
  const settings: Settings = {
    file: problems.file,
    mode: mode ?? 'client',
    general: new Values(general),
    links,
    filters,
    passwordLine: password === undefined || password.bytes.length === 0 ? 0 : password.line,
  };
  if (mode !== undefined) checkSettings(settings, problems);
  return problems.hasErrors() ? undefined : settings;
}

/** The entry that holds the password, if there is one. */
export function passwordEntry(sections: readonly Section[]): Entry | undefined {
  const general = sections.find(({ name }) => name === GENERAL);
  return general?.entries.find(({ key, bytes }) => key === 'password' && bytes.length > 0);
}

/** Whether the value of a key may become a string; one that nobody knows may be a misspelt password. */
export function mayDecode(section: string, name: string): boolean {
  const kind = kindOf(section);
  if (kind === undefined) return true;
  const key = findKey(kind, name);
  return key !== undefined && key.secret !== true;
}

function withoutDuplicates(sections: readonly Section[], problems: Problems): readonly Section[] {
  const first = new Map<string, Section>();
  for (const section of sections) {
    const known = first.get(section.name);
    if (known === undefined) {
      first.set(section.name, section);
      continue;
    }
    const why = `already at line ${known.line}`;
    problems.error(section.line, `section [${section.name}]`, why, 'put them into one');
  }
  return [...first.values()];
}

/** Whether a section is one of a link; if not, it is a problem. */
function isLinkName(
  { name, line }: Section,
  sections: readonly Section[],
  problems: Problems,
): boolean {
  const missing = [GENERAL, FILTERS].filter((known) => !sections.some((one) => one.name === known));
  const meant = nearest(name, missing);
  const what = `section [${name}]`;
  if (meant !== undefined) {
    problems.error(line, what, 'not a link', `did you mean [${meant}]?`);
    return false;
  }
  if (REALTIME_TARGETS.has(name)) {
    problems.error(line, what, 'means a class in [filters]', 'give the link another name');
    return false;
  }
  if (LINK_NAME.test(name)) return true;
  const remedy = 'give the link up to 32 letters, digits, dots and dashes';
  problems.error(line, what, 'not a name', remedy);
  return false;
}

/** The first entry of each key, by its canonical name. */
function entriesByKey(
  kind: SectionKind,
  entries: readonly Entry[],
  problems: Problems,
): ReadonlyMap<string, Entry> {
  const found = new Map<string, Entry>();
  for (const entry of entries) {
    const key = findKey(kind, entry.key);
    if (key === undefined) {
      problems.error(entry.line, `unknown key "${entry.key}"`, '', hintFor(kind, entry.key));
      continue;
    }
    const first = found.get(key.name);
    if (first === undefined) {
      found.set(key.name, entry);
      continue;
    }
    const spelling = first.key === entry.key ? '' : ` as ${first.key}`;
    const why = `already at line ${first.line}${spelling}`;
    problems.error(entry.line, `key "${entry.key}"`, why, 'take one of them out');
  }
  return found;
}

function hintFor(kind: SectionKind, name: string): string {
  const other: SectionKind = kind === 'general' ? 'link' : 'general';
  if (findKey(other, name) !== undefined) {
    return other === 'general'
      ? 'it belongs into [general]'
      : 'it belongs into the section of a link';
  }
  const known = keysOf(kind).flatMap(spellings);
  const meant = nearest(name, known) ?? nearest(name, KEYS.flatMap(spellings));
  return meant === undefined ? 'see vpn.conf(5)' : `did you mean ${meant}?`;
}

/** undefined if there is none, which is then a problem already. */
function modeOf(entry: Entry | undefined, problems: Problems): Mode | undefined {
  switch (entry?.value ?? '') {
    case 'client':
      return 'client';
    case 'server':
      return 'server';
    case '':
      problems.error(0, 'key "mode" missing', '', 'add mode = "client" or "server" to [general]');
      return undefined;
    default:
      return undefined;
  }
}

/** Adds the value of an entry, or else the key's default, if it has one. */
function addSetting(
  settings: Map<string, Setting>,
  key: Key,
  entry: Entry | undefined,
  mode: Mode | undefined,
  problems: Problems,
): void {
  const isGiven = entry !== undefined && entry.bytes.length > 0;
  if (isGiven && key.mode !== undefined && mode !== undefined && key.mode !== mode) {
    const why = `means nothing on a ${mode}`;
    problems.warn(entry.line, `key "${entry.key}"`, why, 'it is ignored');
    return;
  }
  if (isGiven && key.secret !== true) {
    const value = parsed(key, entry, problems);
    if (value === undefined) return;
    settings.set(key.name, { value, origin: { kind: 'file', line: entry.line } });
    return;
  }
  if (key.fallback === undefined) return;
  settings.set(key.name, {
    value: key.type.parse(key.fallback, key.name),
    origin: { kind: 'default' },
  });
}

function parsed(key: Key, entry: Entry, problems: Problems): Value | undefined {
  const what = `${entry.key} "${entry.value}"`;
  try {
    const value = key.type.parse(entry.value, what);
    const adjusted = key.type.adjust?.(value);
    if (adjusted === undefined) return value;
    const taken = key.type.format(adjusted.value);
    problems.warn(entry.line, what, adjusted.why, `${taken} is taken`);
    return adjusted.value;
  } catch (error) {
    problems.caught(entry.line, error);
    return undefined;
  }
}

function addOverride(settings: Map<string, Setting>, { key: name, text, option }: Override): void {
  const key = findKey('general', name);
  if (key === undefined) throw new Error(`no key ${name}`);
  const value = key.type.parse(text, `${option} "${text}"`);
  const taken = key.type.adjust?.(value)?.value ?? value;
  settings.set(name, { value: taken, origin: { kind: 'command line' } });
}

/** An instance without a name has that of its file. */
function addName(settings: Map<string, Setting>, file: string): void {
  if (settings.has('name')) return;
  const stem = basename(file).replace(/\.conf$/, '');
  const value = NAME_PATTERN.test(stem) ? stem : DEFAULT_NAME;
  settings.set('name', { value, origin: { kind: 'default' } });
}

function checkRequired(
  { name: section, line }: Section,
  present: ReadonlySet<string>,
  mode: Mode | undefined,
  problems: Problems,
): void {
  if (mode === undefined) return;
  for (const key of keysOf('link')) {
    if (key.required !== mode || present.has(key.name)) continue;
    const why = `has no ${key.name}, which a ${mode} needs`;
    problems.error(line, `section [${section}]`, why, `add it: ${key.type.is}`);
  }
}

function linkSettings(
  section: Section,
  general: ReadonlyMap<string, Setting>,
  mode: Mode | undefined,
  problems: Problems,
): FileLink {
  const entries = entriesByKey('link', section.entries, problems);
  const settings = new Map<string, Setting>();
  for (const key of keysOf('link'))
    addSetting(settings, key, entries.get(key.name), mode, problems);
  for (const name of INHERITED) {
    const forAll = general.get(name);
    const isOwn = settings.has(name) || forAll === undefined;
    if (!isOwn) settings.set(name, { ...forAll, inherited: true });
  }
  // A value that is wrong was told already, and is not missing; an empty one is.
  const given = [...entries].filter(([, { bytes }]) => bytes.length > 0).map(([name]) => name);
  const present = new Set([...given, ...settings.keys()]);
  checkRequired(section, present, mode, problems);
  return { name: section.name, line: section.line, values: new Values(settings) };
}
