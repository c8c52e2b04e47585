// Argument checks and errors of the exported functions.
//
// A wrong type, an offset outside its buffer or a closed handle is a mistake in
// the calling program: it throws TypeError or RangeError before anything is
// touched. What the system refuses throws an Error with `code`, `errno` and
// `syscall`, as node's own do (`errno` negative).

#ifndef VPN_NATIVE_CHECK_H_
#define VPN_NATIVE_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "addon.h"
#include "span.h"

namespace vpn {

template <typename T>
struct ArrayType;
template <>
struct ArrayType<uint8_t> {
  static constexpr napi_typedarray_type value = napi_uint8_array;
};
template <>
struct ArrayType<uint16_t> {
  static constexpr napi_typedarray_type value = napi_uint16_array;
};
template <>
struct ArrayType<uint32_t> {
  static constexpr napi_typedarray_type value = napi_uint32_array;
};

// Throws what the system said; `number` is a positive errno.
inline napi_value ThrowErrno(napi_env env, int number, const char* syscall) {
  const char* code = uv_err_name(-number);
  std::string message =
      std::string(code) + ": " + uv_strerror(-number) + ", " + syscall;
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("errno", Napi::Number::New(env, -number));
  error.Set("code", Napi::String::New(env, code));
  error.Set("syscall", Napi::String::New(env, syscall));
  error.ThrowAsJavaScriptException();
  return nullptr;
}

inline napi_value ThrowRange(napi_env env, const char* message) {
  napi_throw_range_error(env, nullptr, message);
  return nullptr;
}

inline napi_value Number(napi_env env, int64_t number) {
  napi_value value = nullptr;
  napi_create_int64(env, number, &value);
  return value;
}

inline napi_value Boolean(napi_env env, bool truth) {
  napi_value value = nullptr;
  napi_get_boolean(env, truth, &value);
  return value;
}

// The arguments of one call. The first that does not fit throws; then ok() is
// false and the function returns nullptr.
class Args {
 public:
  Args(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = kMost;
    void* data = nullptr;
    ok_ =
        napi_get_cb_info(env, info, &count, values_, nullptr, &data) == napi_ok;
    addon_ = static_cast<Addon*>(data);
  }

  bool ok() const { return ok_; }
  Addon* addon() const { return addon_; }
  napi_value value(int index) const { return values_[index]; }

  uint32_t U32(int index) {
    uint32_t number = 0;
    double exact = 0;
    if (ok_ &&
        (napi_get_value_double(env_, values_[index], &exact) != napi_ok ||
         !(exact >= 0) || exact > UINT32_MAX)) {
      Fail("expected an unsigned number");
    }
    if (ok_) number = static_cast<uint32_t>(exact);
    return number;
  }

  bool Flag(int index) {
    bool truth = false;
    if (ok_ && napi_get_value_bool(env_, values_[index], &truth) != napi_ok) {
      Fail("expected a boolean");
    }
    return truth;
  }

  std::string Text(int index) {
    if (!ok_ || !Napi::Value(env_, values_[index]).IsString()) {
      Fail("expected a string");
      return std::string();
    }
    return Napi::String(env_, values_[index]).Utf8Value();
  }

  template <typename T>
  Span<T> Array(int index) {
    Span<T> span;
    if (!ok_) return span;
    napi_typedarray_type type = napi_int8_array;
    void* data = nullptr;
    if (napi_get_typedarray_info(env_, values_[index], &type, &span.size, &data,
                                 nullptr, nullptr) != napi_ok ||
        type != ArrayType<T>::value) {
      Fail("expected a typed array of another type");
      return Span<T>();
    }
    span.data = static_cast<T*>(data);
    return span;
  }

 private:
  static constexpr size_t kMost = 10;

  void Fail(const char* message) {
    if (!ok_) return;
    ok_ = false;
    bool pending = false;
    if (napi_is_exception_pending(env_, &pending) == napi_ok && !pending) {
      napi_throw_type_error(env_, nullptr, message);
    }
  }

  napi_env env_;
  napi_value values_[kMost] = {};
  Addon* addon_ = nullptr;
  bool ok_ = false;
};

}  // namespace vpn

#endif  // VPN_NATIVE_CHECK_H_
