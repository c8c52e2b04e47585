// The exported functions of TUN and TAP devices: from tables to packets and
// back.

#include "tun.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "check.h"
#include "handle.h"

namespace vpn {

namespace {

// What one tunRead takes in: more would push the first packets out of the
// second-level cache before they are sealed. What remains makes the descriptor
// readable at once.
constexpr size_t kReadBytes = 256 * 1024;

struct PacketColumns {
  Span<uint32_t> offsets;
  Span<uint16_t> lengths;
  Span<uint8_t> flags;
  Span<uint8_t> buckets;
  Span<uint32_t> flows;

  PacketColumns(Args* args, int first)
      : offsets(args->Array<uint32_t>(first)),
        lengths(args->Array<uint16_t>(first + 1)),
        flags(args->Array<uint8_t>(first + 2)),
        buckets(args->Array<uint8_t>(first + 3)),
        flows(args->Array<uint32_t>(first + 4)) {}
};

// PacketFlag.partialChecksum in batch.ts.
constexpr uint8_t kPartialFlag = 1;

// Where packets that were read go.
struct Sink {
  Span<uint8_t> ring;
  size_t at;
  size_t headroom;
  PacketColumns* table;
  size_t slots;
  size_t count = 0;

  // Takes pieces as long as there is room.
  void Take(Cutter* cutter) {
    while (!cutter->done() && count < slots) {
      const size_t size = cutter->next_size();
      if (!ring.Holds(at, headroom + size)) return;
      at += headroom;
      cutter->Next(ring.data + at);
      table->offsets.data[count] = static_cast<uint32_t>(at);
      table->lengths.data[count] = static_cast<uint16_t>(size);
      table->flags.data[count] = cutter->partial() ? kPartialFlag : 0;
      table->buckets.data[count] = cutter->flow().bucket;
      table->flows.data[count] = cutter->flow().hash;
      at += size;
      count++;
    }
  }
};

// Reads until the sink is full, enough was read or nothing is left. Returns 0
// or an errno.
int ReadAll(TunDevice* device, int fd, Sink* sink, const uint8_t* hash_key) {
  Cutter* cutter = &device->cutter;
  sink->Take(cutter);
  const size_t first = sink->at;
  while (cutter->done() && sink->count < sink->slots &&
         sink->at - first < kReadBytes) {
    Offload offload;
    const ssize_t n = TunReadOne(*device, fd, device->staging,
                                 sizeof(device->staging), &offload);
    if (n < 0) return n == -EAGAIN ? 0 : static_cast<int>(-n);
    const size_t size = static_cast<size_t>(n);
    const bool good =
        device->ethernet
            ? cutter->BeginFrame(device->staging, size, offload, hash_key)
            : cutter->Begin(device->staging, size, offload, hash_key);
    if (good) sink->Take(cutter);
  }
  return 0;
}

int WriteParts(Handle* handle, iovec* parts, size_t count,
               const Offload& offload) {
  return TunWriteOne(*handle->tun, handle->fd, parts, count, offload);
}

size_t WriteAlone(Handle* handle, const Piece& piece) {
  iovec parts[2] = {{}, piece.whole()};
  return WriteParts(handle, parts, 2, piece.Alone()) == 0 ? 0 : 1;
}

// Writes what was joined. Returns how many packets were dropped.
size_t Flush(Handle* handle) {
  Joiner& joiner = handle->tun->joiner;
  if (joiner.empty()) return 0;
  iovec parts[1 + Joiner::kMostParts];
  Offload offload;
  const size_t count = joiner.Parts(parts + 1, &offload);
  const int error = WriteParts(handle, parts, 1 + count, offload);
  size_t dropped = error == 0 ? 0 : joiner.count();
  // A run that this kernel does not take may still pass packet by packet.
  if (error == EINVAL && joiner.count() > 1) {
    dropped = 0;
    for (size_t i = 0; i < joiner.count(); i++)
      dropped += WriteAlone(handle, joiner.piece(i));
  }
  joiner.Clear();
  return dropped;
}

size_t WriteJoined(Handle* handle, const Piece& piece) {
  Joiner& joiner = handle->tun->joiner;
  if (joiner.Add(piece)) return 0;
  const size_t dropped = Flush(handle);
  joiner.Start(piece, handle->tun->udp_runs);
  return dropped;
}

size_t WritePlain(Handle* handle, Piece piece) {
  if (piece.partial) {
    CompleteChecksum(piece.packet, piece.ip.total, piece.ip.transport,
                     ChecksumOffset(piece.ip.protocol));
    piece.partial = false;
  }
  return WriteAlone(handle, piece);
}

}  // namespace

namespace exports {

napi_value tunCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const std::string name = args.Text(0);
  const bool offload = args.Flag(1);
  const bool ethernet = args.Flag(2);
  if (!args.ok()) return nullptr;
  if (name.size() >= IF_NAMESIZE) return ThrowErrno(env, EINVAL, "TUNSETIFF");
  auto device = std::make_unique<TunDevice>();
  memcpy(device->name, name.data(), name.size());
  device->ethernet = ethernet;
  const char* syscall = "";
  const int fd = TunOpen(device.get(), offload, &syscall);
  if (fd < 0) return ThrowErrno(env, -fd, syscall);
  Handle* handle = AddHandle(env, args.addon(), fd);
  if (handle == nullptr) return nullptr;
  handle->tun = std::move(device);
  Napi::Object result = Napi::Object::New(env);
  result.Set("handle", Napi::Number::New(env, handle->number));
  result.Set("name", Napi::String::New(env, handle->tun->name));
  result.Set("offload", Napi::Boolean::New(env, handle->tun->offload));
  return result;
}

napi_value tunSetMtu(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const uint32_t mtu = args.U32(1);
  if (!args.ok()) return nullptr;
  Handle* handle = FindTun(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  const char* syscall = "";
  const int error =
      TunSetMtu(*handle->tun, handle->fd, static_cast<int>(mtu), &syscall);
  return error == 0 ? nullptr : ThrowErrno(env, error, syscall);
}

napi_value tunRead(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> ring = args.Array<uint8_t>(1);
  const size_t start = args.U32(2);
  const size_t headroom = args.U32(3);
  const Span<uint8_t> hash_key = args.Array<uint8_t>(4);
  PacketColumns table(&args, 5);
  if (!args.ok()) return nullptr;
  Handle* handle = FindTun(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  if (hash_key.size != kHashKeyBytes)
    return ThrowRange(env, "a hash key is 16 bytes");
  if (!ring.Holds(start, 0))
    return ThrowRange(env, "start lies outside the ring");
  const size_t slots = table.offsets.size;
  if (table.lengths.size < slots || table.flags.size < slots ||
      table.buckets.size < slots || table.flows.size < slots) {
    return ThrowRange(env, "columns of unequal length");
  }
  Sink sink{ring, start, headroom, &table, slots};
  const int error =
      ReadAll(handle->tun.get(), handle->fd, &sink, hash_key.data);
  SetBacklog(handle, !handle->tun->cutter.done());
  // An error lasts; what was read before it comes first.
  return Number(env,
                sink.count == 0 ? -error : static_cast<int64_t>(sink.count));
}

napi_value tunWrite(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t number = args.U32(0);
  const Span<uint8_t> bytes = args.Array<uint8_t>(1);
  const size_t count = args.U32(2);
  const Span<uint32_t> offsets = args.Array<uint32_t>(3);
  const Span<uint16_t> lengths = args.Array<uint16_t>(4);
  const Span<uint8_t> flags = args.Array<uint8_t>(5);
  if (!args.ok()) return nullptr;
  Handle* handle = FindTun(env, args.addon(), number);
  if (handle == nullptr) return nullptr;
  if (count > offsets.size || count > lengths.size || count > flags.size) {
    return ThrowRange(env, "more slots than the table has");
  }
  for (size_t i = 0; i < count; i++) {
    if (!bytes.Holds(offsets.data[i], lengths.data[i])) {
      return ThrowRange(env, "a slot lies outside its memory");
    }
  }
  const bool ethernet = handle->tun->ethernet;
  size_t dropped = 0;
  for (size_t i = 0; i < count; i++) {
    if (lengths.data[i] == 0) continue;
    Piece piece;
    uint8_t* packet = bytes.data + offsets.data[i];
    const bool partial = (flags.data[i] & kPartialFlag) != 0;
    if (!(ethernet ? piece.SetFrame(packet, lengths.data[i], partial)
                   : piece.Set(packet, lengths.data[i], partial))) {
      dropped++;
    } else if (handle->tun->offload) {
      dropped += WriteJoined(handle, piece);
    } else {
      dropped += WritePlain(handle, piece);
    }
  }
  dropped += Flush(handle);
  return Number(env, static_cast<int64_t>(dropped));
}

}  // namespace exports

}  // namespace vpn
