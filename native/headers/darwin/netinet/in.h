// xnu bsd/netinet/in.h, bsd/netinet6/in6.h (__APPLE_USE_RFC_3542).

#ifndef VPN_HEADERS_NETINET_IN_H_
#define VPN_HEADERS_NETINET_IN_H_

#include "../../common/in.h"

#define IP_BOUND_IF 25
#define IP_PKTINFO 26
#define IP_DONTFRAG 28
#define IPV6_RECVPKTINFO 61
#define IPV6_BOUND_IF 125

struct in_pktinfo {
  unsigned ipi_ifindex;
  in_addr ipi_spec_dst;
  in_addr ipi_addr;
};

#endif  // VPN_HEADERS_NETINET_IN_H_
