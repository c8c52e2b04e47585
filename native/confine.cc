// What a process may do from now on: less.

#include <grp.h>
#include <pwd.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string>

#include "check.h"

#if defined(__linux__)
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

namespace vpn {

namespace {

#if defined(__linux__)

// For all threads, those that node has made before as well: only a filter is
// taken over by them (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC), and it brings
// no_new_privs along. The filter lets no other program be started.
int ForbidNewPrograms() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
#if defined(__x86_64__)
  constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  const auto load = [](size_t offset) {
    return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0,
                       static_cast<uint32_t>(offset)};
  };
  const auto skip_unless = [](uint32_t value, uint8_t skipped) {
    return sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, skipped, value};
  };
  const auto answer = [](uint32_t what) {
    return sock_filter{BPF_RET | BPF_K, 0, 0, what};
  };
  const sock_filter program[] = {
      load(offsetof(seccomp_data, arch)),
      // System calls of another kind (32 bits) have other numbers.
      {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, kArchitecture},
      answer(SECCOMP_RET_KILL_PROCESS),
      load(offsetof(seccomp_data, nr)),
      skip_unless(SYS_execve, 1),
      answer(SECCOMP_RET_ERRNO | EPERM),
      skip_unless(SYS_execveat, 1),
      answer(SECCOMP_RET_ERRNO | EPERM),
      answer(SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {sizeof(program) / sizeof(program[0]),
                             const_cast<sock_filter*>(program)};
  // A kernel without seccomp has no_new_privs all the same.
  const long status = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                SECCOMP_FILTER_FLAG_TSYNC, &filter);
  if (status != 0 && errno != ENOSYS && errno != EINVAL) return errno;
#endif
  return 0;
}

#endif

// Returns 0, or an errno with the call that failed.
int Confine(const std::string& root, uid_t uid, gid_t gid,
            const char** syscall) {
  if (!root.empty()) {
    *syscall = "chroot";
    if (::chroot(root.c_str()) != 0 || ::chdir("/") != 0) return errno;
  }
  if (uid != 0) {
    *syscall = "setgroups";
    if (::setgroups(0, nullptr) != 0) return errno;
    *syscall = "setgid";
    if (::setgid(gid) != 0) return errno;
    *syscall = "setuid";
    // With no other left to go back to, since it was root's before (setuid(2)).
    if (::setuid(uid) != 0) return errno;
    if (::setuid(0) == 0 || ::getuid() != uid || ::geteuid() != uid)
      return EPERM;
  }
#if defined(__linux__)
  *syscall = "prctl";
  // After the user has changed, which takes it back (prctl(2)).
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return errno;
  *syscall = "seccomp";
  const int error = ForbidNewPrograms();
  if (error != 0) return error;
#endif
  return 0;
}

}  // namespace

namespace exports {

napi_value confine(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const std::string root = args.Text(0);
  const uid_t uid = args.U32(1);
  const gid_t gid = args.U32(2);
  if (!args.ok()) return nullptr;
  const char* syscall = "";
  const int error = Confine(root, uid, gid, &syscall);
  return error == 0 ? nullptr : ThrowErrno(env, error, syscall);
}

napi_value findUser(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const std::string name = args.Text(0);
  if (!args.ok()) return nullptr;
  // Once at start, from the one thread that asks.
  const passwd* user = nullptr;
  const bool is_number = !name.empty() && name.find_first_not_of(
                                              "0123456789") == std::string::npos;
  if (is_number && name.size() <= 9) {
    user = ::getpwuid(static_cast<uid_t>(std::stoul(name)));
  } else {
    user = ::getpwnam(name.c_str());
  }
  if (user == nullptr) return nullptr;
  Napi::Object result = Napi::Object::New(env);
  result.Set("uid", Napi::Number::New(env, user->pw_uid));
  result.Set("gid", Napi::Number::New(env, user->pw_gid));
  return result;
}

}  // namespace exports

}  // namespace vpn
