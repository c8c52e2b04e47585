// rtnetlink(7).

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "routes.h"

namespace vpn {

int RoutesOpen(const char** syscall) {
  *syscall = "socket";
  const int fd =
      ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
               NETLINK_ROUTE);
  if (fd < 0) return -errno;
  sockaddr_nl address = {};
  address.nl_family = AF_NETLINK;
  // There is no RTMGRP_ constant for IPv6 rules, only the number of the group.
  address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE |
                      RTMGRP_IPV4_RULE | RTMGRP_IPV6_IFADDR |
                      RTMGRP_IPV6_ROUTE | 1u << (RTNLGRP_IPV6_RULE - 1);
  *syscall = "bind";
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    ::close(fd);
    return -error;
  }
  return fd;
}

}  // namespace vpn
