/**
 * Reports (PROTOCOL §5.5): what an end has received over each link, as bytes. Encodes and decodes; what
 * to make of it is known elsewhere (reception.ts at the one end, flight.ts and capacity.ts at the other).
 */
import { EPOCH_MASK } from './wire.ts';

/** A section before its ranges. */
const SECTION_BYTES = 28;
/** Ranges of one section at most: bounds what a report costs either end. */
export const MOST_RANGES = 255;
/** Largest body of a report: fits every path together with headers and tag. */
export const REPORT_BYTES = 1_100;

/** One link's part. Times in 250 µs, modulo their field. */
export interface Section {
  link: number;
  epoch: number;
  /** Low 32 bits of the highest counter received. */
  highest: number;
  /** From the arrival of that datagram to the report. */
  age: number;
  /** When the last datagram arrived, by the receiver's clock (32 bits). */
  arrival: number;
  /** All that were received over this link in this session (modulo 2^32), with outer headers. */
  packets: number;
  bytes: number;
  /** Arrival less send time (16 bits, no common zero): the least, and the mean, since the last report. */
  leastDelay: number;
  meanDelay: number;
  /** How long one datagram of this link was overtaken by later ones, at most. */
  reordering: number;
  /** Runs from the highest counter downwards: received, missing, received, … */
  readonly runs: Uint16Array;
  runCount: number;
}

export function section(): Section {
  return {
    link: 0,
    epoch: 0,
    highest: 0,
    age: 0,
    arrival: 0,
    packets: 0,
    bytes: 0,
    leastDelay: 0,
    meanDelay: 0,
    reordering: 0,
    runs: new Uint16Array(2 * MOST_RANGES + 1),
    runCount: 0,
  };
}

/** Appends `from` to `body` at `at`; returns where it ends, or `at` when there is no room for it. */
export function encodeSection(body: Uint8Array, at: number, from: Section): number {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  if (at + SECTION_BYTES + 2 * from.runCount > body.length) return at;
  body[at] = from.link;
  body[at + 1] = from.epoch;
  view.setUint32(at + 2, from.highest);
  view.setUint16(at + 6, from.age);
  view.setUint32(at + 8, from.arrival);
  view.setUint32(at + 12, from.packets);
  view.setUint32(at + 16, from.bytes);
  view.setUint16(at + 20, from.leastDelay);
  view.setUint16(at + 22, from.meanDelay);
  view.setUint16(at + 24, from.reordering);
  view.setUint16(at + 26, from.runCount);
  let end = at + SECTION_BYTES;
  for (let i = 0; i < from.runCount; i++) {
    view.setUint16(end, from.runs[i]);
    end += 2;
  }
  return end;
}

/** Reads the section at `at` into `to`; returns where it ends, −1 if there is none or it makes no sense. */
export function decodeSection(body: Uint8Array, at: number, to: Section): number {
  if (at + SECTION_BYTES > body.length) return -1;
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  to.link = body[at];
  to.epoch = body[at + 1] & EPOCH_MASK;
  to.highest = view.getUint32(at + 2);
  to.age = view.getUint16(at + 6);
  to.arrival = view.getUint32(at + 8);
  to.packets = view.getUint32(at + 12);
  to.bytes = view.getUint32(at + 16);
  to.leastDelay = view.getUint16(at + 20);
  to.meanDelay = view.getUint16(at + 22);
  to.reordering = view.getUint16(at + 24);
  to.runCount = view.getUint16(at + 26);
  const end = at + SECTION_BYTES + 2 * to.runCount;
  if (to.runCount > to.runs.length || end > body.length) return -1;
  for (let i = 0; i < to.runCount; i++) {
    to.runs[i] = view.getUint16(at + SECTION_BYTES + 2 * i);
  }
  return end;
}

/** a − b of 16-bit times, between −32768 and 32767. */
export function difference16(a: number, b: number): number {
  return ((a - b) << 16) >> 16;
}
