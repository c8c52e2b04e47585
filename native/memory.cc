// What start-up leaves in memory, given back.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "addon.h"

#if !defined(__APPLE__)
#include <link.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace vpn {

namespace {

#if !defined(__APPLE__)

// Segments that cannot be written to are as the file has them (relocations lie
// in the others), so a page that is touched again is the file's.
int Release(dl_phdr_info* info, size_t, void*) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (size_t i = 0; i < info->dlpi_phnum; i++) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t from = info->dlpi_addr + segment.p_vaddr;
    const uintptr_t first = (from + page - 1) / page * page;
    const uintptr_t end = (from + segment.p_memsz) / page * page;
    // Fails for the vDSO, which is no file.
    if (first < end)
      ::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
  }
  return 0;
}

#endif

}  // namespace

namespace exports {

napi_value trimMemory(napi_env, napi_callback_info) {
#if !defined(__APPLE__)
  ::dl_iterate_phdr(Release, nullptr);
#endif
#if defined(__GLIBC__)
  ::malloc_trim(0);
#endif
  return nullptr;
}

}  // namespace exports

}  // namespace vpn
