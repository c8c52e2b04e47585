// Ethernet, IP, TCP and UDP headers: where they lie, their checksums, and the
// flow they belong to.
//
// Pure functions over bytes that anybody may have written: nothing here trusts
// a length field. Sums are ones' complement sums of 16-bit words in memory
// order (RFC 1071 §2, byte order independence), so they are stored as they are
// and lengths are added in network order.

#ifndef VPN_NATIVE_PACKET_H_
#define VPN_NATIVE_PACKET_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vpn {

constexpr uint8_t kTcp = 6;
constexpr uint8_t kUdp = 17;
constexpr size_t kIpv4Header = 20;
constexpr size_t kIpv6Header = 40;
constexpr size_t kTcpHeader = 20;
constexpr size_t kMaxTcpHeader = 60;
constexpr size_t kUdpHeader = 8;
constexpr size_t kTcpChecksum = 16;
constexpr size_t kUdpChecksum = 6;
constexpr size_t kHashKeyBytes = 16;
// IEEE 802.3 §3.1.1 without the FCS, and with two tags of 802.1Q §9.
constexpr size_t kEthernetHeader = 14;
constexpr size_t kMaxFrameHeader = kEthernetHeader + 2 * 4;

inline uint16_t Load16(const uint8_t* p) {
  return static_cast<uint16_t>(p[0] << 8 | p[1]);
}
inline uint32_t Load32(const uint8_t* p) {
  return static_cast<uint32_t>(Load16(p)) << 16 | Load16(p + 2);
}
inline void Store16(uint8_t* p, size_t value) {
  p[0] = static_cast<uint8_t>(value >> 8);
  p[1] = static_cast<uint8_t>(value);
}
inline void Store32(uint8_t* p, uint32_t value) {
  Store16(p, value >> 16);
  Store16(p + 2, value & 0xffff);
}

struct IpPacket {
  uint8_t version = 0;
  // Of what lies behind all headers of IP; 0 where that cannot be told.
  uint8_t protocol = 0;
  // Whether it lies directly behind the fixed IP header (IPv4 options
  // included), so that a peer finds it by the IP header alone.
  bool direct = false;
  bool fragment = false;
  // Offset of what lies behind all headers of IP.
  size_t transport = 0;
  // Length by the IP header; at most the bytes there are.
  size_t total = 0;
};

// False when this is no IPv4 or IPv6 packet, or not all of it is there.
bool ParseIp(const uint8_t* packet, size_t size, IpPacket* ip);

// Bytes in front of what an Ethernet frame of `size` carries: its header with
// at most two VLAN tags; `size` is at least kEthernetHeader. Where that is a
// whole IP packet, `ip` is about it, else `ip->version` is 0.
size_t ParseFrame(const uint8_t* frame, size_t size, IpPacket* ip);

// Bytes of the TCP or UDP header with its options, or 0 when it is not there
// whole or `ip` is a fragment or something else.
size_t TransportHeader(const uint8_t* packet, const IpPacket& ip);

// Offset of the checksum in a TCP or UDP header.
inline size_t ChecksumOffset(uint8_t protocol) {
  return protocol == kTcp ? kTcpChecksum : kUdpChecksum;
}

uint64_t Sum(const uint8_t* bytes, size_t size, uint64_t start = 0);
uint16_t Fold(uint64_t sum);
inline uint64_t SumWord(size_t value) {
  uint8_t bytes[2];
  Store16(bytes, value);
  uint16_t word;
  memcpy(&word, bytes, sizeof(word));
  return word;
}
inline uint16_t LoadSum(const uint8_t* p) {
  uint16_t sum;
  memcpy(&sum, p, sizeof(sum));
  return sum;
}
inline void StoreSum(uint8_t* p, uint16_t sum) { memcpy(p, &sum, sizeof(sum)); }

// Sum of the pseudo header: RFC 9293 §3.1, RFC 8200 §8.1.
uint64_t PseudoSum(const uint8_t* packet, const IpPacket& ip,
                   size_t transport_bytes);

// Turns the partial sum at `start + offset` into the checksum of everything
// from `start` on. False when it does not lie in the packet.
bool CompleteChecksum(uint8_t* packet, size_t size, size_t start,
                      size_t offset);

// Whether the checksum of a TCP or UDP header that is there whole is right.
bool ChecksumHolds(const uint8_t* packet, const IpPacket& ip);

void StoreIpv4Checksum(uint8_t* packet);
bool Ipv4ChecksumHolds(const uint8_t* packet);

// What is told about the flow of a packet. Both are keyed, so that nobody can
// choose them.
struct Flow {
  // Which of 256 buckets it is in: the same for both directions, and whatever
  // the traffic class, since that (ECN at least) differs within a flow.
  uint8_t bucket = 0;
  // Of what a class is chosen by: also differs by direction, traffic class,
  // and whether it is of fragments, whose ports do not count.
  uint32_t hash = 0;
};
Flow FlowOf(const uint8_t* packet, const IpPacket& ip,
            const uint8_t key[kHashKeyBytes]);

// The same for a frame of which ParseFrame has said `header` and `ip`. An IP
// packet has the bucket that it has without its frame; other frames of two
// stations share one for each EtherType. The hash also differs by the header.
Flow FlowOfFrame(const uint8_t* frame, size_t header, const IpPacket& ip,
                 const uint8_t key[kHashKeyBytes]);

}  // namespace vpn

#endif  // VPN_NATIVE_PACKET_H_
