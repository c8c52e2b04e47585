// NetBSD sys/net/if_tun.h.

#ifndef VPN_HEADERS_NET_IF_TUN_H_
#define VPN_HEADERS_NET_IF_TUN_H_

#include <sys/ioctl.h>

#define TUNSIFHEAD _IOW('t', 66, int)
#define TUNSIFMODE _IOW('t', 88, int)

#endif  // VPN_HEADERS_NET_IF_TUN_H_
