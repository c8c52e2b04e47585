// sys/net/if.h as on all five. The system's own header defines what differs,
// then includes this.

#ifndef VPN_HEADERS_COMMON_IF_H_
#define VPN_HEADERS_COMMON_IF_H_

#include <sys/socket.h>

#define IF_NAMESIZE 16
#define IFNAMSIZ 16
#define IFF_POINTOPOINT 0x10
#define IFF_MULTICAST 0x8000

struct ifreq {
  char ifr_name[IFNAMSIZ];
  union {
    VPN_IFREQ_LARGEST ifru_largest;
    sockaddr ifru_addr;
    int ifru_mtu;
  } ifr_ifru;
#define ifr_mtu ifr_ifru.ifru_mtu
};

extern "C" unsigned if_nametoindex(const char* name);

#endif  // VPN_HEADERS_COMMON_IF_H_
