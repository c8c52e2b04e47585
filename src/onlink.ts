/** The network that both ends of a tap are in: on an Ethernet an address has a prefix length. */
import { parseIp } from './address.ts';
import { Failure } from './report.ts';

/** Of addresses that vpn chooses itself (PROTOCOL §2). */
const DERIVED_IPV6_BITS = 64;
/** A network as wide as this was not meant by two addresses. */
const LEAST_IPV4_BITS = 16;

/**
 * `local` with the prefix length of its network: that of `given` (address/length, '' for none) where it holds
 * `peer`, else of the smallest that holds both and gives neither its first or last address; for IPv6 64. ''
 * without addresses. Throws a `Failure` where they have nothing to do with each other.
 */
export function onLink(local: string, peer: string, given: string): string {
  const [own, other] = [parseIp(local), parseIp(peer)];
  if (own === undefined || other === undefined) return '';
  const bits = Number(given.split('/')[1] ?? own.length * 8);
  const common = commonBits(own, other);
  if (bits <= common) return `${local}/${bits}`;
  const fitting = own.length === 16 ? DERIVED_IPV6_BITS : smallest(own, other, common);
  const isNetwork = own.length === 16 ? fitting <= common : fitting >= LEAST_IPV4_BITS;
  if (isNetwork) return `${local}/${fitting}`;
  throw new Failure(
    `tunnel addresses "${local}" and "${peer}"`,
    'in no network together, as a tap needs',
    'give both ends addresses of one network',
  );
}

/** Leading bits that both have. */
function commonBits(a: Uint8Array, b: Uint8Array): number {
  let bits = 0;
  for (let i = 0; i < a.length; i++) {
    const differing = a[i] ^ b[i];
    if (differing !== 0) return bits + Math.clz32(differing) - 24;
    bits += 8;
  }
  return bits;
}

/** Of two hosts alone a network needs no other addresses (RFC 3021). */
function smallest(a: Uint8Array, b: Uint8Array, common: number): number {
  if (common === 31) return common;
  let bits = Math.min(common, 30);
  while (bits > 0 && (isEdge(a, bits) || isEdge(b, bits))) bits--;
  return bits;
}

/** Whether it is the first or last address of its IPv4 network. */
function isEdge(address: Uint8Array, bits: number): boolean {
  const number = new DataView(address.buffer, address.byteOffset).getUint32(0);
  const hostMask = 2 ** (32 - bits) - 1;
  const host = (number & hostMask) >>> 0;
  return host === 0 || host === hostMask;
}
