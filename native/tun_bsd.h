// What the TUN and TAP devices of macOS and the BSDs have in common: four bytes
// of address family in front of each packet but not of a frame, no offloads,
// and a name that ends in a number.

#ifndef VPN_NATIVE_TUN_BSD_H_
#define VPN_NATIVE_TUN_BSD_H_

#include "tun.h"

namespace vpn {

// The number at the end of `name` behind `prefix`; -1 when that is not its
// form.
int UnitOf(const char* name, const char* prefix);

// Makes a descriptor non-blocking and closed on exec. Returns 0 or an errno.
int MakeQuiet(int fd);

// Opens /dev/tunN, or /dev/tapN, for a name that is wanted (`any` is then not
// used), else `any`, a device that gives a free one, or without that the first
// free of /dev/tun0, /dev/tun1 and so on. A device that somebody has set up
// already is not taken. Returns the descriptor, or -errno; `device->name` is
// set only where the path says it.
int OpenTunFile(TunDevice* device, const char* any, const char** syscall);

// Runs an ioctl that takes an int. Returns 0 or an errno.
int SetTunOption(int fd, unsigned long request, int value);

// Runs an ioctl on a socket, as those of interfaces want it. Returns 0 or an
// errno.
int ControlInterface(unsigned long request, ifreq* argument);

// SIOCIFDESTROY: these systems keep a device after its descriptor is closed.
void DestroyInterface(const char* name);

}  // namespace vpn

#endif  // VPN_NATIVE_TUN_BSD_H_
