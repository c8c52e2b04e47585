// xnu bsd/sys/sys_domain.h.

#ifndef VPN_HEADERS_SYS_SYS_DOMAIN_H_
#define VPN_HEADERS_SYS_SYS_DOMAIN_H_

#define SYSPROTO_CONTROL 2
#define AF_SYS_CONTROL 2

#endif  // VPN_HEADERS_SYS_SYS_DOMAIN_H_
