// OpenBSD sys/net/if_tun.h: nothing of it is needed.

#ifndef VPN_HEADERS_NET_IF_TUN_H_
#define VPN_HEADERS_NET_IF_TUN_H_

#include <sys/ioctl.h>

#endif  // VPN_HEADERS_NET_IF_TUN_H_
