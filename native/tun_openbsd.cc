// TUN and TAP on OpenBSD, tun(4) and tap(4): opening /dev/tunN or /dev/tapN
// makes the interface, closing it takes it away; packets have their address
// family in front, always, and frames never.

#include <net/if_tun.h>
#include <sys/socket.h>
#include <sys/sockio.h>
#include <unistd.h>

#include "tun_bsd.h"

namespace vpn {

static_assert(AF_INET6 == 24, "the prefix of packets");
static_assert(SIOCSIFMTU == 0x8020697f && SIOCIFDESTROY == 0x80206979, "");
static_assert(sizeof(ifreq) == 32, "");

int TunOpen(TunDevice* device, bool, const char** syscall) {
  const int fd = OpenTunFile(device, nullptr, syscall);
  if (fd < 0) return fd;
  const int error = MakeQuiet(fd);
  if (error == 0) return fd;
  ::close(fd);
  return -error;
}

void TunClose(const TunDevice&, int fd) { ::close(fd); }

}  // namespace vpn
