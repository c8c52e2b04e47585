/**
 * The pairs of links that bonding is measured on, and what it has to give on each: for one TCP stream
 * (cubic) and no tuning. The same table for the simulated network and for namespaces.
 */
import type { Figures } from './wan.ts';

/** A link that is the same both ways. */
export interface LinkFigures extends Required<
  Pick<Figures, 'delayMs' | 'jitterMs' | 'lossRatio' | 'rateMbit' | 'queueMs'>
> {}

/** What two links together must give at least, beside "never less than the better one alone". */
export type AtLeast =
  | { readonly kind: 'sum'; readonly share: number }
  /** Link A alone, and a share of what B's rate gives. */
  | { readonly kind: 'a'; readonly shareOfB: number };

export interface Profile {
  readonly name: string;
  readonly a: LinkFigures;
  readonly b: LinkFigures;
  /** Measured for 20 s after 15 s, since cubic itself needs that long; others for 10 s after 3 s. */
  readonly isSlow: boolean;
  readonly atLeast: AtLeast;
}

/** Of an inner packet's payload in a packet of 1500 bytes: TCP's and the tunnel's headers are taken off. */
export const GOODPUT_SHARE = 1388 / 1500;

const QUEUE_MS = 60;

/** One-way delay, jitter, loss in percent, Mbit/s. */
function link(
  delayMs: number,
  jitterMs: number,
  lossPercent: number,
  rateMbit: number,
  queueMs = QUEUE_MS,
): LinkFigures {
  return { delayMs, jitterMs, lossRatio: lossPercent / 100, rateMbit, queueMs };
}

const sum = (percent: number): AtLeast => ({ kind: 'sum', share: percent / 100 });
const A: AtLeast = { kind: 'a', shareOfB: 0 };

type Row = readonly [name: string, a: LinkFigures, b: LinkFigures, atLeast: AtLeast];

const BASE = link(20, 0, 0, 50);

const QUICK_ROWS: readonly Row[] = [
  ['baseline', BASE, BASE, sum(92)],
  ['rtt_40', BASE, link(40, 0, 0, 50), sum(88)],
  ['rtt_70', BASE, link(70, 0, 0, 50), sum(88)],
  ['bw_4to1', BASE, link(20, 0, 0, 12), sum(92)],
  ['bw_10to1', link(20, 0, 0, 100), link(20, 0, 0, 10), sum(92)],
];

const SLOW_ROWS: readonly Row[] = [
  ['rtt_120', BASE, link(120, 0, 0, 50), sum(80)],
  ['rtt_320', BASE, link(320, 0, 0, 50), A],
  ['jit_5', link(20, 5, 0, 50), link(20, 5, 0, 50), sum(85)],
  ['jit_20', link(20, 20, 0, 50), link(20, 20, 0, 50), sum(70)],
  ['loss_05', link(20, 0, 0.5, 50), link(20, 0, 0.5, 50), sum(85)],
  ['loss_2', link(20, 0, 2, 50), link(20, 0, 2, 50), sum(85)],
  ['dual_lte', link(30, 5, 0.5, 40), link(45, 8, 0.5, 25), sum(75)],
  ['fiber_lte', link(8, 0, 0, 300, 30), link(40, 8, 0.5, 30), { kind: 'a', shareOfB: 0.3 }],
  ['lte_starlink', link(35, 8, 0, 40), link(50, 25, 1, 100), sum(55)],
  ['lte_geo', link(35, 0, 0, 40), link(320, 20, 0.5, 20), A],
  ['congested', link(50, 20, 2, 20), link(60, 25, 2, 15), sum(55)],
];

const profile = ([name, a, b, atLeast]: Row, isSlow: boolean): Profile => ({
  name,
  a,
  b,
  isSlow,
  atLeast,
});

export const PROFILES: readonly Profile[] = [
  ...QUICK_ROWS.map((row) => profile(row, false)),
  ...SLOW_ROWS.map((row) => profile(row, true)),
];

export function profileNamed(name: string): Profile {
  const found = PROFILES.find((entry) => entry.name === name);
  if (found === undefined) throw new Error(`no profile "${name}"`);
  return found;
}

export const sumMbit = ({ a, b }: Profile): number => (a.rateMbit + b.rateMbit) * GOODPUT_SHARE;

/** Mbit/s that both links must give when the tunnel over one of them alone gives `aMbit`, `bMbit`. */
export function atLeastMbit(profile: Profile, aMbit: number, bMbit: number): number {
  const { atLeast, b } = profile;
  const wanted =
    atLeast.kind === 'sum'
      ? sumMbit(profile) * atLeast.share
      : aMbit + b.rateMbit * GOODPUT_SHARE * atLeast.shareOfB;
  return Math.max(wanted, aMbit, bMbit);
}

/** As in the table: delay/jitter/loss/rate, and the queue where it is not the usual one. */
export function linkText({ delayMs, jitterMs, lossRatio, rateMbit, queueMs }: LinkFigures): string {
  const queue = queueMs === QUEUE_MS ? '' : ` q${queueMs}`;
  return `${delayMs}/${jitterMs}/${Number((lossRatio * 100).toFixed(3))}/${rateMbit}${queue}`;
}

export function ruleText({ atLeast }: Profile): string {
  if (atLeast.kind === 'sum') return `${Math.round(atLeast.share * 100)} % of the sum`;
  return atLeast.shareOfB === 0 ? 'A' : `A + ${atLeast.shareOfB * 100} % of B's rate`;
}
