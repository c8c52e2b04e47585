// What the addon keeps for one JavaScript environment, and the functions it
// exports.
//
// Everything hangs off one Addon, so that a worker thread that loads the addon
// shares nothing with the main thread. It is freed by the environment's cleanup
// hook (addon.cc).

#ifndef VPN_NATIVE_ADDON_H_
#define VPN_NATIVE_ADDON_H_

#ifndef NAPI_VERSION
#define NAPI_VERSION 8
#endif
#ifndef NAPI_DISABLE_CPP_EXCEPTIONS
#define NAPI_DISABLE_CPP_EXCEPTIONS
#endif
#include <napi.h>
#include <uv.h>

#include <memory>
#include <unordered_map>
#include <vector>

namespace vpn {

struct Handle;
struct Key;
struct UdpScratch;
struct Ciphers;

struct Addon {
  Addon();
  ~Addon();
  Addon(const Addon&) = delete;
  Addon& operator=(const Addon&) = delete;

  napi_env env = nullptr;
  uv_loop_t* loop = nullptr;
  napi_async_context context = nullptr;
  napi_async_cleanup_hook_handle hook = nullptr;
  bool stopping = false;
  // Handles whose libuv parts are not yet closed.
  int open = 0;

  // Numbers are never used again, so that a stale one cannot reach a newer
  // socket (n is at n - 1) or, worse, a newer key.
  std::vector<Handle*> handles;
  std::unordered_map<uint32_t, std::unique_ptr<Key>> keys;
  uint32_t last_key = 0;

  std::unique_ptr<Ciphers> ciphers;
  std::shared_ptr<UdpScratch> udp;
};

#define VPN_EXPORTS(X) \
  X(tunCreate)         \
  X(tunSetMtu)         \
  X(tunRead)           \
  X(tunWrite)          \
  X(udpOpen)           \
  X(udpReceive)        \
  X(udpSend)           \
  X(udpErrno)          \
  X(aeadCreate)        \
  X(aeadFree)          \
  X(seal)              \
  X(authenticate)      \
  X(open)              \
  X(poll)              \
  X(close)             \
  X(cpuHasAes)         \
  X(netnsCookie)       \
  X(routesOpen)        \
  X(routesDrain)       \
  X(lockFile)          \
  X(unixSend)          \
  X(channelPair)       \
  X(channelAdopt)      \
  X(channelSend)       \
  X(channelReceive)    \
  X(confine)           \
  X(trimMemory)        \
  X(findUser)

// Each export is vpn::exports::name, called as native.ts declares it.
namespace exports {
#define VPN_DECLARE(name) \
  napi_value name(napi_env env, napi_callback_info info);
VPN_EXPORTS(VPN_DECLARE)
#undef VPN_DECLARE
}  // namespace exports

}  // namespace vpn

#endif  // VPN_NATIVE_ADDON_H_
