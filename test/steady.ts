/** What commands print, with the values that are each time others replaced by some that are always the same. */
import { table } from '../src/daemon/text.ts';

/** In this order. */
const RULES: readonly (readonly [RegExp, string])[] = [
  [/ +$/gm, ''],
  // Ports that the system chose, ip(7) ip_local_port_range.
  [/(?<=[\d\]]:)(3(2[7-9]|[3-9]\d)\d{2}|[4-6]\d{4})\b/g, '40000'],
  // What the processor is quicker with.
  [/ChaCha20-Poly1305/g, 'AES-256-GCM'],
  // Times.
  [/\b20\d\d-\d\d-\d\dT[\d:.]+Z/g, '2026-01-01T12:00:00.000Z'],
  [/(?<=running for )\d+[smh]( \d+[ms])?/g, '5s'],
  [/(?<=keys |^  up )\d+[smh]( \d+[ms])?/gm, '5s'],
  [/\b\d+(\.\d+)?ms\b/g, '1.0ms'],
  [/(?<=time=)[\d.]+ ms/g, '1.00 ms'],
  [/(?<=rtt .* = )[\d./]+ ms(, pipe \d+)?/g, '1.000/1.000/1.000/0.000 ms'],
  // How much was sent.
  [/\b\d+(\.\d)?([kM])?bit\/s \([\d.]+ (B|KiB|MiB)\)/g, '20.0kbit/s (50.0 KiB)'],
  [/(?<=(repaired|lost) )\d+/g, '0'],
  [/(?<=  loss )[\d.]+%/g, '0%'],
  [/(?<=full height )\S+(?=bit)/g, '20.0k'],
  // What follows from the key: addresses of the tunnel and of its interface.
  [/\bfd[0-9a-f]{2}:[0-9a-f:]*::(?=[12]\b)/g, 'fd00:1:2:3::'],
  [/\bfe80::[0-9a-f:]+/g, 'fe80::1'],
  // Numbers that were free: of a mark and its table, and of rules.
  [/(?<=(table|lookup|--mark) )4\d{3}\b/g, '4200'],
  [/(?<=vpn:[\w.-]+\.)4\d{3}\b/g, '4200'],
  [/\b0x10[0-9a-f]{2}(?=\/0xffffffff|\b(?!\/))/g, '0x1068'],
  [/^[0-9a-f]{64}(?= {2})/gm, '2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae'],
  [/(?<=root root +\d+ )\w{3} [ \d]\d [\d:]+/g, 'Jan  1 12:00'],
];

/** Columns of the table of `vpn status` whose values are each time others. */
const ANY: Readonly<Record<string, string>> = { LOSS: '0%', REPAIRED: '0', CAPACITY: '-' };
/** The same, of a link that is up. */
const UP: Readonly<Record<string, string>> = {
  ...ANY,
  RTT: '1.0ms',
  JITTER: '1.0ms',
  UP: '20.0k',
  DOWN: '20.0k',
};

/** Preferences of rules: an instance has four that follow one another (src/numbers.ts). */
const PREFERENCE = /(?<=^|preference )2[89]\d{3}(?=:\t| )/gm;

export function steady(text: string): string {
  const replaced = RULES.reduce((now, [from, to]) => now.replace(from, to), text);
  const lines = replaced
    .replaceAll(PREFERENCE, (found) => String(28_000 + (Number(found) % 4)))
    .split('\n');
  const head = lines.findIndex((line) => /^LINK +ENDPOINT/.test(line));
  if (head < 0) return lines.join('\n');
  const length = lines.slice(head).findIndex((line) => line === '');
  const rows = lines.slice(head, head + length).map((line) => line.split(/ {2,}/));
  lines.splice(head, length, ...table(steadyRows(rows)));
  return lines.join('\n');
}

function steadyRows([head = [], ...links]: readonly (readonly string[])[]): string[][] {
  const state = head.indexOf('STATE');
  const working = links.filter((cells) => cells[state] === 'up').length;
  const share = working === 0 ? '0%' : `${Math.round(100 / working)}%`;
  const rows = links.map((cells) => {
    const others = cells[state] === 'up' ? { ...UP, SHARE: share } : ANY;
    return cells.map((cell, i) => others[head[i] ?? ''] ?? cell);
  });
  return [[...head], ...rows];
}
