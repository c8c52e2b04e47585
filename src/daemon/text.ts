/** The status as people read it: numbers with units, a table of links, sparklines. Pure. */
import type { PublishedLink, Status } from './status.ts';

const BARS = '▁▂▃▄▅▆▇█';
const UNKNOWN = '-';

/** `12.3M`: bits per second, three digits and a prefix. */
export function rateText(bitsPerSecond: number | null): string {
  if (bitsPerSecond === null) return UNKNOWN;
  const prefixes = ['', 'k', 'M', 'G', 'T'];
  let value = bitsPerSecond;
  let prefix = 0;
  // 999.5 would be written with four digits.
  for (; value >= 999.5 && prefix < prefixes.length - 1; prefix++) value /= 1000;
  const digits = prefix === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)}${prefixes[prefix]}`;
}

/** `3d 4h`, `2h 10m`, `5m 3s`, `12s`. */
export function durationText(seconds: number): string {
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3_600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [Math.floor(seconds) % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0s';
  return parts
    .slice(first, first + 2)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ');
}

/** Bytes with a binary prefix: `1.2 GiB`. */
export function bytesText(bytes: number): string {
  const prefixes = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let prefix = 0;
  for (; value >= 1023.95 && prefix < prefixes.length - 1; prefix++) value /= 1024;
  return `${prefix === 0 ? value : value.toFixed(1)} ${prefixes[prefix]}`;
}

export function percentText(ratio: number): string {
  const percent = ratio * 100;
  return percent === 0 || percent >= 9.95 ? `${percent.toFixed(0)}%` : `${percent.toFixed(2)}%`;
}

/** A bar for each value, the last `width` of them, against `top`; a gap where nothing is known. */
export function sparkline(
  values: readonly (number | undefined)[],
  width: number,
  top: number,
): string {
  const shown = values.slice(-width);
  const bars = shown.map((value) => {
    if (value === undefined) return ' ';
    const height = top <= 0 ? 0 : Math.min(1, value / top);
    return BARS[Math.round(height * (BARS.length - 1))];
  });
  return bars.join('').padStart(width);
}

/** Columns as wide as what is in them, the words to the left, the numbers to the right. */
export function table(rows: readonly (readonly string[])[]): readonly string[] {
  const left = (rows[0] ?? []).map((head) => WORDS.includes(head));
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => [...(row[column] ?? '')].length)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const missing = ' '.repeat(widths[column] - [...cell].length);
        return left[column] ? cell + missing : missing + cell;
      })
      .join('  ')
      .trimEnd(),
  );
}
const HEAD: readonly string[] = [
  ...['LINK', 'ENDPOINT', 'STATE', 'RTT', 'JITTER', 'LOSS', 'REPAIRED'],
  ...['UP', 'DOWN', 'CAPACITY', 'SHARE', 'MTU'],
];
const WORDS: readonly string[] = ['LINK', 'ENDPOINT', 'STATE'];
/** In a narrow terminal there are two tables, each with the names: of what a link is, and of what it does. */
const NARROW: readonly (readonly string[])[] = [
  ['LINK', 'STATE', 'ENDPOINT', 'MTU'],
  ['LINK', 'RTT', 'JITTER', 'LOSS', 'REPAIRED', 'UP', 'DOWN', 'CAPACITY', 'SHARE'],
];

/** What `vpn status` prints; `columns`: of the terminal, if it is one. */
export function statusText(status: Status, columns = Number.POSITIVE_INFINITY): string {
  const lines = [
    `${status.name}: ${stateText(status)}`,
    `  ${keysText(status)}`,
    `  up ${rateText(status.up_bits_per_second)}bit/s (${bytesText(status.sent_bytes)}), ` +
      `down ${rateText(status.down_bits_per_second)}bit/s (${bytesText(status.received_bytes)}), ` +
      `repaired ${status.repaired_packets}, lost ${status.abandoned_packets}`,
    '',
    ...linkTables(status, columns),
  ];
  return `${lines.join('\n')}\n`;
}

function linkTables(status: Status, columns: number): readonly string[] {
  const rows = [HEAD, ...status.tunnels.map(linkCells)];
  const wide = table(rows);
  if (wide.every((line) => [...line].length <= columns)) return wide;
  const tables = NARROW.map((heads) =>
    table(rows.map((row) => heads.map((head) => row[HEAD.indexOf(head)]))),
  );
  return [...tables[0], '', ...tables[1]];
}

/** `client on tun0, connected, running for 2h 10m`. */
export function stateText(status: Status): string {
  const { role, tuntap, state, running_seconds: running } = status;
  const what = role === 'server' && state === 'connecting' ? 'waiting for the client' : state;
  return `${role} on ${tuntap.name}, ${what}, running for ${durationText(running)}`;
}

export function keysText(status: Status): string {
  const { cipher, key_age_seconds: age, mtu, cleartext } = status;
  const keys =
    cipher === null ? 'no keys' : `${cipher}, keys ${age === null ? 0 : durationText(age)} old`;
  const inner = [status.local_address, status.peer_address]
    .filter((one) => one !== '')
    .join(' to ');
  const clear = cleartext ? ', data in the clear' : '';
  return `${keys}${clear}, MTU ${mtu}${inner === '' ? '' : `, ${inner}`}`;
}

function linkCells(link: PublishedLink): readonly string[] {
  return [
    link.name,
    link.endpoint === '' ? UNKNOWN : link.endpoint,
    linkState(link),
    msText(link.rtt_ms),
    msText(link.jitter_ms),
    percentText(link.loss_ratio),
    String(link.repaired_packets),
    rateText(link.up_bits_per_second),
    rateText(link.down_bits_per_second),
    rateText(link.capacity_bits_per_second),
    percentText(link.share),
    link.mtu === 0 ? UNKNOWN : String(link.mtu),
  ];
}

export function linkState({ state, backup, status }: PublishedLink): string {
  const word = status === 'lossy link' ? 'lossy' : status === 'slow link' ? 'slow' : state;
  return backup ? `${word} (backup)` : word;
}

export function msText(ms: number | null): string {
  if (ms === null) return UNKNOWN;
  return ms < 99.95 ? `${ms.toFixed(1)}ms` : `${ms.toFixed(0)}ms`;
}
