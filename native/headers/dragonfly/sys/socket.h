// DragonFly BSD sys/sys/socket.h, sys/cpu/x86_64/include/param.h (_ALIGNBYTES).

#ifndef VPN_HEADERS_SYS_SOCKET_H_
#define VPN_HEADERS_SYS_SOCKET_H_

#define AF_INET6 28
#define AF_ROUTE 17
#define VPN_IOVLEN_TYPE int
#define VPN_CMSG_ALIGN 8ul

#include "../../common/socket.h"

#endif  // VPN_HEADERS_SYS_SOCKET_H_
