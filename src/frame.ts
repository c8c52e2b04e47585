/**
 * Where the packet lies in an Ethernet frame (PROTOCOL §5.7), as in native/packet.cc. Reads header bytes
 * only.
 */

/** IEEE 802.3 §3.1.1, without the FCS; and a tag of 802.1Q §9. */
export const ETHERNET_HEADER_BYTES = 14;
export const VLAN_TAG_BYTES = 4;
const MOST_TAGS = 2;
/** The longest header that a packet is looked for behind. */
export const MOST_FRAME_HEADER_BYTES = ETHERNET_HEADER_BYTES + MOST_TAGS * VLAN_TAG_BYTES;
/**
 * Of a frame beside its packet, so that it fits: a tag is not counted in the MTU of an Ethernet device
 * (linux/net/core/dev.c, is_skb_forwardable).
 */
export const FRAME_BYTES = ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;

const VLAN = 0x8100;
const SERVICE_VLAN = 0x88a8;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;

/**
 * Bytes in front of the IP packet of the frame of `length` bytes at `at`, behind at most two VLAN tags; −1
 * where it has none, or not all of one.
 */
export function packetOffset(bytes: Uint8Array, at: number, length: number): number {
  if (length < ETHERNET_HEADER_BYTES) return -1;
  let offset = ETHERNET_HEADER_BYTES;
  let type = half(bytes, at + offset - 2);
  while (
    (type === VLAN || type === SERVICE_VLAN) &&
    offset < MOST_FRAME_HEADER_BYTES &&
    length - offset >= VLAN_TAG_BYTES
  ) {
    offset += VLAN_TAG_BYTES;
    type = half(bytes, at + offset - 2);
  }
  const room = length - offset;
  const packetAt = at + offset;
  const version = bytes[packetAt] >>> 4;
  if (type === IPV4 && version === 4 && room >= IPV4_HEADER_BYTES) {
    const headerBytes = (bytes[packetAt] & 0x0f) * 4;
    const total = half(bytes, packetAt + 2);
    return headerBytes >= IPV4_HEADER_BYTES && headerBytes <= total && total <= room ? offset : -1;
  }
  if (type !== IPV6 || version !== 6 || room < IPV6_HEADER_BYTES) return -1;
  return half(bytes, packetAt + 4) + IPV6_HEADER_BYTES <= room ? offset : -1;
}

function half(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}
