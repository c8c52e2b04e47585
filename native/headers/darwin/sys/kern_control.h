// xnu bsd/sys/kern_control.h.

#ifndef VPN_HEADERS_SYS_KERN_CONTROL_H_
#define VPN_HEADERS_SYS_KERN_CONTROL_H_

#include <stdint.h>
#include <sys/ioctl.h>

#define MAX_KCTL_NAME 96
#define CTLIOCGINFO _IOWR('N', 3, struct ctl_info)

struct ctl_info {
  uint32_t ctl_id;
  char ctl_name[MAX_KCTL_NAME];
};

struct sockaddr_ctl {
  uint8_t sc_len;
  uint8_t sc_family;
  uint16_t ss_sysaddr;
  uint32_t sc_id;
  uint32_t sc_unit;
  uint32_t sc_reserved[5];
};

#endif  // VPN_HEADERS_SYS_KERN_CONTROL_H_
