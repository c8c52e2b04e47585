// sys/sys/fcntl.h as on all five.

#ifndef VPN_HEADERS_COMMON_FCNTL_H_
#define VPN_HEADERS_COMMON_FCNTL_H_

#define O_RDWR 2
#define O_NONBLOCK 4
#define F_SETFD 2
#define F_SETFL 4
#define FD_CLOEXEC 1

extern "C" {
int open(const char* path, int flags, ...);
int fcntl(int fd, int command, ...);
}

#endif  // VPN_HEADERS_COMMON_FCNTL_H_
