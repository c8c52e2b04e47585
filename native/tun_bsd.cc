// Packets and MTU of TUN and TAP devices on macOS and the BSDs: xnu
// bsd/net/if_utun.c, tun(4) and tap(4) of FreeBSD, OpenBSD, NetBSD and
// DragonFly BSD.

#include "tun_bsd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace vpn {

namespace {

// The most units that are tried where no device gives a free one.
constexpr int kMostUnits = 256;

static_assert(IF_NAMESIZE == 16, "TunDevice::name goes into an ifreq");

int OpenUnit(const char* name) {
  // Somebody else has set it up: opening it would take it over.
  if (if_nametoindex(name) != 0) return -EBUSY;
  char path[sizeof("/dev/") + IF_NAMESIZE];
  snprintf(path, sizeof(path), "/dev/%s", name);
  const int fd = ::open(path, O_RDWR | O_NONBLOCK);
  return fd < 0 ? -errno : fd;
}

}  // namespace

int ControlInterface(unsigned long request, ifreq* argument) {
  const int control = ::socket(AF_INET, SOCK_DGRAM, 0);
  if (control < 0) return errno;
  const int error = ::ioctl(control, request, argument) == 0 ? 0 : errno;
  ::close(control);
  return error;
}

int UnitOf(const char* name, const char* prefix) {
  const size_t skip = strlen(prefix);
  if (strncmp(name, prefix, skip) != 0 || name[skip] == '\0') return -1;
  int unit = 0;
  for (const char* digit = name + skip; *digit != '\0'; digit++) {
    if (*digit < '0' || *digit > '9' || unit > 99999) return -1;
    unit = unit * 10 + (*digit - '0');
  }
  return unit;
}

int MakeQuiet(int fd) {
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return errno;
  // Not only as a flag of open(2): NetBSD's tun(4) listens to FIONBIO alone.
  return ::fcntl(fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : errno;
}

int OpenTunFile(TunDevice* device, const char* any, const char** syscall) {
  const char* kind = device->ethernet ? "tap" : "tun";
  *syscall = "open";
  if (device->name[0] != '\0') {
    return UnitOf(device->name, kind) < 0 ? -EINVAL : OpenUnit(device->name);
  }
  if (any != nullptr) {
    const int fd = ::open(any, O_RDWR | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
  }
  int fd = -EBUSY;
  for (int unit = 0; fd == -EBUSY && unit < kMostUnits; unit++) {
    snprintf(device->name, sizeof(device->name), "%s%d", kind, unit);
    fd = OpenUnit(device->name);
  }
  return fd;
}

int SetTunOption(int fd, unsigned long request, int value) {
  return ::ioctl(fd, request, &value) == 0 ? 0 : errno;
}

void DestroyInterface(const char* name) {
  ifreq request = {};
  memcpy(request.ifr_name, name, IF_NAMESIZE);
  // One that is gone already needs no word.
  ControlInterface(SIOCIFDESTROY, &request);
}

int TunSetMtu(const TunDevice& device, int, int mtu, const char** syscall) {
  ifreq request = {};
  memcpy(request.ifr_name, device.name, sizeof(device.name));
  request.ifr_mtu = mtu;
  *syscall = "SIOCSIFMTU";
  return ControlInterface(SIOCSIFMTU, &request);
}

ssize_t TunReadOne(const TunDevice& device, int fd, uint8_t* packet,
                   size_t size, Offload* offload) {
  // The packet says its version itself.
  uint32_t family = 0;
  const size_t prefix = device.ethernet ? 0 : sizeof(family);
  iovec parts[2] = {{&family, prefix}, {packet, size}};
  *offload = Offload();
  for (;;) {
    const ssize_t n = ::readv(fd, parts, 2);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n > static_cast<ssize_t>(prefix))
      return n - static_cast<ssize_t>(prefix);
    // The end of a control socket whose device is gone.
    if (n == 0) return -ENXIO;
  }
}

int TunWriteOne(const TunDevice& device, int fd, iovec* parts, size_t count,
                const Offload&) {
  const int version = *static_cast<const uint8_t*>(parts[1].iov_base) >> 4;
  uint32_t family = htonl(version == 6 ? AF_INET6 : AF_INET);
  parts[0] = {&family, device.ethernet ? 0 : sizeof(family)};
  ssize_t n = 0;
  do {
    n = ::writev(fd, parts, static_cast<int>(count));
  } while (n < 0 && errno == EINTR);
  return n < 0 ? errno : 0;
}

}  // namespace vpn
