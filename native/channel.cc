// Messages between the two processes of one vpn, over a socket pair: bytes, and
// with them a device or socket that the other side then has too (SCM_RIGHTS,
// cmsg(3)). What a message means is not known here.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "check.h"
#include "handle.h"
#include "tun.h"
#include "udp.h"

namespace vpn {

namespace {

// macOS has no sockets with both connections and message boundaries; there the
// end of the other side is an error of the next call.
#if defined(__APPLE__)
constexpr int kKind = SOCK_DGRAM;
#else
constexpr int kKind = SOCK_SEQPACKET;
#endif

// Room for a few of the longest messages (channel.ts).
constexpr int kBufferBytes = 1 << 20;

enum class Passed : uint32_t { kNone, kTun, kUdp };

// Stands in front of the bytes: what the descriptor is, as the addon of the
// same executable keeps it on the other side.
struct Prefix {
  Passed kind = Passed::kNone;
  TunFacts tun;
  UdpSocket udp;
};
static_assert(std::is_trivially_copyable<Prefix>::value, "it goes as bytes");

union ControlSpace {
  cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
};

// One message, to be sent or to be filled: the prefix, the caller's bytes, and
// room for a descriptor.
struct Message {
  explicit Message(const Span<uint8_t>& bytes) {
    parts[0] = {&prefix, sizeof(prefix)};
    parts[1] = {bytes.data, bytes.size};
    header.msg_iov = parts;
    header.msg_iovlen = 2;
    header.msg_control = space.bytes;
    header.msg_controllen = sizeof(space.bytes);
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  Prefix prefix;
  iovec parts[2];
  msghdr header = {};
  // Last: it ends in an array without a length.
  ControlSpace space = {};
};

Prefix Describe(const Handle* handle) {
  Prefix prefix;
  if (handle->tun != nullptr) {
    prefix.kind = Passed::kTun;
    prefix.tun = *handle->tun;
  } else if (handle->udp != nullptr) {
    prefix.kind = Passed::kUdp;
    prefix.udp = *handle->udp;
  }
  return prefix;
}

int MakeChannel(int fd) {
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return errno;
  if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return errno;
  // As large as the system lets them be.
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kBufferBytes, sizeof(kBufferBytes));
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof(kBufferBytes));
#if defined(SO_SNDBUFFORCE)
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kBufferBytes,
               sizeof(kBufferBytes));
#endif
  return 0;
}

// The descriptor that came with a message, or -1. Never more than one: whatever
// else came is closed.
int TakeDescriptor(msghdr* message) {
  int taken = -1;
  for (cmsghdr* part = CMSG_FIRSTHDR(message); part != nullptr;
       part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
      continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      if (taken < 0) {
        taken = fd;
      } else {
        ::close(fd);
      }
    }
  }
  return taken;
}

// The handle of a descriptor that came; takes it over. 0 after an exception.
uint32_t Adopt(napi_env env, Addon* addon, const Prefix& prefix, int fd) {
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  Handle* handle = AddHandle(env, addon, fd);
  if (handle == nullptr) return 0;
  if (prefix.kind == Passed::kTun) {
    handle->tun = std::make_unique<TunDevice>();
    static_cast<TunFacts&>(*handle->tun) = prefix.tun;
    handle->tun->is_own = false;
  } else {
    handle->udp = std::make_unique<UdpSocket>(prefix.udp);
  }
  return handle->number;
}

}  // namespace

namespace exports {

napi_value channelPair(napi_env env, napi_callback_info info) {
  Args args(env, info);
  if (!args.ok()) return nullptr;
  int fds[2] = {-1, -1};
  if (::socketpair(AF_UNIX, kKind, 0, fds) != 0)
    return ThrowErrno(env, errno, "socketpair");
  int error = MakeChannel(fds[0]);
  if (error == 0) error = MakeChannel(fds[1]);
  if (error != 0) {
    ::close(fds[0]);
    ::close(fds[1]);
    return ThrowErrno(env, error, "fcntl");
  }
  Handle* handle = AddHandle(env, args.addon(), fds[0]);
  if (handle == nullptr) {
    ::close(fds[1]);
    return nullptr;
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("handle", Napi::Number::New(env, handle->number));
  result.Set("descriptor", Napi::Number::New(env, fds[1]));
  return result;
}

napi_value channelAdopt(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const int fd = static_cast<int>(args.U32(0));
  if (!args.ok()) return nullptr;
  // Whatever else has that number is somebody's.
  int kind = 0;
  socklen_t size = sizeof(kind);
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) != 0)
    return ThrowErrno(env, errno, "getsockopt");
  if (kind != kKind) return ThrowErrno(env, EPROTOTYPE, "getsockopt");
  const int error = MakeChannel(fd);
  if (error != 0) return ThrowErrno(env, error, "fcntl");
  Handle* handle = AddHandle(env, args.addon(), fd);
  return handle == nullptr ? nullptr : Number(env, handle->number);
}

napi_value channelSend(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> bytes = args.Array<uint8_t>(1);
  const uint32_t passed = args.U32(2);
  if (!args.ok()) return nullptr;
  Handle* channel = FindHandle(env, args.addon(), number);
  if (channel == nullptr) return nullptr;
  Message message(bytes);
  if (passed == 0) {
    message.header.msg_control = nullptr;
    message.header.msg_controllen = 0;
  } else {
    Handle* handle = FindHandle(env, args.addon(), passed);
    if (handle == nullptr) return nullptr;
    message.prefix = Describe(handle);
    cmsghdr* part = CMSG_FIRSTHDR(&message.header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(part), &handle->fd, sizeof(int));
  }
  ssize_t sent = 0;
  do {
#if defined(MSG_NOSIGNAL)
    sent = ::sendmsg(channel->fd, &message.header, MSG_NOSIGNAL);
#else
    sent = ::sendmsg(channel->fd, &message.header, 0);
#endif
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return Boolean(env, true);
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
    return Boolean(env, false);
  return ThrowErrno(env, errno, "sendmsg");
}

napi_value channelReceive(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> bytes = args.Array<uint8_t>(1);
  const bool takes = args.Flag(2);
  if (!args.ok()) return nullptr;
  Handle* channel = FindHandle(env, args.addon(), number);
  if (channel == nullptr) return nullptr;
  Message message(bytes);
  const Prefix& prefix = message.prefix;
  ssize_t received = 0;
  do {
    received = ::recvmsg(channel->fd, &message.header, 0);
  } while (received < 0 && errno == EINTR);
  if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return nullptr;
  const int fd = received < 0 ? -1 : TakeDescriptor(&message.header);
  Napi::Object result = Napi::Object::New(env);
  uint32_t passed = 0;
  const bool whole = received >= static_cast<ssize_t>(sizeof(prefix)) &&
                     (message.header.msg_flags & MSG_TRUNC) == 0;
  if (fd >= 0) {
    if (takes && whole && prefix.kind != Passed::kNone) {
      passed = Adopt(env, args.addon(), prefix, fd);
      if (passed == 0) return nullptr;
    } else {
      ::close(fd);
    }
  }
  const ssize_t size =
      whole ? received - static_cast<ssize_t>(sizeof(prefix)) : -1;
  result.Set("size", Napi::Number::New(env, static_cast<double>(size)));
  result.Set("passed", Napi::Number::New(env, passed));
  return result;
}

}  // namespace exports

}  // namespace vpn
