/** `vpn top`: the status once a second, with what each link did in the last minute. */
import { EXIT_SUCCESS, Failure } from '../report.ts';
import { sleep } from './clock.ts';
import type { Connection } from './connect.ts';
import type { PublishedLink, Status } from './status.ts';
import { hasTerminal, openTerminal } from './terminal.ts';
import {
  bytesText,
  durationText,
  keysText,
  linkState,
  msText,
  percentText,
  rateText,
  sparkline,
  stateText,
} from './text.ts';

const EVERY_MS = 1_000;
const KEPT = 240;
const GAP = '  ';
/** Of a rate, and of a share. */
const RATE_COLUMNS = 6;
const SHARE_COLUMNS = 5;
/** A name has as much of the line at most, so that something is left for the sparklines. */
const NAME_SHARE = 0.25;
const LEAST_WIDTH = 8;
const HEAD_NAME = 'LINK';
/** Lines above and below the links, and for each link. */
const OTHER_ROWS = 6;
const LINK_ROWS = 2;

/** What the sparklines show: rates in both directions, by name, second by second. */
export class TopHistory {
  readonly up = new Map<string, (number | undefined)[]>();
  readonly down = new Map<string, (number | undefined)[]>();
  private seconds = 0;

  add(status: Status): void {
    for (const link of status.tunnels) {
      push(this.up, link.name, link.up_bits_per_second, this.seconds);
      push(this.down, link.name, link.down_bits_per_second, this.seconds);
    }
    this.seconds = Math.min(this.seconds + 1, KEPT);
    for (const points of [this.up, this.down]) {
      for (const [name, values] of points) {
        // A link that is not there now.
        if (!status.tunnels.some((link) => link.name === name)) values.push(undefined);
        if (values.length > KEPT) values.shift();
        if (values.every((value) => value === undefined)) points.delete(name);
      }
    }
  }

  /** The highest rate that is shown: all links are drawn to one scale. */
  top(width: number): number {
    const all = [...this.up.values(), ...this.down.values()].flatMap((one) => one.slice(-width));
    return all.reduce<number>((most, value) => Math.max(most, value ?? 0), 0);
  }
}

function push(
  points: Map<string, (number | undefined)[]>,
  name: string,
  value: number,
  before: number,
): void {
  const values = points.get(name);
  if (values !== undefined) values.push(value);
  else points.set(name, [...new Array<undefined>(before).fill(undefined), value]);
}

/** How wide what stands in a line is, in columns. */
interface Widths {
  readonly name: number;
  /** Of each of the two sparklines: a column is a second. */
  readonly line: number;
}

/** The lines of one picture, at most `rows`, each at most `columns` wide. */
export function frame(
  status: Status,
  history: TopHistory,
  columns: number,
  rows: number,
): readonly string[] {
  const room = Math.max(1, Math.floor((rows - OTHER_ROWS) / LINK_ROWS));
  const shown = status.tunnels.slice(0, room);
  const widths = widthsOf(shown, columns);
  const top = history.top(widths.line);
  const missing = status.tunnels.length - shown.length;
  const lines = [
    `${status.name}: ${stateText(status)}`,
    keysText(status),
    `up ${rateText(status.up_bits_per_second)}bit/s (${bytesText(status.sent_bytes)})  ` +
      `down ${rateText(status.down_bits_per_second)}bit/s (${bytesText(status.received_bytes)})  ` +
      `repaired ${status.repaired_packets}  lost ${status.abandoned_packets}`,
    headLine(widths),
    ...shown.flatMap((link) => linkLines(link, history, widths, top)),
    missing > 0 ? `${missing} more` : '',
    `bars: the last ${widths.line} s, full height ${rateText(top)}bit/s; q ends`,
  ];
  return lines.slice(0, rows).map((line) => [...line].slice(0, columns).join('').trimEnd());
}

function widthsOf(links: readonly PublishedLink[], columns: number): Widths {
  const longest = Math.max(HEAD_NAME.length, ...links.map((link) => [...link.name].length));
  const name = Math.min(longest, Math.max(HEAD_NAME.length, Math.floor(columns * NAME_SHARE)));
  const numbers = 2 * (RATE_COLUMNS + 1) + SHARE_COLUMNS + 1;
  const left = columns - name - numbers - 2 * GAP.length;
  return { name, line: Math.max(LEAST_WIDTH, Math.floor(left / 2)) };
}

function headLine({ name, line }: Widths): string {
  return [
    `${HEAD_NAME.padEnd(name)} ${'UP'.padStart(RATE_COLUMNS)} ${'DOWN'.padStart(RATE_COLUMNS)}`,
    ` ${'SHARE'.padStart(SHARE_COLUMNS)}${GAP}${'UP'.padEnd(line)}${GAP}DOWN`,
  ].join('');
}

function linkLines(
  link: PublishedLink,
  history: TopHistory,
  widths: Widths,
  top: number,
): readonly string[] {
  const name = [...link.name].slice(0, widths.name).join('').padEnd(widths.name);
  const rates = [link.up_bits_per_second, link.down_bits_per_second]
    .map((rate) => rateText(rate).padStart(RATE_COLUMNS))
    .join(' ');
  const share = percentText(link.share).padStart(SHARE_COLUMNS);
  const up = sparkline(history.up.get(link.name) ?? [], widths.line, top);
  const down = sparkline(history.down.get(link.name) ?? [], widths.line, top);
  const facts = [
    `${linkState(link)} ${durationText(link.state_seconds)}`,
    `rtt ${msText(link.rtt_ms)}±${msText(link.jitter_ms)}`,
    `loss ${percentText(link.loss_ratio)}`,
    `can ${rateText(link.capacity_bits_per_second)}`,
    link.endpoint,
    link.mtu === 0 ? '' : `mtu ${link.mtu}`,
  ].filter((fact) => fact !== '');
  return [`${name} ${rates} ${share}${GAP}${up}${GAP}${down}`, `  ${facts.join('  ')}`];
}

/** Draws until a key, a signal or the end of the instance. Throws a `Failure`. */
export async function top(connection: Connection): Promise<number> {
  if (!hasTerminal()) {
    throw new Failure('vpn top', 'no terminal to draw on', 'use vpn status, or vpn status --json');
  }
  const history = new TopHistory();
  let isOver = false;
  let wake = (): void => {};
  let draw = (): void => {};
  const terminal = openTerminal(
    (key) => {
      if (key !== 'q') return;
      isOver = true;
      wake();
    },
    () => draw(),
  );
  try {
    while (!isOver) {
      const answer = await connection.ask({ command: 'status' });
      if (!('status' in answer)) break;
      history.add(answer.status);
      draw = () => {
        terminal.show(frame(answer.status, history, terminal.columns, terminal.rows));
      };
      draw();
      await Promise.race([sleep(EVERY_MS), new Promise<void>((done) => (wake = done))]);
    }
  } finally {
    terminal.close();
  }
  return EXIT_SUCCESS;
}
