/**
 * Packets that a filter puts on one link. Each link that filters name has a fair queue of its own, which
 * goes before what all links share; when the link cannot take it any more, its queue is shared, too.
 */
import { firstMatch } from './classes.ts';
import type { Link } from './link.ts';
import { FairQueue } from './queue.ts';
import type { PacketStore } from './store.ts';

/** Time that bulk may wait for a link of its own, as for all links (scheduler.ts): a round trip, in bounds. */
const LEAST_QUEUE_MS = 50;
const MOST_QUEUE_MS = 500;
const LEAST_QUEUE_BYTES = 32 * 1024;
/** Also for a link whose rate is not known yet. All that filters can name (28) fit the store. */
const MOST_QUEUE_BYTES = 512 * 1024;

/** A link that filters name, and what waits for it. */
export interface Pin {
  readonly name: string;
  readonly queue: FairQueue;
  /** As last found; undefined: it cannot take anything now. */
  link: Link | undefined;
}

export class Pins {
  private readonly store: PacketStore;
  private list: readonly Pin[] = [];
  /** That of each number in a verdict. */
  private byFilter: readonly Pin[] = [];
  private alive: readonly Link[] = [];

  constructor(store: PacketStore) {
    this.store = store;
  }

  /**
   * `links`: the name of the link of each filter number. What waits goes to `queue`, to be shared. Several
   * filters of one link have one queue.
   */
  setLinks(links: readonly string[], queue: FairQueue): void {
    for (const pin of this.list) moveAll(pin.queue, queue);
    this.list = [...new Set(links)].map((name) => ({
      name,
      queue: new FairQueue(this.store),
      link: undefined,
    }));
    this.byFilter = links.map((link) => this.list.find(({ name }) => name === link)!);
  }

  /** Where a packet with this verdict goes; undefined: over all links. */
  find(verdict: number, alive: readonly Link[]): Pin | undefined {
    if (this.byFilter.length === 0) return undefined;
    this.alive = alive;
    return this.byFilter[firstMatch(verdict, this.isUsable)];
  }

  /** Whether `pin` has room for another packet. */
  admits({ queue, link }: Pin, length: number): boolean {
    return link !== undefined && queue.bytes + length <= mostWaiting(link);
  }

  /** Gives what may go now to `give`; what has lost its link goes to `queue`. */
  pump(
    alive: readonly Link[],
    queue: FairQueue,
    nowMs: number,
    give: (link: Link, row: number) => void,
  ): void {
    for (const pin of this.list) {
      if (pin.queue.count === 0) continue;
      const link = this.follow(pin, alive);
      if (link === undefined) {
        moveAll(pin.queue, queue);
        continue;
      }
      while (pin.queue.count > 0 && link.hasRoom(nowMs)) give(link, pin.queue.shift());
    }
  }

  /** Packets that wait for links of their own. */
  get count(): number {
    let count = 0;
    for (const { queue } of this.list) count += queue.count;
    return count;
  }

  /** Whether something waits for `link` alone. */
  isWanted(link: Link): boolean {
    return this.list.some((pin) => pin.link === link && pin.queue.count > 0);
  }

  clear(): void {
    for (const { queue } of this.list) queue.clear();
  }

  private readonly isUsable = (filter: number): boolean => {
    const pin = this.byFilter[filter];
    return pin !== undefined && this.follow(pin, this.alive) !== undefined;
  };

  /** A server has several links of one name where a client's come in through one socket: the quickest. */
  private follow(pin: Pin, alive: readonly Link[]): Link | undefined {
    pin.link = alive.find(
      ({ settings, state, isBad }) => settings.name === pin.name && state === 'up' && !isBad,
    );
    return pin.link;
  }
}

function moveAll(from: FairQueue, to: FairQueue): void {
  while (from.count > 0) to.push(from.shift());
}

/** Bytes that may wait for one link. */
function mostWaiting({ capacity }: Link): number {
  if (capacity.limit === 0) return MOST_QUEUE_BYTES;
  const waitMs = Math.min(MOST_QUEUE_MS, Math.max(LEAST_QUEUE_MS, capacity.ackMs));
  return Math.min(MOST_QUEUE_BYTES, Math.max(LEAST_QUEUE_BYTES, capacity.limit * waitMs));
}
