/**
 * Packets that were read from TUN and are not yet known to have arrived: their bytes, and a row of facts
 * for each. Bonding only (bonding.ts): what is kept can be sent again over another link.
 *
 * Bytes lie in chunks of one ring; a chunk is used again when the last packet in it is let go, the one
 * let go last first, so that a fast link works in memory that is still in the cache. When no chunk or no
 * row is free, TUN is not read: nothing is ever overwritten.
 */
import { TABLE_SLOTS } from './batch.ts';

/** A read brings at most 256 KiB and a packet run that was kept back (native.ts, tunRead). */
const CHUNK_BYTES = 512 * 1024;
/** 16 MB in all (design §3); what is never used is never touched. */
const CHUNKS = 32;
/** Room that makes reading into a chunk worthwhile: one run of 64 KiB, cut, with its headroom. */
const LEAST_ROOM = 96 * 1024;
/** Rows; 16 MB of full-size packets are 11 000. */
export const PACKETS = 16_384;
const ROW_BITS = 14;
/** Generations of a row in a ticket: 32 bits less those of the row and of the pieces. */
const GENERATIONS = 2 ** 16;
/** What a datagram carries of its packet: a half, or both. */
export const Piece = { first: 1, second: 2, whole: 3 } as const;

export class PacketStore {
  readonly ring: Uint8Array;
  /** Where each packet starts in the ring; its inner header goes in front. */
  readonly offsets = new Uint32Array(PACKETS);
  readonly lengths = new Uint16Array(PACKETS);
  readonly flags = new Uint8Array(PACKETS);
  /** 0 to 255 bulk, 256 to 511 realtime. */
  readonly buckets = new Uint16Array(PACKETS);
  readonly sequences = new Uint32Array(PACKETS);
  readonly classes = new Uint8Array(PACKETS);
  /** When it was read. */
  readonly readMs = new Float64Array(PACKETS);
  /** How often it was sent. */
  readonly attempts = new Uint8Array(PACKETS);
  /** `Piece`s that are not known to have arrived, and how many copies of either half may still. */
  readonly missing = new Uint8Array(PACKETS);
  private readonly firstCopies = new Uint8Array(PACKETS);
  private readonly secondCopies = new Uint8Array(PACKETS);
  /** 1: it waits to be sent again. */
  readonly isRepairing = new Uint8Array(PACKETS);
  /** Bit n: it was sent over the n-th link and lost there. */
  readonly lostOn = new Uint32Array(PACKETS);
  private readonly generations = new Uint32Array(PACKETS);
  private readonly freeRows = new Uint16Array(PACKETS);
  private freeCount = PACKETS;
  private readonly freeChunks = new Uint8Array(CHUNKS);
  private freeChunkCount = CHUNKS;
  private readonly live = new Uint32Array(CHUNKS);
  private readonly ends: Uint8Array[] = [];
  private chunk = -1;
  private at = 0;

  /** `extraBytes` of the ring behind the chunks are the caller's. */
  constructor(extraBytes: number) {
    this.ring = new Uint8Array(CHUNKS * CHUNK_BYTES + extraBytes);
    this.generations.fill(1);
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      this.ends.push(this.ring.subarray(0, (chunk + 1) * CHUNK_BYTES));
    }
    this.clear();
  }

  /** Lets everything go. */
  clear(): void {
    for (let row = 0; row < PACKETS; row++) {
      this.freeRows[row] = PACKETS - 1 - row;
      this.generations[row] = (this.generations[row] + 1) % GENERATIONS || 1;
    }
    for (let chunk = 0; chunk < CHUNKS; chunk++) this.freeChunks[chunk] = CHUNKS - 1 - chunk;
    this.live.fill(0);
    this.freeCount = PACKETS;
    this.freeChunkCount = CHUNKS;
    this.chunk = -1;
  }

  /** Where the caller's extra bytes start. */
  get extraAt(): number {
    return CHUNKS * CHUNK_BYTES;
  }

  /** Packets that are kept. */
  get count(): number {
    return PACKETS - this.freeCount;
  }

  /** Finds room for a read; false when the store is full. */
  prepare(): boolean {
    if (this.freeCount < TABLE_SLOTS) return false;
    if (this.chunk !== -1 && (this.chunk + 1) * CHUNK_BYTES - this.at >= LEAST_ROOM) return true;
    if (this.chunk !== -1 && this.live[this.chunk] === 0) {
      this.at = this.chunk * CHUNK_BYTES;
      return true;
    }
    if (this.freeChunkCount === 0) return false;
    this.chunk = this.freeChunks[--this.freeChunkCount];
    this.at = this.chunk * CHUNK_BYTES;
    return true;
  }

  /** The ring up to the end of the present chunk, and where to read to. */
  get target(): Uint8Array {
    return this.ends[this.chunk];
  }

  get targetAt(): number {
    return this.at;
  }

  /** Keeps a packet of the present chunk; returns its row. */
  add(at: number, length: number, flags: number, bucket: number, nowMs: number): number {
    const row = this.freeRows[--this.freeCount];
    this.offsets[row] = at;
    this.lengths[row] = length;
    this.flags[row] = flags;
    this.buckets[row] = bucket;
    this.readMs[row] = nowMs;
    this.attempts[row] = 0;
    this.missing[row] = Piece.whole;
    this.firstCopies[row] = 0;
    this.secondCopies[row] = 0;
    this.lostOn[row] = 0;
    this.isRepairing[row] = 0;
    this.live[this.chunk]++;
    if (at + length > this.at) this.at = at + length;
    return row;
  }

  /** `pieces` of a packet go out. Their ticket names them beyond the life of the row; it is never 0. */
  sent(row: number, pieces: number): number {
    if ((pieces & Piece.first) !== 0) this.firstCopies[row]++;
    if ((pieces & Piece.second) !== 0) this.secondCopies[row]++;
    return ((((this.generations[row] << 2) | pieces) << ROW_BITS) | row) >>> 0;
  }

  /** What `ticket` names has arrived. True when nothing of its packet is missing any more. */
  arrived(row: number, ticket: number): boolean {
    this.missing[row] &= ~piecesOf(ticket);
    return this.missing[row] === 0;
  }

  /** What `ticket` names is lost. True when something is missing of which no other copy is under way. */
  lost(row: number, ticket: number): boolean {
    const pieces = piecesOf(ticket);
    let left = 0;
    if ((pieces & Piece.first) !== 0 && --this.firstCopies[row] === 0) left |= Piece.first;
    if ((pieces & Piece.second) !== 0 && --this.secondCopies[row] === 0) left |= Piece.second;
    return (left & this.missing[row]) !== 0;
  }

  /** The row of a ticket, −1 when that packet was let go. */
  row(ticket: number): number {
    const row = ticket & (PACKETS - 1);
    return this.generations[row] === ticket >>> (ROW_BITS + 2) ? row : -1;
  }

  release(row: number): void {
    this.generations[row] = (this.generations[row] + 1) % GENERATIONS || 1;
    this.freeRows[this.freeCount++] = row;
    const chunk = Math.floor(this.offsets[row] / CHUNK_BYTES);
    this.live[chunk]--;
    if (this.live[chunk] > 0) return;
    if (chunk === this.chunk) this.at = chunk * CHUNK_BYTES;
    else this.freeChunks[this.freeChunkCount++] = chunk;
  }
}

function piecesOf(ticket: number): number {
  return (ticket >>> ROW_BITS) & Piece.whole;
}
