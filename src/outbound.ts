/**
 * The outbound half of the data path over one clean link: memory, and the steps of the loop in vpn.ts that
 * fill it. Nothing is kept (bonding.ts does that, over several links and over one that loses). Packets lie in the ring one behind the other, each with room in front
 * for the inner header; datagrams lie in the slab without gaps, so that runs of equal size go out as one.
 */
import { NONCE_BYTES, PACKET_HEADROOM, packetTable, sealTable, TABLE_SLOTS } from './batch.ts';
import { sendTime } from './control.ts';
import { TAG_BYTES } from './crypto.ts';
import type { Host } from './host.ts';
import type { Link, Output } from './link.ts';
import type { Session } from './session.ts';
import {
  CLEAR_BIT,
  Flag,
  HALF_INNER_BYTES,
  HEADER_BYTES,
  INNER_BYTES,
  MIN_DATAGRAM_BYTES,
  Mode,
  SEQUENCE_MODULUS,
  writeHeader,
  writeInner,
  writeNonce,
  writeSplit,
} from './wire.ts';

/**
 * Plaintext that one step may bring: what `tunRead` takes at once (256 KiB) and the packet it had to
 * keep back. Larger batches fall out of the second-level cache, smaller ones cost more crossings.
 */
const READ_BYTES = 512 * 1024;
/** Second halves are copied behind what was read, so that their inner header has a place. */
const SECOND_HALVES_BYTES = 320 * 1024;
/** Each packet may become two datagrams. */
const SEND_SLOTS = 2 * TABLE_SLOTS;
const SLAB_BYTES = READ_BYTES + SECOND_HALVES_BYTES + SEND_SLOTS * MIN_DATAGRAM_BYTES;
/** A packet of this share of what fits makes it worth knowing that full-size datagrams still arrive. */
const LARGE_PACKET = 0.5;

export class Outbound {
  private readonly host: Host;
  private readonly hashKey: Uint8Array;
  private readonly isClear: boolean;
  private readonly ring = new Uint8Array(READ_BYTES + SECOND_HALVES_BYTES);
  private readonly readRing = this.ring.subarray(0, READ_BYTES);
  private readonly packets = packetTable();
  private readonly sealing = sealTable(SEND_SLOTS);
  private readonly output: Output = {
    slab: new Uint8Array(SLAB_BYTES),
    to: this.sealing.to,
    sizes: new Uint16Array(SEND_SLOTS),
  };

  /**
   * `hashKey` (16 bytes) keys the flow buckets; it lives as long as the instance (PROTOCOL §5.2). `modes`
   * are `Mode` bits.
   */
  constructor(host: Host, hashKey: Uint8Array, modes: number) {
    this.host = host;
    this.hashKey = hashKey;
    this.isClear = (modes & Mode.cleartext) !== 0;
  }

  /** Reads a batch from TUN: its packets, 0 when there are none, -errno when the device is gone. */
  read(): number {
    return this.host.tun.read(this.readRing, 0, PACKET_HEADROOM, this.packets, this.hashKey);
  }

  /** Gives each packet its sequence and inner header, in the order read; returns the slots to seal. */
  number(session: Session, link: Link, count: number, nowMs: number): number {
    const { ring, packets, sealing } = this;
    const { sequences } = session;
    const time = sendTime(nowMs);
    const room = link.packetRoom;
    let slot = 0;
    let secondAt = READ_BYTES;
    let largest = 0;
    for (let i = 0; i < count; i++) {
      const length = packets.lengths[i];
      if (length === 0) continue;
      const at = packets.offsets[i];
      const bucket = packets.buckets[i];
      const flags = packets.flags[i];
      const sequence = sequences[bucket];
      sequences[bucket] = (sequence + 1) % SEQUENCE_MODULUS;
      if (length > largest) largest = length;
      if (length <= room) {
        writeInner(ring, at - INNER_BYTES, bucket, sequence, time, flags);
        sealing.from[slot] = at - INNER_BYTES;
        sealing.sizes[slot++] = INNER_BYTES + length;
        continue;
      }
      const split = (length + 1) >>> 1;
      const rest = length - split;
      writeInner(ring, at - HALF_INNER_BYTES, bucket, sequence, time, flags | Flag.half);
      writeSplit(ring, at - HALF_INNER_BYTES, split);
      sealing.from[slot] = at - HALF_INNER_BYTES;
      sealing.sizes[slot++] = HALF_INNER_BYTES + split;
      ring.copyWithin(secondAt + HALF_INNER_BYTES, at + split, at + length);
      writeInner(ring, secondAt, bucket, sequence, time, flags | Flag.half | Flag.second);
      writeSplit(ring, secondAt, split);
      sealing.from[slot] = secondAt;
      sealing.sizes[slot++] = HALF_INNER_BYTES + rest;
      secondAt += HALF_INNER_BYTES + rest;
    }
    if (largest > LARGE_PACKET * room) link.sentFullSize(nowMs);
    return slot;
  }

  /**
   * Seals the first `count` slots for `link` into the slab. False if the keys are worn out: a
   * handshake for new ones is under way since half of that (PROTOCOL §3.4).
   */
  seal(session: Session, link: Link, count: number): boolean {
    const { sealing } = this;
    const { slab, sizes } = this.output;
    const epoch = session.current;
    const first = epoch.reserve(link.id, count);
    if (first === -1) return false;
    const epochBits = this.isClear ? epoch.number | CLEAR_BIT : epoch.number;
    let at = 0;
    for (let i = 0; i < count; i++) {
      const size = HEADER_BYTES + sealing.sizes[i] + TAG_BYTES;
      writeHeader(slab, at, epochBits, link.id, session.peerId, first + i);
      writeNonce(sealing.nonces, i * NONCE_BYTES, link.id, first + i);
      sealing.to[i] = at;
      sizes[i] = size;
      at += size;
    }
    const { authenticate, seal } = this.host.aead;
    const protect = this.isClear ? authenticate : seal;
    protect(epoch.sealKey, this.ring, slab, HEADER_BYTES, sealing, count);
    link.output = this.output;
    link.unsentFirst = 0;
    link.unsentCount = count;
    return true;
  }
}
