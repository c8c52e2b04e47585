// Facts about the machine, file locks, and datagrams to a Unix socket.

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
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

// Returns 0 or an errno. `path` begins with "@" for a name that is in no folder
// (unix(7), "abstract"; Linux).
int SendUnix(const std::string& path, const std::string& text) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty()) return EINVAL;
  if (path.size() >= sizeof(address.sun_path)) return ENAMETOOLONG;
  memcpy(address.sun_path, path.data(), path.size());
  const bool is_abstract = path[0] == '@';
  if (is_abstract) address.sun_path[0] = '\0';
  // An abstract name is as long as the address says, the other ends with a 0.
  const socklen_t size = static_cast<socklen_t>(
      offsetof(sockaddr_un, sun_path) + path.size() + (is_abstract ? 0 : 1));
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  if (fd < 0) return errno;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  // Room comes soon where somebody reads; whoever does not must not hold us up.
  timeval limit = {};
  limit.tv_sec = 2;
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  ssize_t sent = 0;
  do {
    sent = ::sendto(fd, text.data(), text.size(), 0,
                    reinterpret_cast<const sockaddr*>(&address), size);
  } while (sent < 0 && errno == EINTR);
  const int error = sent < 0 ? errno : 0;
  ::close(fd);
  return error;
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

napi_value unixSend(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const std::string path = args.Text(0);
  const std::string text = args.Text(1);
  if (!args.ok()) return nullptr;
  const int error = SendUnix(path, text);
  return error == 0 ? nullptr : ThrowErrno(env, error, "sendto");
}

}  // namespace exports

}  // namespace vpn
