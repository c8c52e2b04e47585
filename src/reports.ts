/**
 * Sends reports of what came over the links, and takes those of the peer to the links they are about
 * (PROTOCOL §5.5). Also says how long the order of delivery may wait for a gap, since that follows from
 * the same measurements.
 */
import type { ControlMessages } from './control.ts';
import { SEND_TIME_UNITS_PER_MS } from './constants.ts';
import { decodeSection, difference16, encodeSection, REPORT_BYTES, section } from './feedback.ts';
import type { Link } from './link.ts';
import type { Session } from './session.ts';
import { Control } from './wire.ts';

/** The most a report may lag behind when its sender repairs, and when it only wants to know of loss. */
const INTERVAL_MS = 10;
const SLOW_INTERVAL_MS = 100;
const LEAST_INTERVAL_MS = 1;
/** One report in so many also goes over a second link: the first may have died that way. */
const DOUBLED = 4;
/** Rounds of repair that a gap is held for, and what wake-ups at both ends take. */
const REPAIR_ROUNDS = 3;
const WAKE_MS = 5;
const MOST_HOLD_MS = 3_000;
/** A link that nothing came over for so long does not count for how long a gap is held. */
const RECENT_MS = 1_000;
/** Reordering is a maximum that was seen: the next one may be larger. */
const REORDERING_MARGIN = 1.25;

export class Reports {
  /** How long a gap in a flow is held for what is missing to be sent again. */
  holdMs = 200;
  private readonly control: ControlMessages;
  private readonly body = new Uint8Array(REPORT_BYTES);
  private readonly section = section();
  private sentMs = 0;
  private count = 0;

  constructor(control: ControlMessages) {
    this.control = control;
  }

  /** When a report is to be sent; Infinity: nothing to say. */
  deadlineMs(links: readonly Link[]): number {
    let intervalMs = Number.POSITIVE_INFINITY;
    let rttMs = Number.POSITIVE_INFINITY;
    for (const link of links) {
      const { reception } = link;
      if (link.rttMs > 0) rttMs = Math.min(rttMs, link.rttMs);
      if (reception.isUrgent) intervalMs = LEAST_INTERVAL_MS;
      else if (reception.isDue) intervalMs = Math.min(intervalMs, INTERVAL_MS);
      else if (reception.hasNews) intervalMs = Math.min(intervalMs, SLOW_INTERVAL_MS);
    }
    if (intervalMs === INTERVAL_MS) intervalMs = Math.min(INTERVAL_MS, Math.max(1, rttMs / 4));
    return this.sentMs + intervalMs;
  }

  /** Reports on all `links` over the first of `ways`, now and then over a second. */
  send(session: Session, links: readonly Link[], ways: readonly Link[], nowMs: number): void {
    this.sentMs = nowMs;
    this.learnHold(links, nowMs);
    const over = ways.length > 1 && this.count++ % DOUBLED === 0 ? 2 : 1;
    let at = 0;
    for (const { reception, id } of links) {
      for (const isFormer of [true, false]) {
        const { section } = this;
        const hasPart = isFormer
          ? reception.reportFormer(section, id, nowMs)
          : reception.report(section, id, nowMs);
        if (!hasPart) continue;
        let end = encodeSection(this.body, at, section);
        if (end === at) {
          this.transmit(session, ways, over, at, nowMs);
          end = encodeSection(this.body, 0, section);
        }
        at = end;
      }
    }
    if (at > 0) this.transmit(session, ways, over, at, nowMs);
  }

  private transmit(
    session: Session,
    ways: readonly Link[],
    over: number,
    end: number,
    nowMs: number,
  ): void {
    const body = this.body.subarray(0, end);
    for (let i = 0; i < Math.min(over, ways.length); i++) {
      this.control.send(session, ways[i], Control.report, body, nowMs);
    }
  }

  /**
   * A gap may be a packet on its way over a slower link, or one that was overtaken, or one that was lost:
   * then it is found missing, reported, and sent again, twice at most.
   */
  private learnHold(links: readonly Link[], nowMs: number): void {
    let latest: Link | undefined = undefined;
    let earliest: Link | undefined = undefined;
    let reorderingMs = 0;
    let rttMs = Number.POSITIVE_INFINITY;
    for (const link of links) {
      if (link.rttMs > 0 && link.state === 'up') rttMs = Math.min(rttMs, link.patienceMs);
      if (nowMs - link.reception.lastMs > RECENT_MS) continue;
      reorderingMs = Math.max(reorderingMs, link.reception.reorderingMs, link.reception.jitterMs);
      if (latest === undefined || behindMs(link, latest) > 0) latest = link;
      if (earliest === undefined || behindMs(link, earliest) < 0) earliest = link;
    }
    if (latest === undefined || earliest === undefined || rttMs === Number.POSITIVE_INFINITY)
      return;
    const roundMs = rttMs + REORDERING_MARGIN * reorderingMs + INTERVAL_MS + WAKE_MS;
    const holdMs = behindMs(latest, earliest) + REPAIR_ROUNDS * roundMs + reorderingMs;
    this.holdMs = Math.min(MOST_HOLD_MS, holdMs);
  }

  /** Takes a report to the links of `byId`; calls `onLink` for each that it says anything new of. */
  receive(
    body: Uint8Array,
    byId: readonly (Link | undefined)[],
    nowMs: number,
    onLink: (link: Link) => void,
  ): void {
    const part = this.section;
    for (let at = 0; at < body.length;) {
      at = decodeSection(body, at, part);
      if (at === -1) return;
      const link = byId[part.link];
      if (link === undefined) continue;
      link.reported(part, nowMs);
      onLink(link);
    }
  }
}

/** How much later a datagram comes over `a` than over `b`. */
function behindMs(a: Link, b: Link): number {
  const units = (ms: number): number => Math.round(ms * SEND_TIME_UNITS_PER_MS);
  return (
    difference16(units(a.reception.delayMs), units(b.reception.delayMs)) / SEND_TIME_UNITS_PER_MS
  );
}
