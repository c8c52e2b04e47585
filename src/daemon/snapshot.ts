/**
 * What a tunnel is doing, as plain numbers: reads its parts, changes nothing. Cheap enough for several
 * times a second: some 20 numbers for each link.
 */
import { formatEndpoint } from '../address.ts';
import type { Bonding } from '../bonding.ts';
import type { Link } from '../link.ts';
import type { Links } from '../links.ts';
import type { TunnelConfig } from '../peering.ts';
import type { ReorderCounters } from '../reorder.ts';
import type { Session } from '../session.ts';
import type { LinkStatus, TunnelStatus } from './status.ts';

const NOTHING: LinkCounts = { sentPackets: 0, sentBytes: 0, repairedPackets: 0 };

/** What a link has sent in this session: whatever the kernel took, with outer headers. */
export interface LinkCounts {
  readonly sentPackets: number;
  readonly sentBytes: number;
  /** Packets that were lost on it and sent again. */
  readonly repairedPackets: number;
}

/** The parts of a tunnel that are looked at. */
export interface TunnelParts {
  readonly config: TunnelConfig;
  readonly set: Links;
  readonly session: Session | undefined;
  /** undefined: one clean link. */
  readonly bonding: Bonding | undefined;
  readonly reorder: { readonly waiting: number; readonly counters: ReorderCounters };
  readonly holdMs: number;
  readonly tunMtu: number;
  readonly heardMs: number;
  /** Packets sent and received, and the reasons of those dropped. */
  readonly counters: Readonly<Record<string, number>>;
  countsOf(link: Link): LinkCounts;
}

export function snapshot(parts: TunnelParts, nowMs: number): TunnelStatus {
  const { session, bonding, reorder, counters, config } = parts;
  const { sentPackets = 0, receivedPackets = 0, ...dropped } = counters;
  return {
    role: config.role,
    hasSession: session !== undefined,
    cipher: session?.current.cipher ?? 0,
    keyAgeMs: session === undefined ? undefined : nowMs - session.current.bornMs,
    heardAgoMs: agoMs(parts.heardMs, nowMs),
    tunMtu: parts.tunMtu,
    isBonding: bonding !== undefined,
    sentPackets,
    receivedPackets,
    holdMs: parts.holdMs,
    heldPackets: reorder.waiting,
    waitingBytes: bonding?.queue.bytes ?? 0,
    repairedPackets: bonding?.counters.repaired ?? 0,
    abandonedPackets: bonding?.counters.abandoned ?? 0,
    dropped: {
      ...dropped,
      queueFull: bonding?.counters.refusedBulk ?? 0,
      duplicate: reorder.counters.duplicate,
      tooOld: reorder.counters.tooOld,
    },
    links: [...usedLinks(parts, nowMs), ...absentLinks(parts)],
  };
}

function usedLinks(parts: TunnelParts, nowMs: number): readonly LinkStatus[] {
  const { set, config } = parts;
  const places = set.list.map((link) => set.sockets.indexOf(link.socket));
  return set.list.map((link, i): LinkStatus => {
    const place = config.role === 'client' ? link.id : places[i];
    // A server's link without a name of its own has the one that the client says.
    const { name } = link.settings;
    // Several links of a client may come in through one socket of the server.
    const isShared = set.list.filter((other) => other.settings.name === name).length > 1;
    const { capacity, flight, reception, settings } = link;
    const counts = parts.countsOf(link);
    return {
      id: link.id,
      name: name === '' || isShared ? `${name === '' ? 'link' : name}#${link.id}` : name,
      isBackup: settings.isBackup,
      state: link.state,
      place,
      endpoint: formatEndpoint(link.endpoint),
      rttMs: link.rttMs,
      jitterMs: link.rttVarianceMs,
      lossRatio: capacity.loss,
      ...counts,
      receivedPackets: reception.packets,
      receivedBytes: reception.bytes,
      lostPackets: flight.lost + flight.spurious,
      capacity: capacity.rate * 1000,
      maxRate: capacity.maxRate * 1000,
      latencyLimitMs: settings.latencyLimitMs,
      lossLimit: settings.lossLimit,
      mtu: link.pathMtu.current,
      heardAgoMs: agoMs(link.heardMs, nowMs),
    };
  });
}

/** Links of a client's configuration that the session does not use: no interface, or no session. */
function absentLinks({ config, set }: TunnelParts): readonly LinkStatus[] {
  if (config.role === 'server') return [];
  const absent: LinkStatus[] = [];
  set.settings.forEach((settings, id) => {
    if (set.byId[id] !== undefined) return;
    absent.push({
      id,
      name: settings.name === '' ? `link#${id}` : settings.name,
      isBackup: settings.isBackup,
      state: 'down',
      place: id,
      endpoint: '',
      rttMs: 0,
      jitterMs: 0,
      lossRatio: 0,
      ...NOTHING,
      receivedPackets: 0,
      receivedBytes: 0,
      lostPackets: 0,
      capacity: 0,
      maxRate: settings.maxRate * 1000,
      latencyLimitMs: settings.latencyLimitMs,
      lossLimit: settings.lossLimit,
      mtu: 0,
      heardAgoMs: undefined,
    });
  });
  return absent;
}

function agoMs(atMs: number, nowMs: number): number | undefined {
  return atMs === Number.NEGATIVE_INFINITY ? undefined : Math.max(0, nowMs - atMs);
}
