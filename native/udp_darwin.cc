// Sockets of macOS: IP_BOUND_IF, IP_DONTFRAG, IP_PKTINFO (xnu
// bsd/netinet/in.h, bsd/netinet6/in6.h).

// xnu bsd/netinet6/in6.h: without it IPV6_DONTFRAG is not declared.
#define __APPLE_USE_RFC_3542 1

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "udp_bsd.h"

namespace vpn {

static_assert(IP_BOUND_IF == 25 && IP_PKTINFO == 26 && IP_DONTFRAG == 28, "");
static_assert(IPV6_BOUND_IF == 125 && IPV6_RECVPKTINFO == 61 &&
                  IPV6_DONTFRAG == 62,
              "");
static_assert(sizeof(in_pktinfo) == 12 && sizeof(in_pktinfo) <= kLocalV4Bytes,
              "");

int UdpPrepareSystem(int fd, int family, const UdpSystemOptions& options,
                     const char** syscall) {
  const bool v6 = family == AF_INET6;
  const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
  if (options.device[0] != '\0') {
    *syscall = "IP_BOUND_IF";
    const unsigned index = if_nametoindex(options.device);
    if (index == 0) return ENODEV;
    if (::setsockopt(fd, level, v6 ? IPV6_BOUND_IF : IP_BOUND_IF, &index,
                     sizeof(index)) != 0) {
      return errno;
    }
  }
  *syscall = "IP_DONTFRAG";
  const int on = 1;
  return ::setsockopt(fd, level, v6 ? IPV6_DONTFRAG : IP_DONTFRAG, &on,
                      sizeof(on)) == 0
             ? 0
             : errno;
}

void PutLocalV4(msghdr* message, const in_addr& local) {
  in_pktinfo info = {};
  info.ipi_spec_dst = local;
  PutControl(message, IPPROTO_IP, IP_PKTINFO, info);
}

}  // namespace vpn
