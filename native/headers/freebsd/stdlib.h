// FreeBSD include/stdlib.h, fdevname(3); the rest is the compiler's own.

#include_next <stdlib.h>

#ifndef VPN_HEADERS_STDLIB_H_
#define VPN_HEADERS_STDLIB_H_

extern "C" char* fdevname(int fd);

#endif  // VPN_HEADERS_STDLIB_H_
