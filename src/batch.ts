/**
 * The memory of the data path: one plaintext ring and one send slab outbound, one inbound area, and
 * the tables that say what lies where in them.
 *
 * A packet is a slot: a row number valid in every column of one table. JavaScript allocates all of
 * it once at start and owns it; the addon borrows it for the length of a call and keeps nothing.
 */

/** Rows of a table, and so the most packets one step handles. Measured batches hold 130 to 400. */
export const TABLE_SLOTS = 1024;

/**
 * An endpoint in binary, one per received run, so that no address is ever a string on the data path.
 *
 * | bytes | what |
 * | --- | --- |
 * | 0 | family: 4 or 6, 0 for an empty endpoint |
 * | 1 | zero |
 * | 2–3 | port, big endian |
 * | 4–7 | IPv6 scope id (interface index) of a link-local address, big endian, else zero |
 * | 8–23 | remote address; an IPv4 address in the first four bytes, the rest zero |
 * | 24–39 | our address: the one the datagram was sent to, or is to be sent from; all zero lets the kernel choose |
 */
export const ENDPOINT_BYTES = 40;
/** Of these the first bytes name the peer; the rest is only our side of it. */
export const ENDPOINT_REMOTE_BYTES = 24;

/** What TUN gave, or is to be given. */
export interface PacketTable {
  /** Where each packet starts in the bytes the call names. */
  readonly offsets: Uint32Array;
  /** Bytes of each packet; 0 marks a slot to skip. */
  readonly lengths: Uint16Array;
  /** `PacketFlag`s of each packet. */
  readonly flags: Uint8Array;
  /** Flow bucket of each packet (keyed hash of addresses, protocol and ports; fragments: addresses only). */
  readonly buckets: Uint8Array;
  /**
   * What flow each packet is of, for what is decided per flow (classes.ts): a keyed hash of addresses,
   * direction, protocol, ports and the whole traffic class byte (fragments: without ports, and for IPv6
   * without the protocol). Two flows share one with a chance of 2⁻³², and nobody can make them.
   */
  readonly flows: Uint32Array;
}

/** Bits of `PacketTable.flags`. The numbers are those of the sealed flags (PROTOCOL §5.2). */
export const PacketFlag = {
  /** The TCP or UDP checksum field holds the sum of the pseudo header only (RFC 9293 §3.1, virtio 1.2 §5.1.6.2). */
  partialChecksum: 1,
} as const;

/** What to seal: from the plaintext ring into the send slab. */
export interface SealTable {
  /** Where each plaintext starts in the ring, inner header included. */
  readonly from: Uint32Array;
  /** Bytes of each plaintext. */
  readonly sizes: Uint16Array;
  /** Where each datagram starts in the slab; its outer header is there already. */
  readonly to: Uint32Array;
  /** 12 bytes per slot. */
  readonly nonces: Uint8Array;
}

/** What a link brought in, and which key is to open it. */
export interface DatagramTable {
  /** Where each datagram starts in the inbound area. */
  readonly offsets: Uint32Array;
  /** Bytes of each datagram; `open` sets it to 0 where the tag does not match. */
  readonly lengths: Uint16Array;
  /** Row of each datagram's source in `endpoints`; datagrams of one run share a row. */
  readonly sources: Uint16Array;
  /** `ENDPOINT_BYTES` per row. */
  readonly endpoints: Uint8Array;
  /** AEAD key handle per slot; 0 leaves the slot alone. */
  readonly keys: Uint32Array;
  /** 1: nothing of the slot is encrypted, and all of it authenticated (PROTOCOL §5.6). */
  readonly clear: Uint8Array;
  /** 12 bytes per slot. */
  readonly nonces: Uint8Array;
}

/** Free bytes in front of each packet for the longer inner header, rounded up to keep copies aligned. */
export const PACKET_HEADROOM = 16;

export const NONCE_BYTES = 12;

export function packetTable(slots = TABLE_SLOTS): PacketTable {
  return {
    offsets: new Uint32Array(slots),
    lengths: new Uint16Array(slots),
    flags: new Uint8Array(slots),
    buckets: new Uint8Array(slots),
    flows: new Uint32Array(slots),
  };
}

export function sealTable(slots = TABLE_SLOTS): SealTable {
  return {
    from: new Uint32Array(slots),
    sizes: new Uint16Array(slots),
    to: new Uint32Array(slots),
    nonces: new Uint8Array(slots * NONCE_BYTES),
  };
}

export function datagramTable(slots = TABLE_SLOTS): DatagramTable {
  return {
    offsets: new Uint32Array(slots),
    lengths: new Uint16Array(slots),
    sources: new Uint16Array(slots),
    endpoints: new Uint8Array(slots * ENDPOINT_BYTES),
    keys: new Uint32Array(slots),
    clear: new Uint8Array(slots),
    nonces: new Uint8Array(slots * NONCE_BYTES),
  };
}
