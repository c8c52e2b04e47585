// Seals and opens batches with the OpenSSL inside node. Nonces, keys and places
// are the caller's.

#include "aead.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>

#include <cerrno>
#include <cstring>

#include "check.h"

namespace vpn {

namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;

EVP_CIPHER_CTX* MakeContext(const EVP_CIPHER* cipher, const uint8_t* key,
                            bool seal) {
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  if (context == nullptr) return nullptr;
  // Both ciphers have 12-byte nonces unless told otherwise.
  if (EVP_CipherInit_ex2(context, cipher, key, nullptr, seal ? 1 : 0,
                         nullptr) == 1)
    return context;
  EVP_CIPHER_CTX_free(context);
  return nullptr;
}

// The tag as a parameter list built on the stack: EVP_CIPHER_CTX_ctrl makes the
// same list behind a switch over all its commands.
struct TagParams {
  OSSL_PARAM list[2];
  explicit TagParams(uint8_t* tag)
      : list{OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag,
                                               kTagBytes),
             OSSL_PARAM_construct_end()} {}
};

bool SealOne(EVP_CIPHER_CTX* context, const uint8_t* nonce,
             const uint8_t* header, size_t header_bytes, const uint8_t* in,
             size_t bytes, uint8_t* out) {
  int n = 0;
  TagParams tag(out + bytes);
  return EVP_EncryptInit_ex2(context, nullptr, nullptr, nonce, nullptr) == 1 &&
         (header_bytes == 0 ||
          EVP_EncryptUpdate(context, nullptr, &n, header,
                            static_cast<int>(header_bytes)) == 1) &&
         (bytes == 0 || EVP_EncryptUpdate(context, out, &n, in,
                                          static_cast<int>(bytes)) == 1) &&
         EVP_EncryptFinal_ex(context, out + bytes, &n) == 1 &&
         EVP_CIPHER_CTX_get_params(context, tag.list) == 1;
}

bool OpenOne(EVP_CIPHER_CTX* context, const uint8_t* nonce, uint8_t* datagram,
             size_t header_bytes, size_t length) {
  int n = 0;
  uint8_t* text = datagram + header_bytes;
  const size_t bytes = length - header_bytes - kTagBytes;
  TagParams tag(text + bytes);
  return EVP_DecryptInit_ex2(context, nullptr, nullptr, nonce, nullptr) == 1 &&
         EVP_CIPHER_CTX_set_params(context, tag.list) == 1 &&
         (header_bytes == 0 ||
          EVP_DecryptUpdate(context, nullptr, &n, datagram,
                            static_cast<int>(header_bytes)) == 1) &&
         (bytes == 0 || EVP_DecryptUpdate(context, text, &n, text,
                                          static_cast<int>(bytes)) == 1) &&
         EVP_DecryptFinal_ex(context, text + bytes, &n) == 1;
}

Key* FindKey(Addon* addon, uint32_t number) {
  const auto found = addon->keys.find(number);
  return found == addon->keys.end() ? nullptr : found->second.get();
}

// What `seal` and `authenticate` export. With `clear` nothing is encrypted: the
// bytes are copied, and all in front of the tag is associated data.
template <bool clear>
napi_value SealSlots(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> ring = args.Array<uint8_t>(1);
  const Span<uint8_t> slab = args.Array<uint8_t>(2);
  const size_t header = args.U32(3);
  const size_t count = args.U32(4);
  const Span<uint32_t> from = args.Array<uint32_t>(5);
  const Span<uint16_t> sizes = args.Array<uint16_t>(6);
  const Span<uint32_t> to = args.Array<uint32_t>(7);
  const Span<uint8_t> nonces = args.Array<uint8_t>(8);
  if (!args.ok()) return nullptr;
  Key* key = FindKey(args.addon(), number);
  if (key == nullptr) return ThrowRange(env, "no such key");
  if (count > from.size || count > sizes.size || count > to.size ||
      count > nonces.size / kNonceBytes) {
    return ThrowRange(env, "more slots than the table has");
  }
  for (size_t i = 0; i < count; i++) {
    if (!ring.Holds(from.data[i], sizes.data[i]) ||
        !slab.Holds(to.data[i], header + sizes.data[i] + kTagBytes)) {
      return ThrowRange(env, "a slot lies outside its memory");
    }
  }
  for (size_t i = 0; i < count; i++) {
    uint8_t* datagram = slab.data + to.data[i];
    const uint8_t* in = ring.data + from.data[i];
    const uint8_t* nonce = nonces.data + i * kNonceBytes;
    const size_t size = sizes.data[i];
    if (clear) memcpy(datagram + header, in, size);
    const size_t associated = clear ? header + size : header;
    if (!SealOne(key->seal, nonce, datagram, associated, in, clear ? 0 : size,
                 datagram + associated)) {
      // Cannot happen with a key that was made; if it does, nothing half sealed
      // may leave.
      OPENSSL_cleanse(datagram + header, size + kTagBytes);
      return ThrowErrno(env, EIO, "EVP_EncryptUpdate");
    }
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Ciphers> FetchCiphers() {
  auto ciphers = std::make_unique<Ciphers>();
  ciphers->aes_256_gcm = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  ciphers->chacha20_poly1305 =
      EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr);
  return ciphers;
}

Ciphers::~Ciphers() {
  EVP_CIPHER_free(aes_256_gcm);
  EVP_CIPHER_free(chacha20_poly1305);
}

Key::~Key() {
  EVP_CIPHER_CTX_free(seal);
  EVP_CIPHER_CTX_free(open);
}

namespace exports {

napi_value aeadCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> bytes = args.Array<uint8_t>(1);
  if (!args.ok()) return nullptr;
  if (bytes.size != kKeyBytes) return ThrowRange(env, "a key is 32 bytes");
  const EVP_CIPHER* cipher = nullptr;
  // The numbers of Cipher in native.ts.
  if (number == 1) cipher = args.addon()->ciphers->aes_256_gcm;
  if (number == 2) cipher = args.addon()->ciphers->chacha20_poly1305;
  if (number != 1 && number != 2) return ThrowRange(env, "no such cipher");

  auto key = std::make_unique<Key>();
  if (cipher != nullptr) {
    key->seal = MakeContext(cipher, bytes.data, true);
    key->open = MakeContext(cipher, bytes.data, false);
  }
  if (key->seal == nullptr || key->open == nullptr)
    return ThrowErrno(env, ENOTSUP, "EVP_CipherInit");
  const uint32_t made = ++args.addon()->last_key;
  args.addon()->keys.emplace(made, std::move(key));
  return Number(env, made);
}

napi_value aeadFree(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  if (!args.ok()) return nullptr;
  if (FindKey(args.addon(), number) == nullptr)
    return ThrowRange(env, "no such key");
  args.addon()->keys.erase(number);
  return nullptr;
}

napi_value seal(napi_env env, napi_callback_info info) {
  return SealSlots<false>(env, info);
}

napi_value authenticate(napi_env env, napi_callback_info info) {
  return SealSlots<true>(env, info);
}

napi_value open(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const Span<uint8_t> slab = args.Array<uint8_t>(0);
  const size_t header = args.U32(1);
  const size_t count = args.U32(2);
  const Span<uint32_t> offsets = args.Array<uint32_t>(3);
  const Span<uint16_t> lengths = args.Array<uint16_t>(4);
  const Span<uint32_t> keys = args.Array<uint32_t>(5);
  const Span<uint8_t> clear = args.Array<uint8_t>(6);
  const Span<uint8_t> nonces = args.Array<uint8_t>(7);
  if (!args.ok()) return nullptr;
  if (count > offsets.size || count > lengths.size || count > keys.size ||
      count > clear.size || count > nonces.size / kNonceBytes) {
    return ThrowRange(env, "more slots than the table has");
  }
  uint32_t known = 0;
  for (size_t i = 0; i < count; i++) {
    if (keys.data[i] == 0) continue;
    if (keys.data[i] != known) {
      known = keys.data[i];
      if (FindKey(args.addon(), known) == nullptr)
        return ThrowRange(env, "no such key");
    }
    if (!slab.Holds(offsets.data[i], lengths.data[i])) {
      return ThrowRange(env, "a slot lies outside its memory");
    }
  }
  int64_t refused = 0;
  uint32_t last = 0;
  Key* key = nullptr;
  for (size_t i = 0; i < count; i++) {
    if (keys.data[i] == 0) continue;
    // Nearly always the key of the one before.
    if (keys.data[i] != last) {
      last = keys.data[i];
      key = FindKey(args.addon(), last);
    }
    uint8_t* datagram = slab.data + offsets.data[i];
    const size_t length = lengths.data[i];
    if (length >= header + kTagBytes &&
        OpenOne(key->open, nonces.data + i * kNonceBytes, datagram,
                clear.data[i] != 0 ? length - kTagBytes : header, length)) {
      continue;
    }
    OPENSSL_cleanse(datagram, length);
    lengths.data[i] = 0;
    refused++;
  }
  return Number(env, refused);
}

}  // namespace exports

}  // namespace vpn
