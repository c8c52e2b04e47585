/**
 * What the loop asks of the side that keeps the session: the client (client.ts) makes handshakes, the
 * server (server.ts) answers them.
 */
import type { Host, LinkSocket } from './host.ts';
import type { SharedKeys } from './sharedkey.ts';
import type { Network } from './inner.ts';
import type { Link } from './link.ts';
import type { Epoch, Session } from './session.ts';

export interface TunnelConfig {
  readonly role: 'client' | 'server';
  /** Owned by the tunnel from now on; wiped when it closes. */
  readonly keys: SharedKeys;
  /** Inner IPv4 addresses, 4 bytes; zeros where this end was told none, which match any of the peer's. */
  readonly serverIp: Uint8Array;
  readonly clientIp: Uint8Array;
  /** Ciphers this end may use, bit n − 1 for cipher n. */
  readonly ciphers: number;
  /** How data packets travel, as `Mode` bits; both ends must have the same. */
  readonly modes: number;
  /** Server: IPv6 of the client leaves this host. */
  readonly ipv6: boolean;
  /** Of the tun device; 0: as large as fits the links. */
  readonly mtu: number;
  /** Upper bound of the MTU of the tun device where it is automatic; none if left out. */
  readonly mostMtu?: number;
  readonly rekeyAfterMs: number;
  /** Where inner packets may come from; undefined: anywhere. */
  readonly sources: readonly Network[] | undefined;
  /** The links of the configuration; a server has one for each address it listens on. */
  readonly links: readonly LinkSettings[];
  /** What belongs to the realtime class, beside packets marked so (DSCP EF). */
  readonly realtime: readonly RealtimeRule[];
}

/** What is configured of one link. */
export interface LinkSettings {
  readonly name: string;
  /** Carries bulk only while no other link can. */
  readonly isBackup: boolean;
  /** Cap on what it is given by either end, bytes per millisecond of IP packets; 0: as measured. */
  readonly maxRate: number;
  /** The same for this end alone. */
  readonly uploadRate: number;
  /** Share of the bulk relative to what is measured; 1: as measured. */
  readonly weight: number;
  /** Above these it counts as bad (round trip; 0 to 1); 0: never. */
  readonly latencyLimitMs: number;
  readonly lossLimit: number;
  /** Upper bound of the path MTU; 0: none. */
  readonly mtu: number;
  /** It counts as dead after being silent for so long, whatever was measured; 0: as measured. */
  readonly timeoutMs: number;
}

/** A link that nothing is configured of. */
export const PLAIN_LINK: LinkSettings = {
  name: '',
  isBackup: false,
  maxRate: 0,
  uploadRate: 0,
  weight: 1,
  latencyLimitMs: 0,
  lossLimit: 0,
  mtu: 0,
  timeoutMs: 0,
};

/** Flows to or from this port are realtime: never held, and sent over two links if asked for. */
export interface RealtimeRule {
  readonly protocol: 'udp' | 'tcp';
  readonly port: number;
  readonly isDuplicated: boolean;
}

/** What a peering may do to the tunnel. */
export interface PeeringContext {
  readonly config: TunnelConfig;
  readonly host: Host;
  readonly links: readonly Link[];
  /** When anything authenticated last came, on any link. */
  readonly heardMs: number;
  /** The sockets of the configured links, in their order; undefined: not there now. */
  readonly sockets: readonly (LinkSocket | undefined)[];
  /** Sends a handshake message through `socket`. */
  sendMessage(message: Uint8Array, socket: LinkSocket, endpoint: Uint8Array, at: number): void;
  /** A session began: what the old one left (links, halves, sequences) is forgotten. */
  sessionBegan(nowMs: number): void;
  /** Link `index` of a client's configuration is to be used, towards `endpoint[at]`. */
  linkFound(index: number, endpoint: Uint8Array, at: number, nowMs: number): void;
  /** The session is over; its keys are wiped already. */
  sessionEnded(): void;
  /** The peer answered, though not with a session: it is not silent. */
  peerAnswered(nowMs: number): void;
  /** The peer, silent on every link, answered through `socket` from `endpoint[at]`. */
  peerFound(socket: LinkSocket, endpoint: Uint8Array, at: number, nowMs: number): void;
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
  /** A handshake message that came through `socket`, not yet authenticated; the bytes are a copy. */
  onMessage(
    message: Uint8Array,
    socket: LinkSocket,
    sources: Uint8Array,
    at: number,
    nowMs: number,
  ): void;
  /** Where link `index` leads is to be found out anew: its configuration has changed. */
  linkChanged(index: number): void;
  /** Ends the session for a new handshake. */
  reset(nowMs: number): void;
  /** The socket of link `index` was opened. */
  linkOpened(index: number, nowMs: number): void;
  /** The peer asks for new keys, or says goodbye; authenticated. */
  rekeyAsked(nowMs: number): void;
  goodbye(nowMs: number): void;
  onTimer(nowMs: number): void;
  /** When `onTimer` wants to be called next. */
  deadlineMs(): number;
  /** Wipes session and handshakes. */
  wipe(): void;
}
