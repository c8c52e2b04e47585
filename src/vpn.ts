/**
 * The tunnel: moves packets between TUN and the links.
 *
 * Outbound (TUN → wire)                 Inbound (wire → TUN)
 *  1. read      a batch of packets       1. receive  a batch of datagrams
 *  2. schedule  which link               2. parse    handshake messages leave here
 *  3. number    bucket and sequence;     3. open     forged slots become empty
 *               split what is too large  4. replay   per link and epoch
 *  4. seal      counters, into the slab  5. learn    endpoint, liveness; control leaves here
 *  5. send      one call per link        6. join     halves
 *                                        7. check    version, length, source
 *                                        8. write    one call
 *
 * The steps are in outbound.ts and inbound.ts, with the memory they work on. Functions below are in
 * this order; then come the timer, and what the session's keeper (peering.ts) may ask. Everything
 * called is told the time; nothing is allocated per packet.
 */
import { constants as os } from 'node:os';
import { formatEndpoint, isSameRemote } from './address.ts';
import { ClientPeering } from './client.ts';
import { BASE_PATH_MTU, PROBE_INTERVAL_MS } from './constants.ts';
import { ControlMessages } from './control.ts';
import { wipeSharedKeys } from './sharedkey.ts';
import type { Host, LinkSocket } from './host.ts';
import { Inbound, type InboundCounters } from './inbound.ts';
import { Link } from './link.ts';
import { Outbound } from './outbound.ts';
import type { Peering, PeeringContext, TunnelConfig } from './peering.ts';
import { ServerPeering } from './server.ts';
import type { Session } from './session.ts';
import { TunMtu } from './tunmtu.ts';
import { areFlagsValid, Control, Flag, LINK_IDS } from './wire.ts';

/** Batches in a row from one device before the others get their turn. */
const ROUNDS = 4;
/** After fewer than this the device is most likely empty: asking again would cost a lone packet 5 µs. */
const FEW = 16;
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

export class Tunnel implements PeeringContext {
  readonly config: TunnelConfig;
  readonly host: Host;
  links: Link[] = [];
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
  private readonly outbound: Outbound;
  private readonly inbound: Inbound;
  private readonly control: ControlMessages;
  private readonly peering: Peering;
  private readonly sockets: LinkSocket[] = [];
  private readonly linkById: (Link | undefined)[] = new Array(LINK_IDS).fill(undefined);
  private readonly tunMtu: TunMtu;
  private readonly messageSize = new Uint16Array(1);
  private silentSinceMs: number;
  private isSilenceReported = false;
  private isTunRead = false;
  private isClosed = false;

  /** `endpoints`: a client's server, best first. Takes over the keys in `config`. */
  constructor(config: TunnelConfig, host: Host, endpoints: readonly Uint8Array[]) {
    this.config = config;
    this.host = host;
    this.outbound = new Outbound(host);
    this.inbound = new Inbound(host, config.sources, this.counters);
    this.control = new ControlMessages(host.aead);
    this.tunMtu = new TunMtu(config.mtu);
    this.silentSinceMs = host.nowMs();
    this.peering =
      config.role === 'client'
        ? new ClientPeering(this, endpoints)
        : new ServerPeering(this, () => this.askForKeys());
  }

  /** Opens the links and starts. Throws what `Host.openLink` throws. */
  start(): void {
    for (let index = 0; index < this.config.linkCount; index++) {
      const socket: LinkSocket = this.host.openLink(
        index,
        () => this.onLinkReadable(socket),
        () => this.onLinkWritable(),
      );
      this.sockets.push(socket);
      socket.watch(true, false);
    }
    this.resume();
    this.onTimer();
  }

  /* Outbound. */

  private readonly onTunReadable = (): void => {
    const nowMs = this.host.nowMs();
    for (let round = 0; round < ROUNDS; round++) {
      const count = this.outbound.read();
      if (count < 0) {
        this.pause();
        this.host.report({ kind: 'tun-lost', errno: -count });
        return;
      }
      if (count === 0) return;
      const { session } = this.peering;
      const link = this.schedule();
      if (session === undefined || link === undefined) {
        this.counters.noSession += count;
        continue;
      }
      const slots = this.outbound.number(session, link, count, nowMs);
      if (!this.outbound.seal(session, link, slots)) continue;
      this.counters.sentPackets += count;
      this.send(link);
      if (link.unsentCount > 0 || count < FEW) return;
    }
  };

  /** The link for the next batch. With one link there is nothing to choose. */
  private schedule(): Link | undefined {
    return this.links[0];
  }

  /** What the kernel does not take now waits, and TUN is not read meanwhile. */
  private send(link: Link): void {
    this.outbound.send(link);
    if (link.unsentCount > 0) {
      this.pause();
      link.socket.watch(true, true);
    }
    const errno = link.socket.errno();
    if (errno === os.errno.EMSGSIZE) {
      // Our own interface takes less than the path did: no need to wait for probes to be lost.
      link.pathMtu.refused(link.pathMtu.current, this.host.nowMs());
      this.onTimer();
    } else if (errno !== 0) {
      link.forgetLocalAddress();
    }
  }

  private onLinkWritable(): void {
    for (const link of this.links) {
      if (link.unsentCount > 0) this.send(link);
      if (link.unsentCount > 0) return;
    }
    this.resume();
  }

  /** Nothing waits to be sent: TUN is read again. */
  private resume(): void {
    for (const socket of this.sockets) socket.watch(true, false);
    this.isTunRead = true;
    this.host.tun.onReadable(this.onTunReadable);
  }

  private pause(): void {
    this.isTunRead = false;
    this.host.tun.onReadable(undefined);
  }

  /* Inbound. */

  private onLinkReadable(socket: LinkSocket): void {
    const nowMs = this.host.nowMs();
    for (let round = 0; round < ROUNDS; round++) {
      const count = this.inbound.receive(socket);
      if (count === 0) return;
      this.inbound.parse(count, this.peering);
      this.inbound.open(count);
      this.accept(socket, count, nowMs);
      const written = this.inbound.write();
      this.counters.receivedPackets += written;
      // Last, since they may wipe keys that the batch was still opened with.
      this.handshakes(nowMs);
      if (this.isClosed) return;
      if (count >= FEW) continue;
      // The kernel answers a lone packet (a ping, an acknowledgement) while it is written: the answer
      // need not wait for another turn of the event loop.
      if (written > 0 && this.isTunRead) this.onTunReadable();
      return;
    }
  }

  /** What opened, in the order received: replay window, then everything that may learn from it. */
  private accept(socket: LinkSocket, count: number, nowMs: number): void {
    const { inbound } = this;
    for (let slot = 0; slot < count; slot++) {
      const epoch = inbound.accept(slot);
      if (epoch === undefined) continue;
      const sourceAt = inbound.sourceAt(slot);
      if (epoch.confirmedMs === Number.POSITIVE_INFINITY) {
        this.peering.opened(epoch, inbound.endpoints, sourceAt, nowMs);
      }
      const { session } = this.peering;
      // An earlier datagram of this batch may have ended the session that this one belongs to.
      if (session === undefined || session.epoch(epoch.number) !== epoch) continue;
      const link = this.linkFor(inbound.linkId(slot), socket, sourceAt, nowMs);
      if (epoch === session.current && inbound.isNewest(slot)) {
        this.learnEndpoint(link, sourceAt, inbound.sizeOf(slot), nowMs);
      }
      link.heardMs = nowMs;
      this.heardMs = nowMs;

      const flags = inbound.flagsOf(slot);
      if (!areFlagsValid(flags)) this.counters.malformed++;
      else if ((flags & Flag.control) !== 0) this.onControl(session, link, slot, nowMs);
      else inbound.collect(slot, flags, nowMs);
    }
  }

  /** The link with this id; its first datagram makes it. */
  private linkFor(id: number, socket: LinkSocket, sourceAt: number, nowMs: number): Link {
    const known = this.linkById[id];
    if (known !== undefined) return known;
    const link = this.addLink(id, socket, this.inbound.endpoints, sourceAt);
    link.probeAtMs = nowMs;
    this.arm(nowMs);
    return link;
  }

  private addLink(id: number, socket: LinkSocket, endpoints: Uint8Array, at: number): Link {
    const isAnswering = this.config.role === 'server';
    const link = new Link(id, socket, this.host.randomBytes, isAnswering);
    link.moveTo(endpoints, at);
    this.linkById[id] = link;
    this.links.push(link);
    return link;
  }

  private learnEndpoint(link: Link, sourceAt: number, size: number, nowMs: number): void {
    const { endpoints } = this.inbound;
    if (isSameRemote(link.endpoint, 0, endpoints, sourceAt)) {
      link.adoptLocalAddress(endpoints, sourceAt);
      return;
    }
    link.roaming.heardElsewhere(endpoints, sourceAt, size, nowMs);
    this.arm(nowMs);
  }

  private onControl(session: Session, link: Link, slot: number, nowMs: number): void {
    const { inbound } = this;
    const message = {
      ...inbound.controlOf(slot),
      datagramBytes: inbound.sizeOf(slot),
      sources: inbound.endpoints,
      at: inbound.sourceAt(slot),
    };
    const request = this.control.receive(session, link, message, nowMs);
    if (request === 'rekey') this.peering.rekeyAsked(nowMs);
    else if (request === 'goodbye') this.peering.goodbye(nowMs);
    this.arm(nowMs);
  }

  private handshakes(nowMs: number): void {
    const { inbound } = this;
    if (inbound.messageCount === 0) return;
    for (let i = 0; i < inbound.messageCount; i++) {
      const slot = inbound.messageSlots[i];
      const message = inbound.messageOf(slot);
      this.peering.onMessage(message, inbound.endpoints, inbound.sourceAt(slot), nowMs);
    }
    this.arm(nowMs);
  }

  /* Time. */

  /** To be called when the time asked for with `Host.wakeAt` has come; early calls do no harm. */
  readonly onTimer = (): void => {
    if (this.isClosed) return;
    const nowMs = this.host.nowMs();
    this.peering.onTimer(nowMs);
    const { session } = this.peering;
    if (session !== undefined) {
      for (const link of this.links) {
        if (this.control.tend(session, link, nowMs) === 'moved') this.reportMoved(link);
      }
      this.adaptTunMtu(nowMs);
    }
    this.inbound.halves.expire(nowMs);
    this.reportSilence(nowMs);
    this.arm(nowMs);
  };

  private arm(nowMs: number): void {
    let deadlineMs = Math.min(nowMs + PROBE_INTERVAL_MS, this.peering.deadlineMs());
    if (this.peering.session !== undefined) {
      for (const link of this.links) deadlineMs = Math.min(deadlineMs, link.deadlineMs(nowMs));
    }
    this.host.wakeAt(deadlineMs);
  }

  private adaptTunMtu(nowMs: number): void {
    let room = Number.POSITIVE_INFINITY;
    for (const link of this.links) {
      if (link.pathMtu.isKnown) room = Math.min(room, link.packetRoom);
    }
    if (room === Number.POSITIVE_INFINITY || !this.tunMtu.offer(room, nowMs)) return;
    this.host.tun.setMtu(this.tunMtu.current);
    this.host.report({ kind: 'tun-mtu', mtu: this.tunMtu.current });
  }

  private reportMoved(link: Link): void {
    const endpoint = formatEndpoint(link.endpoint);
    this.host.report({ kind: 'moved', link: link.id, endpoint });
  }

  private reportSilence(nowMs: number): void {
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

  sendMessage(message: Uint8Array, endpoint: Uint8Array, at: number): void {
    this.messageSize[0] = message.length;
    this.sockets[0].send(message, ORIGIN, this.messageSize, 0, 1, endpoint, at);
  }

  sessionBegan(endpoint: Uint8Array, at: number, nowMs: number): void {
    this.sessionEnded();
    this.heardMs = nowMs;
    if (this.config.role === 'server') return;
    this.sockets.forEach((socket, id) => {
      this.addLink(id, socket, endpoint, at).heardMs = nowMs;
    });
  }

  sessionEnded(): void {
    this.links = [];
    this.linkById.fill(undefined);
    this.inbound.halves.clear();
    this.resume();
  }

  peerAnswered(nowMs: number): void {
    this.silentSinceMs = nowMs;
  }

  peerFound(endpoint: Uint8Array, at: number, nowMs: number): void {
    for (const link of this.links) {
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

  private askForKeys(): void {
    const { session } = this.peering;
    if (session === undefined || this.links.length === 0) return;
    this.control.sendEmpty(session, this.links[0], Control.rekey, this.host.nowMs());
  }

  /** Says goodbye, closes the links and wipes every key. */
  close(): void {
    if (this.isClosed) return;
    const { session } = this.peering;
    if (session !== undefined) {
      for (const link of this.links) {
        this.control.sendEmpty(session, link, Control.goodbye, this.host.nowMs());
      }
    }
    this.isClosed = true;
    this.host.wakeAt(Number.POSITIVE_INFINITY);
    this.pause();
    for (const socket of this.sockets) socket.close();
    this.peering.wipe();
    wipeSharedKeys(this.config.keys);
  }
}
