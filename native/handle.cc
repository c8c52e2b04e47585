// The handle table, readiness callbacks, and closing.

#include "handle.h"

#include <unistd.h>

#include <cerrno>

#include "tun.h"
#include "udp.h"

namespace vpn {

namespace {

static_assert(UV_READABLE == 1 && UV_WRITABLE == 2,
              "PollEvent in native.ts has libuv's bits");

void Call(Handle* handle, int events) {
  Addon* addon = handle->addon;
  napi_env env = addon->env;
  napi_handle_scope scope = nullptr;
  if (handle->on_ready == nullptr ||
      napi_open_handle_scope(env, &scope) != napi_ok)
    return;
  napi_value callback = nullptr;
  napi_value global = nullptr;
  napi_value bits = nullptr;
  if (napi_get_reference_value(env, handle->on_ready, &callback) == napi_ok &&
      napi_get_global(env, &global) == napi_ok &&
      napi_create_int32(env, events, &bits) == napi_ok) {
    napi_status status = napi_make_callback(env, addon->context, global,
                                            callback, 1, &bits, nullptr);
    napi_value error = nullptr;
    if (status == napi_pending_exception &&
        napi_get_and_clear_last_exception(env, &error) == napi_ok) {
      napi_fatal_exception(env, error);
    }
  }
  napi_close_handle_scope(env, scope);
}

void Apply(Handle* handle);

void OnPoll(uv_poll_t* poller, int status, int events) {
  Handle* handle = static_cast<Handle*>(poller->data);
  if (status >= 0) {
    // A callback of this round may have asked for less since.
    events &= handle->events;
    if (events != 0) Call(handle, events);
    return;
  }
  // libuv stops a descriptor that shows POLLERR. The read or write that follows
  // says what it is: a device that is gone, or an error of a socket that is
  // over with being told.
  handle->started = 0;
  Call(handle, handle->events);
  if (!handle->closed && handle->udp != nullptr) Apply(handle);
}

void OnIdle(uv_idle_t* idler) {
  Handle* handle = static_cast<Handle*>(idler->data);
  Call(handle, UV_READABLE);
}

// Tells libuv only what has changed: uv_poll_start costs two system calls, and
// the writable bit is asked for and taken back often.
void Apply(Handle* handle) {
  if (handle->started != handle->events) {
    handle->started = handle->events;
    if (handle->events == 0) {
      uv_poll_stop(&handle->poller);
    } else {
      uv_poll_start(&handle->poller, handle->events, OnPoll);
    }
  }
  if (handle->backlog && (handle->events & UV_READABLE) != 0) {
    uv_idle_start(&handle->idler, OnIdle);
  } else {
    uv_idle_stop(&handle->idler);
  }
}

void OnClosed(uv_handle_t* part) {
  Handle* handle = static_cast<Handle*>(part->data);
  handle->uv_parts--;
  if (handle->uv_parts > 0) return;
  Addon* addon = handle->addon;
  delete handle;
  HandleClosed(addon);
}

void Forget(Handle* handle) {
  if (handle->on_ready != nullptr)
    napi_delete_reference(handle->addon->env, handle->on_ready);
  handle->on_ready = nullptr;
}

}  // namespace

Handle::Handle() = default;
Handle::~Handle() = default;

Handle* AddHandle(napi_env env, Addon* addon, int fd) {
  auto* handle = new Handle;
  int status = uv_poll_init(addon->loop, &handle->poller, fd);
  if (status != 0) {
    ::close(fd);
    delete handle;
    ThrowErrno(env, -status, "epoll_ctl");
    return nullptr;
  }
  uv_idle_init(addon->loop, &handle->idler);
  handle->poller.data = handle;
  handle->idler.data = handle;
  handle->uv_parts = 2;
  handle->addon = addon;
  handle->fd = fd;
  addon->handles.push_back(handle);
  addon->open++;
  handle->number = static_cast<uint32_t>(addon->handles.size());
  return handle;
}

Handle* FindHandle(napi_env env, Addon* addon, uint32_t number) {
  if (number > 0 && number <= addon->handles.size() &&
      addon->handles[number - 1] != nullptr) {
    return addon->handles[number - 1];
  }
  ThrowRange(env, "no such handle");
  return nullptr;
}

Handle* FindTun(napi_env env, Addon* addon, uint32_t number) {
  Handle* handle = FindHandle(env, addon, number);
  if (handle == nullptr || handle->tun != nullptr) return handle;
  ThrowRange(env, "not a TUN device");
  return nullptr;
}

Handle* FindUdp(napi_env env, Addon* addon, uint32_t number) {
  Handle* handle = FindHandle(env, addon, number);
  if (handle == nullptr || handle->udp != nullptr) return handle;
  ThrowRange(env, "not a socket");
  return nullptr;
}

void SetBacklog(Handle* handle, bool backlog) {
  if (handle->backlog == backlog) return;
  handle->backlog = backlog;
  Apply(handle);
}

void CloseHandle(Handle* handle) {
  Addon* addon = handle->addon;
  addon->handles[handle->number - 1] = nullptr;
  handle->closed = true;
  handle->events = 0;
  Forget(handle);
  uv_close(reinterpret_cast<uv_handle_t*>(&handle->poller), OnClosed);
  uv_close(reinterpret_cast<uv_handle_t*>(&handle->idler), OnClosed);
  // uv_close has taken the descriptor out of epoll, so it may go now; its name,
  // port or device is free when the call returns.
  if (handle->tun != nullptr && handle->tun->is_own) {
    TunClose(*handle->tun, handle->fd);
  } else {
    ::close(handle->fd);
  }
  handle->fd = -1;
}

namespace exports {

napi_value poll(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const uint32_t events = args.U32(1);
  if (!args.ok()) return nullptr;
  Handle* handle = FindHandle(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  if (events > (UV_READABLE | UV_WRITABLE))
    return ThrowRange(env, "unknown event");

  bool same = false;
  if (handle->on_ready != nullptr) {
    napi_value known = nullptr;
    napi_get_reference_value(env, handle->on_ready, &known);
    napi_strict_equals(env, known, args.value(2), &same);
  }
  if (!same) {
    napi_valuetype type = napi_undefined;
    napi_typeof(env, args.value(2), &type);
    if (type != napi_function) {
      napi_throw_type_error(env, nullptr, "expected a function");
      return nullptr;
    }
    Forget(handle);
    if (napi_create_reference(env, args.value(2), 1, &handle->on_ready) !=
        napi_ok)
      return nullptr;
  }
  handle->events = static_cast<int>(events);
  Apply(handle);
  return nullptr;
}

napi_value close(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  if (!args.ok()) return nullptr;
  Handle* handle = FindHandle(env, args.addon(), number);
  if (handle != nullptr) CloseHandle(handle);
  return nullptr;
}

}  // namespace exports

}  // namespace vpn
