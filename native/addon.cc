// The export table, and the end of an environment.

#include "addon.h"

#include "aead.h"
#include "handle.h"
#include "udp.h"

namespace vpn {

Addon::Addon() = default;
Addon::~Addon() = default;

namespace {

void Free(Addon* addon) {
  napi_async_destroy(addon->env, addon->context);
  napi_async_cleanup_hook_handle hook = addon->hook;
  delete addon;
  napi_remove_async_cleanup_hook(hook);
}

// The hook is asynchronous because a libuv handle is closed only when the loop
// has come round once more, and a worker's loop must be empty when it ends
// (uv_loop_close aborts otherwise).
void CleanUp(napi_async_cleanup_hook_handle hook, void* data) {
  Addon* addon = static_cast<Addon*>(data);
  addon->hook = hook;
  addon->stopping = true;
  for (Handle* handle : addon->handles) {
    if (handle != nullptr) CloseHandle(handle);
  }
  if (addon->open == 0) Free(addon);
}

bool Export(napi_env env, napi_value target, Addon* addon) {
  const napi_property_descriptor table[] = {
#define VPN_ROW(name)                          \
  {#name,   nullptr, exports::name,   nullptr, \
   nullptr, nullptr, napi_enumerable, addon},
      VPN_EXPORTS(VPN_ROW)
#undef VPN_ROW
  };
  return napi_define_properties(env, target, sizeof(table) / sizeof(table[0]),
                                table) == napi_ok;
}

}  // namespace

void HandleClosed(Addon* addon) {
  addon->open--;
  if (addon->stopping && addon->open == 0) Free(addon);
}

}  // namespace vpn

NAPI_MODULE_INIT() {
  auto* addon = new vpn::Addon;
  addon->env = env;
  addon->ciphers = vpn::FetchCiphers();
  addon->udp = vpn::MakeUdpScratch();
  napi_value name = nullptr;
  if (napi_create_string_utf8(env, "vpn", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_get_uv_event_loop(env, &addon->loop) != napi_ok ||
      napi_async_init(env, nullptr, name, &addon->context) != napi_ok ||
      !vpn::Export(env, exports, addon) ||
      napi_add_async_cleanup_hook(env, vpn::CleanUp, addon, &addon->hook) !=
          napi_ok) {
    delete addon;
    napi_throw_error(env, nullptr, "the addon could not be set up");
    return nullptr;
  }
  return exports;
}
