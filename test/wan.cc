// An emulated link between two network namespaces: a tun device made in each,
// and between them a wire with rate, queue, delay, jitter, loss, corruption,
// duplication and a cut, each way on its own.
//
//   wan NAMESPACE_A NAMESPACE_B DEVICE MTU SEED <commands >answers
//
//   set ab|ba KEY=NUMBER ...   figures of one way (the table below)
//   open a|b                   makes a device anew that was deleted
//   stats                      counters of both ways, as JSON
//
// One line per command, one line in answer. It ends when its input does, so
// it never outlives the test that started it, however that one ends.
//
// A program and not an addon: tests run ip and ping synchronously, and a link
// must not stand still meanwhile; and its processor time is not the tester's.
//
// What happens to a packet on its way is in wan_way.h.

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <sstream>
#include <string>

#include "wan_way.h"

namespace {

using wan::Figures;
using wan::kFigures;
using wan::kLongest;
using wan::kNever;
using wan::kNsPerMs;
using wan::Stream;
using wan::Way;

// Wakeups are at multiples of this: at 300 Mbit/s a packet is due every 40 us.
constexpr int64_t kGrainNs = 100 * 1000;
constexpr int kReadsAtOnce = 128;
// Packets wait in the emulated queue, never in that of the device.
constexpr int kDeviceQueue = 10000;

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "wan: %s: %s\n", what.c_str(), strerror(errno));
  exit(1);
}

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

// One end of the link.
struct Side {
  int space = -1;   // The namespace, open.
  int device = -1;  // The tun device; -1 when it was deleted.
};

class Wan {
 public:
  Wan(const char* const* spaces, const char* device, int mtu, uint64_t seed)
      : ways_{Way(Stream(seed * 2)), Way(Stream(seed * 2 + 1))},
        device_(device),
        mtu_(mtu),
        poll_(::epoll_create1(EPOLL_CLOEXEC)),
        timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
    if (poll_ < 0 || timer_ < 0) Die("epoll, timerfd");
    for (int i = 0; i < 2; i++) {
      sides_[i].space = ::open(spaces[i], O_RDONLY | O_CLOEXEC);
      if (sides_[i].space < 0) Die(spaces[i]);
      const std::string error = Open(&sides_[i]);
      if (!error.empty()) Die(error);
    }
    Watch(timer_);
    Watch(STDIN_FILENO);
    ::fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
  }

  void Run() {
    epoll_event events[4];
    for (;;) {
      const int count = ::epoll_wait(poll_, events, 4, -1);
      if (count < 0 && errno != EINTR) Die("epoll_wait");
      for (int i = 0; i < count; i++) {
        const int fd = events[i].data.fd;
        if (fd == STDIN_FILENO && !ReadCommands()) return;
        if (fd == timer_) DiscardExpirations();
        for (int side = 0; side < 2; side++)
          if (fd == sides_[side].device) ReadPackets(side);
      }
      const int64_t now = Now();
      for (int i = 0; i < 2; i++) {
        ways_[i].Advance(now);
        ways_[i].Deliver(sides_[1 - i].device, now);
      }
      Arm(std::min(ways_[0].NextEvent(), ways_[1].NextEvent()), now);
    }
  }

 private:
  void Watch(int fd) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(poll_, EPOLL_CTL_ADD, fd, &event) != 0) Die("epoll_ctl");
  }

  // Makes the device inside the namespace of the side, so that none is ever
  // seen in another. Returns what went wrong, or an empty string.
  std::string Open(Side* side) {
    if (::setns(side->space, CLONE_NEWNET) != 0) return Failure("setns");
    const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return Failure("/dev/net/tun");
    ifreq request = {};
    strncpy(request.ifr_name, device_, IFNAMSIZ - 1);
    // Without IFF_VNET_HDR and with no offload granted, the kernel cuts runs
    // and computes checksums before a packet gets here.
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    const int control = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const char* failed = nullptr;
    if (::ioctl(fd, TUNSETIFF, &request) != 0) failed = "TUNSETIFF";
    if (!failed && ::ioctl(fd, TUNSETOFFLOAD, 0) != 0) failed = "TUNSETOFFLOAD";
    request.ifr_mtu = mtu_;
    if (!failed && ::ioctl(control, SIOCSIFMTU, &request) != 0)
      failed = "SIOCSIFMTU";
    request.ifr_qlen = kDeviceQueue;
    if (!failed && ::ioctl(control, SIOCSIFTXQLEN, &request) != 0)
      failed = "SIOCSIFTXQLEN";
    const std::string failure = failed ? Failure(failed) : std::string();
    ::close(control);
    if (failed) {
      ::close(fd);
      return failure;
    }
    side->device = fd;
    Watch(fd);
    return std::string();
  }

  static std::string Failure(const char* what) {
    return std::string(what) + ": " + strerror(errno);
  }

  void ReadPackets(int from) {
    Side& side = sides_[from];
    for (int i = 0; i < kReadsAtOnce; i++) {
      const ssize_t n = ::read(side.device, bytes_, sizeof(bytes_));
      if (n > 0) {
        ways_[from].Enter(bytes_, static_cast<size_t>(n), Now());
        continue;
      }
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return;
      // Somebody deleted the device. It stays readable for ever.
      ::close(side.device);
      side.device = -1;
      return;
    }
  }

  void Arm(int64_t next, int64_t now) {
    if (next != kNever) {
      next = std::max(next, now);
      next += kGrainNs - next % kGrainNs;
    }
    if (next == armed_) return;
    armed_ = next;
    itimerspec when = {};
    if (next != kNever) {
      when.it_value.tv_sec = next / 1000000000;
      when.it_value.tv_nsec = next % 1000000000;
    }
    ::timerfd_settime(timer_, TFD_TIMER_ABSTIME, &when, nullptr);
  }

  void DiscardExpirations() {
    uint64_t times = 0;
    if (::read(timer_, &times, sizeof(times)) > 0) armed_ = kNever;
  }

  // Returns false at the end of the input.
  bool ReadCommands() {
    char text[4096];
    const ssize_t n = ::read(STDIN_FILENO, text, sizeof(text));
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    input_.append(text, static_cast<size_t>(n));
    for (size_t end; (end = input_.find('\n')) != std::string::npos;) {
      const std::string answer = Obey(input_.substr(0, end)) + "\n";
      input_.erase(0, end + 1);
      if (::write(STDOUT_FILENO, answer.data(), answer.size()) < 0)
        return false;
    }
    return true;
  }

  std::string Obey(const std::string& line) {
    std::istringstream words(line);
    std::string verb, object;
    words >> verb >> object;
    if (verb == "stats") return Stats();
    if (verb == "set" && (object == "ab" || object == "ba"))
      return Set(&ways_[object == "ab" ? 0 : 1], &words);
    if (verb == "open" && (object == "a" || object == "b")) {
      Side* side = &sides_[object == "a" ? 0 : 1];
      const std::string error = side->device < 0 ? Open(side) : "still there";
      return error.empty() ? "ok" : "error: " + error;
    }
    return "error: unknown command: " + line;
  }

  static std::string Set(Way* way, std::istream* words) {
    Figures figures = way->figures();
    for (std::string word; *words >> word;) {
      const size_t equals = word.find('=');
      const std::string key = word.substr(0, equals);
      const auto* found =
          std::find_if(std::begin(kFigures), std::end(kFigures),
                       [&key](const auto& entry) { return key == entry.name; });
      if (equals == std::string::npos || found == std::end(kFigures))
        return "error: unknown figure: " + word;
      const char* text = word.c_str() + equals + 1;
      char* end = nullptr;
      const double number = strtod(text, &end);
      if (end == text || *end != '\0' || !(number >= 0))
        return "error: not a number: " + word;
      figures.*(found->figure) = number;
    }
    way->Set(figures, Now());
    return "ok";
  }

  std::string Stats() {
    const int64_t now = Now();
    std::ostringstream out;
    out.precision(15);
    out << "{\"nowMs\":" << static_cast<double>(now) / kNsPerMs;
    for (int i = 0; i < 2; i++) {
      ways_[i].Advance(now);
      out << (i == 0 ? ",\"aToB\":" : ",\"bToA\":");
      ways_[i].Report(out, now);
    }
    out << "}";
    return out.str();
  }

  // ways_[i] leads from sides_[i] to the other.
  Way ways_[2];
  Side sides_[2];
  const char* device_;
  int mtu_;
  int poll_;
  int timer_;
  int64_t armed_ = kNever;
  std::string input_;
  uint8_t bytes_[kLongest];
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: wan NAMESPACE_A NAMESPACE_B DEVICE MTU SEED\n");
    return 2;
  }
  // It stands for hardware, which does not wait for a free processor. Where
  // that is not allowed, "late" tells.
  sched_param priority = {};
  priority.sched_priority = 1;
  ::sched_setscheduler(0, SCHED_RR, &priority);
  auto wan = std::make_unique<Wan>(argv + 1, argv[3], atoi(argv[4]),
                                   strtoull(argv[5], nullptr, 10));
  ::write(STDOUT_FILENO, "ready\n", 6);
  wan->Run();
  return 0;
}
