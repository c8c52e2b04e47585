// NetBSD sys/sys/socket.h (recvmmsg(2)), sys/arch/amd64/include/cdefs.h.

#ifndef VPN_HEADERS_SYS_SOCKET_H_
#define VPN_HEADERS_SYS_SOCKET_H_

#define AF_INET6 24
#define AF_ROUTE 34
#define VPN_IOVLEN_TYPE int
#define VPN_CMSG_ALIGN 8ul

#include "../../common/socket.h"

struct mmsghdr {
  msghdr msg_hdr;
  unsigned msg_len;
};

extern "C" {
int recvmmsg(int fd, mmsghdr* messages, unsigned count, unsigned flags,
             struct timespec* timeout);
int sendmmsg(int fd, mmsghdr* messages, unsigned count, unsigned flags);
}

#endif  // VPN_HEADERS_SYS_SOCKET_H_
