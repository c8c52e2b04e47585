// NetBSD sys/net/if_tap.h.

#ifndef VPN_HEADERS_NET_IF_TAP_H_
#define VPN_HEADERS_NET_IF_TAP_H_

#include <net/if.h>
#include <sys/ioctl.h>

#define TAPGIFNAME _IOR('e', 0, struct ifreq)

#endif  // VPN_HEADERS_NET_IF_TAP_H_
