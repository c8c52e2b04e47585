// OpenBSD sys/sys/socket.h (msg_iovlen is unsigned; recvmmsg(2)).

#ifndef VPN_HEADERS_SYS_SOCKET_H_
#define VPN_HEADERS_SYS_SOCKET_H_

#define AF_INET6 24
#define AF_ROUTE 17
#define VPN_IOVLEN_TYPE unsigned
#define VPN_CMSG_ALIGN 8ul

#include "../../common/socket.h"

struct mmsghdr {
  msghdr msg_hdr;
  unsigned msg_len;
};

extern "C" {
int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags,
             struct timespec* timeout);
int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags);
}

#endif  // VPN_HEADERS_SYS_SOCKET_H_
