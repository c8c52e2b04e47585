/**
 * The outbound half of bonding: what is read waits in a fair queue, gets its link when one has room, is
 * kept until a report says that it arrived, and goes again when it did not (design §5.3 to §5.5). One
 * packet's way: store → queue → scheduler → sender (sender.ts) → flight → released, or back for repair.
 */
import { PACKET_HEADROOM, packetTable } from './batch.ts';
import { classOf, Classifier, TrafficClass } from './classes.ts';
import type { Host } from './host.ts';
import type { Link } from './link.ts';
import { Pins } from './pins.ts';
import type { Pin } from './pins.ts';
import { FairQueue } from './queue.ts';
import { Scheduler } from './scheduler.ts';
import { Sender, SECOND_HALVES_BYTES } from './sender.ts';
import type { Session } from './session.ts';
import { PacketStore } from './store.ts';
import { BULK_BUCKETS, OVERHEAD_BYTES, SEQUENCE_MODULUS } from './wire.ts';

/**
 * How often a packet is sent at most: once, and two rounds of repair, of which the second goes over two links. At
 * 2 % loss one round leaves one in 2500, and cubic at 100 ms needs one in 100 000 (design §5.5).
 */
const MOST_ATTEMPTS = 4;
/** How often a flow that waits too much is shown it (CoDel's interval, RFC 8289 §4.3), and up to which excess. */
const SIGN_MS = 100;
const PATIENCE = 1.5;
/** Sums of times are not exact: what is due at a computed moment is due then. */
const TIME_GRAIN_MS = 0.01;
/** Repairs that wait for room; more are not repaired. A power of two. */
const REPAIRS = 16_384;

/** What bonding did: part of the tunnel's counters. */
export interface BondingCounters {
  /** Packets refused because too much waited. */
  refusedBulk: number;
  repaired: number;
  /** Lost for good. */
  abandoned: number;
}

export class Bonding {
  readonly scheduler = new Scheduler();
  readonly counters: BondingCounters = { refusedBulk: 0, repaired: 0, abandoned: 0 };
  readonly queue: FairQueue;
  readonly pins: Pins;
  private readonly host: Host;
  private readonly hashKey: Uint8Array;
  private readonly classifier: Classifier;
  private readonly packets = packetTable();
  private readonly store: PacketStore;
  private readonly sender: Sender;
  private readonly repairs = new Uint32Array(REPAIRS);
  /** When each bucket was last refused a packet. */
  private readonly refusedMs = new Float64Array(BULK_BUCKETS).fill(Number.NEGATIVE_INFINITY);
  private repairFirst = 0;
  private repairCount = 0;

  /** `modes` are `Mode` bits. */
  constructor(host: Host, hashKey: Uint8Array, classifier: Classifier, modes: number) {
    this.host = host;
    this.hashKey = hashKey;
    this.classifier = classifier;
    this.store = new PacketStore(SECOND_HALVES_BYTES);
    this.queue = new FairQueue(this.store);
    this.pins = new Pins(this.store);
    this.sender = new Sender(host, this.store, modes);
  }

  /**
   * Reads a batch from TUN. Returns its packets, 0 when there are none, −errno when the device is gone;
   * `isFull` says that there was no room to read.
   */
  read(session: Session, nowMs: number): number {
    const { store, packets, queue } = this;
    if (this.isFull) return 0;
    const { target, targetAt } = store;
    const count = this.host.tun.read(target, targetAt, PACKET_HEADROOM, packets, this.hashKey);
    for (let i = 0; i < count; i++) {
      const length = packets.lengths[i];
      if (length === 0) continue;
      const at = packets.offsets[i];
      const verdict = this.classifier.classify(target, at, length, packets.flows[i]);
      const trafficClass = classOf(verdict);
      const pin = this.pins.find(verdict, this.scheduler.alive);
      let bucket = packets.buckets[i];
      if (trafficClass !== TrafficClass.bulk) bucket += BULK_BUCKETS;
      else if (!this.admits(bucket, length, pin, nowMs)) {
        this.counters.refusedBulk++;
        continue;
      }
      const row = store.add(at, length, packets.flags[i], bucket, nowMs);
      store.classes[row] = trafficClass;
      const sequence = session.sequences[bucket];
      store.sequences[row] = sequence;
      session.sequences[bucket] = (sequence + 1) % SEQUENCE_MODULUS;
      if (trafficClass !== TrafficClass.bulk && this.sendNow(session, row, nowMs, pin)) continue;
      (pin === undefined ? queue : pin.queue).push(row);
    }
    return count;
  }

  /** Whether the store has no room for another read. */
  get isFull(): boolean {
    return !this.store.prepare();
  }

  /**
   * When too much waits, those give way of whom more than their share waits: one packet now and then, which a
   * flow takes for the sign that it is, and all of them only when that does not help.
   */
  private admits(bucket: number, length: number, pin: Pin | undefined, nowMs: number): boolean {
    if (pin !== undefined) return this.pins.admits(pin, length);
    const { queue, scheduler } = this;
    const bytes = queue.bytes + length;
    if (bytes <= scheduler.mostWaiting) return true;
    // One packet each for the others: what too much waits of may have come before the rate was known.
    if (bytes > 2 * scheduler.mostWaiting) return queue.bytesOf(bucket) === 0;
    const isModest = queue.bytesOf(bucket) * (queue.buckets + 1) < scheduler.mostWaiting;
    if (isModest) return true;
    if (bytes > PATIENCE * scheduler.mostWaiting) return false;
    if (nowMs - this.refusedMs[bucket] < SIGN_MS) return true;
    this.refusedMs[bucket] = nowMs;
    return false;
  }

  /** Realtime does not wait for room. False if no link's socket takes it. */
  private sendNow(session: Session, row: number, nowMs: number, pin: Pin | undefined): boolean {
    const first = pin?.link ?? this.scheduler.quickest();
    if (first === undefined || first.unsentCount > 0) return false;
    this.give(session, first, row, nowMs);
    if (this.store.classes[row] !== TrafficClass.duplicated) return true;
    const second = this.scheduler.quickest(first);
    if (second !== undefined && second.unsentCount === 0) this.give(session, second, row, nowMs);
    return true;
  }

  /** Sends what may be sent now: what was lost first, then what has its own link, then bulk in turn. */
  pump(session: Session, nowMs: number): void {
    this.repair(session, nowMs);
    const { queue, scheduler, pins } = this;
    pins.pump(scheduler.alive, queue, nowMs, (link, row) => this.give(session, link, row, nowMs));
    while (queue.count > 0) {
      const link = scheduler.next(queue.bytes, nowMs);
      if (link === undefined) break;
      const row = scheduler.ahead > 0 ? queue.pick(scheduler.ahead) : queue.shift();
      this.give(session, link, row, nowMs);
    }
    this.flush(session, nowMs);
    for (const link of scheduler.alive) {
      if (link.hasRoom(nowMs)) link.capacity.idle(nowMs);
      else if (queue.count > 0 || pins.isWanted(link)) link.capacity.blocked();
    }
  }

  /** What is not sealed yet goes out. */
  flush(session: Session, nowMs: number): void {
    for (const link of this.scheduler.alive) {
      this.sender.flush(session, link, nowMs);
      this.settle(link);
    }
  }

  private give(session: Session, link: Link, row: number, nowMs: number): void {
    const bytes = this.store.lengths[row] + OVERHEAD_BYTES + link.outerBytes;
    link.pendingBytes += bytes;
    link.capacity.spend(bytes);
    this.sender.add(session, link, row, nowMs);
  }

  private repair(session: Session, nowMs: number): void {
    const { store, scheduler } = this;
    while (this.repairCount > 0) {
      const row = store.row(this.repairs[this.repairFirst]);
      if (row !== -1) {
        const link = scheduler.forRepair(store.lostOn[row], nowMs);
        if (link === undefined) return;
        store.isRepairing[row] = 0;
        this.give(session, link, row, nowMs);
        this.counters.repaired++;
        const isLast = store.attempts[row] > 1;
        const second = isLast ? scheduler.forRepair(store.lostOn[row], nowMs, link) : undefined;
        if (second !== undefined) this.give(session, second, row, nowMs);
      }
      this.repairFirst = (this.repairFirst + 1) % REPAIRS;
      this.repairCount--;
    }
  }

  /** Draws the conclusions from what `link.flight` has found. */
  settle(link: Link): void {
    const { store } = this;
    const { flight } = link;
    for (let i = 0; i < flight.arrivedCount; i++) {
      const ticket = flight.arrivedTickets[i];
      const row = store.row(ticket);
      if (row !== -1 && store.arrived(row, ticket)) store.release(row);
    }
    for (let i = 0; i < flight.lostCount; i++) {
      const ticket = flight.lostTickets[i];
      const row = store.row(ticket);
      if (row === -1) continue;
      store.lostOn[row] |= 1 << link.place;
      // While another copy is under way, that one decides.
      if (!store.lost(row, ticket) || store.isRepairing[row] === 1) continue;
      if (store.attempts[row] >= MOST_ATTEMPTS || this.repairCount === REPAIRS) {
        this.counters.abandoned++;
        store.release(row);
        continue;
      }
      store.isRepairing[row] = 1;
      link.repairedPackets++;
      this.repairs[(this.repairFirst + this.repairCount++) % REPAIRS] = ticket;
    }
    flight.settled();
  }

  /** The peer has reported on `link`. */
  reported(link: Link, links: readonly Link[], nowMs: number): void {
    this.settle(link);
    const isHeard = link.flight.progressMs === nowMs && link.leftEpoch === -1;
    if (link.state === 'suspect' && isHeard) link.state = 'up';
    this.scheduler.order(links);
  }

  /** Finds what was lost without a later datagram to show it, and a link that carries nothing. */
  watch(link: Link, links: readonly Link[], nowMs: number): void {
    if (nowMs < link.overdueMs()) return;
    if (link.isSilent(nowMs)) this.suspect(link, links, nowMs);
    link.flight.detect(link.reorderingMs, nowMs - link.reportMs + TIME_GRAIN_MS);
    this.settle(link);
    this.scheduler.order(links);
  }

  /** What was under way over `link` goes over the others; it is probed until it carries again. */
  suspect(link: Link, links: readonly Link[], nowMs: number): void {
    if (link.state !== 'up' || links.length < 2) return;
    link.state = 'suspect';
    link.probeAtMs = nowMs;
    link.flight.abandon();
    this.settle(link);
    this.scheduler.order(links);
  }

  /** When `pump` may have something to send again, as far as pacing decides. */
  wakeAtMs(nowMs: number): number {
    const waiting = this.queue.count + this.pins.count + this.repairCount;
    if (waiting === 0) return Number.POSITIVE_INFINITY;
    let atMs = Number.POSITIVE_INFINITY;
    for (const link of this.scheduler.alive) {
      // A full flight is opened by a report, not by time.
      if (link.unsentCount > 0 || link.flight.bytes >= link.capacity.window) continue;
      const creditMs = link.capacity.creditAtMs(nowMs);
      if (creditMs > nowMs) atMs = Math.min(atMs, creditMs);
    }
    return atMs;
  }

  /** The session is over: nothing of it is sent any more. */
  clear(): void {
    this.repairCount = 0;
    this.queue.clear();
    this.pins.clear();
    this.store.clear();
  }
}
