// NetBSD sys/sys/ioccom.h, sys/sys/sockio.h.

#ifndef VPN_HEADERS_SYS_IOCTL_H_
#define VPN_HEADERS_SYS_IOCTL_H_

#define VPN_SIFMTU 127

#include "../../common/ioctl.h"

#define SIOCIFCREATE _IOW('i', 122, struct ifreq)

#endif  // VPN_HEADERS_SYS_IOCTL_H_
