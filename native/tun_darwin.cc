// TUN on macOS: a utun interface is the other end of a control socket
// (xnu bsd/net/if_utun.h, bsd/sys/kern_control.h).

#include <net/if_utun.h>
#include <sys/ioctl.h>
#include <sys/kern_control.h>
#include <sys/socket.h>
#include <sys/sys_domain.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "tun_bsd.h"

namespace vpn {

namespace {

static_assert(CTLIOCGINFO == 0xc0644e03, "_IOWR('N', 3, struct ctl_info)");
static_assert(sizeof(ctl_info) == 100 && offsetof(ctl_info, ctl_name) == 4, "");
static_assert(sizeof(sockaddr_ctl) == 32 && offsetof(sockaddr_ctl, sc_id) == 4,
              "");
static_assert(UTUN_OPT_IFNAME == 2 && SYSPROTO_CONTROL == 2 &&
                  AF_SYS_CONTROL == 2 && AF_SYSTEM == 32,
              "");
static_assert(AF_INET6 == 30, "the prefix of packets");
static_assert(SIOCSIFMTU == 0x80206934 && SIOCIFDESTROY == 0x80206979, "");

// Returns 0 or an errno. Unit 0 is any, utun0 is 1.
int Connect(int fd, uint32_t unit, const char** syscall) {
  ctl_info info = {};
  static_assert(sizeof(UTUN_CONTROL_NAME) <= sizeof(info.ctl_name), "");
  memcpy(info.ctl_name, UTUN_CONTROL_NAME, sizeof(UTUN_CONTROL_NAME));
  *syscall = "CTLIOCGINFO";
  if (::ioctl(fd, CTLIOCGINFO, &info) != 0) return errno;
  sockaddr_ctl address = {};
  address.sc_len = sizeof(address);
  address.sc_family = AF_SYSTEM;
  address.ss_sysaddr = AF_SYS_CONTROL;
  address.sc_id = info.ctl_id;
  address.sc_unit = unit;
  *syscall = "connect";
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address),
                   sizeof(address)) == 0
             ? 0
             : errno;
}

}  // namespace

int TunOpen(TunDevice* device, bool, const char** syscall) {
  // There is no such device; platform.ts says so first.
  *syscall = "socket";
  if (device->ethernet) return -EOPNOTSUPP;
  *syscall = "connect";
  const bool any = device->name[0] == '\0';
  const int unit = any ? -1 : UnitOf(device->name, "utun");
  if (!any && unit < 0) return -EINVAL;
  *syscall = "socket";
  const int fd = ::socket(PF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL);
  if (fd < 0) return -errno;
  int error = Connect(fd, static_cast<uint32_t>(unit + 1), syscall);
  if (error == 0) {
    socklen_t size = sizeof(device->name);
    *syscall = "UTUN_OPT_IFNAME";
    error = ::getsockopt(fd, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, device->name,
                         &size) == 0
                ? MakeQuiet(fd)
                : errno;
  }
  if (error == 0) return fd;
  ::close(fd);
  return -error;
}

// The interface goes with its socket.
void TunClose(const TunDevice&, int fd) { ::close(fd); }

}  // namespace vpn
