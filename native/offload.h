// Cutting a TCP or UDP run into its packets, and putting consecutive packets
// together to a run.
//
// Pure: bytes in, bytes out, no system calls. The shape of a run is that of
// Linux's GSO, in terms of this file rather than of virtio, so that the files
// of each system translate.

#ifndef VPN_NATIVE_OFFLOAD_H_
#define VPN_NATIVE_OFFLOAD_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "packet.h"

namespace vpn {

// Longest packet or run: the IP length fields have 16 bits.
constexpr size_t kMaxPacket = 65535;
constexpr size_t kMaxFrame = kMaxFrameHeader + kMaxPacket;

// What the system said of a packet or frame, or is to be told. Offsets count
// from where that begins.
struct Offload {
  enum class Run : uint8_t { kNone, kTcp, kUdp };
  Run run = Run::kNone;
  // The checksum at start + offset holds a partial sum.
  bool partial = false;
  uint16_t start = 0;
  uint16_t offset = 0;
  // Bytes of payload of each packet of a run but the last.
  uint16_t payload = 0;
  // Bytes of all headers and the version of IP, told to the system only.
  uint16_t header = 0;
  uint8_t version = 0;
};

// Gives out one packet from the system, in as many pieces as it must be cut
// into.
class Cutter {
 public:
  // Borrows `packet` until done(), and may change its headers. False when it
  // must be dropped; then done() is true.
  bool Begin(uint8_t* packet, size_t size, const Offload& offload,
             const uint8_t* hash_key);
  // The same for an Ethernet frame.
  bool BeginFrame(uint8_t* frame, size_t size, const Offload& offload,
                  const uint8_t* hash_key);

  bool done() const { return at_ >= size_; }
  // Bytes of the piece that Next writes.
  size_t next_size() const;
  void Next(uint8_t* out);

  // Of all pieces.
  bool partial() const { return partial_; }
  const Flow& flow() const { return flow_; }

 private:
  void Reset();
  bool BeginAny(const Offload& offload);
  bool BeginRun(const Offload& offload, size_t header);
  bool BeginPacket(const Offload& offload);

  // The IP packet, or a frame with none.
  uint8_t* packet_ = nullptr;
  // Bytes of its frame in front of it, which each piece has too.
  size_t prefix_ = 0;
  IpPacket ip_;
  size_t size_ = 0;
  // Copied to the front of each piece; 0 when there is only one piece.
  size_t header_ = 0;
  size_t payload_ = 0;
  size_t at_ = 0;
  uint16_t index_ = 0;
  bool partial_ = false;
  Flow flow_;
  // Partial sum of the pseudo header without the length.
  uint64_t pseudo_ = 0;
};

// One packet of a run to be written.
struct Piece {
  // The IP packet, or a frame with none; `prefix` bytes of its frame are in
  // front of it.
  uint8_t* packet = nullptr;
  size_t size = 0;
  size_t prefix = 0;
  bool partial = false;
  IpPacket ip;
  // Bytes of IP and TCP or UDP headers where they are there whole, and nothing
  // is behind the IP packet; else 0.
  size_t header = 0;

  // False when it must be dropped: no IP packet, or a partial checksum without
  // its header.
  bool Set(uint8_t* bytes, size_t length, bool partial_checksum);
  // The same for an Ethernet frame, which need not carry an IP packet.
  bool SetFrame(uint8_t* bytes, size_t length, bool partial_checksum);
  // All of it, frame included.
  iovec whole() const { return {packet - prefix, prefix + size}; }
  size_t payload() const { return size - header; }
  Offload Alone() const;
};

// Collects packets that go out as one run.
class Joiner {
 public:
  // linux/include/linux/udp.h: UDP_MAX_SEGMENTS was 64 before 6.9, and more is
  // refused. TCP has no such limit; a run of usual packets is full with 47.
  static constexpr size_t kMostPieces = 64;

  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  const Piece& piece(size_t index) const { return pieces_[index]; }

  // Starts with one packet, which may turn out to be the only one.
  void Start(const Piece& piece, bool udp_runs);
  // Whether the packet is now part of the run; if not, the run must be written
  // first.
  bool Add(const Piece& piece);
  void Clear() { count_ = 0; }

  // The run in at most kMostParts parts, which point into the packets and into
  // this object.
  static constexpr size_t kMostParts = kMostPieces + 1;
  size_t Parts(iovec* parts, Offload* offload);

 private:
  bool CanStart(bool udp_runs) const;
  bool Follows(const Piece& piece) const;
  bool SameHeaders(const uint8_t* a, const uint8_t* b) const;

  Piece pieces_[kMostPieces];
  size_t count_ = 0;
  // Bytes of the run as one packet.
  size_t bytes_ = 0;
  bool ended_ = false;
  // The checksum of a first packet that came whole is looked at only when a
  // second fits.
  bool proved_ = false;
  uint8_t header_[kMaxFrameHeader + kIpv6Header + kMaxTcpHeader] = {};
};

}  // namespace vpn

#endif  // VPN_NATIVE_OFFLOAD_H_
