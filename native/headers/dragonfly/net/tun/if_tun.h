// DragonFly BSD sys/net/tun/if_tun.h.

#ifndef VPN_HEADERS_NET_IF_TUN_H_
#define VPN_HEADERS_NET_IF_TUN_H_

#include <sys/ioctl.h>

#define TUNSIFMODE _IOW('t', 94, int)
#define TUNSIFHEAD _IOW('t', 96, int)

#endif  // VPN_HEADERS_NET_IF_TUN_H_
