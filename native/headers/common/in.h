// sys/netinet/in.h and sys/netinet6/in6.h (RFC 3493, RFC 3542) as on all five.
// The system's own header defines what differs, then includes this.

#ifndef VPN_HEADERS_COMMON_IN_H_
#define VPN_HEADERS_COMMON_IN_H_

#include <sys/socket.h>

typedef uint16_t in_port_t;

#define IPPROTO_IP 0
#define IPPROTO_IPV6 41
#define IP_RECVDSTADDR 7
#define IPV6_V6ONLY 27
#define IPV6_PKTINFO 46
#define IPV6_DONTFRAG 62

struct in_addr {
  uint32_t s_addr;
};

struct in6_addr {
  uint8_t s6_addr[16];
};

struct sockaddr_in {
  uint8_t sin_len;
  sa_family_t sin_family;
  in_port_t sin_port;
  in_addr sin_addr;
  char sin_zero[8];
};

struct sockaddr_in6 {
  uint8_t sin6_len;
  sa_family_t sin6_family;
  in_port_t sin6_port;
  uint32_t sin6_flowinfo;
  in6_addr sin6_addr;
  uint32_t sin6_scope_id;
};

struct in6_pktinfo {
  in6_addr ipi6_addr;
  unsigned ipi6_ifindex;
};

#define IN6_IS_ADDR_LINKLOCAL(a) \
  ((a)->s6_addr[0] == 0xfe && ((a)->s6_addr[1] & 0xc0) == 0x80)
#define IN6_IS_ADDR_V4MAPPED(a) \
  ((a)->s6_addr[10] == 0xff && (a)->s6_addr[11] == 0xff)

extern "C" {
uint32_t htonl(uint32_t);
uint16_t htons(uint16_t);
}

#endif  // VPN_HEADERS_COMMON_IN_H_
