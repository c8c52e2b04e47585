// xnu bsd/net/if_utun.h.

#ifndef VPN_HEADERS_NET_IF_UTUN_H_
#define VPN_HEADERS_NET_IF_UTUN_H_

#define UTUN_CONTROL_NAME "com.apple.net.utun_control"
#define UTUN_OPT_IFNAME 2

#endif  // VPN_HEADERS_NET_IF_UTUN_H_
