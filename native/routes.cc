// The exported functions that tell of changes to the host's network.

#include "routes.h"

#include <sys/socket.h>

#include "check.h"
#include "handle.h"

namespace vpn {
namespace exports {

napi_value routesOpen(napi_env env, napi_callback_info info) {
  Args args(env, info);
  if (!args.ok()) return nullptr;
  const char* syscall = "";
  const int fd = RoutesOpen(&syscall);
  if (fd < 0) return ThrowErrno(env, -fd, syscall);
  Handle* handle = AddHandle(env, args.addon(), fd);
  return handle == nullptr ? nullptr : Number(env, handle->number);
}

napi_value routesDrain(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  if (!args.ok()) return nullptr;
  Handle* handle = FindHandle(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  // What changed is asked of the system's own tools; here it only matters that
  // something did. An error (ENOBUFS: some were lost) says that as well.
  char message[8192];
  while (::recv(handle->fd, message, sizeof(message), MSG_DONTWAIT) > 0) {
  }
  return nullptr;
}

}  // namespace exports
}  // namespace vpn
