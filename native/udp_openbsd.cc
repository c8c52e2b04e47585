// Sockets of OpenBSD: IP_SENDSRCADDR, IPV6_DONTFRAG (sys/netinet/in.h); no
// binding to an interface, and IPv4 fragments cannot be forbidden.

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "udp_bsd.h"

namespace vpn {

static_assert(IP_SENDSRCADDR == IP_RECVDSTADDR, "");
static_assert(IPV6_DONTFRAG == 62 && IPV6_RECVPKTINFO == 36, "");
static_assert(sizeof(in_addr) <= kLocalV4Bytes, "");

int UdpPrepareSystem(int fd, int family, const UdpSystemOptions& options,
                     const char** syscall) {
  *syscall = "SO_BINDTODEVICE";
  if (options.device[0] != '\0') return EOPNOTSUPP;
  if (family != AF_INET6) return 0;
  *syscall = "IPV6_DONTFRAG";
  const int on = 1;
  return ::setsockopt(fd, IPPROTO_IPV6, IPV6_DONTFRAG, &on, sizeof(on)) == 0
             ? 0
             : errno;
}

void PutLocalV4(msghdr* message, const in_addr& local) {
  PutControl(message, IPPROTO_IP, IP_SENDSRCADDR, local);
}

}  // namespace vpn
