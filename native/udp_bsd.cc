// Batches of datagrams on macOS and the BSDs: ip(4), ip6(4), RFC 3542 §6.2. One
// datagram per message; these systems have no runs.

// xnu bsd/netinet6/in6.h: without it IPV6_PKTINFO is that of RFC 2292.
#define __APPLE_USE_RFC_3542 1

#include "udp_bsd.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vpn {

namespace {

// Jumbo frames are at most this long.
constexpr size_t kPlaceBytes = 9216;
// Per call; more saves little where each datagram has its own message.
constexpr size_t kMessages = 64;
// At least CMSG_SPACE, which not every system can tell the compiler.
constexpr size_t ControlSpace(size_t bytes) {
  return 16 + (bytes + 15) / 16 * 16;
}
constexpr size_t kSendControl =
    std::max(ControlSpace(sizeof(in6_pktinfo)), ControlSpace(kLocalV4Bytes));
constexpr size_t kReceiveControl =
    ControlSpace(sizeof(in6_pktinfo)) + ControlSpace(sizeof(in_addr));
constexpr size_t kControl = std::max(kSendControl, kReceiveControl);
static_assert(sizeof(cmsghdr) <= 16, "");

static_assert(IP_RECVDSTADDR == 7, "");
static_assert(IPV6_V6ONLY == 27 && IPV6_PKTINFO == 46, "");
static_assert(sizeof(in6_pktinfo) == 20, "");

}  // namespace

struct UdpScratch {
  UdpMessage messages[kMessages];
  iovec bytes[kMessages];
  alignas(cmsghdr) uint8_t control[kMessages][kControl];
  SocketAddress names[kMessages];
  // Slot of each message.
  size_t slots[kMessages];
};

std::shared_ptr<UdpScratch> MakeUdpScratch() {
  return std::make_shared<UdpScratch>();
}

namespace {

bool Set(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

// The system takes what it has room for; halves until it does.
void SetBuffer(int fd, int option, int bytes) {
  while (bytes > 0 && !Set(fd, SOL_SOCKET, option, bytes)) bytes /= 2;
}

}  // namespace

// There are no marks here: routes to the peer keep its datagrams out of the
// tunnel (src/os/bsd.ts).
int UdpPrepare(UdpSocket* socket, int fd, const UdpSystemOptions& options,
               const char** syscall) {
  const bool v6 = socket->family == AF_INET6;
  if (v6) {
    *syscall = "IPV6_V6ONLY";
    // OpenBSD has no mapped addresses: the caller then opens one of IPv4.
    if (!Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.dual_stack ? 0 : 1))
      return options.dual_stack ? EAFNOSUPPORT : errno;
    *syscall = "IPV6_RECVPKTINFO";
    if (!Set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)) return errno;
  } else {
    *syscall = "IP_RECVDSTADDR";
    if (!Set(fd, IPPROTO_IP, IP_RECVDSTADDR, 1)) return errno;
  }
  const int error = UdpPrepareSystem(fd, socket->family, options, syscall);
  if (error != 0) return error;
  SetBuffer(fd, SO_SNDBUF, options.buffer_bytes);
  SetBuffer(fd, SO_RCVBUF, options.buffer_bytes);
  return 0;
}

namespace {

const void* LocalOf(msghdr* message) {
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr;
       c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVDSTADDR)
      return CMSG_DATA(c);
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
      return CMSG_DATA(c) + offsetof(in6_pktinfo, ipi6_addr);
  }
  return nullptr;
}

void Clear(UdpScratch* scratch, size_t index, void* name, socklen_t name_size,
           uint8_t* at, size_t size) {
  scratch->bytes[index] = {at, size};
  msghdr* header = &scratch->messages[index].header;
  *header = {};
  header->msg_name = name;
  header->msg_namelen = name_size;
  header->msg_iov = &scratch->bytes[index];
  header->msg_iovlen = 1;
  header->msg_control = scratch->control[index];
}

}  // namespace

size_t UdpReceive(UdpSocket* socket, int fd, UdpScratch* scratch, uint8_t* slab,
                  size_t start, size_t end, const DatagramColumns& table) {
  size_t slot = 0;
  for (;;) {
    const size_t count = std::min(
        {table.slots() - slot, (end - start) / kPlaceBytes, kMessages});
    if (count == 0) return slot;
    for (size_t i = 0; i < count; i++) {
      Clear(scratch, i, &scratch->names[i], sizeof(SocketAddress),
            slab + start + i * kPlaceBytes, kPlaceBytes);
      scratch->messages[i].header.msg_controllen = kReceiveControl;
    }
    const int n =
        ReceiveMessages(fd, scratch->messages, static_cast<unsigned>(count));
    if (n < 0) {
      if (errno != EAGAIN) socket->error = errno;
      return slot;
    }
    for (size_t i = 0; i < static_cast<size_t>(n); i++, start += kPlaceBytes) {
      msghdr* header = &scratch->messages[i].header;
      const size_t bytes = scratch->messages[i].bytes;
      if ((header->msg_flags & MSG_TRUNC) != 0 || bytes == 0) continue;
      WriteEndpoint(scratch->names[i], LocalOf(header),
                    table.endpoints.data + slot * kEndpointBytes);
      table.offsets.data[slot] = static_cast<uint32_t>(start);
      table.lengths.data[slot] = static_cast<uint16_t>(bytes);
      table.sources.data[slot] = static_cast<uint16_t>(slot);
      slot++;
    }
    // Asking again would only say that nothing is left.
    if (static_cast<size_t>(n) < count) return slot;
  }
}

namespace {

void PutLocal(msghdr* message, const Destination& destination) {
  if (!destination.from_local) return;
  if (destination.remote.base.sa_family == AF_INET) {
    PutLocalV4(message, destination.local_v4);
    return;
  }
  // Only FreeBSD takes a mapped local address (in_pcb.c); elsewhere the
  // datagram would be refused, so the system chooses.
  if (IN6_IS_ADDR_V4MAPPED(&destination.local_v6)) return;
  in6_pktinfo info = {};
  info.ipi6_addr = destination.local_v6;
  // A link-local address is one only together with its link.
  if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
    info.ipi6_ifindex = destination.remote.v6.sin6_scope_id;
  }
  PutControl(message, IPPROTO_IPV6, IPV6_PKTINFO, info);
}

// Returns how many messages were made of the slots from `first` on.
size_t MakeMessages(UdpScratch* scratch, const Outbound& out,
                    const Destination& destination, size_t first) {
  size_t count = 0;
  for (size_t slot = first; slot < out.end && count < kMessages; slot++) {
    if (out.sizes[slot] == 0) continue;
    Clear(scratch, count, const_cast<SocketAddress*>(&destination.remote),
          destination.remote.size(), out.slab + out.to[slot], out.sizes[slot]);
    msghdr* header = &scratch->messages[count].header;
    PutLocal(header, destination);
    // OpenBSD refuses an empty control message.
    if (header->msg_controllen == 0) header->msg_control = nullptr;
    scratch->slots[count++] = slot;
  }
  return count;
}

}  // namespace

size_t UdpSend(UdpSocket* socket, int fd, UdpScratch* scratch,
               const Outbound& out, const Destination& destination) {
  size_t slot = out.first;
  while (slot < out.end) {
    const size_t count = MakeMessages(scratch, out, destination, slot);
    if (count == 0) return out.end - out.first;
    const int n =
        SendMessages(fd, scratch->messages, static_cast<unsigned>(count));
    if (n > 0) {
      slot = scratch->slots[n - 1] + 1;
      continue;
    }
    if (errno == EAGAIN) break;
    // ENOBUFS too: it is what a full interface queue says here, and no event
    // would say when to try again.
    socket->error = errno;
    slot = scratch->slots[0] + 1;
  }
  return slot - out.first;
}

}  // namespace vpn
