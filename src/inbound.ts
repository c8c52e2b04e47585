/**
 * The inbound half of the data path: memory, and the steps of the loop in vpn.ts that fill it.
 *
 * Datagrams are opened where they were received and written to TUN from there: nothing is copied but
 * halves, which wait behind the receive area in the same memory.
 */
import { datagramTable, ENDPOINT_BYTES, NONCE_BYTES, TABLE_SLOTS } from './batch.ts';
import { HALVES_BYTES, REJECT_AFTER_COUNTER } from './constants.ts';
import { TAG_BYTES } from './crypto.ts';
import { ETHERNET_HEADER_BYTES } from './frame.ts';
import { Halves, PLACE_BYTES } from './halves.ts';
import type { Host, LinkSocket } from './host.ts';
import { isSourceAllowed, packetVersion, type Network } from './inner.ts';
import type { Peering } from './peering.ts';
import { Reorder, REORDER_PLACE_BYTES } from './reorder.ts';
import { ReplayWindow } from './replay.ts';
import type { Reception } from './reception.ts';
import type { Epoch } from './session.ts';
import {
  BULK_BUCKETS,
  CLEAR_BIT,
  Control,
  DATAGRAM_TYPE,
  EPOCH_MASK,
  Flag,
  HALF_INNER_BYTES,
  HEADER_BYTES,
  headerCounter,
  headerLink,
  headerSession,
  INNER_BYTES,
  innerFlags,
  innerSendTime,
  innerSequence,
  innerSplit,
  LINK_IDS,
  MIN_DATAGRAM_BYTES,
  Mode,
  writeNonce,
} from './wire.ts';

/** 16 runs of 64 KiB (UDP_GRO). */
const RECEIVE_BYTES = 1024 * 1024;
/** Halves that wait, and as many places again as one batch can join. */
const WAITING_HALVES = HALVES_BYTES / PLACE_BYTES;
const HALVES_PLACES = WAITING_HALVES + TABLE_SLOTS;
/** Packets that wait for earlier ones: 12 MB; 330 Mbit/s over a third of a second. */
const HELD_PLACES = 8_192;
/** The longest handshake message of any version that deserves a look. */
const MAX_MESSAGE_BYTES = 1_280;
/** Equal to no type. */
const NO_TYPE = -1;

/** What was dropped, and why: the log of the data path. */
export interface InboundCounters {
  unknown: number;
  forged: number;
  replayed: number;
  malformed: number;
  foreign: number;
  refused: number;
}

export class Inbound {
  /** Handshake messages among the batch: `messageSlots` up to here. */
  messageCount = 0;
  readonly messageSlots = new Uint16Array(TABLE_SLOTS);
  readonly halves: Halves;
  readonly reorder: Reorder;
  private readonly host: Host;
  private readonly counters: InboundCounters;
  private sources: readonly Network[] | undefined;
  /** The type of datagrams in the clear where there are any. */
  private readonly clearType: number;
  private readonly isEthernet: boolean;
  private readonly bytes = new Uint8Array(
    RECEIVE_BYTES + HALVES_PLACES * PLACE_BYTES + HELD_PLACES * REORDER_PLACE_BYTES,
  );
  private readonly datagrams = datagramTable();
  private readonly epochs: (Epoch | undefined)[] = new Array(TABLE_SLOTS).fill(undefined);
  private readonly datagramCounters = new Float64Array(TABLE_SLOTS);
  /** For counters of links that were not heard yet under a key; never accepts anything. */
  private readonly freshWindow = new ReplayWindow();
  /** The window of the slot that `accept` was last asked for. */
  private acceptedBy = this.freshWindow;

  /** `sources`: where inner packets may come from; undefined: anywhere. `modes` are `Mode` bits. */
  constructor(
    host: Host,
    sources: readonly Network[] | undefined,
    counters: InboundCounters,
    modes: number,
  ) {
    this.host = host;
    this.clearType = (modes & Mode.cleartext) === 0 ? NO_TYPE : DATAGRAM_TYPE | CLEAR_BIT;
    this.isEthernet = (modes & Mode.ethernet) !== 0;
    this.sources = sources;
    this.counters = counters;
    this.halves = new Halves(this.bytes, RECEIVE_BYTES, WAITING_HALVES);
    const heldAt = RECEIVE_BYTES + HALVES_PLACES * PLACE_BYTES;
    this.reorder = new Reorder(this.bytes, heldAt, HELD_PLACES);
  }

  /** As the constructor's, from the next packet on. */
  setSources(sources: readonly Network[] | undefined): void {
    this.sources = sources;
  }

  /** Endpoints that the batch came from; `sourceAt` says where in it. */
  get endpoints(): Uint8Array {
    return this.datagrams.endpoints;
  }

  receive(socket: LinkSocket): number {
    return socket.receive(this.bytes, 0, RECEIVE_BYTES, this.datagrams);
  }

  /** Finds each datagram's key and nonce by its header, which proves nothing yet. */
  parse(count: number, peering: Pick<Peering, 'epochFor'>): void {
    const { bytes, datagrams } = this;
    this.messageCount = 0;
    if (this.clearType !== NO_TYPE) datagrams.clear.fill(0, 0, count);
    for (let i = 0; i < count; i++) {
      const at = datagrams.offsets[i];
      const length = datagrams.lengths[i];
      datagrams.keys[i] = 0;
      if (length === 0) continue;
      const type = bytes[at] & ~EPOCH_MASK;
      if (type !== DATAGRAM_TYPE) {
        if (type !== this.clearType) {
          if (length <= MAX_MESSAGE_BYTES) this.messageSlots[this.messageCount++] = i;
          continue;
        }
        datagrams.clear[i] = 1;
      }
      const link = headerLink(bytes, at);
      const epoch =
        length >= MIN_DATAGRAM_BYTES && link < LINK_IDS
          ? peering.epochFor(headerSession(bytes, at), bytes[at] & EPOCH_MASK)
          : undefined;
      if (epoch === undefined) {
        this.counters.unknown++;
        continue;
      }
      const window = epoch.knownWindow(link) ?? this.freshWindow;
      const counter = window.expand(headerCounter(bytes, at));
      if (counter >= REJECT_AFTER_COUNTER) {
        this.counters.unknown++;
        continue;
      }
      writeNonce(datagrams.nonces, i * NONCE_BYTES, link, counter);
      this.datagramCounters[i] = counter;
      this.epochs[i] = epoch;
      datagrams.keys[i] = epoch.openKey;
    }
  }

  open(count: number): void {
    this.counters.forged += this.host.aead.open(this.bytes, HEADER_BYTES, this.datagrams, count);
  }

  /**
   * The keys that `slot` opened with, if it has passed the replay window; only then may anyone learn
   * from it.
   */
  accept(slot: number): Epoch | undefined {
    const { keys, lengths } = this.datagrams;
    if (keys[slot] === 0 || lengths[slot] === 0) return undefined;
    const epoch = this.epochs[slot]!;
    const window = epoch.window(this.linkId(slot));
    this.acceptedBy = window;
    if (window.accept(this.datagramCounters[slot])) return epoch;
    this.counters.replayed++;
    return undefined;
  }

  /** Whether the slot just accepted carries the highest counter of its link so far. */
  isNewest(slot: number): boolean {
    return this.acceptedBy.highest === this.datagramCounters[slot];
  }

  /** The counter of an accepted slot. */
  counterOf(slot: number): number {
    return this.datagramCounters[slot];
  }

  linkId(slot: number): number {
    return headerLink(this.bytes, this.datagrams.offsets[slot]);
  }

  /** Where the source of `slot` lies in `endpoints`. */
  sourceAt(slot: number): number {
    return this.datagrams.sources[slot] * ENDPOINT_BYTES;
  }

  /** Bytes of the datagram. */
  sizeOf(slot: number): number {
    return this.datagrams.lengths[slot];
  }

  /** The sealed flags of an accepted slot (PROTOCOL §5.2). */
  flagsOf(slot: number): number {
    return innerFlags(this.bytes, this.datagrams.offsets[slot] + HEADER_BYTES);
  }

  /** Whether an accepted slot was only authenticated (PROTOCOL §5.6): then it is no control message. */
  isClear(slot: number): boolean {
    return this.datagrams.clear[slot] === 1;
  }

  /** Kind and body of an accepted control message. The body is borrowed until the next `receive`. */
  controlOf(slot: number): { readonly kind: number; readonly body: Uint8Array } {
    const at = this.datagrams.offsets[slot] + HEADER_BYTES;
    const end = this.datagrams.offsets[slot] + this.datagrams.lengths[slot] - TAG_BYTES;
    return { kind: this.bytes[at], body: this.bytes.subarray(at + INNER_BYTES, end) };
  }

  /** A copy of a handshake message. */
  messageOf(slot: number): Uint8Array {
    const at = this.datagrams.offsets[slot];
    return this.bytes.slice(at, at + this.datagrams.lengths[slot]);
  }

  /** What the link of an accepted slot learns from it. */
  learn(slot: number, reception: Reception, outerBytes: number, nowMs: number): void {
    const innerAt = this.datagrams.offsets[slot] + HEADER_BYTES;
    const flags = innerFlags(this.bytes, innerAt);
    const isReport = (flags & Flag.control) !== 0 && this.bytes[innerAt] === Control.report;
    reception.arrived(
      this.epochs[slot]!.number,
      this.acceptedBy,
      this.datagramCounters[slot],
      innerSendTime(this.bytes, innerAt),
      this.datagrams.lengths[slot] + outerBytes,
      (flags & (Flag.ordered | Flag.realtime)) !== 0,
      isReport,
      nowMs,
    );
  }

  /**
   * Takes the packet of an accepted slot, or the packet its half completes: for the next `write`, or
   * to be held for earlier ones, `holdMs` at most.
   */
  collect(slot: number, flags: number, holdMs: number, nowMs: number): void {
    const { bytes, halves } = this;
    const innerAt = this.datagrams.offsets[slot] + HEADER_BYTES;
    const isRealtime = (flags & Flag.realtime) !== 0;
    const bucket = isRealtime ? bytes[innerAt] + BULK_BUCKETS : bytes[innerAt];
    const sequence = innerSequence(bytes, innerAt);
    let at = innerAt + INNER_BYTES;
    let length = this.datagrams.lengths[slot] - MIN_DATAGRAM_BYTES;
    if ((flags & Flag.half) !== 0) {
      const extra = HALF_INNER_BYTES - INNER_BYTES;
      if (length <= extra) {
        this.counters.malformed++;
        return;
      }
      const split = innerSplit(bytes, innerAt);
      const isSecond = (flags & Flag.second) !== 0;
      const half = halves.add(bucket, sequence, split, isSecond, at + extra, length - extra, nowMs);
      if (half === -1) return;
      at = halves.offsetOf(half);
      length = halves.lengthOf(half);
    } else {
      halves.replaced(bucket, sequence);
    }
    if (!this.admits(at, length)) return;
    const isOrdered = (flags & Flag.ordered) !== 0;
    const kept = flags & Flag.partialChecksum;
    this.reorder.add(bucket, sequence, isOrdered, at, length, kept, holdMs, nowMs);
  }

  /** Whether a packet is one that the device may get; counts it if not. Frames come from anywhere. */
  private admits(at: number, length: number): boolean {
    const { bytes, sources, counters } = this;
    if (this.isEthernet) {
      if (length >= ETHERNET_HEADER_BYTES) return true;
      counters.malformed++;
      return false;
    }
    const version = packetVersion(bytes, at, length);
    if (version === 0) {
      counters.malformed++;
      return false;
    }
    if (sources === undefined || isSourceAllowed(bytes, at, version, sources)) return true;
    counters.foreign++;
    return false;
  }

  /** Writes to TUN, in order, whatever need not wait; returns how many packets. */
  write(): number {
    const { out, count } = this.reorder;
    if (count > 0) this.counters.refused += this.host.tun.write(this.bytes, out, count);
    this.reorder.endBatch();
    this.halves.endBatch();
    return count;
  }
}
