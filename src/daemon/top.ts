/** `vpn top`: the status once a second, with what each link did in the last minute. */
import { EXIT_SUCCESS, Failure } from '../report.ts';
import { sleep } from './clock.ts';
import type { Connection } from './connect.ts';
import type { PublishedLink, Status } from './status.ts';
import { hasTerminal, openTerminal } from './terminal.ts';
import {
  bytesText,
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
/** What stands left of the sparklines, and between the two. */
const LEFT_COLUMNS = 34;
const GAP_COLUMNS = 2;
const NAME_COLUMNS = 12;
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

/** The lines of one picture, at most `rows`, each at most `columns` wide. */
export function frame(
  status: Status,
  history: TopHistory,
  columns: number,
  rows: number,
): readonly string[] {
  const width = Math.max(8, Math.floor((columns - LEFT_COLUMNS - GAP_COLUMNS) / 2));
  const top = history.top(width);
  const room = Math.max(1, Math.floor((rows - OTHER_ROWS) / LINK_ROWS));
  const shown = status.tunnels.slice(0, room);
  const missing = status.tunnels.length - shown.length;
  const lines = [
    `${status.name}: ${stateText(status)}`,
    keysText(status),
    `up ${rateText(status.up_bits_per_second)}bit/s (${bytesText(status.sent_bytes)})  ` +
      `down ${rateText(status.down_bits_per_second)}bit/s (${bytesText(status.received_bytes)})  ` +
      `repaired ${status.repaired_packets}  lost ${status.abandoned_packets}`,
    '',
    ...shown.flatMap((link) => linkLines(link, history, width, top)),
    missing > 0 ? `${missing} more` : '',
    `full height ${rateText(top)}bit/s; q ends`,
  ];
  return lines.slice(0, rows).map((line) => [...line].slice(0, columns).join(''));
}

function linkLines(
  link: PublishedLink,
  history: TopHistory,
  width: number,
  top: number,
): readonly string[] {
  const name = [...link.name].slice(0, NAME_COLUMNS).join('').padEnd(NAME_COLUMNS);
  const rates = `↑${rateText(link.up_bits_per_second).padStart(6)} ↓${rateText(link.down_bits_per_second).padStart(6)}`;
  const share = percentText(link.share).padStart(5);
  const head = `${name} ${rates} ${share}`.padEnd(LEFT_COLUMNS);
  const up = sparkline(history.up.get(link.name) ?? [], width, top);
  const down = sparkline(history.down.get(link.name) ?? [], width, top);
  const facts = [
    linkState(link),
    `rtt ${msText(link.rtt_ms)}±${msText(link.jitter_ms)}`,
    `loss ${percentText(link.loss_ratio)}`,
    `can ${rateText(link.capacity_bits_per_second)}`,
    `mtu ${link.mtu}`,
    link.endpoint,
  ];
  return [`${head}${up}${' '.repeat(GAP_COLUMNS)}${down}`, `  ${facts.join('  ')}`];
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
