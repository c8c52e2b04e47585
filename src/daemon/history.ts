/**
 * What became of each link over time: sums that go on when a session ends and the tunnel counts anew,
 * rates, shares, and changes of state. Told what the tunnel is like now and then, and the time.
 */
import type { LinkState } from '../link.ts';
import { effectiveState } from './status.ts';
import type { LinkStatus, TunnelStatus } from './status.ts';

/** Rates are over this, or the last interval if that was longer: a batch more or less does not show. */
const RATE_MS = 1_000;
/** Names of links that are gone are kept, up to so many: a server's links come and go. */
const MOST_LINKS = 64;

const SUMS = [
  'sentPackets',
  'sentBytes',
  'receivedPackets',
  'receivedBytes',
  'lostPackets',
  'repairedPackets',
] as const;
type Sums = Record<(typeof SUMS)[number], number>;

/** One link since the start. */
export interface LinkPast extends Readonly<Sums> {
  /** Bytes per second, outer headers included. */
  readonly upRate: number;
  readonly downRate: number;
  /** Of all bytes that were sent lately, 0 to 1. */
  readonly share: number;
  /** Times that it went down. */
  readonly disconnects: number;
  /** Since when it is in its state. */
  readonly sinceMs: number;
}

interface Mutable extends Sums {
  upRate: number;
  downRate: number;
  share: number;
  disconnects: number;
  sinceMs: number;
  state: LinkState;
  /** What the tunnel said last. */
  last: Sums;
  /** Sums when the rate was last taken. */
  sentBefore: number;
  receivedBefore: number;
}

/** A link is in another state than when last looked at. */
export interface LinkChange {
  readonly link: string;
  readonly from: LinkState;
  readonly to: LinkState;
}

const NEVER: LinkPast = {
  ...noSums(),
  upRate: 0,
  downRate: 0,
  share: 0,
  disconnects: 0,
  sinceMs: 0,
};

export class LinkHistory {
  /** Of all links, also those that are gone. */
  sentBytes = 0;
  receivedBytes = 0;
  /** Of the last `observe`. */
  nowMs = 0;
  private readonly links = new Map<string, Mutable>();
  private ratesMs = Number.NEGATIVE_INFINITY;

  /** To be called several times a second. Returns what has changed since. */
  observe(tunnel: TunnelStatus, nowMs: number): readonly LinkChange[] {
    this.nowMs = nowMs;
    const changes: LinkChange[] = [];
    for (const link of tunnel.links) {
      const past = this.links.get(link.name) ?? this.begin(link.name, nowMs);
      this.count(past, link);
      const state = effectiveState(link);
      if (state !== past.state) {
        changes.push({ link: link.name, from: past.state, to: state });
        if (past.state === 'up') past.disconnects++;
        past.state = state;
        past.sinceMs = nowMs;
      }
    }
    for (const [name, past] of this.links) {
      if (past.state === 'down' || tunnel.links.some((link) => link.name === name)) continue;
      changes.push({ link: name, from: past.state, to: 'down' });
      if (past.state === 'up') past.disconnects++;
      past.state = 'down';
      past.sinceMs = nowMs;
    }
    if (nowMs - this.ratesMs >= RATE_MS) this.takeRates(nowMs);
    return changes;
  }

  of(name: string): LinkPast {
    return this.links.get(name) ?? NEVER;
  }

  private begin(name: string, nowMs: number): Mutable {
    if (this.links.size >= MOST_LINKS) this.forgetOne();
    const past: Mutable = {
      ...noSums(),
      upRate: 0,
      downRate: 0,
      share: 0,
      disconnects: 0,
      sinceMs: nowMs,
      state: 'down',
      last: noSums(),
      sentBefore: 0,
      receivedBefore: 0,
    };
    this.links.set(name, past);
    return past;
  }

  /** The one that has been down for longest. */
  private forgetOne(): void {
    let oldest = '';
    let sinceMs = Number.POSITIVE_INFINITY;
    for (const [name, past] of this.links) {
      if (past.state !== 'down' || past.sinceMs >= sinceMs) continue;
      oldest = name;
      sinceMs = past.sinceMs;
    }
    this.links.delete(oldest);
  }

  private count(past: Mutable, link: LinkStatus): void {
    const { last } = past;
    // Fewer than before: a new session has begun to count.
    const isAnew =
      link.sentPackets < last.sentPackets || link.receivedPackets < last.receivedPackets;
    for (const sum of SUMS) {
      const more = isAnew ? link[sum] : link[sum] - last[sum];
      past[sum] += more;
      if (sum === 'sentBytes') this.sentBytes += more;
      if (sum === 'receivedBytes') this.receivedBytes += more;
      past.last[sum] = link[sum];
    }
  }

  private takeRates(nowMs: number): void {
    const passedS = (nowMs - this.ratesMs) / 1000;
    const isFirst = this.ratesMs === Number.NEGATIVE_INFINITY;
    this.ratesMs = nowMs;
    let all = 0;
    for (const past of this.links.values()) all += past.sentBytes - past.sentBefore;
    for (const past of this.links.values()) {
      const sent = past.sentBytes - past.sentBefore;
      const received = past.receivedBytes - past.receivedBefore;
      past.sentBefore = past.sentBytes;
      past.receivedBefore = past.receivedBytes;
      if (isFirst) continue;
      past.upRate = sent / passedS;
      past.downRate = received / passedS;
      past.share = all === 0 ? 0 : sent / all;
    }
  }
}

function noSums(): Sums {
  return {
    sentPackets: 0,
    sentBytes: 0,
    receivedPackets: 0,
    receivedBytes: 0,
    lostPackets: 0,
    repairedPackets: 0,
  };
}
