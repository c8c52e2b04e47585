// Data path keys, for addon.cc to hold.

#ifndef VPN_NATIVE_AEAD_H_
#define VPN_NATIVE_AEAD_H_

#include <openssl/evp.h>

#include <memory>

namespace vpn {

// Fetched once: EVP_aes_256_gcm() would look the provider's implementation up
// by name again for every key (crypto(7ossl), "Performance").
struct Ciphers {
  ~Ciphers();
  EVP_CIPHER* aes_256_gcm = nullptr;
  EVP_CIPHER* chacha20_poly1305 = nullptr;
};
std::unique_ptr<Ciphers> FetchCiphers();

// A key with its schedule expanded, once per direction. Freeing the contexts
// wipes it.
struct Key {
  ~Key();
  EVP_CIPHER_CTX* seal = nullptr;
  EVP_CIPHER_CTX* open = nullptr;
};

}  // namespace vpn

#endif  // VPN_NATIVE_AEAD_H_
