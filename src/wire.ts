/**
 * Every byte offset and message type of PROTOCOL.md. No keys, no state.
 */
import { KEY_BYTES, TAG_BYTES } from './crypto.ts';

/** Types of handshake messages: the whole first byte. */
export const MessageType = { message1: 0x10, message2: 0x20, cookie: 0x30, version: 0x40 } as const;
/** A datagram: type in the high nibble, epoch in the low two bits (§4). */
export const DATAGRAM_TYPE = 0x80;
/** Makes it the type of one whose packet is in the clear (§5.6). */
export const CLEAR_BIT = 0x10;
export const EPOCH_MASK = 0x03;

/* §4: the header of a datagram. */
export const HEADER_BYTES = 9;
const LINK_AT = 1;
const SESSION_AT = 2;
const COUNTER_AT = 5;
/** Link ids are 0 to 254. */
export const LINK_IDS = 255;

/* §5.1: the inner header. */
export const INNER_BYTES = 7;
export const HALF_INNER_BYTES = 9;
const SEQUENCE_AT = 1;
const SEND_TIME_AT = 4;
const FLAGS_AT = 6;
const SPLIT_AT = 7;

/** Shortest datagram: header, inner header, nothing, tag. */
export const MIN_DATAGRAM_BYTES = HEADER_BYTES + INNER_BYTES + TAG_BYTES;
/** What a datagram is longer than its packet, without UDP and IP. */
export const OVERHEAD_BYTES = MIN_DATAGRAM_BYTES;

/** §5.2. */
export const Flag = {
  partialChecksum: 0x01,
  half: 0x02,
  second: 0x04,
  ordered: 0x08,
  realtime: 0x10,
  control: 0x80,
} as const;
const PACKET_FLAGS = Flag.partialChecksum | Flag.half | Flag.second | Flag.ordered | Flag.realtime;
/** Flow buckets: of bulk, and as many again of the realtime class. */
export const BULK_BUCKETS = 256;
export const BUCKETS = 2 * BULK_BUCKETS;
export const SEQUENCE_MODULUS = 2 ** 24;

/** What both ends of a link must know of its configuration; `LinkSettings` has all. */
export interface LinkTerms {
  readonly name: string;
  readonly isBackup: boolean;
  /** Bytes per millisecond; 0: none. */
  readonly maxRate: number;
  readonly weight: number;
}

/** §5.4. */
export const Control = {
  probe: 1,
  probeReply: 2,
  challenge: 3,
  challengeReply: 4,
  rekey: 5,
  goodbye: 6,
  report: 7,
  left: 8,
} as const;
export const PROBE_TOKEN_BYTES = 4;
export const CHALLENGE_BYTES = 8;
/** Id of the link, epoch, low 32 bits of the last counter. */
export const LEFT_BYTES = 6;
/** What a client says of a link with each small probe: flags, share, rate, name. */
const LINK_NAME_BYTES = 15;
export const LINK_SETTINGS_BYTES = 6 + LINK_NAME_BYTES;
const BACKUP_FLAG = 0x01;
const WEIGHT_UNIT = 16;

/** `epochBits`: the number of the epoch, with `CLEAR_BIT` for a packet in the clear. */
export function writeHeader(
  bytes: Uint8Array,
  at: number,
  epochBits: number,
  link: number,
  session: number,
  counter: number,
): void {
  bytes[at] = DATAGRAM_TYPE | epochBits;
  bytes[at + LINK_AT] = link;
  bytes[at + SESSION_AT] = session >>> 16;
  bytes[at + SESSION_AT + 1] = session >>> 8;
  bytes[at + SESSION_AT + 2] = session;
  bytes[at + COUNTER_AT] = counter >>> 24;
  bytes[at + COUNTER_AT + 1] = counter >>> 16;
  bytes[at + COUNTER_AT + 2] = counter >>> 8;
  bytes[at + COUNTER_AT + 3] = counter;
}

export function headerLink(bytes: Uint8Array, at: number): number {
  return bytes[at + LINK_AT];
}

export function headerSession(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at + SESSION_AT] << 16) | (bytes[at + SESSION_AT + 1] << 8) | bytes[at + SESSION_AT + 2]
  );
}

/** The low 32 bits of the counter. */
export function headerCounter(bytes: Uint8Array, at: number): number {
  const i = at + COUNTER_AT;
  return ((bytes[i] << 24) | (bytes[i + 1] << 16) | (bytes[i + 2] << 8) | bytes[i + 3]) >>> 0;
}

/** The nonce of §4: 3 zero bytes, link, 64-bit counter. The zero bytes are never written. */
export function writeNonce(nonces: Uint8Array, at: number, link: number, counter: number): void {
  const high = Math.floor(counter / 2 ** 32);
  nonces[at + 3] = link;
  nonces[at + 4] = 0;
  nonces[at + 5] = high >>> 16;
  nonces[at + 6] = high >>> 8;
  nonces[at + 7] = high;
  nonces[at + 8] = counter >>> 24;
  nonces[at + 9] = counter >>> 16;
  nonces[at + 10] = counter >>> 8;
  nonces[at + 11] = counter;
}

export function writeInner(
  bytes: Uint8Array,
  at: number,
  bucketOrKind: number,
  sequence: number,
  sendTime: number,
  flags: number,
): void {
  bytes[at] = bucketOrKind;
  bytes[at + SEQUENCE_AT] = sequence >>> 16;
  bytes[at + SEQUENCE_AT + 1] = sequence >>> 8;
  bytes[at + SEQUENCE_AT + 2] = sequence;
  bytes[at + SEND_TIME_AT] = sendTime >>> 8;
  bytes[at + SEND_TIME_AT + 1] = sendTime;
  bytes[at + FLAGS_AT] = flags;
}

export function writeSplit(bytes: Uint8Array, at: number, split: number): void {
  bytes[at + SPLIT_AT] = split >>> 8;
  bytes[at + SPLIT_AT + 1] = split;
}

/** The settings of a link that concern both ends; longer names are cut. */
export function writeLinkSettings(bytes: Uint8Array, at: number, settings: LinkTerms): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  bytes[at] = settings.isBackup ? BACKUP_FLAG : 0;
  bytes[at + 1] = Math.max(1, Math.min(255, Math.round(settings.weight * WEIGHT_UNIT)));
  view.setUint32(at + 2, Math.min(2 ** 32 - 1, Math.round(settings.maxRate)));
  const nameAt = at + LINK_SETTINGS_BYTES - LINK_NAME_BYTES;
  bytes.fill(0, nameAt, nameAt + LINK_NAME_BYTES);
  for (let i = 0; i < Math.min(LINK_NAME_BYTES, settings.name.length); i++) {
    bytes[nameAt + i] = settings.name.charCodeAt(i) & 0x7f;
  }
}

/** Whatever stands there: every value has a meaning. A name is of printable ASCII. */
export function readLinkSettings(bytes: Uint8Array): LinkTerms {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let name = '';
  for (let i = LINK_SETTINGS_BYTES - LINK_NAME_BYTES; i < LINK_SETTINGS_BYTES; i++) {
    if (bytes[i] < 0x21 || bytes[i] > 0x7e) break;
    name += String.fromCharCode(bytes[i]);
  }
  return {
    name,
    isBackup: (bytes[0] & BACKUP_FLAG) !== 0,
    weight: Math.max(1, bytes[1]) / WEIGHT_UNIT,
    maxRate: view.getUint32(2),
  };
}

export function innerSequence(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at + SEQUENCE_AT] << 16) |
    (bytes[at + SEQUENCE_AT + 1] << 8) |
    bytes[at + SEQUENCE_AT + 2]
  );
}

export function innerSendTime(bytes: Uint8Array, at: number): number {
  return (bytes[at + SEND_TIME_AT] << 8) | bytes[at + SEND_TIME_AT + 1];
}

export function innerFlags(bytes: Uint8Array, at: number): number {
  return bytes[at + FLAGS_AT];
}

export function innerSplit(bytes: Uint8Array, at: number): number {
  return (bytes[at + SPLIT_AT] << 8) | bytes[at + SPLIT_AT + 1];
}

/** Whether flags make sense together and nothing unknown is among them (§5.2). */
export function areFlagsValid(flags: number): boolean {
  if ((flags & Flag.control) !== 0) return (flags & ~(Flag.control | Flag.ordered)) === 0;
  if ((flags & ~PACKET_FLAGS) !== 0) return false;
  return (flags & Flag.second) === 0 || (flags & Flag.half) !== 0;
}

/* §3: handshake messages. */

export const MAC_BYTES = 16;
export const INSTANCE_BYTES = 8;
/** Where Noise's part of messages 1 and 2 starts. */
export const NOISE_AT = 4;
export const PAYLOAD1_BYTES = 64;
export const PAYLOAD2_BYTES = 32;
const NOISE1_BYTES = KEY_BYTES + PAYLOAD1_BYTES + TAG_BYTES;
const NOISE2_BYTES = KEY_BYTES + PAYLOAD2_BYTES + TAG_BYTES;
export const MESSAGE1_BYTES = NOISE_AT + NOISE1_BYTES + 2 * MAC_BYTES;
export const MESSAGE2_BYTES = NOISE_AT + NOISE2_BYTES + MAC_BYTES;
export const MESSAGE1_MAC1_AT = MESSAGE1_BYTES - 2 * MAC_BYTES;
export const MESSAGE1_MAC2_AT = MESSAGE1_BYTES - MAC_BYTES;
export const MESSAGE2_MAC1_AT = MESSAGE2_BYTES - MAC_BYTES;
export const VERSION_AT = 1;
export const COOKIE_BYTES = 16;
export const COOKIE_NONCE_AT = 4;
export const COOKIE_NONCE_BYTES = 24;
export const COOKIE_SEALED_AT = COOKIE_NONCE_AT + COOKIE_NONCE_BYTES;
export const COOKIE_MESSAGE_BYTES = COOKIE_SEALED_AT + COOKIE_BYTES + TAG_BYTES;
export const VERSION_ECHO_AT = 4;
export const VERSION_MAC_AT = VERSION_ECHO_AT + MAC_BYTES;
export const VERSION_MESSAGE_BYTES = VERSION_MAC_AT + MAC_BYTES;

/** Payload of message 1 (§3.1). */
export interface Payload1 {
  readonly instance: Uint8Array;
  /** Session id that datagrams to the client carry. */
  readonly session: number;
  /** Bit n − 1 for cipher n. */
  readonly ciphers: number;
  /** Inner IPv4 addresses, 4 bytes each. */
  readonly serverIp: Uint8Array;
  readonly clientIp: Uint8Array;
  /** `Mode` bits. */
  readonly modes: number;
}

/** How data packets travel (§3.1): both ends must have been told the same. */
export const Mode = { cleartext: 0x01, ethernet: 0x02 } as const;

/** Payload of message 2 (§3.2). */
export interface Payload2 {
  readonly instance: Uint8Array;
  /** Session id that datagrams to the server carry. */
  readonly session: number;
  readonly verdict: number;
  readonly cipher: number;
  readonly epoch: number;
  readonly ipv6: boolean;
}

export const VerdictCode = {
  accepted: 0,
  busy: 1,
  noCommonCipher: 2,
  addressesDiffer: 3,
  modesDiffer: 4,
} as const;

function writeSession(bytes: Uint8Array, at: number, session: number): void {
  bytes[at] = session >>> 16;
  bytes[at + 1] = session >>> 8;
  bytes[at + 2] = session;
}

function readSession(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2];
}

/** The part of message `bytes` that is Noise's: e and the sealed payload. */
export function noisePart(bytes: Uint8Array): Uint8Array {
  const size = bytes.length === MESSAGE1_BYTES ? NOISE1_BYTES : NOISE2_BYTES;
  return bytes.subarray(NOISE_AT, NOISE_AT + size);
}

export function encodePayload1(payload: Payload1): Uint8Array {
  const bytes = new Uint8Array(PAYLOAD1_BYTES);
  bytes.set(payload.instance);
  writeSession(bytes, 8, payload.session);
  bytes[11] = payload.ciphers;
  bytes.set(payload.serverIp, 12);
  bytes.set(payload.clientIp, 16);
  bytes[20] = payload.modes;
  return bytes;
}

export function decodePayload1(bytes: Uint8Array): Payload1 {
  return {
    instance: bytes.slice(0, INSTANCE_BYTES),
    session: readSession(bytes, 8),
    ciphers: bytes[11],
    serverIp: bytes.slice(12, 16),
    clientIp: bytes.slice(16, 20),
    modes: bytes[20],
  };
}

export function encodePayload2(payload: Payload2): Uint8Array {
  const bytes = new Uint8Array(PAYLOAD2_BYTES);
  bytes.set(payload.instance);
  writeSession(bytes, 8, payload.session);
  bytes[11] = payload.verdict;
  bytes[12] = payload.cipher;
  bytes[13] = payload.epoch;
  bytes[14] = payload.ipv6 ? 1 : 0;
  return bytes;
}

export function decodePayload2(bytes: Uint8Array): Payload2 {
  return {
    instance: bytes.slice(0, INSTANCE_BYTES),
    session: readSession(bytes, 8),
    verdict: bytes[11],
    cipher: bytes[12],
    epoch: bytes[13],
    ipv6: (bytes[14] & 1) !== 0,
  };
}

/** Byte 1 to 3 of message 2: whom it is for. */
export function writeMessage2Session(bytes: Uint8Array, session: number): void {
  writeSession(bytes, 1, session);
}

export function message2Session(bytes: Uint8Array): number {
  return readSession(bytes, 1);
}
