/**
 * What a running instance tells of itself. `TunnelStatus` is what the tunnel knows, as plain numbers;
 * `Status` is what is published (doc/status.md): the fields of MLVPN's JSON under their names and in
 * their units, and more. Makes the one from the other; reads no clock and no tunnel.
 */
import type { LinkState } from '../link.ts';
import { SILENT_MS } from '../constants.ts';
import type { LinkHistory } from './history.ts';

/** One link as the tunnel has it now. Sums are since the link came into use in this session. */
export interface LinkStatus {
  /** The id in the header of its datagrams. */
  readonly id: number;
  /** Unique among the links. */
  readonly name: string;
  readonly isBackup: boolean;
  /** 'down' also while there is no session. */
  readonly state: LinkState;
  /** The place in the configuration of its socket: of the link on a client, of the listening address on a server. */
  readonly place: number;
  /** The peer's, as `192.0.2.1:443`; '' while none is known. */
  readonly endpoint: string;
  /** 0 until measured. */
  readonly rttMs: number;
  /** Mean deviation of the round trip (RFC 6298, RTTVAR). */
  readonly jitterMs: number;
  /** Of what this end has sent lately, 0 to 1. */
  readonly lossRatio: number;
  /** Datagrams and bytes with outer headers. */
  readonly sentPackets: number;
  readonly sentBytes: number;
  readonly receivedPackets: number;
  readonly receivedBytes: number;
  /** Datagrams found lost (also such as came after all), and packets of them that were sent again. */
  readonly lostPackets: number;
  readonly repairedPackets: number;
  /** What it can carry, bytes per second; 0 while it is not known. */
  readonly capacity: number;
  /** Its configured cap, bytes per second; 0: none. */
  readonly maxRate: number;
  /** Limits beyond which it is used last; 0: none. */
  readonly latencyLimitMs: number;
  readonly lossLimit: number;
  /** Largest IP packet known to pass. */
  readonly mtu: number;
  /** Since anything authenticated last came over it; undefined: never. */
  readonly heardAgoMs: number | undefined;
}

/** The tunnel as it is now. */
export interface TunnelStatus {
  readonly role: 'client' | 'server';
  readonly hasSession: boolean;
  /** Number of the cipher (native.ts); 0 without a session. */
  readonly cipher: number;
  /** Of the keys that seal. */
  readonly keyAgeMs: number | undefined;
  readonly heardAgoMs: number | undefined;
  readonly tunMtu: number;
  /** Whether the links are bonded: also one alone that loses. */
  readonly isBonding: boolean;
  /** Packets of the inner network. */
  readonly sentPackets: number;
  readonly receivedPackets: number;
  /** How long a gap in a flow is waited for. */
  readonly holdMs: number;
  /** Packets held for earlier ones now; bytes that wait for a link now. */
  readonly heldPackets: number;
  readonly waitingBytes: number;
  /** Packets sent again, and lost for good. */
  readonly repairedPackets: number;
  readonly abandonedPackets: number;
  /** Why packets and datagrams were dropped, and how many. */
  readonly dropped: Readonly<Record<string, number>>;
  readonly links: readonly LinkStatus[];
}

/** What does not change while the instance runs. */
export interface About {
  readonly name: string;
  readonly version: string;
  readonly pid: number;
  readonly device: string;
  readonly deviceType: 'tun' | 'tap';
  /** Inner addresses; '' where the status script sets them and is told none. */
  readonly localIp: string;
  readonly peerIp: string;
  /** Whether packets go in the clear, authenticated only. */
  readonly isCleartext: boolean;
  /** How long a silent link may be silent, s. */
  readonly timeoutSeconds: number;
  /** What the socket at a place of the configuration is bound to. */
  readonly bindingOf: (place: number) => LinkBinding;
}

/** '' and 0 for any. */
export interface LinkBinding {
  readonly device: string;
  readonly address: string;
  readonly port: number;
}

/** Moments, ms since 1970. */
export interface Moments {
  readonly nowMs: number;
  readonly startedMs: number;
  readonly reloadedMs: number;
}

/** MLVPN's words. */
export type MlvpnState = 'disconnected' | 'waiting peer' | 'connected' | 'lossy link' | 'slow link';

/** A link: MLVPN calls it a tunnel. The first block is MLVPN's, in its units. */
export interface PublishedLink {
  readonly name: string;
  readonly mode: 'client' | 'server';
  readonly bindaddr: string;
  readonly bindport: string;
  readonly destaddr: string;
  readonly destport: string;
  readonly status: MlvpnState;
  readonly sentpackets: number;
  readonly recvpackets: number;
  readonly sentbytes: number;
  readonly recvbytes: number;
  readonly bandwidth: number;
  readonly srtt: number;
  readonly loss: number;
  readonly disconnects: number;
  readonly last_packet: number;
  readonly timeout: number;

  readonly id: number;
  readonly state: LinkState;
  readonly backup: boolean;
  readonly device: string;
  readonly endpoint: string;
  readonly rtt_ms: number | null;
  readonly jitter_ms: number | null;
  readonly loss_ratio: number;
  readonly lost_packets: number;
  readonly repaired_packets: number;
  readonly up_bits_per_second: number;
  readonly down_bits_per_second: number;
  readonly capacity_bits_per_second: number | null;
  readonly max_bits_per_second: number | null;
  readonly share: number;
  readonly mtu: number;
  readonly heard_seconds_ago: number | null;
  readonly state_seconds: number;
}

/** The answer to `status`; documented in doc/status.md, which a test holds against it. */
export interface Status {
  readonly name: string;
  readonly version: string;
  /** As MLVPN has it: the moment of the start, s since 1970. */
  readonly uptime: number;
  readonly last_reload: number;
  readonly pid: number;
  readonly tuntap: { readonly type: 'tun' | 'tap'; readonly name: string };
  readonly tunnels: readonly PublishedLink[];

  readonly schema: 1;
  readonly role: 'client' | 'server';
  readonly state: 'connected' | 'silent' | 'connecting';
  readonly running_seconds: number;
  readonly local_address: string;
  readonly peer_address: string;
  readonly mtu: number;
  readonly cipher: string | null;
  readonly cleartext: boolean;
  readonly key_age_seconds: number | null;
  readonly bonding: boolean;
  readonly up_bits_per_second: number;
  readonly down_bits_per_second: number;
  readonly sent_bytes: number;
  readonly received_bytes: number;
  readonly sent_packets: number;
  readonly received_packets: number;
  readonly repaired_packets: number;
  readonly abandoned_packets: number;
  readonly dropped_packets: Readonly<Record<string, number>>;
  readonly waiting_bytes: number;
  readonly held_packets: number;
  readonly hold_ms: number;
}

export const CIPHER_NAMES: Readonly<Record<number, string>> = {
  1: 'AES-256-GCM',
  2: 'ChaCha20-Poly1305',
};
const BITS = 8;

export function publish(
  tunnel: TunnelStatus,
  history: LinkHistory,
  about: About,
  moments: Moments,
): Status {
  const links = tunnel.links.map((link) => publishLink(link, tunnel, history, about, moments));
  const sum = (of: (link: PublishedLink) => number): number =>
    links.reduce((total, link) => total + of(link), 0);
  return {
    name: about.name,
    version: about.version,
    uptime: seconds(moments.startedMs),
    last_reload: seconds(moments.reloadedMs),
    pid: about.pid,
    tuntap: { type: about.deviceType, name: about.device },
    tunnels: links,
    schema: 1,
    role: tunnel.role,
    state: stateOf(tunnel),
    running_seconds: seconds(moments.nowMs - moments.startedMs),
    local_address: about.localIp,
    peer_address: about.peerIp,
    mtu: tunnel.tunMtu,
    cipher: CIPHER_NAMES[tunnel.cipher] ?? null,
    cleartext: about.isCleartext,
    key_age_seconds: tunnel.keyAgeMs === undefined ? null : seconds(tunnel.keyAgeMs),
    bonding: tunnel.isBonding,
    up_bits_per_second: sum((link) => link.up_bits_per_second),
    down_bits_per_second: sum((link) => link.down_bits_per_second),
    sent_bytes: history.sentBytes,
    received_bytes: history.receivedBytes,
    sent_packets: tunnel.sentPackets,
    received_packets: tunnel.receivedPackets,
    repaired_packets: tunnel.repairedPackets,
    abandoned_packets: tunnel.abandonedPackets,
    dropped_packets: tunnel.dropped,
    waiting_bytes: tunnel.waitingBytes,
    held_packets: tunnel.heldPackets,
    hold_ms: rounded(tunnel.holdMs),
  };
}

function publishLink(
  link: LinkStatus,
  tunnel: TunnelStatus,
  history: LinkHistory,
  about: About,
  moments: Moments,
): PublishedLink {
  const [destaddr, destport] = splitEndpoint(link.endpoint);
  const past = history.of(link.name);
  const bound = about.bindingOf(link.place);
  const heardMs = link.heardAgoMs === undefined ? 0 : moments.nowMs - link.heardAgoMs;
  return {
    name: link.name,
    mode: tunnel.role,
    bindaddr: bound.address === '' ? 'any' : bound.address,
    bindport: bound.port === 0 ? 'any' : String(bound.port),
    destaddr,
    destport,
    status: mlvpnState(link, tunnel),
    sentpackets: past.sentPackets,
    recvpackets: past.receivedPackets,
    sentbytes: past.sentBytes,
    recvbytes: past.receivedBytes,
    bandwidth: Math.round(link.capacity),
    srtt: Math.round(link.rttMs),
    loss: Math.round(link.lossRatio * 100),
    disconnects: past.disconnects,
    last_packet: seconds(heardMs),
    timeout: about.timeoutSeconds,
    id: link.id,
    state: effectiveState(link),
    backup: link.isBackup,
    device: bound.device,
    endpoint: link.endpoint,
    rtt_ms: link.rttMs === 0 ? null : rounded(link.rttMs),
    jitter_ms: link.rttMs === 0 ? null : rounded(link.jitterMs),
    loss_ratio: Math.round(link.lossRatio * 1e5) / 1e5,
    lost_packets: past.lostPackets,
    repaired_packets: past.repairedPackets,
    up_bits_per_second: Math.round(past.upRate * BITS),
    down_bits_per_second: Math.round(past.downRate * BITS),
    capacity_bits_per_second: link.capacity === 0 ? null : Math.round(link.capacity * BITS),
    max_bits_per_second: link.maxRate === 0 ? null : Math.round(link.maxRate * BITS),
    share: Math.round(past.share * 1000) / 1000,
    mtu: link.mtu,
    heard_seconds_ago: link.heardAgoMs === undefined ? null : rounded(link.heardAgoMs / 1000),
    state_seconds: seconds(history.nowMs - past.sinceMs),
  };
}

/** Whether something of the peer came over this link just now. */
export function isHeard(link: LinkStatus): boolean {
  return link.heardAgoMs !== undefined && link.heardAgoMs < SILENT_MS;
}

/** A link alone is not suspected by the tunnel, which has no other; people want to know all the same. */
export function effectiveState(link: LinkStatus): LinkState {
  return link.state === 'up' && !isHeard(link) ? 'suspect' : link.state;
}

function stateOf(tunnel: TunnelStatus): Status['state'] {
  if (!tunnel.hasSession) return 'connecting';
  return tunnel.heardAgoMs !== undefined && tunnel.heardAgoMs < SILENT_MS ? 'connected' : 'silent';
}

/** What MLVPN would call it. */
export function mlvpnState(link: LinkStatus, { hasSession }: TunnelStatus): MlvpnState {
  if (!hasSession) return 'waiting peer';
  if (effectiveState(link) !== 'up') return 'disconnected';
  if (link.lossLimit > 0 && link.lossRatio > link.lossLimit) return 'lossy link';
  if (link.latencyLimitMs > 0 && link.rttMs > link.latencyLimitMs) return 'slow link';
  return 'connected';
}

/** Address and port, without brackets. */
function splitEndpoint(endpoint: string): readonly [string, string] {
  const at = endpoint.lastIndexOf(':');
  if (at < 0) return ['', ''];
  return [endpoint.slice(0, at).replaceAll(/[[\]]/g, ''), endpoint.slice(at + 1)];
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}

/** A tenth is as exact as anybody reads. */
function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}
