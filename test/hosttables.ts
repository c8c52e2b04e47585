/**
 * doc/changes.md, made from the tables in src/os: every change, its undo, and in which roles and modes.
 *
 *   node test/hosttables.ts           prints it
 *   node test/hosttables.ts --write   writes it
 *   node test/hosttables.ts --json    the rows of each mode, for hosttables.test.ts
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PLATFORMS, PROBES } from '../src/os.ts';
import type { Line, Platform, Row } from '../src/os.ts';

export const PAGE = join(import.meta.dirname, '..', 'doc', 'changes.md');

/** A role with its mode: the words of `Row.need` that hold there whatever the host is like (situation.ts). */
interface Mode {
  readonly title: string;
  readonly role: 'server' | 'client';
  readonly holds: readonly string[];
}
const MODES: readonly Mode[] = [
  { title: 'S', role: 'server', holds: ['default'] },
  { title: 'Sn', role: 'server', holds: [] },
  { title: 'C', role: 'client', holds: ['default', 'everything', 'route4', 'route6'] },
  { title: 'Cr', role: 'client', holds: ['split', 'route4', 'route6'] },
  { title: 'Cn', role: 'client', holds: [] },
];
const MODE_WORDS = ['default', 'everything', 'split', 'route4', 'route6'];
const NAMES: Readonly<Record<string, string>> = {
  linux: 'Linux',
  darwin: 'macOS',
  openbsd: 'OpenBSD',
  freebsd: 'FreeBSD',
  netbsd: 'NetBSD',
  dragonfly: 'DragonFly',
};

const wordsOf = (row: Row): readonly string[] =>
  (row.need ?? '').split(' ').filter((word) => word !== '');

/** Tables of both roles; all others but `server` are a client's. */
const SHARED = ['site', 'proxy'];

/** Every table of a platform, in the order in which they are used, and whose it is; '' for both. */
function rowsOf(platform: Platform): readonly { readonly row: Row; readonly role: string }[] {
  const tables = Object.entries(platform).filter(([, rows]) => Array.isArray(rows));
  const roleOf = (name: string): string => (SHARED.includes(name) ? '' : 'client');
  return tables.flatMap(([name, rows]) =>
    (rows as readonly Row[]).map((row) => ({ row, role: name === 'server' ? name : roleOf(name) })),
  );
}

function isIn(mode: Mode, { row, role }: { readonly row: Row; readonly role: string }): boolean {
  const needed = wordsOf(row).filter((word) => MODE_WORDS.includes(word));
  return [mode.role, ''].includes(role) && needed.every((word) => mode.holds.includes(word));
}

/** Without what every line of a kind has: the introduction says it once. */
const code = (text: string): string => {
  const short = text
    .replace(' -w 4', '')
    .replace(/ -m comment --comment vpn:\$(TAG|SWITCH)/, '')
    .replace(/ comment "vpn:\$(TAG|SWITCH)[^"]*"/, '');
  return `\`${short.replaceAll('|', '\\|')}\``;
};

function change(row: Row): string {
  if ('revert' in row) return `takes back what ${code(row.revert)} would`;
  if ('sysctl' in row) return `${code(row.sysctl)} = ${row.value}`;
  if ('file' in row)
    return `${code(row.file)}: ${row.lines.map(({ text }) => code(text)).join(', ')}`;
  return row.up === undefined ? '' : code(row.up);
}

/** An undo that differs from its change in one word. */
const OPPOSITES = [
  [' -I ', ' -D '],
  [' add ', ' delete '],
] as const;

function undo(row: Row): string {
  if ('revert' in row) return '';
  if ('sysctl' in row) {
    const beside = (row.beside ?? []).map(code);
    return ['the value found', ...beside].join(', with ');
  }
  if ('file' in row) return 'what was there, if it is still ours';
  if (row.down === undefined) return '';
  for (const [word, opposite] of OPPOSITES) {
    if (row.up?.replace(word, opposite) === row.down)
      return `the same with ${code(opposite.trim())}${whenOf(row)}`;
  }
  return code(row.down.replace('{found}', 'N')) + whenOf(row);
}

function whenOf(row: Row): string {
  if ('stays' in row && row.stays) return ', by cleanup or the next start';
  return 'ifDead' in row && row.ifDead ? ', by cleanup only' : '';
}

/** What else must hold of the host; that a program is there goes without saying. */
const conditions = (row: Row): string =>
  wordsOf(row)
    .filter((word) => !MODE_WORDS.includes(word) && !PROBES.some((probe) => probe === word))
    .filter((word) => !/^nft[46]$/.test(word))
    .join(', ');

/** One line for what several tables and systems have in common. */
interface Entry {
  readonly cells: readonly string[];
  readonly modes: Set<string>;
  readonly systems: Set<string>;
}

function entriesOf(systems: readonly string[]): readonly Entry[] {
  const entries = new Map<string, Entry>();
  for (const system of systems) {
    for (const found of rowsOf(PLATFORMS[system]!)) {
      const cells = [change(found.row), undo(found.row), conditions(found.row)];
      const key = cells.join('\n');
      const entry = entries.get(key) ?? { cells, modes: new Set(), systems: new Set() };
      entries.set(key, entry);
      entry.systems.add(NAMES[system] ?? system);
      for (const mode of MODES) if (isIn(mode, found)) entry.modes.add(mode.title);
    }
  }
  return [...entries.values()];
}

function table(systems: readonly string[]): string {
  const isShared = systems.length > 1;
  const header = [...MODES.map(({ title }) => title), 'change', 'undo', 'only where'];
  const lines = entriesOf(systems).map(({ cells, modes, systems: found }) => {
    const where = found.size === systems.length ? [] : [[...found].join(', ')];
    const [made = '', undone = '', needs = ''] = cells;
    const only = [...(isShared ? where : []), ...(needs === '' ? [] : [needs])].join('; ');
    return [...MODES.map(({ title }) => (modes.has(title) ? '•' : '')), made, undone, only];
  });
  return [header, header.map(() => '---'), ...lines]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}

/** What commands read. */
function inputs(systems: readonly string[]): string {
  const found = new Map<string, string[]>();
  for (const system of systems) {
    for (const { row } of rowsOf(PLATFORMS[system]!)) {
      if (!('input' in row) || row.input === undefined) continue;
      const lines = (row.input as readonly Line[]).map(({ need, text }) =>
        need === undefined ? text : `${text}   # ${need}`,
      );
      const key = lines.join('\n');
      found.set(key, [...(found.get(key) ?? []), `${NAMES[system]}: ${code(row.up)}`]);
    }
  }
  return [...found]
    .map(([text, readers]) => `${readers.join(', ')} reads\n\n\`\`\`\n${text}\n\`\`\`\n`)
    .join('\n');
}

const INTRODUCTION = `# Every change and its undo

Made from the tables in \`src/os/\` by \`node test/hosttables.ts --write\`; a test holds it against them. [host.md](host.md) says
what it is for, and how it was tested.

- **S** server, **Sn** server with \`--no-default-routes\`, **C** client, **Cr** client with \`--route\`, **Cn** client with \`--no-default-routes\`.
  The build without default routes has the rows of Sn, Cr and Cn, and no others.
- Changes are made in this order and taken back in reverse; each undo is written to the journal before its change. Without
  an undo of its own a change goes with the device, or with the table above it.
- Every line of iptables has \`-w 4 -m comment --comment vpn:$TAG\` besides, every one of nft \`comment "vpn:$TAG"\`;
  those of the kill switch have \`$SWITCH\` in place of \`$TAG\`. \`$NAME*\` is all values of a variable in one command.
- A variable with several values (\`$NET4\`: each \`--route\`) makes one row each, with none no row.
- nft's lines are for hosts without iptables, except those in \`$CHAIN4\` and \`$CHAIN6\`, the chains of others.
- _only where_: what must hold of the host or of the session; src/situation.ts says when. _site_: with \`--allow\` or \`--proxy-arp\`;
  _limited_: with \`--allow\`, or with \`--proxy-arp\` outside S; _proxy_: with \`--proxy-arp\` alone in S; _clamp_: in S and C, and elsewhere
  with \`--route\` or _site_. What nft's comments have behind \`$TAG\` is left out here.
`;

export function page(): string {
  const others = Object.keys(PLATFORMS).filter((system) => system !== 'linux');
  return [
    INTRODUCTION,
    '<!-- prettier-ignore-start -->\n',
    `## Linux\n\n${table(['linux'])}\n`,
    `## macOS and the BSDs\n\n${table(others)}\n`,
    inputs(others),
    '<!-- prettier-ignore-end -->\n',
  ].join('\n');
}

/** By system and mode, the rows that may be used there: for the comparison of the two builds. */
export function rowsByMode(): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(
    Object.entries(PLATFORMS).flatMap(([system, platform]) =>
      MODES.map((mode) => {
        const rows = rowsOf(platform).filter((found) => isIn(mode, found));
        return [`${system} ${mode.title}`, rows.map(({ row }) => JSON.stringify(row))] as const;
      }),
    ),
  );
}

if (import.meta.main) {
  const [option] = process.argv.slice(2);
  if (option === '--write') writeFileSync(PAGE, page());
  else process.stdout.write(option === '--json' ? JSON.stringify(rowsByMode()) : page());
}
