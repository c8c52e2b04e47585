// What a system's TUN device must offer (tun_linux.cc and its like), and what
// is kept per device.

#ifndef VPN_NATIVE_TUN_H_
#define VPN_NATIVE_TUN_H_

#include <net/if.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "offload.h"

namespace vpn {

struct TunDevice {
  char name[IF_NAMESIZE] = "";
  // Whether packets carry what Offload says, and whether UDP runs may be
  // written.
  bool offload = false;
  bool udp_runs = false;

  // A run that did not fit the last call's table goes on from here.
  Cutter cutter;
  Joiner joiner;
  uint8_t staging[kMaxPacket + 1];
};

// Opens a device, non-blocking and closed on exec; `device->name` is what is
// wanted ('' for any) and becomes what it is. Returns the descriptor, or -errno
// with the call that failed in `syscall`.
int TunOpen(TunDevice* device, bool offload, const char** syscall);

// Closes the descriptor, and removes a device that would stay behind.
void TunClose(const TunDevice& device, int fd);

// Returns 0 or an errno.
int TunSetMtu(const TunDevice& device, int fd, int mtu, const char** syscall);

// Reads one packet or run. Returns its bytes, or -errno.
ssize_t TunReadOne(const TunDevice& device, int fd, uint8_t* packet,
                   size_t size, Offload* offload);

// Writes one packet or run; parts[0] is free for a prefix of the system's own.
// Returns 0 or an errno.
int TunWriteOne(const TunDevice& device, int fd, iovec* parts, size_t count,
                const Offload& offload);

}  // namespace vpn

#endif  // VPN_NATIVE_TUN_H_
