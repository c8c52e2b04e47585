/** `--check` and `--dump`: what is wrong with a file, and what it comes to. */
import type { Loaded } from './load.ts';
import { FILTERS, GENERAL, keysOf } from './schema.ts';
import type { Key } from './schema.ts';
import type { Origin, Settings, Values } from './settings.ts';

/** Where the origins of values start, unless a value is longer. */
const ORIGIN_COLUMN = 40;

interface Line {
  readonly text: string;
  /** Of a value. */
  readonly origin?: string;
}

/** `FILE: ok`, or every error; warnings first. Each line ends with a newline. */
export function checkText(path: string, { settings, problems }: Loaded): string {
  const lines = problems.map(({ severity, text }) =>
    severity === 'warning' ? `warning: ${text}` : text,
  );
  if (settings !== undefined) lines.push(`${path}: ok`);
  return lines.map((line) => `${line}\n`).join('');
}

/**
 * The effective configuration with the origin of each value: a file itself, that comes to the same
 * again. The password is not in it.
 */
export function dumpText({ file, general, links, filters, passwordLine }: Settings): string {
  const lines: Line[] = [{ text: `[${GENERAL}]` }];
  for (const key of keysOf('general')) {
    if (key.name === 'password' && passwordLine > 0) {
      const origin = originText(file, { kind: 'file', line: passwordLine });
      lines.push({ text: '# password (not shown)', origin });
    }
    lines.push(...keyLines(file, key, general));
  }
  if (filters.length > 0) lines.push({ text: '' }, { text: `[${FILTERS}]` });
  for (const { target, expression, line } of filters) {
    const origin = originText(file, { kind: 'file', line });
    lines.push({ text: `${target} = "${expression}"`, origin });
  }
  for (const { name, values } of links) {
    lines.push({ text: '' }, { text: `[${name}]` });
    for (const key of keysOf('link')) lines.push(...keyLines(file, key, values));
  }
  const valued = lines.filter(({ origin }) => origin !== undefined);
  const column = Math.max(ORIGIN_COLUMN, ...valued.map(({ text }) => text.length));
  return lines
    .map(({ text, origin }) =>
      origin === undefined ? `${text}\n` : `${text.padEnd(column)} # ${origin}\n`,
    )
    .join('');
}

/** `default`, `FILE:LINE` or `command line`. */
export function originText(file: string, origin: Origin): string {
  return origin.kind === 'file' ? `${file}:${origin.line}` : origin.kind;
}

/** None for a key that is not set. */
function keyLines(file: string, { name, type }: Key, values: Values): readonly Line[] {
  const setting = values.get(name);
  if (setting === undefined) return [];
  const inherited = setting.inherited === true ? `, [${GENERAL}]` : '';
  const origin = `${originText(file, setting.origin)}${inherited}`;
  return [{ text: `${name} = "${type.format(setting.value)}"`, origin }];
}
