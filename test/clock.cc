// Steps the wall clock of processes: loaded with LD_PRELOAD, adds the seconds that stand in the file named by
// CLOCK_STEP_FILE, at any time. The file is shared memory (clock.ts): it is opened before anything else runs, as
// a worker of vpn soon sees no file any more, and in it each process notes by how much it was stepped.
//
// A namespace of its own for the wall clock does not exist (time_namespaces(7)), and stepping the real
// one would step every program on the machine.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#include "preload.h"

namespace {

constexpr int64_t kProcesses = 4095;

struct Shared {
  int64_t step;
  int64_t processes;
  struct {
    int64_t pid;
    // Of the last answer that it was given.
    int64_t step;
  } process[kProcesses];
};

Shared* shared;
int64_t place;

__attribute__((constructor)) void Start() {
  KeepForWorker("CLOCK_STEP_FILE=");
  const char* name = getenv("CLOCK_STEP_FILE");
  if (name == nullptr) return;
  int fd = open(name, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory == MAP_FAILED) return;
  auto* found = static_cast<Shared*>(memory);
  place = __atomic_fetch_add(&found->processes, 1, __ATOMIC_SEQ_CST);
  if (place >= kProcesses) return;
  __atomic_store_n(&found->process[place].pid, getpid(), __ATOMIC_SEQ_CST);
  shared = found;
}

time_t Step() {
  if (shared == nullptr) return 0;
  int64_t step = __atomic_load_n(&shared->step, __ATOMIC_SEQ_CST);
  __atomic_store_n(&shared->process[place].step, step, __ATOMIC_SEQ_CST);
  return step;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
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
