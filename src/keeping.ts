/**
 * What the tunnel does by the clock and for the session's keeper (peering.ts): timers, the life of links
 * and sessions, what a user is told. The way of a packet is in vpn.ts, which this is the lower half of.
 */
import { formatEndpoint, isSameRemote } from './address.ts';
import { Bonding } from './bonding.ts';
import { Classifier, type Filter } from './classes.ts';
import { ClientPeering } from './client.ts';
import { BASE_PATH_MTU, PROBE_INTERVAL_MS } from './constants.ts';
import { ControlMessages } from './control.ts';
import { FRAME_BYTES } from './frame.ts';
import type { Host, LinkSocket } from './host.ts';
import { Inbound, type InboundCounters } from './inbound.ts';
import type { Link } from './link.ts';
import { Links } from './links.ts';
import { Outbound } from './outbound.ts';
import type { Peering, PeeringContext, RealtimeRule, TunnelConfig } from './peering.ts';
import { Reports } from './reports.ts';
import { ServerPeering } from './server.ts';
import { TunMtu } from './tunmtu.ts';
import { Control, Mode } from './wire.ts';

/** A user wants to know that nothing comes back; the tunnel goes on trying. */
const REPORT_SILENCE_MS = 10_000;
/** A lone message lies at the start of its memory. */
const ORIGIN = new Uint32Array(1);

/** The log of the data path: what was carried, and what was dropped and why. */
export interface Counters extends InboundCounters {
  sentPackets: number;
  receivedPackets: number;
  noSession: number;
}

export abstract class Keeping implements PeeringContext {
  readonly config: TunnelConfig;
  readonly host: Host;
  heardMs = Number.NEGATIVE_INFINITY;
  readonly counters: Counters = {
    sentPackets: 0,
    receivedPackets: 0,
    noSession: 0,
    unknown: 0,
    forged: 0,
    replayed: 0,
    malformed: 0,
    foreign: 0,
    refused: 0,
  };
  protected readonly set: Links;
  protected readonly outbound: Outbound;
  protected readonly classifier: Classifier;
  private readonly isEthernet: boolean;
  protected realtime: readonly RealtimeRule[];
  protected filters: readonly Filter[] = [];
  /** The link of each filter number. */
  protected filterLinks: readonly string[] = [];
  protected readonly hashKey = new Uint8Array(16);
  /** Made when it is first needed: it has much memory. */
  protected bonding: Bonding | undefined = undefined;
  protected isBonding = false;
  protected readonly reports: Reports;
  protected readonly inbound: Inbound;
  protected readonly control: ControlMessages;
  protected readonly peering: Peering;
  protected readonly tunMtu: TunMtu;
  protected readonly messageSize = new Uint16Array(1);
  protected silentSinceMs: number;
  protected isSilenceReported = false;
  protected isTunRead = false;
  protected isClosed = false;

  /**
   * `endpoints`: a client's server as each link reaches it, best first. Takes over the keys in `config`.
   */
  constructor(config: TunnelConfig, host: Host, endpoints: readonly (readonly Uint8Array[])[]) {
    this.config = config;
    this.host = host;
    host.randomBytes(this.hashKey);
    this.set = new Links(config, host);
    this.outbound = new Outbound(host, this.hashKey, config.modes);
    this.inbound = new Inbound(host, config.sources, this.counters, config.modes);
    this.control = new ControlMessages(host.aead);
    this.reports = new Reports(this.control);
    this.isEthernet = (config.modes & Mode.ethernet) !== 0;
    this.classifier = new Classifier(this.isEthernet);
    this.realtime = config.realtime;
    this.classifier.setRules(this.realtime, this.filters);
    this.tunMtu = new TunMtu(config.mtu);
    if (config.mostMtu !== undefined) this.tunMtu.bound(config.mostMtu);
    this.silentSinceMs = host.nowMs();
    this.peering =
      config.role === 'client'
        ? new ClientPeering(this, endpoints)
        : new ServerPeering(this, () => this.askForKeys());
  }

  /** Sends what waits and may go now. */
  protected abstract pump(nowMs: number): void;
  /** Reads TUN again. */
  protected abstract resume(): void;

  /* Time. */

  /** To be called when the time asked for with `Host.wakeAt` has come; early calls do no harm. */
  readonly onTimer = (): void => {
    if (this.isClosed) return;
    const nowMs = this.host.nowMs();
    this.peering.onTimer(nowMs);
    const { session } = this.peering;
    if (session !== undefined) {
      for (const link of this.links) {
        if (link.state === 'down') continue;
        if (this.control.tend(session, link, nowMs) === 'moved') this.reportMoved(link);
        if (this.isBonding) this.bonding?.watch(link, this.links, nowMs);
      }
      this.adaptTunMtu(nowMs);
      this.report(nowMs);
      this.pump(nowMs);
    }
    this.forget(nowMs);
    this.inbound.halves.expire(nowMs);
    this.inbound.reorder.expire(nowMs);
    this.counters.receivedPackets += this.inbound.write();
    this.reportSilence(nowMs);
    this.arm(nowMs);
  };

  protected arm(nowMs: number): void {
    let deadlineMs = Math.min(nowMs + PROBE_INTERVAL_MS, this.peering.deadlineMs());
    if (this.peering.session !== undefined) {
      for (const link of this.links) deadlineMs = Math.min(deadlineMs, link.deadlineMs(nowMs));
      deadlineMs = Math.min(deadlineMs, this.reports.deadlineMs(this.links));
      if (this.isBonding) deadlineMs = Math.min(deadlineMs, this.bonding!.wakeAtMs(nowMs));
    }
    this.host.wakeAt(Math.min(deadlineMs, this.inbound.reorder.deadlineMs()));
  }

  /** Tells the peer what came, when it is time. */
  protected report(nowMs: number): void {
    const { session } = this.peering;
    if (session === undefined || nowMs < this.reports.deadlineMs(this.links)) return;
    // Whoever repeats a first datagram from another's address must not bring it more than was sent.
    const ways = this.bonding?.scheduler.alive ?? this.links;
    this.reports.send(
      session,
      this.links,
      ways.filter((link) => link.isReached),
      nowMs,
    );
  }

  /** A server forgets a link that is not used any more; its id stays with the keys that know it. */
  protected forget(nowMs: number): void {
    const link = this.set.stale(nowMs);
    if (link === undefined) return;
    link.closed();
    this.bonding?.settle(link);
    this.set.remove(link);
    this.linksChanged();
  }

  protected adaptTunMtu(nowMs: number): void {
    let room = Number.POSITIVE_INFINITY;
    for (const link of this.links) {
      if (link.pathMtu.isKnown) room = Math.min(room, link.packetRoom);
    }
    if (this.isEthernet) room -= FRAME_BYTES;
    if (room === Number.POSITIVE_INFINITY || !this.tunMtu.offer(room, nowMs)) return;
    this.host.tun.setMtu(this.tunMtu.current);
    this.host.report({ kind: 'tun-mtu', mtu: this.tunMtu.current });
  }

  /* Links. */

  protected linksChanged(): void {
    if (this.links.length > 1) this.startBonding();
    this.bonding?.scheduler.order(this.links);
  }

  protected startBonding(): void {
    if (this.isBonding) return;
    this.bonding ??= new Bonding(this.host, this.hashKey, this.classifier, this.config.modes);
    this.bonding.pins.setLinks(this.filterLinks, this.bonding.queue);
    this.isBonding = true;
    this.control.isBonding = true;
    for (const link of this.links) link.capacity.restart();
    this.bonding.scheduler.order(this.links);
    if (!this.isTunRead) this.resume();
  }

  /* What a user is told. */

  protected reportMoved(link: Link): void {
    const endpoint = formatEndpoint(link.endpoint);
    this.host.report({ kind: 'moved', link: link.id, endpoint });
  }

  protected reportSilence(nowMs: number): void {
    const sinceMs = Math.max(this.heardMs, this.silentSinceMs);
    const isExpected = this.config.role === 'client' || this.peering.session !== undefined;
    if (isExpected && nowMs - sinceMs >= REPORT_SILENCE_MS) {
      if (!this.isSilenceReported) this.host.report({ kind: 'silent', forMs: nowMs - sinceMs });
      this.isSilenceReported = true;
    } else if (this.isSilenceReported && this.heardMs === sinceMs) {
      this.isSilenceReported = false;
      this.host.report({ kind: 'back' });
    }
  }

  /* What the session's keeper may ask. */

  get links(): readonly Link[] {
    return this.set.list;
  }

  get sockets(): readonly (LinkSocket | undefined)[] {
    return this.set.sockets;
  }

  sendMessage(message: Uint8Array, socket: LinkSocket, endpoint: Uint8Array, at: number): void {
    this.messageSize[0] = message.length;
    socket.send(message, ORIGIN, this.messageSize, 0, 1, endpoint, at);
  }

  sessionBegan(nowMs: number): void {
    this.sessionEnded();
    this.heardMs = nowMs;
  }

  linkFound(index: number, endpoint: Uint8Array, at: number, nowMs: number): void {
    const socket = this.set.sockets[index];
    if (socket === undefined) return;
    const link = this.set.add(index, socket, endpoint, at);
    link.heardMs = nowMs;
    link.probeAtMs = nowMs;
    this.linksChanged();
  }

  sessionEnded(): void {
    this.set.clear();
    this.bonding?.clear();
    this.bonding = undefined;
    this.isBonding = false;
    this.control.isBonding = false;
    this.inbound.halves.clear();
    this.inbound.reorder.clear();
    this.resume();
  }

  peerAnswered(nowMs: number): void {
    this.silentSinceMs = nowMs;
  }

  peerFound(socket: LinkSocket, endpoint: Uint8Array, at: number, nowMs: number): void {
    for (const link of this.links) {
      if (link.socket !== socket) continue;
      if (isSameRemote(link.endpoint, 0, endpoint, at)) continue;
      link.moveTo(endpoint, at);
      link.isReached = false;
      link.pathMtu.search(BASE_PATH_MTU, nowMs);
      this.reportMoved(link);
    }
  }

  confirmKeys(nowMs: number): void {
    const { session } = this.peering;
    if (session === undefined) return;
    for (const link of this.links) this.control.sendProbe(session, link, 0, nowMs);
  }

  slowestRttMs(): number {
    return this.links.reduce((slowest, link) => Math.max(slowest, link.rttMs), 0);
  }

  protected askForKeys(): void {
    const { session } = this.peering;
    if (session === undefined || this.links.length === 0) return;
    this.control.sendEmpty(session, this.links[0], Control.rekey, this.host.nowMs());
  }

  protected sayGoodbye(nowMs: number): void {
    const { session } = this.peering;
    if (session === undefined) return;
    for (const link of this.links) {
      this.control.sendEmpty(session, link, Control.goodbye, nowMs);
    }
  }
}
