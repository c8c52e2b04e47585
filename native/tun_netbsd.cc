// TUN on NetBSD, tun(4): opening /dev/tunN makes the interface, which stays
// when it is closed; the address family in front of packets is asked for, and
// so is point-to-point. TAP, tap(4): /dev/tap makes one for as long as it is
// open; /dev/tapN is of an interface that is there already.

#include <fcntl.h>
#include <net/if.h>
#include <net/if_tap.h>
#include <net/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sockio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tun_bsd.h"

namespace vpn {

namespace {

static_assert(TUNSIFHEAD == 0x80047442, "_IOW('t', 66, int)");
static_assert(TUNSIFMODE == 0x80047458, "_IOW('t', 88, int)");
static_assert(IFF_POINTOPOINT == 0x10 && IFF_MULTICAST == 0x8000, "");
static_assert(AF_INET6 == 24, "the prefix of packets");
static_assert(SIOCSIFMTU == 0x8090697f && SIOCIFDESTROY == 0x80906979, "");
static_assert(sizeof(ifreq) == 144, "");
static_assert(SIOCIFCREATE == 0x8090697a && TAPGIFNAME == 0x40906500, "");

int SetUp(int fd, const char** syscall) {
  *syscall = "TUNSIFMODE";
  int error = SetTunOption(fd, TUNSIFMODE, IFF_POINTOPOINT | IFF_MULTICAST);
  if (error != 0) return error;
  *syscall = "TUNSIFHEAD";
  error = SetTunOption(fd, TUNSIFHEAD, 1);
  return error == 0 ? MakeQuiet(fd) : error;
}

// Returns 0 or an errno: EEXIST where somebody else has made it.
int CreateInterface(const char* name) {
  ifreq request = {};
  memcpy(request.ifr_name, name, IF_NAMESIZE);
  return ControlInterface(SIOCIFCREATE, &request);
}

// Returns the descriptor, or -errno.
int OpenTap(TunDevice* device, const char** syscall) {
  const bool any = device->name[0] == '\0';
  *syscall = "SIOCIFCREATE";
  if (!any && UnitOf(device->name, "tap") < 0) return -EINVAL;
  const int made = any ? 0 : CreateInterface(device->name);
  if (made != 0) return -made;
  char path[sizeof("/dev/") + IF_NAMESIZE];
  snprintf(path, sizeof(path), "/dev/%s", any ? "tap" : device->name);
  *syscall = "open";
  const int fd = ::open(path, O_RDWR | O_NONBLOCK);
  int error = fd < 0 ? errno : MakeQuiet(fd);
  if (error == 0 && any) {
    ifreq request = {};
    *syscall = "TAPGIFNAME";
    error = ::ioctl(fd, TAPGIFNAME, &request) == 0 ? 0 : errno;
    memcpy(device->name, request.ifr_name, sizeof(device->name));
  }
  if (error == 0) return fd;
  if (fd >= 0) ::close(fd);
  if (!any) DestroyInterface(device->name);
  return -error;
}

}  // namespace

int TunOpen(TunDevice* device, bool, const char** syscall) {
  if (device->ethernet) return OpenTap(device, syscall);
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
