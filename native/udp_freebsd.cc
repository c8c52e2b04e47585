// Sockets of FreeBSD: IP_DONTFRAG, IP_SENDSRCADDR (sys/netinet/in.h); no
// binding to an interface.

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "udp_bsd.h"

namespace vpn {

static_assert(IP_SENDSRCADDR == IP_RECVDSTADDR, "");
static_assert(IP_DONTFRAG == 67 && IPV6_DONTFRAG == 62 &&
                  IPV6_RECVPKTINFO == 36,
              "");
static_assert(sizeof(in_addr) <= kLocalV4Bytes, "");

int UdpPrepareSystem(int fd, int family, const UdpSystemOptions& options,
                     const char** syscall) {
  *syscall = "SO_BINDTODEVICE";
  if (options.device[0] != '\0') return EOPNOTSUPP;
  *syscall = "IP_DONTFRAG";
  const bool v6 = family == AF_INET6;
  const int on = 1;
  return ::setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
                      v6 ? IPV6_DONTFRAG : IP_DONTFRAG, &on, sizeof(on)) == 0
             ? 0
             : errno;
}

void PutLocalV4(msghdr* message, const in_addr& local) {
  PutControl(message, IPPROTO_IP, IP_SENDSRCADDR, local);
}

}  // namespace vpn
