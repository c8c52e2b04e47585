/**
 * The addon: the type of every function it exports, and the one place that loads it.
 *
 * The addon moves and seals bytes. It knows nothing of sessions, links or policy: whatever it needs
 * of them (nonces, offsets, which key) stands in the tables it is handed. All calls are synchronous
 * and never block; handles are small positive integers. Calls that make or change something throw an
 * `Error` with `code` ('EACCES'), `errno` (negative, as node's own) and `syscall`; calls on the data path return counts.
 */
import type { DatagramTable, PacketTable, SealTable } from './batch.ts';

export type Handle = number;

/** Bits of `poll`. */
export const PollEvent = { readable: 1, writable: 2 } as const;

/** The ciphers of the data path, by their number on the wire (PROTOCOL §3.4). */
export const Cipher = { aes256Gcm: 1, chacha20Poly1305: 2 } as const;

export interface UdpOptions {
  /** 4, or 6; 6 with `dualStack` takes IPv4 too (mapped addresses never leave the addon). */
  readonly family: 4 | 6;
  readonly dualStack: boolean;
  /** Address to bind to, in text; '' for any. */
  readonly address: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
  /** SO_BINDTODEVICE; '' for none. */
  readonly device: string;
  /** SO_MARK; 0 for none. */
  readonly mark: number;
  /** UDP_SEGMENT and UDP_GRO where the kernel has them. */
  readonly offload: boolean;
  /** SO_SNDBUF and SO_RCVBUF (the FORCE variants where allowed), bytes. */
  readonly bufferBytes: number;
}

export interface Native {
  /**
   * Creates a TUN device, with `ethernet` a TAP device, not persistent, non-blocking, without packet information; '' lets the
   * kernel choose the name. With `offload`, IFF_VNET_HDR and TUNSETOFFLOAD (checksum, TSO4, TSO6,
   * and USO where the kernel has it); what was granted is in `offload`: false when none.
   */
  tunCreate(
    name: string,
    offload: boolean,
    ethernet: boolean,
  ): { readonly handle: Handle; readonly name: string; readonly offload: boolean };

  /** SIOCSIFMTU on the interface behind the handle. Throws. */
  tunSetMtu(handle: Handle, mtu: number): void;

  /**
   * Reads packets until the table or the ring is full, about 256 KiB were read, or nothing is left. A
   * run that does not fit is continued by the next call, and counts as readable until then. Packets lie one behind the other from `start` on, each behind
   * `headroom` free bytes. A TCP or UDP run (GSO) is cut into its packets; `flags` say which still
   * have a partial checksum whose place follows from the IP header (others are completed here).
   * `hashKey` is 16 bytes and keys the flow bucket and the flow.
   * Returns the packets read, 0 when there was nothing, -errno when the device is gone.
   * Memory: `ring` and `table` are borrowed for the call.
   */
  tunRead(
    handle: Handle,
    ring: Uint8Array,
    start: number,
    headroom: number,
    table: PacketTable,
    hashKey: Uint8Array,
  ): number;

  /**
   * Writes the first `count` slots in order; slots of length 0 are skipped. Consecutive packets of
   * one TCP or UDP flow go out as one write where the device has offloads. A partial checksum whose
   * place does not lie on the packet's own TCP or UDP header drops the packet; on a device without
   * offloads it is completed in place.
   * Returns how many packets were dropped (malformed, or refused by the kernel).
   * Memory: `bytes` is borrowed, and checksum fields in it may be changed.
   */
  tunWrite(handle: Handle, bytes: Uint8Array, table: PacketTable, count: number): number;

  /** Opens and binds a UDP socket. Throws. */
  udpOpen(options: UdpOptions): { readonly handle: Handle; readonly port: number };

  /**
   * Receives until `count` slots are filled from slot 0 on, `slab` has no room between `start` and
   * `end` for another 64 KiB, or nothing is left. Runs (UDP_GRO) are cut into datagrams without a copy.
   * Returns the datagrams received.
   */
  udpReceive(
    handle: Handle,
    slab: Uint8Array,
    start: number,
    end: number,
    table: DatagramTable,
  ): number;

  /**
   * Sends slots `first` to `first + count - 1`: datagram i is `sizes[i]` bytes at `to[i]` of the slab.
   * Neighbours of equal size that touch (the last may be shorter) go out as one run (UDP_SEGMENT).
   * `endpoint` is ENDPOINT_BYTES at `endpointOffset`.
   * Returns how many were dealt with, from `first` on: fewer than `count` means the socket's buffer is
   * full and the rest remains the caller's. A datagram that the kernel refuses for another reason
   * (EMSGSIZE, ENETUNREACH …) is dropped and counted as dealt with; `udpErrno` tells.
   */
  udpSend(
    handle: Handle,
    slab: Uint8Array,
    to: Uint32Array,
    sizes: Uint16Array,
    first: number,
    count: number,
    endpoint: Uint8Array,
    endpointOffset: number,
  ): number;

  /** The errno of the last refused datagram since the last call, else 0. */
  udpErrno(handle: Handle): number;

  /** Makes a key for the data path; `key` is 32 bytes and may be wiped at once. Throws. */
  aeadCreate(cipher: number, key: Uint8Array): Handle;
  /** Wipes and forgets a key. */
  aeadFree(key: Handle): void;

  /**
   * Seals `count` slots: `sizes[i]` bytes at `from[i]` of `ring` become ciphertext and 16-byte tag behind
   * the `headerBytes` at `to[i]` of `slab`, which are the associated data. Ring and slab do not overlap.
   */
  seal(
    key: Handle,
    ring: Uint8Array,
    slab: Uint8Array,
    headerBytes: number,
    table: SealTable,
    count: number,
  ): void;

  /**
   * The same without encryption (PROTOCOL §5.6): the bytes of each slot are copied behind its header, and the
   * tag is over both. No nonce may be one that anything was sealed with under that key.
   */
  readonly authenticate: Native['seal'];

  /**
   * Opens in place the slots whose key is not 0: `headerBytes` of associated data, ciphertext, tag; where
   * `clear` is not 0, associated data up to the tag. A slot that does not open gets length 0 and its bytes
   * are wiped. Lengths of the others stay those of the datagram. Returns how many did not open.
   */
  open(slab: Uint8Array, headerBytes: number, table: DatagramTable, count: number): number;

  /**
   * Calls back with the `PollEvent` bits that are ready (level triggered) until the next `poll` or
   * `close` of this handle; `events` 0 stops. An exception in the callback is uncaught.
   */
  poll(handle: Handle, events: number, onReady: (events: number) => void): void;
  /** Closes a TUN device or socket; also from within its callback. */
  close(handle: Handle): void;

  /** AES and carry-less multiplication in hardware (x86 AES-NI + PCLMULQDQ; arm64 AES + PMULL). */
  cpuHasAes(): boolean;
  /** SO_NETNS_COOKIE of this process's network namespace, in decimal; '' where the kernel has none. */
  netnsCookie(): string;
  /**
   * A handle for `poll` that becomes readable when addresses, routes or rules of this network
   * namespace change (rtnetlink(7), route(4)); `routesDrain` makes it wait for the next change. Throws.
   */
  routesOpen(): Handle;
  routesDrain(handle: Handle): void;
  /** flock(LOCK_EX | LOCK_NB) on a file descriptor: whether it is ours now. The lock goes with the descriptor. */
  lockFile(fd: number): boolean;
  /**
   * Sends a datagram to a UNIX socket; a leading `@` stands for the zero byte of an abstract name (unix(7)).
   * Waits 2 s at most for room. Throws.
   */
  unixSend(path: string, text: string): void;

  /**
   * A pair of connected sockets with message boundaries for two processes. `descriptor` is the end for the
   * other one: the caller's, to be closed. Throws.
   */
  channelPair(): { readonly handle: Handle; readonly descriptor: number };
  /** Takes over such a descriptor, in the process that it was made for. Throws. */
  channelAdopt(descriptor: number): Handle;
  /**
   * Sends one message; with `passed`, not 0, also a TUN device or socket, which the sender may close at once.
   * False when there is no room now. Throws when the other side is gone (EPIPE) or it is too long (EMSGSIZE).
   */
  channelSend(channel: Handle, bytes: Uint8Array, passed: Handle): boolean;
  /**
   * Receives one message into `bytes`; undefined when there is none. `size` is that of the message, -1 when
   * the other side is gone or has sent what does not fit. `passed` is what came with it, 0 for nothing; with
   * `takes` false nothing is accepted. Throws when what came cannot be watched.
   */
  channelReceive(
    channel: Handle,
    bytes: Uint8Array,
    takes: boolean,
  ): { readonly size: number; readonly passed: Handle } | undefined;

  /**
   * For good: `root` is the root folder ('' leaves it), the process is user `uid` of group `gid` alone (0
   * leaves them), with all its threads; on Linux it ends with its parent, and neither it nor a program can
   * get privileges, nor can it start one. Throws; what was done until then stays.
   */
  confine(root: string, uid: number, gid: number): void;
  /**
   * Gives back what only start-up has used: free memory of malloc(3), and the pages of program files that cannot
   * have been changed, which are there again when they are touched (madvise(2), MADV_DONTNEED). Takes about a
   * millisecond, and so do the pages that are needed after all.
   */
  trimMemory(): void;
  /** The account of a name or number; undefined if there is none. Looks into the system's databases. */
  findUser(name: string): { readonly uid: number; readonly gid: number } | undefined;
}

/**
 * What the addon takes where `Native` has tables: their columns, last. Looking a column up by its name from C++
 * makes a string of the name each time, a tenth of what a lone packet costs.
 */
interface Columns {
  tunRead(
    handle: Handle,
    ring: Uint8Array,
    start: number,
    headroom: number,
    hashKey: Uint8Array,
    ...columns: readonly unknown[]
  ): number;
  tunWrite(
    handle: Handle,
    bytes: Uint8Array,
    count: number,
    ...columns: readonly unknown[]
  ): number;
  udpReceive(
    handle: Handle,
    slab: Uint8Array,
    start: number,
    end: number,
    ...columns: readonly unknown[]
  ): number;
  seal(
    key: Handle,
    ring: Uint8Array,
    slab: Uint8Array,
    headerBytes: number,
    count: number,
    ...columns: readonly unknown[]
  ): void;
  readonly authenticate: Columns['seal'];
  open(
    slab: Uint8Array,
    headerBytes: number,
    count: number,
    ...columns: readonly unknown[]
  ): number;
}

type Addon = Columns & Omit<Native, keyof Columns>;

/** Loads the addon from a path; the executable unpacks it first (main.ts). Throws what dlopen says. */
export function loadNative(path: string): Native {
  const module = { exports: {} };
  process.dlopen(module, path);
  const addon = module.exports as Addon;
  return {
    ...addon,
    tunRead: (handle, ring, start, headroom, t, hashKey) =>
      addon.tunRead(
        handle,
        ring,
        start,
        headroom,
        hashKey,
        t.offsets,
        t.lengths,
        t.flags,
        t.buckets,
        t.flows,
      ),
    tunWrite: (handle, bytes, t, count) =>
      addon.tunWrite(handle, bytes, count, t.offsets, t.lengths, t.flags),
    udpReceive: (handle, slab, start, end, t) =>
      addon.udpReceive(handle, slab, start, end, t.offsets, t.lengths, t.sources, t.endpoints),
    seal: (key, ring, slab, headerBytes, t, count) =>
      addon.seal(key, ring, slab, headerBytes, count, t.from, t.sizes, t.to, t.nonces),
    authenticate: (key, ring, slab, headerBytes, t, count) =>
      addon.authenticate(key, ring, slab, headerBytes, count, t.from, t.sizes, t.to, t.nonces),
    open: (slab, headerBytes, t, count) =>
      addon.open(slab, headerBytes, count, t.offsets, t.lengths, t.keys, t.clear, t.nonces),
  };
}
