// One direction of an emulated link.
//
// A packet's way:
//  1. read from a tun device; dropped if the link is cut or it is too long
//  2. the queue, dropped when that is full; it leaves at the rate
//  3. loss, corruption, duplication: behind the bottleneck, as on a radio link,
//     so that a lost packet has used its share of the rate
//  4. the wire, sorted by arrival: delay and jitter of its own for each
//     packet, which therefore may overtake another
//  5. written to the other device, unless the link is cut: that takes what is
//     on the wire with it
//
// Times are those at which things happen on the emulated link and not those
// at which this program gets to them: late wakeups do not add up, and the rate
// is exact. What is delivered more than kLateNs late is counted, for tests to
// know that the machine was too busy to measure.

#ifndef VPN_TEST_WAN_WAY_H_
#define VPN_TEST_WAN_WAY_H_

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <ostream>
#include <utility>
#include <vector>

namespace wan {

constexpr double kNsPerMs = 1e6;
constexpr int64_t kNever = INT64_MAX;
constexpr int64_t kLateNs = 1000 * 1000;
constexpr size_t kLongest = 65536;

// SplitMix64 (Steele, Lea, Flood 2014). Each effect has a stream of its own,
// from which every packet draws: the n-th packet is lost whatever the jitter
// is, and however the machine is loaded.
class Stream {
 public:
  explicit Stream(uint64_t seed) : state_(seed) {}

  uint64_t Bits() {
    uint64_t mixed = state_ += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }

  // In [0, 1).
  double Uniform() { return static_cast<double>(Bits() >> 11) * 0x1p-53; }

  // Box and Muller 1958.
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
    return radius * std::cos(2 * M_PI * Uniform());
  }

 private:
  uint64_t state_;
};

struct Figures {
  double rate = 0;    // Bits of IP packets per second; 0: no limit, no queue.
  double queue = 0;   // Milliseconds of the rate.
  double delay = 0;   // Milliseconds.
  double jitter = 0;  // Standard deviation, milliseconds.
  double loss = 0;    // Ratios.
  double corrupt = 0;
  double duplicate = 0;
  double blackhole = 0;       // 1: nothing arrives any more.
  double mtu = kLongest - 1;  // Longer packets vanish without a word.
};

struct Key {
  const char* name;
  double Figures::*figure;
};
inline constexpr Key kFigures[] = {
    {"rate", &Figures::rate},
    {"queue", &Figures::queue},
    {"delay", &Figures::delay},
    {"jitter", &Figures::jitter},
    {"loss", &Figures::loss},
    {"corrupt", &Figures::corrupt},
    {"duplicate", &Figures::duplicate},
    {"blackhole", &Figures::blackhole},
    {"mtu", &Figures::mtu},
};

struct Packet {
  int64_t due = 0;
  uint64_t order = 0;
  size_t size = 0;
  std::unique_ptr<uint8_t[]> bytes;
};

// For a heap with the earliest on top; copies of one packet have one order.
inline bool IsAfter(const Packet& a, const Packet& b) {
  return a.due != b.due ? a.due > b.due : a.order > b.order;
}

// One direction of the link.
class Way {
 public:
  explicit Way(Stream seeds)
      : losses_(seeds.Bits()),
        corruptions_(seeds.Bits()),
        duplications_(seeds.Bits()),
        jitters_(seeds.Bits()) {}

  void Set(const Figures& figures, int64_t now) {
    Advance(now);
    // What is left of the packet on its way out takes its time at the new rate.
    const double left = static_cast<double>(head_done_ - now) * figures_.rate;
    figures_ = figures;
    if (queue_.empty()) return;
    head_done_ =
        now + (figures.rate > 0 ? std::llround(left / figures.rate) : 0);
    Advance(now);
  }

  const Figures& figures() const { return figures_; }

  void Enter(const uint8_t* bytes, size_t size, int64_t now) {
    Advance(now);
    entered_++;
    entered_bytes_ += size;
    if (figures_.blackhole != 0) {
      cut_++;
      return;
    }
    if (static_cast<double>(size) > figures_.mtu) {
      too_long_++;
      return;
    }
    const bool is_limited = figures_.rate > 0;
    const double wait = QueueNs(now) + TransmitNs(size);
    if (is_limited && !queue_.empty() && wait > figures_.queue * kNsPerMs) {
      overflowed_++;
      return;
    }
    Packet packet;
    packet.order = order_++;
    packet.size = size;
    packet.bytes.reset(new uint8_t[size]);
    memcpy(packet.bytes.get(), bytes, size);
    if (!is_limited) {
      Launch(std::move(packet), now);
      return;
    }
    longest_queue_ns_ = std::max(longest_queue_ns_, wait);
    if (queue_.empty()) head_done_ = now + std::llround(TransmitNs(size));
    queued_bytes_ += size;
    queue_.push_back(std::move(packet));
  }

  // Puts on the wire what has left the queue by now.
  void Advance(int64_t now) {
    while (!queue_.empty() && head_done_ <= now) {
      Packet packet = std::move(queue_.front());
      queue_.pop_front();
      queued_bytes_ -= packet.size;
      Launch(std::move(packet), head_done_);
      if (!queue_.empty())
        head_done_ += std::llround(TransmitNs(queue_.front().size));
    }
  }

  // Gives to the device what has arrived by now. A device that is down or gone
  // refuses it.
  void Deliver(int fd, int64_t now) {
    while (!wire_.empty() && wire_.front().due <= now) {
      std::pop_heap(wire_.begin(), wire_.end(), IsAfter);
      const Packet packet = std::move(wire_.back());
      wire_.pop_back();
      if (figures_.blackhole != 0) {
        cut_++;
        continue;
      }
      if (::write(fd, packet.bytes.get(), packet.size) < 0) {
        refused_++;
        continue;
      }
      delivered_++;
      delivered_bytes_ += packet.size;
      if (packet.order < highest_) overtaken_++;
      highest_ = std::max(highest_, packet.order);
      if (now - packet.due > kLateNs) late_++;
    }
  }

  // When Advance and Deliver must be called next. What leaves the queue can
  // wait until it might arrive; beyond six deviations nothing is early.
  int64_t NextEvent() const {
    const double lead_ms = figures_.delay - 6 * figures_.jitter;
    const int64_t leaves =
        queue_.empty()
            ? kNever
            : head_done_ + std::llround(std::max(0.0, lead_ms) * kNsPerMs);
    return wire_.empty() ? leaves : std::min(leaves, wire_.front().due);
  }

  void Report(std::ostream& out, int64_t now) const {
    out << "{\"entered\":" << entered_ << ",\"enteredBytes\":" << entered_bytes_
        << ",\"delivered\":" << delivered_
        << ",\"deliveredBytes\":" << delivered_bytes_
        << ",\"overflowed\":" << overflowed_ << ",\"lost\":" << lost_
        << ",\"corrupted\":" << corrupted_ << ",\"duplicated\":" << duplicated_
        << ",\"overtaken\":" << overtaken_ << ",\"cut\":" << cut_
        << ",\"tooLong\":" << too_long_ << ",\"refused\":" << refused_
        << ",\"late\":" << late_ << ",\"queued\":" << queue_.size()
        << ",\"onWire\":" << wire_.size()
        << ",\"queueMs\":" << QueueNs(now) / kNsPerMs
        << ",\"longestQueueMs\":" << longest_queue_ns_ / kNsPerMs << "}";
  }

 private:
  double TransmitNs(size_t bytes) const {
    return figures_.rate > 0 ? static_cast<double>(bytes) * 8e9 / figures_.rate
                             : 0;
  }

  // How long what is in the queue needs to leave it.
  double QueueNs(int64_t now) const {
    if (queue_.empty()) return 0;
    return TransmitNs(queued_bytes_ - queue_.front().size) +
           static_cast<double>(std::max<int64_t>(0, head_done_ - now));
  }

  void Launch(Packet packet, int64_t at) {
    const bool is_lost = losses_.Uniform() < figures_.loss;
    const bool is_corrupt = corruptions_.Uniform() < figures_.corrupt;
    const uint64_t where = corruptions_.Bits();
    const bool is_twofold = duplications_.Uniform() < figures_.duplicate;
    if (is_lost) {
      lost_++;
      jitters_.Normal();
      return;
    }
    if (is_corrupt && packet.size > 1) {
      // Not in the first byte: without the IP version tun does not take it.
      const size_t bit = 8 + where % (8 * (packet.size - 1));
      packet.bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      corrupted_++;
    }
    if (is_twofold) {
      Packet copy;
      copy.order = packet.order;
      copy.size = packet.size;
      copy.bytes.reset(new uint8_t[packet.size]);
      memcpy(copy.bytes.get(), packet.bytes.get(), packet.size);
      duplicated_++;
      Put(std::move(copy), at);
    }
    Put(std::move(packet), at);
  }

  void Put(Packet packet, int64_t at) {
    const double delay_ms =
        figures_.delay + figures_.jitter * jitters_.Normal();
    packet.due = at + std::llround(std::max(0.0, delay_ms) * kNsPerMs);
    wire_.push_back(std::move(packet));
    std::push_heap(wire_.begin(), wire_.end(), IsAfter);
  }

  Figures figures_;
  Stream losses_, corruptions_, duplications_, jitters_;

  // head_done_ is when the first of the queue will have left it.
  std::deque<Packet> queue_;
  size_t queued_bytes_ = 0;
  int64_t head_done_ = 0;
  std::vector<Packet> wire_;
  uint64_t order_ = 1, highest_ = 0;

  uint64_t entered_ = 0, entered_bytes_ = 0, delivered_ = 0,
           delivered_bytes_ = 0, overflowed_ = 0, lost_ = 0, corrupted_ = 0,
           duplicated_ = 0, overtaken_ = 0, cut_ = 0, too_long_ = 0,
           refused_ = 0, late_ = 0;
  double longest_queue_ns_ = 0;
};

}  // namespace wan

#endif  // VPN_TEST_WAN_WAY_H_
