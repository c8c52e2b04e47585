/**
 * Options of `vpn server` and `vpn client` that are keys of a file, too: parsed as the file would have them,
 * with the defaults that it has. Each function throws a `UsageFailure`.
 */
import type { Arguments, OptionName } from '../options.ts';
import { keysOf } from './schema.ts';
import type { Value } from './values.ts';

type Options = Arguments['options'];

/** '' for one that is not given and has no default. */
export function textOf(options: Options, name: OptionName): string {
  const value = keyed(options, name);
  return typeof value === 'string' ? value : '';
}

/** 0 for one that is not given and has no default. */
export function numberOf(options: Options, name: OptionName): number {
  const value = keyed(options, name);
  return typeof value === 'number' ? value : 0;
}

export function listOf(options: Options, name: OptionName): readonly string[] {
  const value = keyed(options, name);
  return Array.isArray(value) ? Object.freeze(value) : [];
}

function keyed(options: Options, name: OptionName): Value | undefined {
  const key = keysOf('general').find(
    ({ commandLine }) => 'option' in commandLine && commandLine.option === name,
  );
  if (key === undefined) throw new Error(`no key for --${name}`);
  const { type, fallback } = key;
  const text = options.get(name)?.join(' ');
  if (text !== undefined) {
    const value = type.parse(text, `--${name} "${text}"`);
    return type.adjust?.(value)?.value ?? value;
  }
  return fallback === undefined ? undefined : type.parse(fallback, name);
}
