// NetBSD sys/netinet/in.h, sys/netinet6/in6.h.

#ifndef VPN_HEADERS_NETINET_IN_H_
#define VPN_HEADERS_NETINET_IN_H_

#include "../../common/in.h"

#define IP_SENDSRCADDR IP_RECVDSTADDR
#define IPV6_RECVPKTINFO 36

#endif  // VPN_HEADERS_NETINET_IN_H_
