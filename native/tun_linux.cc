// TUN and TAP on Linux: Documentation/networking/tuntap.rst, drivers/net/tun.c,
// virtio 1.2 §5.1.6.

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tun.h"

// Since Linux 6.2; older headers lack them.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

namespace vpn {

namespace {

// struct virtio_net_hdr without num_buffers, the kernel's default for
// IFF_VNET_HDR, in host order. linux/virtio_net.h has a member named `class`
// and cannot be included.
struct VirtioHeader {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
};
static_assert(sizeof(VirtioHeader) == 10, "");
constexpr uint8_t kNeedsChecksum = 1;
constexpr uint8_t kGsoNone = 0;
constexpr uint8_t kGsoTcp4 = 1;
constexpr uint8_t kGsoTcp6 = 4;
constexpr uint8_t kGsoUdp = 5;
constexpr uint8_t kGsoEcn = 0x80;

static_assert(IF_NAMESIZE == IFNAMSIZ, "");

int Attach(TunDevice* device, short flags, const char** syscall) {
  *syscall = "open";
  const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  ifreq request = {};
  memcpy(request.ifr_name, device->name, sizeof(device->name));
  const int kind = device->ethernet ? IFF_TAP : IFF_TUN;
  request.ifr_flags = static_cast<short>(kind | IFF_NO_PI | flags);
  *syscall = "TUNSETIFF";
  if (::ioctl(fd, TUNSETIFF, &request) != 0) {
    const int error = errno;
    ::close(fd);
    return -error;
  }
  memcpy(device->name, request.ifr_name, sizeof(device->name));
  device->name[IF_NAMESIZE - 1] = '\0';
  return fd;
}

// TSO_ECN too: the Cutter keeps CWR on the first packet only, as such runs want
// it.
bool Negotiate(TunDevice* device, int fd) {
  const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  device->udp_runs =
      ::ioctl(fd, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) == 0;
  return device->udp_runs || ::ioctl(fd, TUNSETOFFLOAD, tcp) == 0;
}

bool FromVirtio(const VirtioHeader& header, Offload* offload) {
  *offload = Offload();
  offload->partial = (header.flags & kNeedsChecksum) != 0;
  offload->start = header.csum_start;
  offload->offset = header.csum_offset;
  offload->payload = header.gso_size;
  switch (header.gso_type & ~kGsoEcn) {
    case kGsoNone:
      return true;
    case kGsoTcp4:
    case kGsoTcp6:
      offload->run = Offload::Run::kTcp;
      return true;
    case kGsoUdp:
      offload->run = Offload::Run::kUdp;
      return true;
    default:
      return false;
  }
}

VirtioHeader ToVirtio(const Offload& offload) {
  VirtioHeader header = {};
  if (offload.partial) {
    header.flags = kNeedsChecksum;
    header.csum_start = offload.start;
    header.csum_offset = offload.offset;
    header.hdr_len = offload.header;
  }
  if (offload.run != Offload::Run::kNone) {
    header.gso_size = offload.payload;
    header.gso_type = offload.run == Offload::Run::kUdp ? kGsoUdp
                      : offload.version == 4            ? kGsoTcp4
                                                        : kGsoTcp6;
  }
  return header;
}

}  // namespace

int TunOpen(TunDevice* device, bool offload, const char** syscall) {
  // TUNSETIFF would attach to a persistent device that somebody else has set
  // up.
  if (device->name[0] != '\0' && if_nametoindex(device->name) != 0) {
    *syscall = "TUNSETIFF";
    return -EBUSY;
  }
  char wanted[IF_NAMESIZE];
  memcpy(wanted, device->name, sizeof(wanted));
  int fd = Attach(device, offload ? IFF_VNET_HDR : 0, syscall);
  if (!offload || (fd < 0 && fd != -EINVAL)) return fd;
  if (fd >= 0) {
    device->offload = Negotiate(device, fd);
    if (device->offload) return fd;
    // The device goes with its descriptor, and its name is free again.
    ::close(fd);
  }
  memcpy(device->name, wanted, sizeof(wanted));
  return Attach(device, 0, syscall);
}

void TunClose(const TunDevice&, int fd) { ::close(fd); }

int TunSetMtu(const TunDevice&, int fd, int mtu, const char** syscall) {
  ifreq request = {};
  // The device may have been renamed.
  *syscall = "TUNGETIFF";
  if (::ioctl(fd, TUNGETIFF, &request) != 0) return errno;
  request.ifr_mtu = mtu;
  *syscall = "SIOCSIFMTU";
  const int control = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0) return errno;
  const int error = ::ioctl(control, SIOCSIFMTU, &request) == 0 ? 0 : errno;
  ::close(control);
  return error;
}

ssize_t TunReadOne(const TunDevice& device, int fd, uint8_t* packet,
                   size_t size, Offload* offload) {
  VirtioHeader header = {};
  iovec parts[2] = {{&header, sizeof(header)}, {packet, size}};
  *offload = Offload();
  for (;;) {
    ssize_t n =
        device.offload ? ::readv(fd, parts, 2) : ::read(fd, packet, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (!device.offload) return n;
    if (n >= static_cast<ssize_t>(sizeof(header)) &&
        FromVirtio(header, offload)) {
      return n - static_cast<ssize_t>(sizeof(header));
    }
    // A kind of run that was not asked for.
  }
}

int TunWriteOne(const TunDevice& device, int fd, iovec* parts, size_t count,
                const Offload& offload) {
  VirtioHeader header = {};
  if (device.offload) {
    header = ToVirtio(offload);
    parts[0] = {&header, sizeof(header)};
  } else {
    parts++;
    count--;
  }
  ssize_t n = 0;
  do {
    // Of one part the kernel need not fetch a list first.
    n = count == 1 ? ::write(fd, parts->iov_base, parts->iov_len)
                   : ::writev(fd, parts, static_cast<int>(count));
  } while (n < 0 && errno == EINTR);
  return n < 0 ? errno : 0;
}

}  // namespace vpn
