// What the batches of datagrams of macOS and the BSDs (udp_bsd.cc) want from
// each system.

#ifndef VPN_NATIVE_UDP_BSD_H_
#define VPN_NATIVE_UDP_BSD_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "udp.h"

namespace vpn {

// One datagram of a batch: the layout of struct mmsghdr of NetBSD and OpenBSD.
struct UdpMessage {
  msghdr header;
  unsigned bytes;
};

// udp_mmsg.cc and udp_msg.cc: like recvmmsg(2) and sendmmsg(2), without
// waiting. Returns how many, or -1 and errno when not one.
int ReceiveMessages(int fd, UdpMessage* messages, unsigned count);
int SendMessages(int fd, UdpMessage* messages, unsigned count);

// udp_<system>.cc: binds the socket to an interface and forbids fragments, as
// far as the system can. Returns 0 or an errno.
int UdpPrepareSystem(int fd, int family, const UdpSystemOptions& options,
                     const char** syscall);

// Adds what makes an IPv4 datagram leave from `local`; `message` has room.
void PutLocalV4(msghdr* message, const in_addr& local);

// The largest of what PutLocalV4 may add.
constexpr size_t kLocalV4Bytes = 32;

// Puts a control message behind those that `message` has.
template <typename T>
void PutControl(msghdr* message, int level, int type, const T& value) {
  auto* c = reinterpret_cast<cmsghdr*>(
      static_cast<uint8_t*>(message->msg_control) + message->msg_controllen);
  c->cmsg_level = level;
  c->cmsg_type = type;
  c->cmsg_len = CMSG_LEN(sizeof(value));
  memcpy(CMSG_DATA(c), &value, sizeof(value));
  message->msg_controllen += CMSG_SPACE(sizeof(value));
}

}  // namespace vpn

#endif  // VPN_NATIVE_UDP_BSD_H_
