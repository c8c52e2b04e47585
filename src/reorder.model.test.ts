import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Random } from '../test/random.ts';
import { TABLE_SLOTS } from './batch.ts';
import { Reorder, REORDER_PLACE_BYTES, WINDOW } from './reorder.ts';

const SEQUENCES = 2 ** 24;
/** A jump farther than this is held by nobody. */
const RESTART_AHEAD = 2 ** 22;
/** Packets are received below, in as many slots of a place's size. */
const RECEIVE_SLOTS = 64;
const START = RECEIVE_SLOTS * REORDER_PLACE_BYTES;
/** Buckets in use: ends and middles of both classes. */
const BUCKETS_USED = [0, 3, 7, 255, 256, 511];
/** What may lie behind the places, and must not change. */
const BEHIND = 100;

/** What crosses the links. `sequence` is absolute: the wire carries it modulo 2²⁴. */
interface Packet {
  readonly bucket: number;
  readonly sequence: number;
  readonly isOrdered: boolean;
  readonly length: number;
  readonly flags: number;
}

interface Gap {
  readonly deadlineMs: number;
}

class Bucket {
  next = 0;
  readonly held = new Map<number, Packet>();
  /** Until when each held packet may be held: the latest deadline of the gaps before it as it came. */
  readonly limits = new Map<number, number>();
  /** The gap of each sequence that is waited for. */
  readonly missing = new Map<number, Gap>();
  readonly never = new Set<number>();
  readonly delivered = new Set<number>();

  get firstGap(): Gap | undefined {
    return this.missing.get(this.next);
  }
}

/** The obvious model: per bucket a map of what is held and one of what is missing. */
class Model {
  out: Packet[] = [];
  /** Places of packets in `out` that were held. */
  released = 0;
  readonly counters = { held: 0, late: 0, duplicate: 0, tooOld: 0, abandoned: 0, overflow: 0 };
  private readonly known = new Map(BUCKETS_USED.map((number) => [number, new Bucket()]));
  private readonly buckets = [...this.known.values()];
  private readonly places: number;

  constructor(places: number) {
    this.places = places;
  }

  get waiting(): number {
    return this.buckets.reduce((sum, bucket) => sum + bucket.held.size, 0);
  }

  get deadlineMs(): number {
    return Math.min(...this.buckets.map((bucket) => bucket.firstGap?.deadlineMs ?? Infinity));
  }

  /** Nothing may be held past this. */
  get limitMs(): number {
    return Math.min(...this.buckets.flatMap((bucket) => [...bucket.limits.values()]));
  }

  add(packet: Packet, holdMs: number, nowMs: number): boolean {
    const bucket = this.known.get(packet.bucket)!;
    const { sequence } = packet;
    for (;;) {
      this.expire(nowMs);
      const ahead = sequence - bucket.next;
      assert.ok(Math.abs(ahead) < SEQUENCES / 2, 'the generator keeps sequences apart');
      if (ahead < 0) return this.addLate(bucket, packet);
      const mayWait = packet.isOrdered && packet.bucket < 256 && ahead <= RESTART_AHEAD;
      if (ahead === 0 || !mayWait) return this.deliver(bucket, packet);
      if (ahead >= WINDOW) {
        this.advance(bucket, sequence - WINDOW + 1);
        continue;
      }
      if (bucket.held.has(sequence)) {
        this.counters.duplicate++;
        return false;
      }
      if (this.waiting >= this.places - Math.min(TABLE_SLOTS, this.places >> 1)) {
        this.counters.overflow++;
        const due = this.deadlineMs;
        this.giveUpGap(this.buckets.find(({ firstGap }) => firstGap?.deadlineMs === due)!);
        continue;
      }
      if (this.waiting + this.released === this.places) {
        this.counters.overflow++;
        return this.deliver(bucket, packet);
      }
      this.hold(bucket, packet, { deadlineMs: nowMs + holdMs });
      return true;
    }
  }

  giveUp(number: number, from: number, count: number, nowMs: number): void {
    this.expire(nowMs);
    if (number >= 256) return;
    const bucket = this.known.get(number)!;
    const end = Math.min(from + count, bucket.next + WINDOW);
    for (let sequence = Math.max(from, bucket.next); sequence < end; sequence++) {
      if (bucket.held.has(sequence)) continue;
      bucket.never.add(sequence);
      bucket.missing.delete(sequence);
    }
    this.advance(bucket, bucket.next);
  }

  expire(nowMs: number): void {
    for (const bucket of this.buckets) {
      while (bucket.firstGap !== undefined && bucket.firstGap.deadlineMs <= nowMs) {
        this.giveUpGap(bucket);
      }
    }
  }

  endBatch(): void {
    this.out = [];
    this.released = 0;
  }

  private hold(bucket: Bucket, packet: Packet, gap: Gap): void {
    const { sequence } = packet;
    const first = Math.max(bucket.next, ...[...bucket.held.keys()].map((held) => held + 1));
    for (let skipped = first; skipped < sequence; skipped++) {
      if (!bucket.never.has(skipped)) bucket.missing.set(skipped, gap);
    }
    bucket.missing.delete(sequence);
    bucket.never.delete(sequence);
    bucket.held.set(sequence, packet);
    const before = [...bucket.missing].filter(([missing]) => missing < sequence);
    bucket.limits.set(sequence, Math.max(...before.map(([, { deadlineMs }]) => deadlineMs)));
    this.counters.held++;
  }

  private addLate(bucket: Bucket, packet: Packet): boolean {
    if (packet.sequence < bucket.next - WINDOW) {
      this.counters.tooOld++;
      return false;
    }
    if (bucket.delivered.has(packet.sequence)) {
      this.counters.duplicate++;
      return false;
    }
    this.counters.late++;
    bucket.delivered.add(packet.sequence);
    this.out.push(packet);
    return true;
  }

  /** Delivers what is held below a packet, the packet, and what is directly behind it. */
  private deliver(bucket: Bucket, packet: Packet): boolean {
    const isNew = !bucket.held.has(packet.sequence);
    if (isNew) bucket.held.set(packet.sequence, packet);
    // It was never copied, so it has no place to give back.
    if (isNew) this.released--;
    this.advance(bucket, packet.sequence);
    if (!isNew) this.counters.duplicate++;
    return isNew;
  }

  private giveUpGap(bucket: Bucket): void {
    const gap = bucket.firstGap;
    const missing = [...bucket.missing.keys()].filter((key) => bucket.missing.get(key) === gap);
    this.advance(bucket, Math.max(...missing) + 1);
  }

  /** Delivers all that is held below `target`, in order, and all that follows without a gap. */
  private advance(bucket: Bucket, target: number): void {
    const below = [...bucket.held.keys()].filter((held) => held < target).sort((a, b) => a - b);
    for (const sequence of below) this.release(bucket, sequence);
    this.counters.abandoned += target - bucket.next - below.length;
    bucket.next = target;
    for (; bucket.held.has(bucket.next) || bucket.never.has(bucket.next); bucket.next++) {
      if (bucket.held.has(bucket.next)) this.release(bucket, bucket.next);
      else this.counters.abandoned++;
    }
    for (const known of [bucket.missing, bucket.never]) {
      for (const sequence of known.keys()) if (sequence < bucket.next) known.delete(sequence);
    }
  }

  private release(bucket: Bucket, sequence: number): void {
    this.out.push(bucket.held.get(sequence)!);
    bucket.held.delete(sequence);
    bucket.limits.delete(sequence);
    bucket.delivered.add(sequence);
    this.released++;
  }
}

/** What a packet contains: told from every other by its bytes. */
function bytesOf({ bucket, sequence, length }: Packet): Uint8Array {
  const bytes = new Uint8Array(length);
  new Random(bucket * 2 ** 23 + (sequence % 2 ** 23)).fill(bytes);
  return bytes;
}

interface Arrival {
  readonly atMs: number;
  readonly packet: Packet;
  /** The sender's word that it will not come, instead of it: for so many sequences. */
  readonly never: number;
}

/** Several flows over several links of unlike delay, with loss, repetition, repair and jumps. */
function someTraffic(random: Random): Arrival[] {
  const flows = BUCKETS_USED.filter((bucket) => bucket === 3 || random.below(2) === 0).map(
    (bucket) => ({
      bucket,
      sequence: 0,
      isOrdered: random.below(4) !== 0,
      sinceJump: 0,
      hasRestarted: false,
    }),
  );
  const links = Array.from({ length: 1 + random.below(3) }, () => ({
    delayMs: random.below(80),
    jitterMs: random.below(3) * random.below(15),
    loss: random.below(3) * 0.05,
  }));
  const [duplicated, repaired, renounced, jumpy] = [0, 0, 0, 0].map(() => random.below(2) * 0.1);
  const arrivals: Arrival[] = [];
  let sentMs = 0;
  const send = (packet: Packet, sendMs: number): boolean => {
    const link = links[random.below(links.length)];
    const atMs = sendMs + link.delayMs + random.next() * link.jitterMs;
    const isLost = random.next() < link.loss;
    if (!isLost) arrivals.push({ atMs, packet, never: 0 });
    return !isLost;
  };
  // Some start just below the end of the sequences: in jumps that no restart explains.
  for (const flow of flows) {
    const isFromEnd = random.below(2) === 0;
    for (let part = 1; isFromEnd && part <= 4; part++) {
      flow.sequence = part * RESTART_AHEAD - random.below(300) - 1;
      const packet = { bucket: flow.bucket, sequence: flow.sequence, isOrdered: false };
      arrivals.push({ atMs: -1 + part / 8, packet: { ...packet, length: 40, flags: 0 }, never: 0 });
    }
    if (isFromEnd) flow.sequence++;
  }
  for (let i = 0; i < 2_500; i++) {
    sentMs += random.next() * 0.5;
    const flow = flows[random.below(flows.length)];
    if (random.below(200) === 0) flow.isOrdered = !flow.isOrdered;
    flow.sinceJump++;
    if (flow.sinceJump > 300 && random.next() < jumpy) {
      // One restart each: with two of them in flight, ahead and behind are the same.
      const ahead = [WINDOW, 3 * WINDOW, RESTART_AHEAD][random.below(flow.hasRestarted ? 2 : 3)];
      flow.hasRestarted ||= ahead === RESTART_AHEAD;
      flow.sequence += ahead - 3 + random.below(7);
      flow.sinceJump = 0;
    }
    const packet = {
      bucket: flow.bucket,
      sequence: flow.sequence++,
      isOrdered: flow.isOrdered,
      length: 1 + random.below(random.below(20) === 0 ? REORDER_PLACE_BYTES : 100),
      flags: random.below(2),
    };
    const isSent = send(packet, sentMs);
    if (random.next() < duplicated) send(packet, sentMs + random.next() * 30);
    if (!isSent && random.next() < 10 * repaired) send(packet, sentMs + 100 * random.next());
    if (isSent ? random.below(100) === 0 : random.next() < 10 * renounced) {
      const never = 1 + random.below(random.below(3) === 0 ? 9 : 1);
      arrivals.push({ atMs: sentMs + 90 * random.next(), packet, never });
    }
  }
  return arrivals.sort((a, b) => a.atMs - b.atMs);
}

it('agrees with maps under loss, repetition, jitter, repair, jumps and few places', () => {
  const total = { held: 0, late: 0, duplicate: 0, tooOld: 0, abandoned: 0, overflow: 0 };
  for (let seed = 1; seed <= 80; seed++) {
    const random = new Random(seed);
    const places = [1, 2, 5, 30, 400, 3_000][random.below(6)];
    const bytes = new Uint8Array(START + places * REORDER_PLACE_BYTES + BEHIND).fill(0xa5);
    const reorder = new Reorder(bytes, START, places);
    const model = new Model(places);
    const holdMs = random.below(90);
    const maxBatch = 1 + random.below(RECEIVE_SLOTS);
    /** Of each bucket, the highest sequence delivered; and all that were. */
    const highest = new Map(BUCKETS_USED.map((bucket) => [bucket, -1]));
    const once = new Set<string>();
    let slot = 0;
    let nowMs = -1;

    const write = (where: string): void => {
      assert.equal(reorder.count, model.out.length, where);
      model.out.forEach((packet, row) => {
        const at = reorder.out.offsets[row];
        const { bucket, sequence, length } = packet;
        const what = `${where}, row ${row}: ${bucket}/${sequence}`;
        assert.equal(reorder.out.lengths[row], length, what);
        assert.equal(reorder.out.flags[row], packet.flags, what);
        assert.ok(
          bytesOf(packet).every((byte, i) => bytes[at + i] === byte),
          what,
        );
        assert.ok(!once.has(`${bucket}/${sequence}`), `${what} twice`);
        once.add(`${bucket}/${sequence}`);
        // What comes from a place was waited for: in order, whatever else happens.
        const last = highest.get(bucket)!;
        if (at >= START) assert.ok(sequence > last, `${what} behind ${last}`);
        highest.set(bucket, Math.max(last, sequence));
      });
      reorder.endBatch();
      model.endBatch();
      bytes.fill(0x5a, 0, START);
      slot = 0;
    };

    for (const [step, { atMs, packet, never }] of someTraffic(random).entries()) {
      const where = `seed ${seed}, step ${step}`;
      nowMs = Math.max(nowMs, atMs);
      const { bucket, sequence, isOrdered, length, flags } = packet;
      if (never > 0) {
        reorder.giveUp(bucket, sequence % SEQUENCES, nowMs, never);
        model.giveUp(bucket, sequence, never, nowMs);
      } else {
        const at = slot++ * REORDER_PLACE_BYTES;
        bytes.set(bytesOf(packet), at);
        const wire = sequence % SEQUENCES;
        // Holds shorten and lengthen, as the links' delays do.
        const thisMs = holdMs * (0.5 + random.next());
        const isTaken = reorder.add(bucket, wire, isOrdered, at, length, flags, thisMs, nowMs);
        assert.equal(isTaken, model.add(packet, thisMs, nowMs), where);
      }
      if (random.below(40) === 0) {
        nowMs += random.next() * 3;
        reorder.expire(nowMs);
        model.expire(nowMs);
      }
      assert.deepEqual(reorder.counters, model.counters, where);
      assert.equal(reorder.waiting, model.waiting, where);
      assert.equal(reorder.deadlineMs(), model.deadlineMs, where);
      assert.ok(model.limitMs >= nowMs, where);
      if (slot >= maxBatch) write(where);
    }
    reorder.expire(Infinity);
    model.expire(Infinity);
    write(`seed ${seed}, end`);
    assert.equal(reorder.waiting, 0, `seed ${seed}`);
    assert.equal(reorder.deadlineMs(), Infinity, `seed ${seed}`);
    assert.ok(
      bytes.subarray(-BEHIND).every((byte) => byte === 0xa5),
      `seed ${seed}: wrote behind its places`,
    );
    for (const key of Object.keys(total) as (keyof typeof total)[]) {
      total[key] += reorder.counters[key];
    }
  }
  // The traffic has met every case often.
  for (const [what, count] of Object.entries(total)) assert.ok(count > 500, `${what}: ${count}`);
});
