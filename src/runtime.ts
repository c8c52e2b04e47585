/**
 * The real host of a tunnel: the process's clock and timers, the system's resolver, and the addon's
 * tun device and sockets.
 */
import { isIP } from 'node:net';
import type { Config } from './config.ts';
import { random } from './crypto.ts';
import type { Host, LinkSocket, Tun, TunnelEvent } from './host.ts';
import { PollEvent, type Handle, type Native } from './native.ts';
import { Failure, reason } from './report.ts';

/**
 * Room for a burst while the loop is elsewhere: at 5 Gbit/s 4 MiB are 6 ms. The kernel charges what
 * waits in it, not what it could hold.
 */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;
/** A change of network is a burst of messages: this long after the first, the rest is there. */
const SETTLE_MS = 200;

export interface RuntimeOptions {
  readonly native: Native;
  readonly tun: Tun;
  /** Opens and binds the socket of a link. Throws a `Failure`. */
  readonly openSocket: (index: number) => Handle;
  readonly resolve: () => Promise<readonly Uint8Array[]>;
  readonly report: (event: TunnelEvent) => void;
}

/** `onTimer` is the tunnel's; it is asked for late since tunnel and host need each other. */
export function makeHost(options: RuntimeOptions, onTimer: () => void): Host {
  const { native } = options;
  let timer: NodeJS.Timeout | undefined;
  let timerAtMs = Number.POSITIVE_INFINITY;
  const fire = (): void => {
    timerAtMs = Number.POSITIVE_INFINITY;
    onTimer();
  };
  return {
    nowMs: () => performance.now(),
    wakeAt: (atMs) => {
      // An early call does no harm, so a timer is only ever made earlier.
      if (atMs >= timerAtMs && atMs !== Number.POSITIVE_INFINITY) return;
      clearTimeout(timer);
      timerAtMs = atMs;
      if (atMs === Number.POSITIVE_INFINITY) return;
      timer = setTimeout(fire, Math.ceil(Math.max(0, atMs - performance.now())));
    },
    randomBytes: random,
    aead: native,
    tun: options.tun,
    openLink: (index, onReadable, onWritable) =>
      nativeSocket(native, options.openSocket(index), onReadable, onWritable),
    resolve: options.resolve,
    report: options.report,
  };
}

/** The tun device behind `handle`. */
export function nativeTun(native: Native, handle: Handle): Tun {
  return {
    read: (ring, start, headroom, table, hashKey) =>
      native.tunRead(handle, ring, start, headroom, table, hashKey),
    write: (bytes, table, count) => native.tunWrite(handle, bytes, table, count),
    setMtu: (mtu) => {
      try {
        native.tunSetMtu(handle, mtu);
      } catch {
        // The device is gone; reading it says so.
      }
    },
    onReadable: (callback) => {
      native.poll(handle, callback === undefined ? 0 : PollEvent.readable, callback ?? nothing);
    },
  };
}

/**
 * Calls `body` a moment after addresses, routes or rules have changed, once for changes that come
 * together, until the returned function is called. Keeps no process alive by itself.
 */
export function onRouteChanges(native: Native, body: () => void): () => void {
  const handle = native.routesOpen();
  let timer: NodeJS.Timeout | undefined;
  const later = (): void => {
    timer = undefined;
    body();
  };
  native.poll(handle, PollEvent.readable, () => {
    native.routesDrain(handle);
    timer ??= setTimeout(later, SETTLE_MS).unref();
  });
  return () => {
    clearTimeout(timer);
    native.close(handle);
  };
}

function nothing(): void {}

function nativeSocket(
  native: Native,
  handle: Handle,
  onReadable: () => void,
  onWritable: () => void,
): LinkSocket {
  let watched = 0;
  const onReady = (events: number): void => {
    if ((events & PollEvent.writable) !== 0) onWritable();
    if ((events & PollEvent.readable) !== 0) onReadable();
  };
  return {
    receive: (slab, start, end, table) => native.udpReceive(handle, slab, start, end, table),
    send: (slab, to, sizes, first, count, peer, at) =>
      native.udpSend(handle, slab, to, sizes, first, count, peer, at),
    errno: () => native.udpErrno(handle),
    watch: (readable, writable) => {
      const events = (readable ? PollEvent.readable : 0) | (writable ? PollEvent.writable : 0);
      if (events === watched) return;
      watched = events;
      native.poll(handle, events, onReady);
    },
    close: () => native.close(handle),
  };
}

/**
 * The socket of link `index`, with SO_MARK `mark`: one for both families where the kernel has IPv6,
 * so that a peer may have either. Throws a `Failure`.
 */
export function openLinkSocket(
  native: Native,
  config: Config,
  index: number,
  mark: number,
): Handle {
  const link = config.links[index];
  const isServer = config.role === 'server';
  const address = isServer ? config.address : link.address;
  const port = isServer ? config.port : 0;
  const open = (family: 4 | 6): Handle =>
    native.udpOpen({
      family,
      dualStack: address === '',
      address,
      port,
      device: link.device,
      mark,
      offload: config.offload,
      bufferBytes: SOCKET_BUFFER_BYTES,
    }).handle;
  try {
    if (address !== '') return open(isIP(address) === 4 ? 4 : 6);
    try {
      return open(6);
    } catch (error) {
      if (codeOf(error) !== 'EAFNOSUPPORT') throw error;
      return open(4);
    }
  } catch (error) {
    throw socketFailure(error, address, port);
  }
}

function socketFailure(error: unknown, address: string, port: number): Failure {
  const where = port === 0 ? 'cannot open a UDP socket' : `cannot listen on UDP port ${port}`;
  switch (codeOf(error)) {
    case 'EADDRINUSE':
      return new Failure(where, 'address in use', 'stop the other program or give another port');
    case 'EADDRNOTAVAIL':
      return new Failure(where, `"${address}" is not an address of this host`, 'give one, or auto');
    case 'EACCES':
    case 'EPERM':
      return new Failure(where, reason(error), 'run as root or grant CAP_NET_ADMIN');
    default:
      return new Failure(where, reason(error), 'look into the system log');
  }
}

/** The name of a system error, '' if it is none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}
