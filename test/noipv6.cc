// A kernel without IPv6 (ipv6.disable=1) for one process: loaded with LD_PRELOAD, refuses its sockets as
// such a kernel does (socket(2), EAFNOSUPPORT). Nothing short of another kernel takes IPv6 away from
// a network namespace.
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

extern "C" int socket(int domain, int type, int protocol) noexcept {
  if (domain == AF_INET6) {
    errno = EAFNOSUPPORT;
    return -1;
  }
  static auto* real =
      reinterpret_cast<int (*)(int, int, int)>(dlsym(RTLD_NEXT, "socket"));
  return real(domain, type, protocol);
}
