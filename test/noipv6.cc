// A kernel without IPv6 (ipv6.disable=1) for a monitor and its worker: loaded with LD_PRELOAD, refuses their
// sockets as such a kernel does (socket(2), EAFNOSUPPORT). Nothing short of another kernel takes IPv6 away from
// a network namespace. The sockets to the network are all the monitor's, which hands them over; of its own the
// worker opens only those of control and status.
#include <errno.h>
#include <sys/socket.h>

#include "preload.h"

__attribute__((constructor)) static void Start() { KeepForWorker(); }

extern "C" int socket(int domain, int type, int protocol) noexcept {
  if (domain == AF_INET6) {
    errno = EAFNOSUPPORT;
    return -1;
  }
  static auto* real = Real<int(int, int, int)>("socket");
  return real(domain, type, protocol);
}
