// TUN on NetBSD, tun(4): opening /dev/tunN makes the interface, which stays
// when it is closed; the address family in front of packets is asked for, and
// so is point-to-point.

#include <net/if.h>
#include <net/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sockio.h>
#include <unistd.h>

#include "tun_bsd.h"

namespace vpn {

namespace {

static_assert(TUNSIFHEAD == 0x80047442, "_IOW('t', 66, int)");
static_assert(TUNSIFMODE == 0x80047458, "_IOW('t', 88, int)");
static_assert(IFF_POINTOPOINT == 0x10 && IFF_MULTICAST == 0x8000, "");
static_assert(AF_INET6 == 24, "the prefix of packets");
static_assert(SIOCSIFMTU == 0x8090697f && SIOCIFDESTROY == 0x80906979, "");
static_assert(sizeof(ifreq) == 144, "");

int SetUp(int fd, const char** syscall) {
  *syscall = "TUNSIFMODE";
  int error = SetTunOption(fd, TUNSIFMODE, IFF_POINTOPOINT | IFF_MULTICAST);
  if (error != 0) return error;
  *syscall = "TUNSIFHEAD";
  error = SetTunOption(fd, TUNSIFHEAD, 1);
  return error == 0 ? MakeQuiet(fd) : error;
}

}  // namespace

int TunOpen(TunDevice* device, bool, const char** syscall) {
  const int fd = OpenTunFile(device, nullptr, syscall);
  if (fd < 0) return fd;
  const int error = SetUp(fd, syscall);
  if (error == 0) return fd;
  ::close(fd);
  DestroyInterface(device->name);
  return -error;
}

void TunClose(const TunDevice& device, int fd) {
  ::close(fd);
  DestroyInterface(device.name);
}

}  // namespace vpn
