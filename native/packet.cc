#include "packet.h"

#include <algorithm>

namespace vpn {

namespace {

// IPv6 extension headers that are walked over (RFC 8200 §4.1). Authentication
// and ESP end the walk.
constexpr uint8_t kHopByHop = 0;
constexpr uint8_t kRouting = 43;
constexpr uint8_t kFragment = 44;
constexpr uint8_t kDestination = 60;

// EtherTypes (IEEE 802 numbers): the two tags are those of 802.1Q §9.5.
constexpr uint16_t kVlan = 0x8100;
constexpr uint16_t kServiceVlan = 0x88a8;
constexpr uint16_t kFrameIpv4 = 0x0800;
constexpr uint16_t kFrameIpv6 = 0x86dd;
constexpr size_t kMacBytes = 6;

void WalkExtensions(const uint8_t* packet, IpPacket* ip) {
  uint8_t next = packet[6];
  size_t at = kIpv6Header;
  while (next == kHopByHop || next == kRouting || next == kDestination ||
         next == kFragment) {
    if (next == kFragment) ip->fragment = true;
    if (ip->fragment || ip->total - at < 8) {
      ip->direct = false;
      ip->transport = at;
      return;
    }
    const size_t bytes = 8 + size_t{packet[at + 1]} * 8;
    if (ip->total - at < bytes) {
      ip->direct = false;
      ip->transport = at;
      return;
    }
    next = packet[at];
    at += bytes;
  }
  ip->protocol = next;
  ip->direct = at == kIpv6Header;
  ip->transport = at;
}

uint64_t Rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

// SipHash-1-3 (Aumasson, Bernstein, "SipHash: a fast short-input PRF") over
// whole words; the length need not be mixed in because it follows from the
// first word of every input.
struct SipHash {
  uint64_t v0, v1, v2, v3;

  explicit SipHash(const uint8_t key[kHashKeyBytes]) {
    uint64_t k[2];
    memcpy(k, key, sizeof(k));
    v0 = k[0] ^ 0x736f6d6570736575u;
    v1 = k[1] ^ 0x646f72616e646f6du;
    v2 = k[0] ^ 0x6c7967656e657261u;
    v3 = k[1] ^ 0x7465646279746573u;
  }
  void Round() {
    v0 += v1, v1 = Rotate(v1, 13) ^ v0, v0 = Rotate(v0, 32);
    v2 += v3, v3 = Rotate(v3, 16) ^ v2;
    v0 += v3, v3 = Rotate(v3, 21) ^ v0;
    v2 += v1, v1 = Rotate(v1, 17) ^ v2, v2 = Rotate(v2, 32);
  }
  void Add(uint64_t word) {
    v3 ^= word;
    Round();
    v0 ^= word;
  }
  uint64_t End() {
    v2 ^= 0xff;
    Round(), Round(), Round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

// First words that tell hashes of frames from those of packets, which have a
// version of IP there.
constexpr uint64_t kStations = uint64_t{1} << 40;
constexpr uint64_t kHeader = uint64_t{2} << 40;

uint64_t LoadMac(const uint8_t* p) {
  return uint64_t{Load16(p)} << 32 | Load32(p + 2);
}

// One side of a flow.
struct Side {
  uint64_t words[2] = {0, 0};
  uint64_t port = 0;

  bool operator<(const Side& other) const {
    if (words[0] != other.words[0]) return words[0] < other.words[0];
    if (words[1] != other.words[1]) return words[1] < other.words[1];
    return port < other.port;
  }
};

}  // namespace

bool ParseIp(const uint8_t* packet, size_t size, IpPacket* ip) {
  *ip = IpPacket();
  if (size < kIpv4Header) return false;
  ip->version = packet[0] >> 4;
  if (ip->version == 4) {
    ip->transport = size_t{packet[0] & 0x0fu} * 4;
    ip->total = Load16(packet + 2);
    if (ip->transport < kIpv4Header || ip->total < ip->transport ||
        ip->total > size)
      return false;
    ip->fragment = (Load16(packet + 6) & 0x3fff) != 0;
    ip->protocol = packet[9];
    ip->direct = !ip->fragment;
    return true;
  }
  if (ip->version != 6 || size < kIpv6Header) return false;
  ip->total = kIpv6Header + Load16(packet + 4);
  if (ip->total > size) return false;
  WalkExtensions(packet, ip);
  return true;
}

size_t ParseFrame(const uint8_t* frame, size_t size, IpPacket* ip) {
  size_t header = kEthernetHeader;
  uint16_t type = Load16(frame + header - 2);
  while ((type == kVlan || type == kServiceVlan) && header < kMaxFrameHeader &&
         size - header >= 4) {
    header += 4;
    type = Load16(frame + header - 2);
  }
  const int version = type == kFrameIpv4 ? 4 : type == kFrameIpv6 ? 6 : 0;
  if (version == 0 || !ParseIp(frame + header, size - header, ip) ||
      ip->version != version) {
    *ip = IpPacket();
  }
  return header;
}

size_t TransportHeader(const uint8_t* packet, const IpPacket& ip) {
  if (ip.fragment) return 0;
  const size_t room = ip.total - ip.transport;
  if (ip.protocol == kUdp) return room >= kUdpHeader ? kUdpHeader : 0;
  if (ip.protocol != kTcp || room < kTcpHeader) return 0;
  const size_t bytes = size_t{packet[ip.transport + 12]} / 16 * 4;
  return bytes >= kTcpHeader && bytes <= room ? bytes : 0;
}

uint64_t Sum(const uint8_t* bytes, size_t size, uint64_t start) {
  // Two chains of additions with end-around carry: one would wait for itself.
  uint64_t a = start;
  uint64_t b = 0;
  for (; size >= 16; size -= 16, bytes += 16) {
    uint64_t w[2];
    memcpy(w, bytes, sizeof(w));
    a += w[0];
    a += a < w[0];
    b += w[1];
    b += b < w[1];
  }
  uint64_t tail[2] = {0, 0};
  if (size > 0) memcpy(tail, bytes, size);
  a += tail[0];
  a += a < tail[0];
  b += tail[1];
  b += b < tail[1];
  a += b;
  a += a < b;
  return a;
}

uint16_t Fold(uint64_t sum) {
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 16) + (sum & 0xffff);
  sum = (sum >> 16) + (sum & 0xffff);
  sum = (sum >> 16) + (sum & 0xffff);
  return static_cast<uint16_t>(sum);
}

uint64_t PseudoSum(const uint8_t* packet, const IpPacket& ip,
                   size_t transport_bytes) {
  const uint64_t rest = SumWord(ip.protocol) + SumWord(transport_bytes);
  return ip.version == 4 ? Fold(Sum(packet + 12, 8)) + rest
                         : Fold(Sum(packet + 8, 32)) + rest;
}

bool CompleteChecksum(uint8_t* packet, size_t size, size_t start,
                      size_t offset) {
  if (start > size || offset + 2 > size - start) return false;
  const uint16_t sum =
      static_cast<uint16_t>(~Fold(Sum(packet + start, size - start)));
  // A UDP checksum of zero would say that there is none (RFC 768); to the
  // others both zeros are the same, and linux/net/core/dev.c,
  // skb_checksum_help() does this for all.
  StoreSum(packet + start + offset, sum == 0 ? 0xffff : sum);
  return true;
}

bool ChecksumHolds(const uint8_t* packet, const IpPacket& ip) {
  const size_t bytes = ip.total - ip.transport;
  return Fold(Fold(Sum(packet + ip.transport, bytes)) +
              PseudoSum(packet, ip, bytes)) == 0xffff;
}

void StoreIpv4Checksum(uint8_t* packet) {
  StoreSum(packet + 10, 0);
  const size_t bytes = size_t{packet[0] & 0x0fu} * 4;
  StoreSum(packet + 10, static_cast<uint16_t>(~Fold(Sum(packet, bytes))));
}

bool Ipv4ChecksumHolds(const uint8_t* packet) {
  return Fold(Sum(packet, size_t{packet[0] & 0x0fu} * 4)) == 0xffff;
}

Flow FlowOf(const uint8_t* packet, const IpPacket& ip,
            const uint8_t key[kHashKeyBytes]) {
  Side source;
  Side destination;
  const size_t address = ip.version == 4 ? 4 : 16;
  const uint8_t* addresses = packet + (ip.version == 4 ? 12 : 8);
  memcpy(source.words, addresses, address);
  memcpy(destination.words, addresses + address, address);
  // Fragments but the first have no ports, and all of a packet belong in one
  // bucket.
  uint64_t protocol = ip.fragment ? 0 : ip.protocol;
  if (TransportHeader(packet, ip) != 0) {
    source.port = Load16(packet + ip.transport);
    destination.port = Load16(packet + ip.transport + 2);
  }
  const bool swapped = destination < source;
  if (swapped) std::swap(source, destination);
  SipHash hash(key);
  hash.Add(uint64_t{ip.version} << 40 | protocol << 32 | source.port << 16 |
           destination.port);
  for (const Side* side : {&source, &destination}) {
    hash.Add(side->words[0]);
    if (ip.version == 6) hash.Add(side->words[1]);
  }
  const uint64_t end = hash.End();
  // What the bucket must not depend on comes in behind the keyed part. An odd
  // factor (2^32 / golden ratio) keeps every two variants of a flow apart. All
  // fragments of a packet say its protocol in IPv4 only.
  const uint32_t traffic_class =
      ip.version == 4 ? packet[1] : (Load16(packet) >> 4 & 0xffu);
  const uint32_t fragment =
      !ip.fragment ? 0 : 0x100u | (ip.version == 4 ? packet[9] : 0u);
  const uint32_t variant =
      traffic_class | uint32_t{swapped} << 8 | fragment << 9;
  Flow flow;
  flow.bucket = static_cast<uint8_t>(end);
  flow.hash = static_cast<uint32_t>(end >> 32) + variant * 0x9e3779b1u;
  return flow;
}

Flow FlowOfFrame(const uint8_t* frame, size_t header, const IpPacket& ip,
                 const uint8_t key[kHashKeyBytes]) {
  Flow flow;
  if (ip.version != 0) {
    flow = FlowOf(frame + header, ip, key);
  } else {
    const uint64_t to = LoadMac(frame);
    const uint64_t from = LoadMac(frame + kMacBytes);
    SipHash hash(key);
    hash.Add(kStations | Load16(frame + header - 2));
    hash.Add(std::min(to, from));
    hash.Add(std::max(to, from));
    flow.bucket = static_cast<uint8_t>(hash.End());
  }
  uint64_t words[3] = {0, 0, 0};
  static_assert(sizeof(words) >= kMaxFrameHeader, "");
  memcpy(words, frame, header);
  SipHash hash(key);
  hash.Add(kHeader | header);
  for (const uint64_t word : words) hash.Add(word);
  flow.hash += static_cast<uint32_t>(hash.End());
  return flow;
}

}  // namespace vpn
