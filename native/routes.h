// Word from the kernel that addresses, routes or rules have changed.

#ifndef VPN_NATIVE_ROUTES_H_
#define VPN_NATIVE_ROUTES_H_

namespace vpn {

// A non-blocking socket that becomes readable with each change, or -errno. One
// file per system.
int RoutesOpen(const char** syscall);

}  // namespace vpn

#endif  // VPN_NATIVE_ROUTES_H_
