// Memory that somebody else owns.

#ifndef VPN_NATIVE_SPAN_H_
#define VPN_NATIVE_SPAN_H_

#include <cstddef>

namespace vpn {

// A borrowed typed array.
template <typename T>
struct Span {
  T* data = nullptr;
  size_t size = 0;

  // Whether `bytes` at `offset` lie inside; cannot overflow.
  bool Holds(size_t offset, size_t bytes) const {
    return offset <= size && bytes <= size - offset;
  }
};

}  // namespace vpn

#endif  // VPN_NATIVE_SPAN_H_
