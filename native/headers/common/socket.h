// sys/sys/socket.h as 4.4BSD left it to all five. The system's own header
// defines what differs, then includes this.

#ifndef VPN_HEADERS_COMMON_SOCKET_H_
#define VPN_HEADERS_COMMON_SOCKET_H_

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

typedef uint8_t sa_family_t;
typedef uint32_t socklen_t;

#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOL_SOCKET 0xffff
#define SO_SNDBUF 0x1001
#define SO_RCVBUF 0x1002
#define AF_UNSPEC 0
#define AF_INET 2
#define PF_ROUTE AF_ROUTE
#define MSG_TRUNC 0x10
#define MSG_DONTWAIT 0x80

struct sockaddr {
  uint8_t sa_len;
  sa_family_t sa_family;
  char sa_data[14];
};

struct sockaddr_storage {
  uint8_t ss_len;
  sa_family_t ss_family;
  char pad1[6];
  int64_t align;
  char pad2[112];
};

struct msghdr {
  void* msg_name;
  socklen_t msg_namelen;
  struct iovec* msg_iov;
  VPN_IOVLEN_TYPE msg_iovlen;
  void* msg_control;
  socklen_t msg_controllen;
  int msg_flags;
};

struct cmsghdr {
  socklen_t cmsg_len;
  int cmsg_level;
  int cmsg_type;
};

// VPN_CMSG_ALIGN is 4 on macOS (__DARWIN_ALIGN32), 8 on the 64-bit BSDs.
#define VPN_ALIGNED(n) (((n) + (VPN_CMSG_ALIGN - 1)) & ~(VPN_CMSG_ALIGN - 1))
#define CMSG_LEN(n) (VPN_ALIGNED(sizeof(struct cmsghdr)) + (n))
#define CMSG_SPACE(n) (VPN_ALIGNED(sizeof(struct cmsghdr)) + VPN_ALIGNED(n))
#define CMSG_DATA(c) \
  (reinterpret_cast<uint8_t*>(c) + VPN_ALIGNED(sizeof(struct cmsghdr)))
#define CMSG_FIRSTHDR(m)                              \
  ((m)->msg_controllen >= sizeof(struct cmsghdr)      \
       ? reinterpret_cast<cmsghdr*>((m)->msg_control) \
       : nullptr)
#define CMSG_NXTHDR(m, c) vpn_next_control(m, c)

extern "C" {
cmsghdr* vpn_next_control(msghdr* message, cmsghdr* control);
int socket(int family, int type, int protocol);
int connect(int fd, const sockaddr* address, socklen_t size);
int getsockopt(int fd, int level, int option, void* value, socklen_t* size);
int setsockopt(int fd, int level, int option, const void* value,
               socklen_t size);
ssize_t recvmsg(int fd, msghdr* message, int flags);
ssize_t sendmsg(int fd, const msghdr* message, int flags);
}

#endif  // VPN_HEADERS_COMMON_SOCKET_H_
