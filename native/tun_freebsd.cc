// TUN and TAP on FreeBSD, tun(4) and tap(4): /dev/tun and /dev/tap give a free
// device; the address family in front of packets is asked for, and so is
// point-to-point. Frames are as they are.

#include <net/if.h>
#include <net/if_tun.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sockio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tun_bsd.h"

namespace vpn {

namespace {

static_assert(TUNSIFHEAD == 0x80047460, "_IOW('t', 96, int)");
static_assert(TUNSIFMODE == 0x8004745e, "_IOW('t', 94, int)");
static_assert(IFF_POINTOPOINT == 0x10 && IFF_MULTICAST == 0x8000, "");
static_assert(AF_INET6 == 28, "the prefix of packets");
static_assert(SIOCSIFMTU == 0x80206934 && SIOCIFDESTROY == 0x80206979, "");
static_assert(sizeof(ifreq) == 32, "");

int SetUp(TunDevice* device, int fd, const char** syscall) {
  // The device file has the name of its interface.
  *syscall = "fdevname";
  const char* name = ::fdevname(fd);
  if (name == nullptr || strlen(name) >= sizeof(device->name)) return ENXIO;
  strncpy(device->name, name, sizeof(device->name));
  if (device->ethernet) return MakeQuiet(fd);
  *syscall = "TUNSIFMODE";
  int error = SetTunOption(fd, TUNSIFMODE, IFF_POINTOPOINT | IFF_MULTICAST);
  if (error != 0) return error;
  *syscall = "TUNSIFHEAD";
  error = SetTunOption(fd, TUNSIFHEAD, 1);
  return error == 0 ? MakeQuiet(fd) : error;
}

}  // namespace

int TunOpen(TunDevice* device, bool, const char** syscall) {
  const char* any = device->ethernet ? "/dev/tap" : "/dev/tun";
  const int fd = OpenTunFile(device, any, syscall);
  if (fd < 0) return fd;
  const int error = SetUp(device, fd, syscall);
  if (error == 0) return fd;
  ::close(fd);
  return -error;
}

void TunClose(const TunDevice& device, int fd) {
  ::close(fd);
  DestroyInterface(device.name);
}

}  // namespace vpn
