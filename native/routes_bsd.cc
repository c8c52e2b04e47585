// route(4): every message of the routing socket is a change.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "routes.h"

namespace vpn {

int RoutesOpen(const char** syscall) {
  *syscall = "socket";
  const int fd = ::socket(PF_ROUTE, SOCK_RAW, AF_UNSPEC);
  if (fd < 0) return -errno;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

}  // namespace vpn
