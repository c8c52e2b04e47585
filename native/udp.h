// What a system's batches of datagrams must offer (udp_linux.cc and its like),
// what is kept per socket, and endpoints as batch.ts lays them out.

#ifndef VPN_NATIVE_UDP_H_
#define VPN_NATIVE_UDP_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "span.h"

namespace vpn {

// ENDPOINT_BYTES in batch.ts.
constexpr size_t kEndpointBytes = 40;

struct UdpSocket {
  int family = AF_INET;
  // Whether the system takes and gives runs of equal datagrams.
  bool send_runs = false;
  bool receive_runs = false;
  // Errno of the last datagram that was refused.
  int error = 0;
};

union SocketAddress {
  // The largest first, so that {} clears it all.
  sockaddr_in6 v6;
  sockaddr_in v4;
  sockaddr base;

  socklen_t size() const {
    return base.sa_family == AF_INET ? sizeof(v4) : sizeof(v6);
  }
};

// An endpoint as the system takes it.
struct Destination {
  SocketAddress remote = {};
  // Whether the datagrams are to leave from the local address of the socket's
  // family.
  bool from_local = false;
  in_addr local_v4 = {};
  in6_addr local_v6 = {};
};

// Returns 0, or the errno of an endpoint that this socket cannot send to.
int ReadEndpoint(const uint8_t* endpoint, int socket_family,
                 Destination* destination);

// `local` is of the family of `remote`, 4 or 16 bytes; nullptr when it is not
// known.
void WriteEndpoint(const SocketAddress& remote, const void* local,
                   uint8_t* endpoint);

// Where received datagrams go.
struct DatagramColumns {
  Span<uint32_t> offsets;
  Span<uint16_t> lengths;
  Span<uint16_t> sources;
  Span<uint8_t> endpoints;

  size_t slots() const { return offsets.size; }
};

// What is to be sent: datagram i is sizes[i] bytes at slab[to[i]].
struct Outbound {
  uint8_t* slab;
  const uint32_t* to;
  const uint16_t* sizes;
  size_t first;
  size_t end;
};

// Message headers of one call, too much for the stack of a callback.
struct UdpScratch;
std::shared_ptr<UdpScratch> MakeUdpScratch();

// Sets what is the system's own way: runs, path MTU discovery, the address a
// datagram was sent to, device, mark. Returns 0 or an errno.
struct UdpSystemOptions {
  bool dual_stack;
  const char* device;
  uint32_t mark;
  bool offload;
  int buffer_bytes;
};
int UdpPrepare(UdpSocket* socket, int fd, const UdpSystemOptions& options,
               const char** syscall);

// Returns the datagrams received into slab[start, end).
size_t UdpReceive(UdpSocket* socket, int fd, UdpScratch* scratch, uint8_t* slab,
                  size_t start, size_t end, const DatagramColumns& table);

// Returns how many were dealt with.
size_t UdpSend(UdpSocket* socket, int fd, UdpScratch* scratch,
               const Outbound& outbound, const Destination& destination);

}  // namespace vpn

#endif  // VPN_NATIVE_UDP_H_
