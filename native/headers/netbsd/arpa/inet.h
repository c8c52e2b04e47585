// Byte order is that of common/in.h.

#include <netinet/in.h>
