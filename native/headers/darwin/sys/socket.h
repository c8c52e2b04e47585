// xnu bsd/sys/socket.h, bsd/arm/_param.h (__DARWIN_ALIGNBYTES32).

#ifndef VPN_HEADERS_SYS_SOCKET_H_
#define VPN_HEADERS_SYS_SOCKET_H_

#define AF_INET6 30
#define AF_ROUTE 17
#define VPN_IOVLEN_TYPE int
#define VPN_CMSG_ALIGN 4ul

#include "../../common/socket.h"

#define AF_SYSTEM 32
#define PF_SYSTEM AF_SYSTEM

#endif  // VPN_HEADERS_SYS_SOCKET_H_
