// What a system's TUN and TAP devices must offer (tun_linux.cc and its like),
// and what is kept per device.

#ifndef VPN_NATIVE_TUN_H_
#define VPN_NATIVE_TUN_H_

#include <net/if.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "offload.h"

namespace vpn {

// What is true of a device as long as it is open; another process that gets the
// descriptor gets a copy (channel.cc).
struct TunFacts {
  char name[IF_NAMESIZE] = "";
  // Whether packets carry what Offload says, and whether UDP runs may be
  // written.
  bool offload = false;
  bool udp_runs = false;
  // A TAP device: Ethernet frames where others have packets.
  bool ethernet = false;
};

struct TunDevice : TunFacts {
  // Whether the device was made here, so that it goes with its handle.
  bool is_own = true;

  // A run that did not fit the last call's table goes on from here.
  Cutter cutter;
  Joiner joiner;
  uint8_t staging[kMaxFrame + 1];
};

// Opens a device of the kind that `device->ethernet` says, non-blocking and
// closed on exec; `device->name` is what is wanted ('' for any) and becomes
// what it is. Returns the descriptor, or -errno with the call that failed in
// `syscall`.
int TunOpen(TunDevice* device, bool offload, const char** syscall);

// Closes the descriptor, and removes a device that would stay behind.
void TunClose(const TunDevice& device, int fd);

// Returns 0 or an errno.
int TunSetMtu(const TunDevice& device, int fd, int mtu, const char** syscall);

// Reads one packet or run. Returns its bytes, or -errno.
ssize_t TunReadOne(const TunDevice& device, int fd, uint8_t* packet,
                   size_t size, Offload* offload);

// Writes one packet or run, which begins in parts[1]; parts[0] is free for a
// prefix of the system's own.
// Returns 0 or an errno.
int TunWriteOne(const TunDevice& device, int fd, iovec* parts, size_t count,
                const Offload& offload);

}  // namespace vpn

#endif  // VPN_NATIVE_TUN_H_
