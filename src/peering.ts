/**
 * What the loop asks of the side that keeps the session: the client (client.ts) makes handshakes, the
 * server (server.ts) answers them.
 */
import type { Host } from './host.ts';
import type { SharedKeys } from './sharedkey.ts';
import type { Network } from './inner.ts';
import type { Link } from './link.ts';
import type { Epoch, Session } from './session.ts';

export interface TunnelConfig {
  readonly role: 'client' | 'server';
  /** Owned by the tunnel from now on; wiped when it closes. */
  readonly keys: SharedKeys;
  /** Inner IPv4 addresses, 4 bytes. */
  readonly serverIp: Uint8Array;
  readonly clientIp: Uint8Array;
  /** Ciphers this end may use, bit n − 1 for cipher n. */
  readonly ciphers: number;
  /** Server: IPv6 of the client leaves this host. */
  readonly ipv6: boolean;
  /** Of the tun device; 0: as large as fits the links. */
  readonly mtu: number;
  readonly rekeyAfterMs: number;
  /** Where inner packets may come from; undefined: anywhere. */
  readonly sources: readonly Network[] | undefined;
  /** How many links the configuration has. */
  readonly linkCount: number;
}

/** What a peering may do to the tunnel. */
export interface PeeringContext {
  readonly config: TunnelConfig;
  readonly host: Host;
  readonly links: readonly Link[];
  /** When anything authenticated last came, on any link. */
  readonly heardMs: number;
  /** Sends a handshake message over the first link's socket. */
  sendMessage(message: Uint8Array, endpoint: Uint8Array, at: number): void;
  /** A session began: what the old one left (links, halves, sequences) is forgotten. */
  sessionBegan(endpoint: Uint8Array, at: number, nowMs: number): void;
  /** The session is over; its keys are wiped already. */
  sessionEnded(): void;
  /** The peer answered, though not with a session: it is not silent. */
  peerAnswered(nowMs: number): void;
  /** The peer, silent on every link, answered from `endpoint[at]`. */
  peerFound(endpoint: Uint8Array, at: number, nowMs: number): void;
  /** Sends a probe, so that the peer sees the new keys in use. */
  confirmKeys(nowMs: number): void;
  /** 2 × this is how long old keys are still needed. */
  slowestRttMs(): number;
}

export interface Peering {
  /** The session in use, if there is one. */
  readonly session: Session | undefined;
  /** The keys a datagram with this session id and epoch number is to be opened with. */
  epochFor(sessionId: number, number: number): Epoch | undefined;
  /** The first datagram opened under `epoch`; it came from `sources[at]`. */
  opened(epoch: Epoch, sources: Uint8Array, at: number, nowMs: number): void;
  /** A handshake message, not yet authenticated; the bytes are a copy. */
  onMessage(message: Uint8Array, sources: Uint8Array, at: number, nowMs: number): void;
  /** The peer asks for new keys, or says goodbye; authenticated. */
  rekeyAsked(nowMs: number): void;
  goodbye(nowMs: number): void;
  onTimer(nowMs: number): void;
  /** When `onTimer` wants to be called next. */
  deadlineMs(): number;
  /** Wipes session and handshakes. */
  wipe(): void;
}
