// NetBSD sys/net/if.h: ifru_space makes it 144 bytes.

#ifndef VPN_HEADERS_NET_IF_H_
#define VPN_HEADERS_NET_IF_H_

#define VPN_IFREQ_LARGEST sockaddr_storage

#include "../../common/if.h"

#endif  // VPN_HEADERS_NET_IF_H_
