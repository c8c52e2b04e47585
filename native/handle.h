// Handles: a file descriptor with its place in the event loop. What lies behind
// the descriptor belongs to tun.cc and udp.cc.

#ifndef VPN_NATIVE_HANDLE_H_
#define VPN_NATIVE_HANDLE_H_

#include <memory>

#include "addon.h"
#include "check.h"

namespace vpn {

struct TunDevice;
struct UdpSocket;

struct Handle {
  Handle();
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  Addon* addon = nullptr;
  uint32_t number = 0;
  int fd = -1;
  // One of the two is set.
  std::unique_ptr<TunDevice> tun;
  std::unique_ptr<UdpSocket> udp;

  uv_poll_t poller;
  // Runs while a device has input that is no longer in its descriptor
  // (SetBacklog).
  uv_idle_t idler;
  int uv_parts = 0;
  bool backlog = false;
  bool closed = false;
  // PollEvent bits asked for, and those that libuv was told.
  int events = 0;
  int started = 0;
  napi_ref on_ready = nullptr;
};

// Takes over `fd`, which is closed on failure. Throws and returns nullptr on
// failure.
Handle* AddHandle(napi_env env, Addon* addon, int fd);

// The handle of that number, or nullptr and a RangeError.
Handle* FindHandle(napi_env env, Addon* addon, uint32_t number);
Handle* FindTun(napi_env env, Addon* addon, uint32_t number);
Handle* FindUdp(napi_env env, Addon* addon, uint32_t number);

// Whether there is input that poll(2) on the descriptor does not show. The
// callback is then called as if the descriptor were readable.
void SetBacklog(Handle* handle, bool backlog);

// Closes the descriptor at once and frees the handle when libuv lets go of it.
void CloseHandle(Handle* handle);

// In addon.cc: one handle is gone.
void HandleClosed(Addon* addon);

}  // namespace vpn

#endif  // VPN_NATIVE_HANDLE_H_
