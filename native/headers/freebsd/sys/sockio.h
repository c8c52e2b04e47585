// SIOCSIFMTU and SIOCIFDESTROY are in sys/ioctl.h, which includes this.

#include <sys/ioctl.h>
