#include "offload.h"

#include <algorithm>

namespace vpn {

namespace {

// TCP flags, in byte 13 of its header (RFC 9293 §3.1, RFC 3168 §6.1).
constexpr uint8_t kFin = 0x01;
constexpr uint8_t kPsh = 0x08;
constexpr uint8_t kAck = 0x10;
constexpr uint8_t kEce = 0x40;
constexpr uint8_t kCwr = 0x80;
constexpr size_t kTcpFlags = 13;

bool DontFragment(const uint8_t* ipv4) { return (ipv4[6] & 0x40) != 0; }

}  // namespace

// Cutter

void Cutter::Reset() {
  prefix_ = 0;
  size_ = 0;
  at_ = 0;
  index_ = 0;
  header_ = 0;
  partial_ = false;
}

bool Cutter::Begin(uint8_t* packet, size_t size, const Offload& offload,
                   const uint8_t* hash_key) {
  Reset();
  packet_ = packet;
  if (size > kMaxPacket || !ParseIp(packet, size, &ip_)) return false;
  // What lies behind the end of the IP packet is padding of whoever injected
  // it.
  size_ = ip_.total;
  if (!BeginAny(offload)) return false;
  flow_ = FlowOf(packet, ip_, hash_key);
  return true;
}

bool Cutter::BeginFrame(uint8_t* frame, size_t size, const Offload& offload,
                        const uint8_t* hash_key) {
  Reset();
  const bool is_run = offload.run != Offload::Run::kNone;
  // PacketTable.lengths has 16 bits.
  if (size < kEthernetHeader || size > (is_run ? kMaxFrame : kMaxPacket))
    return false;
  const size_t header = ParseFrame(frame, size, &ip_);
  Offload inner = offload;
  if (ip_.version != 0) {
    if (offload.partial && offload.start < header) return false;
    prefix_ = header;
    inner.start = static_cast<uint16_t>(offload.start - header);
  }
  packet_ = frame + prefix_;
  // Of a frame the padding is part; a run has none.
  size_ = is_run ? ip_.total : size - prefix_;
  if (!BeginAny(inner)) return false;
  flow_ = FlowOfFrame(frame, header, ip_, hash_key);
  return true;
}

bool Cutter::BeginAny(const Offload& offload) {
  const size_t transport = TransportHeader(packet_, ip_);
  const bool good =
      offload.run == Offload::Run::kNone
          ? BeginPacket(offload)
          : BeginRun(offload, transport == 0 ? 0 : ip_.transport + transport);
  if (!good) size_ = 0;
  return good;
}

bool Cutter::BeginPacket(const Offload& offload) {
  payload_ = size_;
  if (!offload.partial) return true;
  partial_ = ip_.direct && ip_.total == size_ &&
             TransportHeader(packet_, ip_) != 0 &&
             offload.start == ip_.transport &&
             offload.offset == ChecksumOffset(ip_.protocol);
  return partial_ ||
         CompleteChecksum(packet_, size_, offload.start, offload.offset);
}

bool Cutter::BeginRun(const Offload& offload, size_t header) {
  const uint8_t protocol = offload.run == Offload::Run::kTcp ? kTcp : kUdp;
  if (header == 0 || ip_.protocol != protocol || offload.payload == 0)
    return false;
  payload_ = offload.payload;
  if (header == size_) return BeginPacket(offload);
  header_ = header;
  at_ = header;
  partial_ = ip_.direct;
  // The field holds the sum of the pseudo header with the length of the run:
  // take that length out again. Adding up the addresses instead would be wrong
  // behind an IPv6 routing header.
  const size_t bytes = size_ - ip_.transport;
  pseudo_ = offload.partial
                ? LoadSum(packet_ + ip_.transport + ChecksumOffset(protocol)) +
                      0xffff - SumWord(bytes)
                : PseudoSum(packet_, ip_, 0);
  return true;
}

size_t Cutter::next_size() const {
  return prefix_ + header_ + std::min(payload_, size_ - at_);
}

void Cutter::Next(uint8_t* out) {
  const size_t payload = std::min(payload_, size_ - at_);
  const size_t copied = prefix_ + header_;
  if (copied > 0) memcpy(out, packet_ - prefix_, copied);
  out += prefix_;
  memcpy(out + header_, packet_ + at_, payload);
  const size_t offset = at_ - header_;
  at_ += payload;
  if (header_ == 0) return;

  const size_t size = header_ + payload;
  const size_t bytes = size - ip_.transport;
  if (ip_.version == 4) {
    Store16(out + 2, size);
    // RFC 6864 §4.1 would let it be anything where DF is set; without DF it
    // must differ.
    Store16(out + 4, size_t{Load16(packet_ + 4)} + index_);
    StoreIpv4Checksum(out);
  } else {
    Store16(out + 4, size - kIpv6Header);
  }
  uint8_t* transport = out + ip_.transport;
  if (ip_.protocol == kTcp) {
    Store32(transport + 4,
            Load32(transport + 4) + static_cast<uint32_t>(offset));
    if (!done()) transport[kTcpFlags] &= static_cast<uint8_t>(~(kFin | kPsh));
    if (index_ > 0) transport[kTcpFlags] &= static_cast<uint8_t>(~kCwr);
  } else {
    Store16(transport + 4, bytes);
  }
  const size_t checksum = ChecksumOffset(ip_.protocol);
  StoreSum(transport + checksum, Fold(pseudo_ + SumWord(bytes)));
  if (!partial_) CompleteChecksum(out, size, ip_.transport, checksum);
  index_++;
}

// Piece

bool Piece::Set(uint8_t* bytes, size_t length, bool partial_checksum) {
  packet = bytes;
  size = length;
  prefix = 0;
  partial = partial_checksum;
  header = 0;
  if (!ParseIp(bytes, length, &ip)) return false;
  // Bytes behind the end of the IP packet are none of it.
  size = ip.total;
  const size_t transport = TransportHeader(bytes, ip);
  if (transport > 0) header = ip.transport + transport;
  return !partial || (ip.direct && header > 0);
}

bool Piece::SetFrame(uint8_t* bytes, size_t length, bool partial_checksum) {
  partial = partial_checksum;
  header = 0;
  if (length < kEthernetHeader) return false;
  prefix = ParseFrame(bytes, length, &ip);
  if (ip.version == 0) prefix = 0;
  packet = bytes + prefix;
  size = length - prefix;
  const size_t transport = TransportHeader(packet, ip);
  if (transport > 0 && ip.total == size) header = ip.transport + transport;
  return !partial || (ip.direct && header > 0);
}

Offload Piece::Alone() const {
  Offload offload;
  if (!partial) return offload;
  offload.partial = true;
  offload.start = static_cast<uint16_t>(prefix + ip.transport);
  offload.offset = static_cast<uint16_t>(ChecksumOffset(ip.protocol));
  offload.header = static_cast<uint16_t>(prefix + header);
  offload.version = ip.version;
  return offload;
}

// Joiner

void Joiner::Start(const Piece& piece, bool udp_runs) {
  pieces_[0] = piece;
  count_ = 1;
  bytes_ = piece.size;
  proved_ = piece.partial;
  ended_ = !CanStart(udp_runs);
}

// As strict as the kernel's own receive offload (linux/net/ipv4/tcp_offload.c,
// tcp_gro_receive), and stricter where that costs nothing: what is put together
// must come apart again as it was.
bool Joiner::CanStart(bool udp_runs) const {
  const Piece& piece = pieces_[0];
  const uint8_t* packet = piece.packet;
  if (piece.header == 0 || !piece.ip.direct || piece.payload() == 0) {
    return false;
  }
  if (piece.ip.version == 4 &&
      (piece.ip.transport != kIpv4Header || (packet[6] & 0x80) != 0 ||
       !Ipv4ChecksumHolds(packet))) {
    return false;
  }
  const uint8_t* transport = packet + piece.ip.transport;
  if (piece.ip.protocol == kTcp) {
    return (transport[kTcpFlags] & ~kEce) == kAck &&
           (transport[12] & 0x0f) == 0;
  }
  // A UDP checksum of zero is none at all, and would come apart as one that is
  // there.
  return udp_runs && Load16(transport + 4) == piece.size - piece.ip.transport &&
         (piece.partial || LoadSum(transport + kUdpChecksum) != 0);
}

bool Joiner::SameHeaders(const uint8_t* a, const uint8_t* b) const {
  const IpPacket& ip = pieces_[0].ip;
  const size_t prefix = pieces_[0].prefix;
  if (memcmp(a - prefix, b - prefix, prefix) != 0) return false;
  if (ip.version == 4) {
    // All but length, identification and checksum.
    if (memcmp(a, b, 2) != 0 || memcmp(a + 6, b + 6, 4) != 0 ||
        memcmp(a + 12, b + 12, 8) != 0) {
      return false;
    }
  } else if (memcmp(a, b, 4) != 0 || memcmp(a + 6, b + 6, 34) != 0) {
    return false;
  }
  a += ip.transport;
  b += ip.transport;
  // Ports; UDP has nothing else.
  if (memcmp(a, b, 4) != 0) return false;
  if (ip.protocol == kUdp) return true;
  // Acknowledgement, header length, flags but PSH, window, urgent pointer,
  // options.
  if (memcmp(a + 8, b + 8, 5) != 0 ||
      ((a[kTcpFlags] ^ b[kTcpFlags]) & ~kPsh) != 0 ||
      memcmp(a + 14, b + 14, 2) != 0 || memcmp(a + 18, b + 18, 2) != 0) {
    return false;
  }
  const size_t header = pieces_[0].header - ip.transport;
  return memcmp(a + kTcpHeader, b + kTcpHeader, header - kTcpHeader) == 0;
}

bool Joiner::Follows(const Piece& piece) const {
  const Piece& first = pieces_[0];
  const Piece& last = pieces_[count_ - 1];
  if (piece.header != first.header || piece.prefix != first.prefix ||
      piece.ip.version != first.ip.version ||
      piece.ip.protocol != first.ip.protocol ||
      piece.ip.transport != first.ip.transport || !piece.ip.direct ||
      piece.payload() == 0 || piece.payload() > first.payload() ||
      bytes_ + piece.payload() > kMaxPacket ||
      !SameHeaders(first.packet, piece.packet)) {
    return false;
  }
  if (piece.ip.version == 4) {
    const uint16_t step = static_cast<uint16_t>(Load16(piece.packet + 4) -
                                                Load16(last.packet + 4));
    if ((step != 1 && !DontFragment(first.packet)) ||
        !Ipv4ChecksumHolds(piece.packet))
      return false;
  }
  const uint8_t* transport = piece.packet + piece.ip.transport;
  if (piece.ip.protocol == kTcp) {
    const uint32_t step =
        Load32(transport + 4) - Load32(last.packet + last.ip.transport + 4);
    if (step != last.payload()) return false;
  } else if (Load16(transport + 4) != piece.size - piece.ip.transport ||
             (!piece.partial && LoadSum(transport + kUdpChecksum) == 0)) {
    return false;
  }
  return piece.partial || ChecksumHolds(piece.packet, piece.ip);
}

bool Joiner::Add(const Piece& piece) {
  if (empty() || ended_ || count_ == kMostPieces || !Follows(piece))
    return false;
  if (!proved_ && !ChecksumHolds(pieces_[0].packet, pieces_[0].ip)) {
    ended_ = true;
    return false;
  }
  proved_ = true;
  pieces_[count_++] = piece;
  bytes_ += piece.payload();
  const bool pushed =
      piece.ip.protocol == kTcp &&
      (piece.packet[piece.ip.transport + kTcpFlags] & kPsh) != 0;
  ended_ = pushed || piece.payload() < pieces_[0].payload();
  return true;
}

size_t Joiner::Parts(iovec* parts, Offload* offload) {
  const Piece& first = pieces_[0];
  const Piece& last = pieces_[count_ - 1];
  *offload = first.Alone();
  if (count_ == 1) {
    parts[0] = first.whole();
    return 1;
  }
  memcpy(header_, first.packet - first.prefix, first.prefix + first.header);
  uint8_t* packet = header_ + first.prefix;
  const size_t bytes = bytes_ - first.ip.transport;
  if (first.ip.version == 4) {
    Store16(packet + 2, bytes_);
    StoreIpv4Checksum(packet);
  } else {
    Store16(packet + 4, bytes_ - kIpv6Header);
  }
  uint8_t* transport = packet + first.ip.transport;
  if (first.ip.protocol == kTcp) {
    transport[kTcpFlags] |= last.packet[last.ip.transport + kTcpFlags] & kPsh;
  } else {
    Store16(transport + 4, bytes);
  }
  StoreSum(transport + ChecksumOffset(first.ip.protocol),
           Fold(PseudoSum(packet, first.ip, bytes)));

  offload->run =
      first.ip.protocol == kTcp ? Offload::Run::kTcp : Offload::Run::kUdp;
  offload->partial = true;
  offload->start = static_cast<uint16_t>(first.prefix + first.ip.transport);
  offload->offset = static_cast<uint16_t>(ChecksumOffset(first.ip.protocol));
  offload->payload = static_cast<uint16_t>(first.payload());
  offload->header = static_cast<uint16_t>(first.prefix + first.header);
  offload->version = first.ip.version;
  parts[0] = {header_, first.prefix + first.header};
  for (size_t i = 0; i < count_; i++) {
    const Piece& piece = pieces_[i];
    parts[i + 1] = {piece.packet + piece.header, piece.payload()};
  }
  return count_ + 1;
}

}  // namespace vpn
