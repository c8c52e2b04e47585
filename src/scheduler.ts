/**
 * Which link the next packet goes over: the one on which it arrives first (design §5.4). Told the
 * links' measurements and the time; sends nothing and keeps no packet.
 *
 * A slower link is worth using only when so much waits that the faster ones would not be through with it
 * before a packet over the slower one is there. That packet is then taken from so far back in the queue
 * that it arrives when its turn comes: nobody waits for it.
 */
import { SEND_TIME_UNITS_PER_MS } from './constants.ts';
import { difference16 } from './feedback.ts';
import type { Link } from './link.ts';

/** Differences of delay below this are noise: timers and batches have this grain. */
const TOLERANCE_MS = 2;
/**
 * Bulk is striped over links whose delays differ by so much at most: every packet of a flow takes as
 * long as the slowest link in use, and a TCP flow's growth is slower for it. A link that brings more than
 * all faster ones together is used whatever its delay.
 */
const USEFUL_MS = 150;
/** Time that bulk may wait beyond what keeps all links busy, before it is refused. */
const QUEUE_MS = 50;
/**
 * At least a round trip: a flow that takes back a third of its window must not leave the links empty.
 * Where packets are repaired a flow's round trip is longer, and what was held comes, and is followed, in bursts.
 */
const QUEUE_REPAIRS = 2;
const MOST_QUEUE_MS = 500;
const REPAIRED_LOSS = 0.001;
/** How long a repair rather waits for a quicker link. */
const REPAIR_WAIT_MS = 20;
/** What a flow of some Mbit/s brings while a dead link is found out finds room, whatever was measured. */
const LEAST_QUEUE_BYTES = 96 * 1024;
const MOST_QUEUE_BYTES = 4 * 1024 * 1024;

export class Scheduler {
  /** Links that carry bulk, the quickest first. */
  readonly bulk: Link[] = [];
  /** Links that are heard, the quickest first. */
  readonly alive: Link[] = [];
  /** How much of what waits the quicker links will have sent before what `next` chose a link for. */
  ahead = 0;
  /** Bytes that may wait. */
  mostWaiting = MOST_QUEUE_BYTES;
  /** What has to wait for each of `bulk` to be worth using. */
  private readonly worth: number[] = [];

  /** To be called when measurements or states have changed. */
  order(links: readonly Link[]): void {
    this.alive.length = 0;
    for (const link of links) {
      if (link.state === 'up') this.alive.push(link);
    }
    // None is known to be good: all that have a socket are tried.
    if (this.alive.length === 0) {
      for (const link of links) {
        if (link.state !== 'down') this.alive.push(link);
      }
    }
    this.alive.sort((a, b) => aheadMs(a, b));
    this.choose();
    this.divide();
    this.weigh();
  }

  private choose(): void {
    const { bulk, alive } = this;
    bulk.length = 0;
    for (const link of alive) {
      if (!link.settings.isBackup && !link.isBad) bulk.push(link);
    }
    if (bulk.length === 0) {
      for (const link of alive) {
        if (!link.isBad) bulk.push(link);
      }
    }
    if (bulk.length === 0) bulk.push(...alive);
    let rate = 0;
    for (let i = 0; i < bulk.length; i++) {
      const own = bulk[i].capacity.rate;
      const isFar = i > 0 && aheadMs(bulk[i], bulk[0]) > USEFUL_MS;
      if (isFar && (rate === 0 || own <= rate)) bulk.splice(i--, 1);
      else rate += own;
    }
  }

  /** Who has less weight than the heaviest gives up as much of its rate. */
  private divide(): void {
    let heaviest = 0;
    for (const link of this.bulk) heaviest = Math.max(heaviest, link.settings.weight);
    for (const link of this.bulk) link.capacity.share = link.settings.weight / heaviest;
  }

  private weigh(): void {
    const { bulk, worth } = this;
    worth.length = 0;
    let rates = 0;
    let isMeasured = true;
    let roundTripMs = 0;
    for (let i = 0; i < bulk.length; i++) {
      let bytes = 0;
      for (let j = 0; j < i; j++) {
        const aheadBy = aheadMs(bulk[i], bulk[j]) - toleranceMs(bulk[i], bulk[j]);
        if (aheadBy > 0) bytes += aheadBy * bulk[j].capacity.rate;
      }
      worth.push(bytes);
      rates += bulk[i].capacity.limit;
      const { ackMs, fullMs, loss } = bulk[i].capacity;
      const repairMs = (loss > REPAIRED_LOSS ? ackMs : 0) + bulk[i].reorderingMs;
      const ms = fullMs + QUEUE_REPAIRS * repairMs;
      roundTripMs = Math.max(roundTripMs, ms);
      if (bulk[i].capacity.limit === 0) isMeasured = false;
    }
    const waitMs = Math.min(MOST_QUEUE_MS, Math.max(QUEUE_MS, roundTripMs));
    const most = isMeasured ? (worth.at(-1) ?? 0) + rates * waitMs : MOST_QUEUE_BYTES;
    this.mostWaiting = Math.min(MOST_QUEUE_BYTES, Math.max(LEAST_QUEUE_BYTES, most));
  }

  /** The link for the next packet when `waiting` bytes wait; undefined: none now. */
  next(waiting: number, nowMs: number): Link | undefined {
    const { bulk, worth } = this;
    for (let i = 0; i < bulk.length; i++) {
      if (waiting <= worth[i]) continue;
      if (!bulk[i].hasRoom(nowMs)) continue;
      this.ahead = worth[i];
      return bulk[i];
    }
    return undefined;
  }

  /** The quickest link for a packet that must not wait; `other` is not taken if there is another. */
  quickest(other: Link | undefined = undefined): Link | undefined {
    for (const link of this.alive) {
      if (link !== other && !link.settings.isBackup) return link;
    }
    for (const link of this.alive) {
      if (link !== other) return link;
    }
    return undefined;
  }

  /**
   * The link over which a packet that was lost arrives first and most likely; it was lost on the links
   * of the bits `lostOn`.
   * Undefined: that one has no room now, nor one that is nearly as quick.
   */
  forRepair(lostOn: number, nowMs: number, other: Link | undefined = undefined): Link | undefined {
    let best: Link | undefined = undefined;
    let bestMs = Number.POSITIVE_INFINITY;
    let soonestMs = Number.POSITIVE_INFINITY;
    for (const link of this.alive) {
      if (link === other || (link.settings.isBackup && this.bulk[0] !== link)) continue;
      const { loss, ackMs } = link.capacity;
      const again = (lostOn & (1 << link.place)) === 0 ? 0 : 1;
      const ms = aheadMs(link, this.alive[0]) + (loss * 2 + again * 0.1) * ackMs;
      if (ms < soonestMs) soonestMs = ms;
      if (ms >= bestMs || !link.hasRoom(nowMs)) continue;
      best = link;
      bestMs = ms;
    }
    // A quick link has room again sooner than a slow one carries.
    return bestMs <= soonestMs + REPAIR_WAIT_MS ? best : undefined;
  }
}

/** How much later a packet arrives over `a` than over `b`. */
function aheadMs(a: Link, b: Link): number {
  if (!a.isMeasured || !b.isMeasured) return (a.rttMs - b.rttMs) / 2;
  return difference16(a.capacity.delay, b.capacity.delay) / SEND_TIME_UNITS_PER_MS;
}

function toleranceMs(a: Link, b: Link): number {
  return TOLERANCE_MS + Math.max(a.capacity.spreadMs, b.capacity.spreadMs) / 4;
}
