// FreeBSD sys/net/if.h: 32 bytes.

#ifndef VPN_HEADERS_NET_IF_H_
#define VPN_HEADERS_NET_IF_H_

#define VPN_IFREQ_LARGEST sockaddr

#include "../../common/if.h"

#endif  // VPN_HEADERS_NET_IF_H_
