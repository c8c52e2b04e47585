// FreeBSD sys/sys/ioccom.h, sys/sys/sockio.h.

#ifndef VPN_HEADERS_SYS_IOCTL_H_
#define VPN_HEADERS_SYS_IOCTL_H_

#define VPN_SIFMTU 52

#include "../../common/ioctl.h"

#endif  // VPN_HEADERS_SYS_IOCTL_H_
