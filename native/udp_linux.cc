// Batches of datagrams on Linux: sendmmsg(2), recvmmsg(2), udp(7) UDP_SEGMENT
// and UDP_GRO.

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "udp.h"

namespace vpn {

namespace {

// One message of UDP_GRO has up to 64 KiB.
constexpr size_t kRunBytes = 64 * 1024;
// Without UDP_GRO a message is one datagram; jumbo frames are at most this
// long, and smaller places let more datagrams lie in the slab.
constexpr size_t kSingleBytes = 9216;
// linux/include/linux/udp.h, UDP_MAX_SEGMENTS: 128 since 6.9, 64 before. Over
// loopback and veth a run arrives as it was sent, so more is received than is
// sent.
constexpr size_t kMostReceived = 128;
constexpr size_t kMostSent = 64;
// A run must fit an IPv4 packet (udp.c: EMSGSIZE beyond 65535 with headers).
constexpr size_t kMostBytes = 65535 - 20 - 8;

// More messages per call save nothing: each carries up to 64 datagrams.
constexpr size_t kSendMessages = 64;
constexpr size_t kReceiveMessages = 32;
constexpr size_t kSendControl =
    CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t));
constexpr size_t kReceiveControl = CMSG_SPACE(sizeof(in6_pktinfo)) +
                                   CMSG_SPACE(sizeof(in_pktinfo)) +
                                   CMSG_SPACE(sizeof(int));

}  // namespace

struct UdpScratch {
  mmsghdr out[kSendMessages];
  iovec out_bytes[kSendMessages];
  alignas(cmsghdr) uint8_t out_control[kSendMessages][kSendControl];
  // Slot behind the last one of each message.
  size_t out_end[kSendMessages];

  mmsghdr in[kReceiveMessages];
  iovec in_bytes[kReceiveMessages];
  alignas(cmsghdr) uint8_t in_control[kReceiveMessages][kReceiveControl];
  SocketAddress in_names[kReceiveMessages];
};

std::shared_ptr<UdpScratch> MakeUdpScratch() {
  return std::make_shared<UdpScratch>();
}

namespace {

// Names an option for `syscall` when it cannot be set.
struct Setter {
  int fd;
  const char** syscall;
  int error = 0;

  void Set(int level, int option, const void* value, size_t size,
           const char* name) {
    if (error != 0 || ::setsockopt(fd, level, option, value,
                                   static_cast<socklen_t>(size)) == 0) {
      return;
    }
    error = errno;
    *syscall = name;
  }
  void Set(int level, int option, int value, const char* name) {
    Set(level, option, &value, sizeof(value), name);
  }
};

void SetBuffer(int fd, int force, int plain, int bytes) {
  // Without CAP_NET_ADMIN up to net.core.[rw]mem_max, silently (socket(7)).
  if (::setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof(bytes)) != 0) {
    ::setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
  }
}

}  // namespace

int UdpPrepare(UdpSocket* socket, int fd, const UdpSystemOptions& options,
               const char** syscall) {
  Setter setter{fd, syscall};
  const bool v6 = socket->family == AF_INET6;
  if (v6)
    setter.Set(IPPROTO_IPV6, IPV6_V6ONLY, options.dual_stack ? 0 : 1,
               "IPV6_V6ONLY");
  if (options.device[0] != '\0') {
    setter.Set(SOL_SOCKET, SO_BINDTODEVICE, options.device,
               strlen(options.device), "SO_BINDTODEVICE");
  }
  if (options.mark != 0) {
    setter.Set(SOL_SOCKET, SO_MARK, static_cast<int>(options.mark), "SO_MARK");
  }
  // PROBE: always DF, and no word of ICMP's is believed (ip(7)); a dual-stack
  // socket has both. IPV6_PKTINFO covers the mapped addresses too
  // (net/ipv6/datagram.c, ip6_datagram_recv_common_ctl).
  if (v6) {
    setter.Set(IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE,
               "IPV6_MTU_DISCOVER");
    setter.Set(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO");
  } else {
    setter.Set(IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO");
  }
  if (!v6 || options.dual_stack) {
    setter.Set(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE,
               "IP_MTU_DISCOVER");
  }
  if (setter.error != 0) return setter.error;

  if (options.buffer_bytes > 0) {
    SetBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, options.buffer_bytes);
    SetBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, options.buffer_bytes);
  }
  if (options.offload) {
    int value = 0;
    socklen_t size = sizeof(value);
    socket->send_runs =
        ::getsockopt(fd, SOL_UDP, UDP_SEGMENT, &value, &size) == 0;
    value = 1;
    socket->receive_runs =
        ::setsockopt(fd, SOL_UDP, UDP_GRO, &value, sizeof(value)) == 0;
  }
  return 0;
}

namespace {

struct Received {
  // Bytes of each datagram of a run but the last.
  size_t segment = 0;
  const void* local = nullptr;
};

Received ReadControl(msghdr* message, size_t bytes) {
  Received received;
  received.segment = bytes;
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr;
       c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
      int segment = 0;
      memcpy(&segment, CMSG_DATA(c), sizeof(segment));
      if (segment > 0) received.segment = static_cast<size_t>(segment);
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      received.local = CMSG_DATA(c) + offsetof(in_pktinfo, ipi_spec_dst);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      received.local = CMSG_DATA(c) + offsetof(in6_pktinfo, ipi6_addr);
    }
  }
  return received;
}

// Returns the messages received, each at its place of `place` bytes from `at`
// on.
size_t ReceiveMessages(UdpSocket* socket, int fd, UdpScratch* scratch,
                       uint8_t* at, size_t place, size_t messages) {
  for (size_t i = 0; i < messages; i++) {
    scratch->in_bytes[i] = {at + i * place, place};
    msghdr* header = &scratch->in[i].msg_hdr;
    header->msg_name = &scratch->in_names[i];
    header->msg_namelen = sizeof(SocketAddress);
    header->msg_iov = &scratch->in_bytes[i];
    header->msg_iovlen = 1;
    header->msg_control = scratch->in_control[i];
    header->msg_controllen = kReceiveControl;
    header->msg_flags = 0;
  }
  int n = 0;
  do {
    n = ::recvmmsg(fd, scratch->in, static_cast<unsigned>(messages),
                   MSG_DONTWAIT, nullptr);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return static_cast<size_t>(n);
  if (errno != EAGAIN) socket->error = errno;
  return 0;
}

// Cuts a message into its datagrams; what finds no slot is dropped, as by a
// full socket.
size_t CutMessage(size_t offset, size_t bytes, size_t segment, size_t row,
                  const DatagramColumns& table, size_t slot) {
  for (; bytes > 0 && slot < table.slots(); slot++) {
    const size_t size = std::min(segment, bytes);
    table.offsets.data[slot] = static_cast<uint32_t>(offset);
    table.lengths.data[slot] = static_cast<uint16_t>(size);
    table.sources.data[slot] = static_cast<uint16_t>(row);
    offset += size;
    bytes -= size;
  }
  return slot;
}

}  // namespace

size_t UdpReceive(UdpSocket* socket, int fd, UdpScratch* scratch, uint8_t* slab,
                  size_t start, size_t end, const DatagramColumns& table) {
  const size_t place = socket->receive_runs ? kRunBytes : kSingleBytes;
  const size_t most = socket->receive_runs ? kMostReceived : 1;
  size_t slot = 0;
  size_t row = 0;
  for (;;) {
    size_t messages = (table.slots() - slot) / most;
    // A table shorter than a run still takes what fits.
    if (messages == 0 && slot == 0 && table.slots() > 0) messages = 1;
    messages = std::min({messages, (end - start) / place, kReceiveMessages});
    if (messages == 0) return slot;
    const size_t n =
        ReceiveMessages(socket, fd, scratch, slab + start, place, messages);
    for (size_t i = 0; i < n; i++, start += place) {
      msghdr* header = &scratch->in[i].msg_hdr;
      const size_t bytes = scratch->in[i].msg_len;
      if ((header->msg_flags & MSG_TRUNC) != 0 || bytes == 0 ||
          slot == table.slots())
        continue;
      const Received received = ReadControl(header, bytes);
      WriteEndpoint(scratch->in_names[i], received.local,
                    table.endpoints.data + row * kEndpointBytes);
      slot = CutMessage(start, bytes, received.segment, row++, table, slot);
    }
    // Asking again would only say that nothing is left.
    if (n < messages) return slot;
  }
}

namespace {

template <typename T>
cmsghdr* PutControl(msghdr* message, int level, int type, const T& value) {
  auto* c = reinterpret_cast<cmsghdr*>(
      static_cast<uint8_t*>(message->msg_control) + message->msg_controllen);
  c->cmsg_level = level;
  c->cmsg_type = type;
  c->cmsg_len = CMSG_LEN(sizeof(value));
  memcpy(CMSG_DATA(c), &value, sizeof(value));
  message->msg_controllen += CMSG_SPACE(sizeof(value));
  return c;
}

void PutLocal(msghdr* message, const Destination& destination) {
  if (!destination.from_local) return;
  if (destination.remote.base.sa_family == AF_INET) {
    in_pktinfo info = {};
    info.ipi_spec_dst = destination.local_v4;
    PutControl(message, IPPROTO_IP, IP_PKTINFO, info);
    return;
  }
  in6_pktinfo info = {};
  info.ipi6_addr = destination.local_v6;
  // A link-local address is one only together with its link.
  if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
    info.ipi6_ifindex = destination.remote.v6.sin6_scope_id;
  }
  PutControl(message, IPPROTO_IPV6, IPV6_PKTINFO, info);
}

// Slot behind the run that starts at `first`: neighbours that touch, of equal
// size but for a shorter last one.
size_t RunEnd(const Outbound& out, size_t first, bool runs) {
  size_t slot = first + 1;
  if (!runs) return slot;
  size_t bytes = out.sizes[first];
  while (slot < out.end && slot - first < kMostSent && out.sizes[slot] > 0 &&
         out.sizes[slot] <= out.sizes[first] &&
         bytes + out.sizes[slot] <= kMostBytes &&
         out.to[slot] == out.to[slot - 1] + out.sizes[slot - 1]) {
    bytes += out.sizes[slot++];
    if (out.sizes[slot - 1] < out.sizes[first]) break;
  }
  return slot;
}

// Returns how many messages were made of the slots from `first` on. Runs start
// at `runs_from`.
size_t MakeMessages(UdpScratch* scratch, const Outbound& out,
                    const Destination& destination, size_t first, bool runs,
                    size_t runs_from) {
  size_t count = 0;
  for (size_t slot = first; slot < out.end && count < kSendMessages;) {
    if (out.sizes[slot] == 0) {
      slot++;
      continue;
    }
    const size_t next = RunEnd(out, slot, runs && slot >= runs_from);
    scratch->out_bytes[count] = {out.slab + out.to[slot],
                                 static_cast<size_t>(out.to[next - 1]) +
                                     out.sizes[next - 1] - out.to[slot]};
    msghdr* header = &scratch->out[count].msg_hdr;
    header->msg_name = const_cast<SocketAddress*>(&destination.remote);
    header->msg_namelen = destination.remote.size();
    header->msg_iov = &scratch->out_bytes[count];
    header->msg_iovlen = 1;
    header->msg_control = scratch->out_control[count];
    header->msg_controllen = 0;
    header->msg_flags = 0;
    PutLocal(header, destination);
    if (next - slot > 1)
      PutControl(header, SOL_UDP, UDP_SEGMENT, out.sizes[slot]);
    slot = next;
    scratch->out_end[count++] = next;
  }
  return count;
}

}  // namespace

size_t UdpSend(UdpSocket* socket, int fd, UdpScratch* scratch,
               const Outbound& out, const Destination& destination) {
  size_t slot = out.first;
  // A run that was refused goes out singly, up to here.
  size_t runs_from = out.first;
  while (slot < out.end) {
    if (out.sizes[slot] == 0) {
      slot++;
      continue;
    }
    const size_t messages = MakeMessages(scratch, out, destination, slot,
                                         socket->send_runs, runs_from);
    const int n = ::sendmmsg(fd, scratch->out, static_cast<unsigned>(messages),
                             MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      slot = scratch->out_end[n - 1];
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) break;
    const bool run =
        RunEnd(out, slot, socket->send_runs && slot >= runs_from) - slot > 1;
    if (run && errno == EIO) {
      // A device that cannot do its checksums (net/ipv4/udp.c, udp_send_skb).
      socket->send_runs = false;
      continue;
    }
    if (run && (errno == EINVAL || errno == EMSGSIZE)) {
      runs_from = scratch->out_end[0];
      continue;
    }
    // ENOBUFS too: no event would say when to try again.
    socket->error = errno;
    slot = scratch->out_end[0];
  }
  return slot - out.first;
}

}  // namespace vpn
