/**
 * The real host of a tunnel: the process's clock and timers, the system's resolver, and the addon's
 * tun device and sockets.
 */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { random } from './crypto.ts';
import type { Host, LinkSocket, Tun, TunnelEvent } from './host.ts';
import type { Snapshot } from './linkwatch.ts';
import { PollEvent, type Handle, type Native } from './native.ts';
import { Failure, reason, verbose } from './report.ts';

/**
 * Room for a burst while the loop is elsewhere: at 5 Gbit/s 4 MiB are 6 ms. The kernel charges what
 * waits in it, not what it could hold.
 */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;
/** A change of network is a burst of messages: this long after the first, the rest is there. */
const SETTLE_MS = 200;
/** Looking at the interfaces takes a tenth of a millisecond; a router's routes change all the time. */
const SOON_MS = 10;

export interface RuntimeOptions {
  readonly native: Native;
  readonly tun: Tun;
  /** Opens and binds the socket of a link; undefined if what it is bound to is not there. Throws a `Failure`. */
  readonly openSocket: (index: number) => Handle | undefined;
  readonly resolve: (index: number) => Promise<readonly Uint8Array[]>;
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
    openLink: (index, onReadable, onWritable) => {
      const handle = options.openSocket(index);
      const what = `socket of link ${index}`;
      verbose('net', handle === undefined ? `${what}: not there now` : `${what}: opened`);
      if (handle === undefined) return undefined;
      const closed = (): void => verbose('net', `${what}: closed`);
      return nativeSocket(native, handle, onReadable, onWritable, closed);
    },
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
 * Calls `soon` when addresses, interfaces, routes or rules have changed, and `later` a moment after, once for
 * changes that come together, until the returned function is called. Keeps no process alive by itself.
 */
export function onRouteChanges(native: Native, soon: () => void, later: () => void): () => void {
  const handle = native.routesOpen();
  let soonTimer: NodeJS.Timeout | undefined;
  let laterTimer: NodeJS.Timeout | undefined;
  let soonAtMs = Number.NEGATIVE_INFINITY;
  const callSoon = (): void => {
    soonTimer = undefined;
    soonAtMs = performance.now();
    soon();
  };
  const callLater = (): void => {
    laterTimer = undefined;
    later();
  };
  native.poll(handle, PollEvent.readable, () => {
    native.routesDrain(handle);
    const waitMs = soonAtMs + SOON_MS - performance.now();
    if (soonTimer === undefined && waitMs <= 0) callSoon();
    else soonTimer ??= setTimeout(callSoon, waitMs).unref();
    laterTimer ??= setTimeout(callLater, SETTLE_MS).unref();
  });
  return () => {
    clearTimeout(soonTimer);
    clearTimeout(laterTimer);
    native.close(handle);
  };
}

/** The interfaces that are up and running, with their addresses. */
export function observeInterfaces(): Snapshot {
  // Only Linux makes an interface anew under the old name while we look on.
  return { interfaces: networkInterfaces(), indexOf: (device) => ofInterface(device, 'ifindex') };
}

/** Why an interface cannot be used; sysfs has what the system's list of addresses leaves out. */
export function interfaceState(device: string): string {
  const isListed = networkInterfaces()[device] !== undefined;
  const flags = ofInterface(device, 'flags');
  if (flags === '' && !isListed) return 'no such interface';
  // <linux/if.h>, IFF_UP.
  if (flags !== '' && (Number(flags) & 1) === 0) return 'its interface is down';
  const isRunning = ['', 'up', 'unknown'].includes(ofInterface(device, 'operstate'));
  return isRunning ? 'its interface has no address' : 'its interface has no carrier';
}

/** What an interface has now; undefined where that is not to be seen. */
export function interfaceMtu(device: string): number | undefined {
  return Number(ofInterface(device, 'mtu')) || undefined;
}

/** '' where there is none. */
function ofInterface(device: string, file: string): string {
  try {
    return readFileSync(`/sys/class/net/${device}/${file}`, 'utf8').trim();
  } catch {
    return '';
  }
}

function nothing(): void {}

function nativeSocket(
  native: Native,
  handle: Handle,
  onReadable: () => void,
  onWritable: () => void,
  closed: () => void,
): LinkSocket {
  let watched = 0;
  const onReady = (events: number): void => {
    if ((events & PollEvent.writable) !== 0) onWritable();
    if ((events & PollEvent.readable) !== 0) onReadable();
  };
  // A link that is down is still asked and tended with the others.
  let isOpen = true;
  return {
    receive: (slab, start, end, table) =>
      isOpen ? native.udpReceive(handle, slab, start, end, table) : 0,
    send: (slab, to, sizes, first, count, peer, at) =>
      isOpen ? native.udpSend(handle, slab, to, sizes, first, count, peer, at) : count,
    errno: () => (isOpen ? native.udpErrno(handle) : 0),
    watch: (readable, writable) => {
      const events = (readable ? PollEvent.readable : 0) | (writable ? PollEvent.writable : 0);
      if (!isOpen || events === watched) return;
      watched = events;
      native.poll(handle, events, onReady);
    },
    close: () => {
      if (!isOpen) return;
      isOpen = false;
      native.close(handle);
      closed();
    },
  };
}

/** What a link's socket is bound to. */
export interface Binding {
  /** Interface and address; '' for any. */
  readonly device: string;
  readonly address: string;
  /** 0: one that the kernel chooses. */
  readonly port: number;
  /** SO_MARK; 0: none. */
  readonly mark: number;
  readonly offload: boolean;
}

/**
 * The socket of a link: one for both families where the kernel has IPv6, so that a peer may have either.
 * Undefined where there is no such interface or address now. Throws a `Failure`.
 */
export function openLinkSocket(native: Native, binding: Binding): Handle | undefined {
  const { address, device, port, mark } = binding;
  const open = (family: 4 | 6): Handle => {
    const dualStack = address === '';
    const bufferBytes = SOCKET_BUFFER_BYTES;
    const { handle } = native.udpOpen({ ...binding, family, dualStack, bufferBytes });
    const where = `${address || 'any address'}, ${port === 0 ? 'any port' : `port ${port}`}`;
    const how = `${device === '' ? '' : `, ${device}`}${mark === 0 ? '' : `, mark ${mark}`}`;
    verbose('net', `bound to ${where}${how}`);
    return handle;
  };
  try {
    if (address !== '') return open(isIP(address) === 4 ? 4 : 6);
    try {
      return open(6);
    } catch (error) {
      if (codeOf(error) !== 'EAFNOSUPPORT') throw error;
      return open(4);
    }
  } catch (error) {
    if (['ENODEV', 'EADDRNOTAVAIL'].includes(codeOf(error))) return undefined;
    throw socketFailure(error, binding);
  }
}

function socketFailure(error: unknown, { port }: Binding): Failure {
  const where = port === 0 ? 'cannot open a UDP socket' : `cannot listen on UDP port ${port}`;
  switch (codeOf(error)) {
    case 'EADDRINUSE':
      return new Failure(where, 'address in use', 'stop the other program or give another port');
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
