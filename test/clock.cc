// Steps the wall clock of one process: loaded with LD_PRELOAD, adds the seconds that stand (as text) in
// the file named by CLOCK_STEP_FILE, read anew at every call, so that a test can step it at any time.
//
// A namespace of its own for the wall clock does not exist (time_namespaces(7)), and stepping the real
// one would step every program on the machine.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t Step() {
  const char* name = getenv("CLOCK_STEP_FILE");
  char text[32] = {};
  if (name == nullptr) return 0;
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  return length > 0 ? atoll(text) : 0;
}

template <typename Function>
static Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

extern "C" int clock_gettime(clockid_t clock, timespec* now) {
  static auto* real = Real<int(clockid_t, timespec*)>("clock_gettime");
  int result = real(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += Step();
  return result;
}

extern "C" int gettimeofday(timeval* now, void* zone) noexcept {
  static auto* real = Real<int(timeval*, void*)>("gettimeofday");
  int result = real(now, zone);
  if (result == 0) now->tv_sec += Step();
  return result;
}

extern "C" time_t time(time_t* where) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (where != nullptr) *where = now.tv_sec;
  return now.tv_sec;
}
