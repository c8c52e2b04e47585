/**
 * What links are doing, as lines of detail for `-v` and `-D` (report.ts): path MTUs when they change, and
 * every ten seconds round trips, repairs, capacity and share. Pure; told the time.
 */
import type { Subject } from '../report.ts';
import type { LinkHistory } from './history.ts';
import { effectiveState } from './status.ts';
import type { LinkStatus, TunnelStatus } from './status.ts';
import { percentText, rateText } from './text.ts';

/** Often enough to see a line degrade, and six pages an hour of each subject. */
const EVERY_MS = 10_000;
const BITS = 8;

export interface DetailLine {
  readonly subject: Subject;
  readonly line: string;
}

/** What was told of a link last. */
interface Told {
  mtu: number;
  lostPackets: number;
  repairedPackets: number;
}

export class Detail {
  private readonly told = new Map<string, Told>();
  private dueMs = Number.NEGATIVE_INFINITY;

  /** To be called several times a second, after `history.observe`. */
  observe(tunnel: TunnelStatus, history: LinkHistory, nowMs: number): readonly DetailLine[] {
    const lines: DetailLine[] = [];
    const say = (subject: Subject, line: string): void => void lines.push({ subject, line });
    const present = tunnel.links.filter((link) => effectiveState(link) !== 'down');
    for (const name of this.told.keys()) {
      if (!tunnel.links.some((link) => link.name === name)) this.told.delete(name);
    }
    for (const link of present) {
      const told = this.toldOf(link.name);
      if (told.mtu !== link.mtu) say('net', `${link.name}: path MTU ${link.mtu}`);
      told.mtu = link.mtu;
    }
    if (!tunnel.hasSession || nowMs < this.dueMs) return lines;
    this.dueMs = nowMs + EVERY_MS;
    const { heldPackets, holdMs } = tunnel;
    say('reorder', `${heldPackets} packets held; a gap is waited for ${holdMs.toFixed(1)} ms`);
    for (const link of present) {
      if (link.rttMs > 0) say('rtt', roundTripLine(link));
      say('reorder', this.repairLine(link, history));
      say('scheduler', capacityLine(link, history));
    }
    return lines;
  }

  private toldOf(name: string): Told {
    const told = this.told.get(name) ?? { mtu: 0, lostPackets: 0, repairedPackets: 0 };
    this.told.set(name, told);
    return told;
  }

  /** Of the last ten seconds, from sums that never go back. */
  private repairLine({ name }: LinkStatus, history: LinkHistory): string {
    const told = this.toldOf(name);
    const { lostPackets, repairedPackets } = history.of(name);
    const lost = lostPackets - told.lostPackets;
    const repaired = repairedPackets - told.repairedPackets;
    told.lostPackets = lostPackets;
    told.repairedPackets = repairedPackets;
    return `${name}: ${lost} packets lost, ${repaired} sent again`;
  }
}

function roundTripLine({ name, rttMs, jitterMs, lossRatio }: LinkStatus): string {
  const loss = percentText(lossRatio);
  return `${name}: ${rttMs.toFixed(1)} ms, jitter ${jitterMs.toFixed(1)} ms, loss ${loss}`;
}

function capacityLine({ name, capacity }: LinkStatus, history: LinkHistory): string {
  const { upRate, share } = history.of(name);
  const can = capacity === 0 ? 'capacity unknown' : `carries ${rateText(capacity * BITS)}bit/s`;
  return `${name}: ${can}, given ${rateText(upRate * BITS)}bit/s, ${percentText(share)} of all`;
}
