/** What a reload changes: one line for each difference, and whether it can be applied in a running tunnel. */
import { FILTERS, keysOf } from './schema.ts';
import type { Key } from './schema.ts';
import type { FileFilter, FileLink, Settings, Values } from './settings.ts';

export interface Change {
  readonly what:
    | { readonly kind: 'key'; readonly key: string }
    | { readonly kind: 'password' }
    | { readonly kind: 'filters' }
    | { readonly kind: 'link-added'; readonly link: string }
    | { readonly kind: 'link-removed'; readonly link: string }
    /** Its socket is made anew: another address, port, device, remote end or table. */
    | { readonly kind: 'link-rebound'; readonly link: string; readonly keys: readonly string[] }
    | { readonly kind: 'link-key'; readonly link: string; readonly key: string };
  /** Without dropping traffic; else it waits for a restart. */
  readonly isLive: boolean;
  /** For the log and for `vpn reload`. */
  readonly line: string;
}

/** Keys that belong to the socket of a link. */
const SOCKET_KEYS = [
  'bindhost',
  'bindport',
  'bindfib',
  'device',
  'remotehost',
  'remoteport',
  'gateway',
];

/** Those of the keys that a script is handed that are applied at once where there is none. */
const SCRIPT_KEYS = ['ip4_routes', 'ip6_routes'];

/** In the order of the file's sections. `isPasswordChanged` is the caller's: settings have no password. */
export function settingsDiff(
  old: Settings,
  now: Settings,
  isPasswordChanged: boolean,
): readonly Change[] {
  const changes: Change[] = [];
  for (const key of keysOf('general')) {
    const difference = keyDifference(key, old.general, now.general);
    if (difference === undefined) continue;
    const what = { kind: 'key', key: key.name } as const;
    changes.push(change(what, isLive(key, old.general, now.general), `${key.name}: ${difference}`));
  }
  const isPasswordGone = old.passwordLine > 0 && now.passwordLine === 0;
  if (isPasswordChanged || isPasswordGone) {
    const line = `password: ${isPasswordGone ? 'removed' : 'changed'}`;
    changes.push(change({ kind: 'password' }, false, line));
  }
  if (filtersText(old.filters) !== filtersText(now.filters)) {
    const line = `${FILTERS}: ${old.filters.length} replaced by ${now.filters.length}`;
    changes.push(change({ kind: 'filters' }, true, line));
  }
  return [...changes, ...linkChanges(old.links, now.links)];
}

/** Whether a change of a key of [general] is applied without dropping traffic. */
export function isLive(key: Key, old: Values, now: Values): boolean {
  // With the first script the addresses would go from vpn to it, and back with the last.
  const script = 'statuscommand';
  if (key.name === script && old.has(script) !== now.has(script)) return false;
  // The script has set up those that it was told of, and has to take them down.
  if (SCRIPT_KEYS.includes(key.name) && now.has(script)) return false;
  // A script sets routes up itself, and was told of them at the start.
  if (/^ip[46]_routes$/.test(key.name) && old.has('statuscommand')) return false;
  return key.reload === 'live';
}

function change(what: Change['what'], isLive: boolean, line: string): Change {
  return { what, isLive, line: isLive ? line : `${line}; needs a restart` };
}

function linkChanges(old: readonly FileLink[], now: readonly FileLink[]): readonly Change[] {
  const removed = old
    .filter(({ name }) => !now.some((link) => link.name === name))
    .map(({ name }) => change({ kind: 'link-removed', link: name }, true, `link ${name}: removed`));
  const others = now.flatMap((link) => {
    const before = old.find(({ name }) => name === link.name);
    if (before !== undefined) return changesOfLink(before, link);
    const what = { kind: 'link-added', link: link.name } as const;
    return [change(what, true, `link ${link.name}: added`)];
  });
  return [...removed, ...others];
}

function changesOfLink(old: FileLink, { name, values }: FileLink): readonly Change[] {
  const changes: Change[] = [];
  const rebound: { key: string; difference: string }[] = [];
  for (const key of keysOf('link')) {
    const isShared = old.values.get(key.name)?.inherited && values.get(key.name)?.inherited;
    // Told once, for [general].
    if (isShared === true) continue;
    const difference = keyDifference(key, old.values, values);
    if (difference === undefined) continue;
    if (SOCKET_KEYS.includes(key.name)) {
      rebound.push({ key: key.name, difference });
      continue;
    }
    const what = { kind: 'link-key', link: name, key: key.name } as const;
    const line = `link ${name}: ${key.name}: ${difference}`;
    changes.push(change(what, key.reload === 'live', line));
  }
  if (rebound.length === 0) return changes;
  const keys = rebound.map(({ key }) => key);
  const differences = rebound.map(({ key, difference }) => `${key} ${difference}`).join(', ');
  const what = { kind: 'link-rebound', link: name, keys } as const;
  return [change(what, true, `link ${name}: bound anew: ${differences}`), ...changes];
}

/** `OLD -> NEW`, or undefined for the same. Where a value comes from does not matter. */
function keyDifference(key: Key, old: Values, now: Values): string | undefined {
  const before = valueText(key, old);
  const after = valueText(key, now);
  return before === after ? undefined : `${before} -> ${after}`;
}

function valueText({ name, type }: Key, values: Values): string {
  const setting = values.get(name);
  return setting === undefined ? 'not set' : type.format(setting.value) || 'none';
}

function filtersText(filters: readonly FileFilter[]): string {
  return filters.map(({ target, expression }) => `${target} = ${expression}`).join('\n');
}
