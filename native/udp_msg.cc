// Batches of datagrams one by one: macOS and DragonFly BSD have no recvmmsg(2),
// and that of FreeBSD is this loop in its libc (lib/libc/gen/recvmmsg.c).

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "udp_bsd.h"

namespace vpn {

namespace {

using Call = ssize_t (*)(int, msghdr*);

ssize_t Receive(int fd, msghdr* header) {
  return ::recvmsg(fd, header, MSG_DONTWAIT);
}

ssize_t Send(int fd, msghdr* header) {
  return ::sendmsg(fd, header, MSG_DONTWAIT);
}

int Each(int fd, UdpMessage* messages, unsigned count, Call call) {
  unsigned done = 0;
  while (done < count) {
    const ssize_t n = call(fd, &messages[done].header);
    if (n < 0 && errno == EINTR) continue;
    // What failed behind others is tried again by the next call.
    if (n < 0) return done > 0 ? static_cast<int>(done) : -1;
    messages[done++].bytes = static_cast<unsigned>(n);
  }
  return static_cast<int>(done);
}

}  // namespace

int ReceiveMessages(int fd, UdpMessage* messages, unsigned count) {
  return Each(fd, messages, count, Receive);
}

int SendMessages(int fd, UdpMessage* messages, unsigned count) {
  return Each(fd, messages, count, Send);
}

}  // namespace vpn
