// sys/sys/ioccom.h as on all five: direction, size of the argument, group,
// number.

#ifndef VPN_HEADERS_COMMON_IOCTL_H_
#define VPN_HEADERS_COMMON_IOCTL_H_

#define VPN_IOC(way, group, number, type)                              \
  ((way) | (static_cast<unsigned long>(sizeof(type)) & 0x1fff) << 16 | \
   static_cast<unsigned long>(group) << 8 | (number))
#define _IOR(group, number, type) VPN_IOC(0x40000000ul, group, number, type)
#define _IOW(group, number, type) VPN_IOC(0x80000000ul, group, number, type)
#define _IOWR(group, number, type) VPN_IOC(0xc0000000ul, group, number, type)

// sys/sys/sockio.h
#define SIOCSIFMTU _IOW('i', VPN_SIFMTU, struct ifreq)
#define SIOCIFDESTROY _IOW('i', 121, struct ifreq)

extern "C" int ioctl(int fd, unsigned long request, ...);

#endif  // VPN_HEADERS_COMMON_IOCTL_H_
