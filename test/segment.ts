/**
 * Segments of the TCP model, and as packets: IPv4 with a TCP header's length and a layout of their own
 * behind it. Sequences count segments, not bytes; nothing wraps.
 */

/**
 * PAWS (RFC 7323 §5), in the milliseconds that Linux counts: one whose sender's clock is behind the
 * latest that was accepted is dropped. Where packets overtake each other, that is most acknowledgements.
 */
export function isOutdated(stampMs: number, latestMs: number): boolean {
  return Math.floor(latestMs) - Math.floor(stampMs) > 1;
}

/** From one sequence up to, and without, another. */
export type Range = readonly [from: number, to: number];

export interface Segment {
  readonly isAck: false;
  readonly sequence: number;
  /** When it was sent, by the sender's clock. */
  readonly stampMs: number;
}

export interface Ack {
  readonly isAck: true;
  /** All before this has arrived. */
  readonly next: number;
  /** When it was sent, by the receiver's clock. */
  readonly stampMs: number;
  /** The `stampMs` of the segment that is acknowledged (RFC 7323 §4.3). */
  readonly echoMs: number;
  /** What else has arrived, the latest first (RFC 2018). */
  readonly selective: readonly Range[];
  /** What arrived a second time (RFC 2883). */
  readonly duplicate: Range | undefined;
}

export interface Flow {
  readonly source: readonly number[];
  readonly target: readonly number[];
  /** The last byte of each packet: the simulated tun device takes it for the bucket. */
  readonly bucket: number;
}

/** Ranges of one acknowledgement, the duplicate included: what fits beside a timestamp (RFC 2018 §3). */
export const MOST_RANGES = 3;
/** IPv4 and TCP with the timestamp option. */
const HEADER_BYTES = 52;
const IPV4_BYTES = 20;
const PROTOCOL_TCP = 6;

/** On the wire: as long as TCP's would be. `mtu` is that of the interface. */
export function segmentBytes(segment: Segment | Ack, mtu: number): number {
  if (!segment.isAck) return mtu;
  const ranges = segment.selective.length + (segment.duplicate === undefined ? 0 : 1);
  return HEADER_BYTES + (ranges === 0 ? 0 : 4 + 8 * ranges);
}

/** `packet`: zeros, as many as `segmentBytes` says. */
export function encode(
  segment: Segment | Ack,
  flow: Flow,
  mtu: number,
  packet: Uint8Array = new Uint8Array(segmentBytes(segment, mtu)),
): Uint8Array {
  const view = new DataView(packet.buffer, packet.byteOffset);
  packet[0] = 0x45;
  view.setUint16(2, packet.length);
  packet[9] = PROTOCOL_TCP;
  // `set` with an array that is not typed would take most of the time of a long simulation.
  for (let i = 0; i < 4; i++) {
    packet[12 + i] = flow.source[i]!;
    packet[16 + i] = flow.target[i]!;
  }
  packet[packet.length - 1] = flow.bucket;
  let at = IPV4_BYTES;
  const put = (number: number): void => {
    view.setUint32(at, number);
    at += 4;
  };
  put(Number(segment.isAck));
  put(segment.isAck ? segment.next : segment.sequence);
  view.setFloat64(at, segment.stampMs);
  at += 8;
  if (!segment.isAck) return packet;
  view.setFloat64(at, segment.echoMs);
  at += 8;
  const ranges = [...segment.selective, ...(segment.duplicate ? [segment.duplicate] : [])];
  // Two numbers of four bits: how many ranges, and how many of them are duplicates.
  packet[at++] = (ranges.length << 4) | (segment.duplicate === undefined ? 0 : 1);
  for (const [from, to] of ranges) {
    put(from);
    put(to);
  }
  return packet;
}

export function decode(packet: Uint8Array): Segment | Ack {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const isAck = view.getUint32(IPV4_BYTES) === 1;
  const number = view.getUint32(IPV4_BYTES + 4);
  const stampMs = view.getFloat64(IPV4_BYTES + 8);
  if (!isAck) return { isAck, sequence: number, stampMs };
  const echoMs = view.getFloat64(IPV4_BYTES + 16);
  let at = IPV4_BYTES + 24;
  const count = packet[at]! >> 4;
  const hasDuplicate = (packet[at]! & 15) === 1;
  at++;
  const ranges: Range[] = [];
  for (let i = 0; i < count; i++, at += 8)
    ranges.push([view.getUint32(at), view.getUint32(at + 4)]);
  const duplicate = hasDuplicate ? ranges.pop() : undefined;
  return { isAck, next: number, stampMs, echoMs, selective: ranges, duplicate };
}
