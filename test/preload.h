// What is preloaded into a monitor (LD_PRELOAD) is preloaded into its worker as well. vpn itself gives the
// worker an environment with nothing of the kind in it, which must stay so; so the call that starts it is
// taken over here, and this library and the variable `also` put back.
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

namespace {

constexpr int kMostVariables = 64;
char* kept[2];

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Looked up beforehand: whoever has just forked must not.
int (*real_execvp)(const char*, char* const*);

// Copies, since the environment lies where a process has its title (setproctitle(3)).
void KeepForWorker(const char* also = nullptr) {
  real_execvp = Real<int(const char*, char* const*)>("execvp");
  const char* names[] = {"LD_PRELOAD=", also};
  for (char** one = environ; *one != nullptr; one++) {
    for (int i = 0; i < 2; i++) {
      const char* name = names[i];
      if (name != nullptr && strncmp(*one, name, strlen(name)) == 0) kept[i] = strdup(*one);
    }
  }
}

}  // namespace

extern "C" int execvp(const char* file, char* const* words) noexcept {
  static char* variables[kMostVariables + 3];
  // Only a worker is started by this name (src/privsep/process.ts).
  if (strcmp(file, "/proc/self/exe") == 0) {
    int count = 0;
    for (char** one = environ; *one != nullptr && count < kMostVariables; one++) {
      variables[count++] = *one;
    }
    for (char* one : kept) {
      if (one != nullptr) variables[count++] = one;
    }
    variables[count] = nullptr;
    environ = variables;
  }
  return real_execvp(file, words);
}
