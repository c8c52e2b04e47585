// The exported functions of UDP sockets: options, endpoints, and the checks of
// their tables.

#include "udp.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "check.h"
#include "handle.h"

namespace vpn {

namespace {

// The layout of an endpoint: batch.ts, ENDPOINT_BYTES.
constexpr size_t kPortAt = 2;
constexpr size_t kScopeAt = 4;
constexpr size_t kRemoteAt = 8;
constexpr size_t kLocalAt = 24;
static_assert(kLocalAt + sizeof(in6_addr) == kEndpointBytes, "");

const uint8_t kZero[16] = {};
const uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

in6_addr Map(const uint8_t* v4) {
  in6_addr address;
  memcpy(address.s6_addr, kMapped, sizeof(kMapped));
  memcpy(address.s6_addr + sizeof(kMapped), v4, 4);
  return address;
}

// Returns 0 or an errno.
int ParseAddress(int family, const std::string& text, uint16_t port,
                 SocketAddress* address) {
  memset(address, 0, sizeof(*address));
  if (family == AF_INET) {
    address->v4.sin_family = AF_INET;
    address->v4.sin_port = htons(port);
    return text.empty() ||
                   inet_pton(AF_INET, text.c_str(), &address->v4.sin_addr) == 1
               ? 0
               : EINVAL;
  }
  address->v6.sin6_family = AF_INET6;
  address->v6.sin6_port = htons(port);
  if (text.empty()) return 0;
  const size_t percent = text.find('%');
  if (percent != std::string::npos) {
    address->v6.sin6_scope_id = if_nametoindex(text.c_str() + percent + 1);
    if (address->v6.sin6_scope_id == 0) return ENODEV;
  }
  return inet_pton(AF_INET6, text.substr(0, percent).c_str(),
                   &address->v6.sin6_addr) == 1
             ? 0
             : EINVAL;
}

struct Options {
  int family;
  bool dual_stack;
  std::string address;
  std::string device;
  uint32_t port;
  uint32_t mark;
  bool offload;
  uint32_t buffer_bytes;

  bool Read(napi_env env, napi_value value) {
    if (!Napi::Value(env, value).IsObject()) return false;
    Napi::Object object(env, value);
    // Each has its type by native.ts; a wrong one becomes 0, false or ''.
    auto number = [&](const char* name) {
      Napi::Value field = object.Get(name);
      return field.IsNumber() ? field.As<Napi::Number>().Uint32Value() : 0;
    };
    auto flag = [&](const char* name) {
      Napi::Value field = object.Get(name);
      return field.IsBoolean() && field.As<Napi::Boolean>().Value();
    };
    auto text = [&](const char* name) {
      Napi::Value field = object.Get(name);
      return field.IsString() ? field.As<Napi::String>().Utf8Value()
                              : std::string();
    };
    family = number("family") == 6 ? AF_INET6 : AF_INET;
    dual_stack = flag("dualStack");
    address = text("address");
    device = text("device");
    port = number("port");
    mark = number("mark");
    offload = flag("offload");
    buffer_bytes = std::min<uint32_t>(number("bufferBytes"), INT32_MAX);
    return port <= UINT16_MAX;
  }
};

// Returns the bound socket, or -errno.
int Open(const Options& options, UdpSocket* socket, uint16_t* port,
         const char** syscall) {
  SocketAddress address;
  *syscall = "bind";
  int error = ParseAddress(options.family, options.address,
                           static_cast<uint16_t>(options.port), &address);
  if (error != 0) return -error;
  *syscall = "socket";
#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
  const int fd =
      ::socket(options.family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
#else
  const int fd = ::socket(options.family, SOCK_DGRAM, 0);
  if (fd < 0) return -errno;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
#endif
  socket->family = options.family;
  const UdpSystemOptions system = {options.dual_stack, options.device.c_str(),
                                   options.mark, options.offload,
                                   static_cast<int>(options.buffer_bytes)};
  error = UdpPrepare(socket, fd, system, syscall);
  if (error == 0) {
    *syscall = "bind";
    socklen_t size = address.size();
    if (::bind(fd, &address.base, size) != 0 ||
        ::getsockname(fd, &address.base, &size) != 0) {
      error = errno;
    }
  }
  if (error != 0) {
    ::close(fd);
    return -error;
  }
  *port = ntohs(options.family == AF_INET ? address.v4.sin_port
                                          : address.v6.sin6_port);
  return fd;
}

}  // namespace

int ReadEndpoint(const uint8_t* endpoint, int socket_family,
                 Destination* destination) {
  *destination = Destination();
  const uint8_t* local = endpoint + kLocalAt;
  const bool v4 = endpoint[0] == 4;
  if (!v4 && endpoint[0] != 6) return EDESTADDRREQ;
  if (!v4 && socket_family == AF_INET) return EAFNOSUPPORT;
  destination->from_local = memcmp(local, kZero, v4 ? 4 : 16) != 0;
  if (socket_family == AF_INET) {
    sockaddr_in* remote = &destination->remote.v4;
    remote->sin_family = AF_INET;
    memcpy(&remote->sin_port, endpoint + kPortAt, 2);
    memcpy(&remote->sin_addr, endpoint + kRemoteAt, 4);
    memcpy(&destination->local_v4, local, 4);
    return 0;
  }
  sockaddr_in6* remote = &destination->remote.v6;
  remote->sin6_family = AF_INET6;
  memcpy(&remote->sin6_port, endpoint + kPortAt, 2);
  if (v4) {
    remote->sin6_addr = Map(endpoint + kRemoteAt);
    destination->local_v6 = Map(local);
    return 0;
  }
  memcpy(&remote->sin6_addr, endpoint + kRemoteAt, 16);
  memcpy(&destination->local_v6, local, 16);
  uint32_t scope;
  memcpy(&scope, endpoint + kScopeAt, 4);
  remote->sin6_scope_id = ntohl(scope);
  return 0;
}

void WriteEndpoint(const SocketAddress& remote, const void* local,
                   uint8_t* endpoint) {
  memset(endpoint, 0, kEndpointBytes);
  if (remote.base.sa_family == AF_INET) {
    endpoint[0] = 4;
    memcpy(endpoint + kPortAt, &remote.v4.sin_port, 2);
    memcpy(endpoint + kRemoteAt, &remote.v4.sin_addr, 4);
    if (local != nullptr) memcpy(endpoint + kLocalAt, local, 4);
    return;
  }
  const bool mapped =
      memcmp(&remote.v6.sin6_addr, kMapped, sizeof(kMapped)) == 0;
  const size_t skip = mapped ? sizeof(kMapped) : 0;
  endpoint[0] = mapped ? 4 : 6;
  memcpy(endpoint + kPortAt, &remote.v6.sin6_port, 2);
  memcpy(endpoint + kRemoteAt, remote.v6.sin6_addr.s6_addr + skip, 16 - skip);
  if (local != nullptr) {
    memcpy(endpoint + kLocalAt, static_cast<const uint8_t*>(local) + skip,
           16 - skip);
  }
  if (IN6_IS_ADDR_LINKLOCAL(&remote.v6.sin6_addr)) {
    const uint32_t scope = htonl(remote.v6.sin6_scope_id);
    memcpy(endpoint + kScopeAt, &scope, 4);
  }
}

namespace exports {

napi_value udpOpen(napi_env env, napi_callback_info info) {
  Args args(env, info);
  Options options;
  if (!args.ok()) return nullptr;
  if (!options.Read(env, args.value(0))) {
    napi_throw_type_error(env, nullptr, "expected the options of a socket");
    return nullptr;
  }
  auto socket = std::make_unique<UdpSocket>();
  uint16_t port = 0;
  const char* syscall = "";
  const int fd = Open(options, socket.get(), &port, &syscall);
  if (fd < 0) return ThrowErrno(env, -fd, syscall);
  Handle* handle = AddHandle(env, args.addon(), fd);
  if (handle == nullptr) return nullptr;
  handle->udp = std::move(socket);
  Napi::Object result = Napi::Object::New(env);
  result.Set("handle", Napi::Number::New(env, handle->number));
  result.Set("port", Napi::Number::New(env, port));
  return result;
}

napi_value udpReceive(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> slab = args.Array<uint8_t>(1);
  const size_t start = args.U32(2);
  const size_t end = args.U32(3);
  const DatagramColumns table = {
      args.Array<uint32_t>(4), args.Array<uint16_t>(5),
      args.Array<uint16_t>(6), args.Array<uint8_t>(7)};
  if (!args.ok()) return nullptr;
  Handle* handle = FindUdp(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  if (start > end || end > slab.size)
    return ThrowRange(env, "start and end lie outside the slab");
  if (table.lengths.size < table.slots() ||
      table.sources.size < table.slots() ||
      table.endpoints.size / kEndpointBytes < table.slots()) {
    return ThrowRange(env, "columns of unequal length");
  }
  const size_t count =
      UdpReceive(handle->udp.get(), handle->fd, args.addon()->udp.get(),
                 slab.data, start, end, table);
  return Number(env, static_cast<int64_t>(count));
}

napi_value udpSend(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> slab = args.Array<uint8_t>(1);
  const Span<uint32_t> to = args.Array<uint32_t>(2);
  const Span<uint16_t> sizes = args.Array<uint16_t>(3);
  const size_t first = args.U32(4);
  const size_t count = args.U32(5);
  const Span<uint8_t> endpoint = args.Array<uint8_t>(6);
  const size_t endpoint_offset = args.U32(7);
  if (!args.ok()) return nullptr;
  Handle* handle = FindUdp(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  if (!to.Holds(first, count) || !sizes.Holds(first, count)) {
    return ThrowRange(env, "more slots than the table has");
  }
  if (!endpoint.Holds(endpoint_offset, kEndpointBytes)) {
    return ThrowRange(env, "the endpoint lies outside its memory");
  }
  for (size_t i = first; i < first + count; i++) {
    if (!slab.Holds(to.data[i], sizes.data[i])) {
      return ThrowRange(env, "a slot lies outside its memory");
    }
  }
  UdpSocket* socket = handle->udp.get();
  Destination destination;
  const int error = ReadEndpoint(endpoint.data + endpoint_offset,
                                 socket->family, &destination);
  if (error != 0) {
    socket->error = error;
    return Number(env, static_cast<int64_t>(count));
  }
  const Outbound outbound = {slab.data, to.data, sizes.data, first,
                             first + count};
  const size_t sent = UdpSend(socket, handle->fd, args.addon()->udp.get(),
                              outbound, destination);
  return Number(env, static_cast<int64_t>(sent));
}

napi_value udpErrno(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  if (!args.ok()) return nullptr;
  Handle* handle = FindUdp(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  const int error = handle->udp->error;
  handle->udp->error = 0;
  return Number(env, error);
}

}  // namespace exports

}  // namespace vpn
