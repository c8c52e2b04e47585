/**
 * What is checked on a packet before it is given to the host: version, length, and where it claims to
 * come from. Reads header bytes only.
 */

/** A network that packets may come from: `address` is 4 or 16 bytes, `bits` its prefix length. */
export interface Network {
  readonly address: Uint8Array;
  readonly bits: number;
}

const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
const IPV4_SOURCE_AT = 12;
const IPV6_SOURCE_AT = 8;

/** 4 or 6 if the `length` bytes at `at` are one whole packet (RFC 791 §3.1, RFC 8200 §3), else 0. */
export function packetVersion(bytes: Uint8Array, at: number, length: number): number {
  if (length < IPV4_HEADER_BYTES) return 0;
  const version = bytes[at] >>> 4;
  if (version === 4) {
    const headerBytes = (bytes[at] & 0x0f) * 4;
    const total = (bytes[at + 2] << 8) | bytes[at + 3];
    return headerBytes >= IPV4_HEADER_BYTES && headerBytes <= length && total === length ? 4 : 0;
  }
  if (version !== 6 || length < IPV6_HEADER_BYTES) return 0;
  const payload = (bytes[at + 4] << 8) | bytes[at + 5];
  return payload + IPV6_HEADER_BYTES === length ? 6 : 0;
}

/** Whether the packet at `at`, of `version`, comes from one of `networks`. */
export function isSourceAllowed(
  bytes: Uint8Array,
  at: number,
  version: number,
  networks: readonly Network[],
): boolean {
  const sourceAt = at + (version === 4 ? IPV4_SOURCE_AT : IPV6_SOURCE_AT);
  const size = version === 4 ? 4 : 16;
  for (let i = 0; i < networks.length; i++) {
    if (networks[i].address.length === size && isWithin(bytes, sourceAt, networks[i])) return true;
  }
  return false;
}

function isWithin(bytes: Uint8Array, at: number, network: Network): boolean {
  const { address, bits } = network;
  const whole = bits >>> 3;
  for (let i = 0; i < whole; i++) {
    if (bytes[at + i] !== address[i]) return false;
  }
  const rest = bits & 7;
  return rest === 0 || (bytes[at + whole] ^ address[whole]) >>> (8 - rest) === 0;
}
