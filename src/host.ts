/**
 * Everything outside the tunnel that the tunnel may ask for. The real one is made by `runtime.ts`;
 * tests give the tunnel another, with a virtual clock and a simulated network.
 */
import type { DatagramTable, PacketTable } from './batch.ts';
import type { Native } from './native.ts';

/** The device behind which the inner network lies. Same contracts as `Native`. */
export interface Tun {
  read(
    ring: Uint8Array,
    start: number,
    headroom: number,
    table: PacketTable,
    hashKey: Uint8Array,
  ): number;
  write(bytes: Uint8Array, table: PacketTable, count: number): number;
  /** Never throws: a device that is gone is reported through `Host.report`. */
  setMtu(mtu: number): void;
  /** Called while there is something to read; undefined stops that. */
  onReadable(callback: (() => void) | undefined): void;
}

/** What one link sends and receives through. A link over TCP would stand behind the same interface. */
export interface LinkSocket {
  receive(slab: Uint8Array, start: number, end: number, table: DatagramTable): number;
  send(
    slab: Uint8Array,
    to: Uint32Array,
    sizes: Uint16Array,
    first: number,
    count: number,
    endpoint: Uint8Array,
    endpointOffset: number,
  ): number;
  /** The errno of the last refused datagram since the last call, else 0. */
  errno(): number;
  /** Which of the callbacks given to `openLink` are wanted now. */
  watch(readable: boolean, writable: boolean): void;
  close(): void;
}

export interface Host {
  /** Milliseconds of a monotonic clock, with a fraction. Steps of the wall clock do not show. */
  nowMs(): number;
  /** Runs the tunnel's `onTimer` once at `atMs` or soon after; replaces what was asked before. Infinity: never. */
  wakeAt(atMs: number): void;
  randomBytes(bytes: Uint8Array): void;
  readonly aead: Pick<Native, 'aeadCreate' | 'aeadFree' | 'seal' | 'authenticate' | 'open'>;
  readonly tun: Tun;
  /**
   * Opens the socket of link `index` of the configuration, for both families; undefined when its interface or
   * address is not there now (`Tunnel.linkUp` says when it is). Throws a `Failure`.
   */
  openLink(index: number, onReadable: () => void, onWritable: () => void): LinkSocket | undefined;
  /**
   * The peer's endpoints for link `index` (ENDPOINT_BYTES each), best first; empty when the name does
   * not resolve now.
   */
  resolve(index: number): Promise<readonly Uint8Array[]>;
  /** State changes only, never per packet. */
  report(event: TunnelEvent): void;
}

/** What a user may want to know, or the host must act on. */
export type TunnelEvent =
  /** A session is up. `ipv6`: IPv6 leaves the server. First, and after every new session. */
  | {
      readonly kind: 'connected';
      readonly endpoint: string;
      readonly cipher: number;
      readonly ipv6: boolean;
      readonly again: boolean;
    }
  | { readonly kind: 'rekeyed'; readonly epoch: number }
  /** A client begins to ask for a session, or for new keys of the one it has. */
  | { readonly kind: 'handshake'; readonly isRekey: boolean }
  /** Nothing authenticated came for a while; the tunnel goes on trying for ever. */
  | { readonly kind: 'silent'; readonly forMs: number }
  | { readonly kind: 'back' }
  | { readonly kind: 'busy' }
  | { readonly kind: 'version'; readonly peer: number }
  | {
      readonly kind: 'refused';
      readonly why: 'no-common-cipher' | 'addresses-differ' | 'modes-differ';
    }
  /** The peer said goodbye. */
  | { readonly kind: 'closed' }
  | { readonly kind: 'unresolved' }
  | { readonly kind: 'moved'; readonly link: number; readonly endpoint: string }
  | { readonly kind: 'tun-mtu'; readonly mtu: number }
  | { readonly kind: 'tun-lost'; readonly errno: number };
