// Batches of datagrams by recvmmsg(2) and sendmmsg(2): NetBSD since 7, OpenBSD
// since 7.2.

#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "udp_bsd.h"

namespace vpn {

namespace {

static_assert(sizeof(mmsghdr) == sizeof(UdpMessage) &&
                  offsetof(mmsghdr, msg_hdr) == offsetof(UdpMessage, header) &&
                  offsetof(mmsghdr, msg_len) == offsetof(UdpMessage, bytes) &&
                  sizeof(mmsghdr::msg_len) == sizeof(UdpMessage::bytes),
              "UdpMessage has the layout of mmsghdr");

mmsghdr* System(UdpMessage* messages) {
  return reinterpret_cast<mmsghdr*>(messages);
}

}  // namespace

int ReceiveMessages(int fd, UdpMessage* messages, unsigned count) {
  int n = 0;
  do {
    n = static_cast<int>(
        ::recvmmsg(fd, System(messages), count, MSG_DONTWAIT, nullptr));
  } while (n < 0 && errno == EINTR);
  return n;
}

int SendMessages(int fd, UdpMessage* messages, unsigned count) {
  int n = 0;
  do {
    n = static_cast<int>(::sendmmsg(fd, System(messages), count, MSG_DONTWAIT));
  } while (n < 0 && errno == EINTR);
  return n;
}

}  // namespace vpn
