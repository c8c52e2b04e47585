// See common/fcntl.h.

#include "../common/fcntl.h"
