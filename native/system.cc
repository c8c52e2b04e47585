// Facts about the machine, and file locks.

#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "check.h"

#if defined(__linux__) && defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__linux__) && !defined(SO_NETNS_COOKIE)
#define SO_NETNS_COOKIE \
  71  // linux/include/uapi/asm-generic/socket.h, since 5.14
#endif

namespace vpn {

namespace {

bool HasAes() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__linux__) && defined(__aarch64__)
  const unsigned long both = HWCAP_AES | HWCAP_PMULL;
  return (getauxval(AT_HWCAP) & both) == both;
#elif defined(__APPLE__) && defined(__aarch64__)
  return true;
#else
  return false;
#endif
}

std::string NetnsCookie() {
  std::string text;
#if defined(__linux__)
  int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  // A kernel without IPv4 still has Unix sockets, and the cookie is the same.
  if (fd < 0) fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return text;
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (::getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0) {
    text = std::to_string(cookie);
  }
  ::close(fd);
#endif
  return text;
}

}  // namespace

namespace exports {

napi_value cpuHasAes(napi_env env, napi_callback_info) {
  return Boolean(env, HasAes());
}

napi_value netnsCookie(napi_env env, napi_callback_info) {
  return Napi::String::New(env, NetnsCookie());
}

napi_value lockFile(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const int fd = static_cast<int>(args.U32(0));
  if (!args.ok()) return nullptr;
  int status = 0;
  do {
    status = ::flock(fd, LOCK_EX | LOCK_NB);
  } while (status != 0 && errno == EINTR);
  if (status == 0) return Boolean(env, true);
  if (errno == EWOULDBLOCK) return Boolean(env, false);
  return ThrowErrno(env, errno, "flock");
}

}  // namespace exports

}  // namespace vpn
