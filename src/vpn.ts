/**
 * The tunnel: moves packets between TUN and the links.
 *
 * Outbound (TUN → wire)                 Inbound (wire → TUN)
 *  1. read      a batch of packets       1. receive  a batch of datagrams
 *  2. queue     with several links: what 2. parse    handshake messages leave here
 *               no link has room for     3. open     forged slots become empty
 *  3. schedule  which link               4. replay   per link and epoch
 *  4. number    bucket and sequence;     5. learn    endpoint, delay, loss; control leaves here
 *               split what is too large  6. join     halves
 *  5. seal      counters, into the slab  7. check    version, length, source
 *  6. send      one call per link        8. order    pass, hold or release
 *                                        9. write    one call
 *
 * The steps are in outbound.ts (one clean link), bonding.ts (several, or one that loses) and
 * inbound.ts, with the memory they work on. Functions below are in this order. Timers and the
 * session's keeper are in keeping.ts, what may be changed while it runs in managed.ts. Everything called is
 * told the time; nothing is allocated per packet.
 */
import { constants as os } from 'node:os';
import type { LinkSocket } from './host.ts';
import type { Link } from './link.ts';
import { Managed } from './managed.ts';
import { send } from './sender.ts';
import type { Session } from './session.ts';
import { wipeSharedKeys } from './sharedkey.ts';
import { areFlagsValid, Control, Flag, LEFT_BYTES } from './wire.ts';

export type { Counters } from './keeping.ts';

/** Batches in a row from one device before the others get their turn. */
const ROUNDS = 4;
/** After fewer than this the device is most likely empty: asking again would cost a lone packet 5 µs. */
const FEW = 16;

export class Tunnel extends Managed {
  /** Opens the links and starts. Throws what `Host.openLink` throws. */
  start(): void {
    for (let index = 0; index < this.config.links.length; index++) this.open(index);
    this.resume();
    this.onTimer();
  }

  protected open(index: number): LinkSocket | undefined {
    const onReadable = (): void => {
      if (socket !== undefined) this.onLinkReadable(socket);
    };
    const socket = this.host.openLink(index, onReadable, () => this.onLinkWritable());
    this.set.sockets[index] = socket;
    socket?.watch(true, false);
    return socket;
  }

  /* Outbound. */

  private readonly onTunReadable = (): void => {
    const nowMs = this.host.nowMs();
    if (this.isBonding) {
      this.readBonded(nowMs);
      return;
    }
    for (let round = 0; round < ROUNDS; round++) {
      const count = this.outbound.read();
      if (count < 0) {
        this.tunLost(-count);
        return;
      }
      if (count === 0) return;
      const { session } = this.peering;
      const link = this.links[0];
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

  /** The same for several links: what no link has room for waits in queues of our own. */
  private readBonded(nowMs: number): void {
    const { bonding } = this;
    const { session } = this.peering;
    if (bonding === undefined || session === undefined) return;
    for (let round = 0; round < ROUNDS; round++) {
      const count = bonding.read(session, nowMs);
      if (count < 0) {
        this.tunLost(-count);
        return;
      }
      this.counters.sentPackets += count;
      this.pump(nowMs);
      if (count < FEW) break;
    }
    if (bonding.isFull) this.pause();
  }

  /** Sends what waits and may go now. */
  protected pump(nowMs: number): void {
    const { bonding } = this;
    const { session } = this.peering;
    if (bonding === undefined || session === undefined || !this.isBonding) return;
    bonding.pump(session, nowMs);
    for (const link of this.links) this.afterSend(link);
    if (!this.isTunRead && !bonding.isFull) this.resume();
    this.arm(nowMs);
  }

  private tunLost(errno: number): void {
    this.pause();
    this.host.report({ kind: 'tun-lost', errno });
  }

  private send(link: Link): void {
    send(link);
    this.afterSend(link);
  }

  /** What the kernel does not take now waits; over one link TUN is not read meanwhile. */
  private afterSend(link: Link): void {
    if (link.unsentCount > 0) {
      if (!this.isBonding) this.pause();
      link.socket.watch(true, true);
    }
    const errno = link.socket.errno();
    if (errno === os.errno.EMSGSIZE) {
      // Our own interface takes less than the path did: no need to wait for probes to be lost.
      link.pathMtu.refused(link.pathMtu.current, this.host.nowMs());
      this.onTimer();
    } else if (errno !== 0) {
      link.forgetLocalAddress();
      if (this.isBonding) this.bonding?.suspect(link, this.links, this.host.nowMs());
    }
  }

  private onLinkWritable(): void {
    for (const link of this.links) {
      if (link.unsentCount === 0) continue;
      this.send(link);
      if (link.unsentCount === 0) link.socket.watch(true, false);
    }
    if (this.isBonding) this.pump(this.host.nowMs());
    else if (this.links.every((link) => link.unsentCount === 0)) this.resume();
  }

  /** Nothing waits to be sent: TUN is read again. */
  protected resume(): void {
    this.isTunRead = true;
    this.host.tun.onReadable(this.onTunReadable);
  }

  private pause(): void {
    this.isTunRead = false;
    this.host.tun.onReadable(undefined);
  }

  /* Inbound. */

  private onLinkReadable(socket: LinkSocket): void {
    for (let round = 0; round < ROUNDS; round++) {
      const count = this.inbound.receive(socket);
      if (count === 0) return;
      // Not before: what came while others had the processor would seem to have been quicker than anything.
      const nowMs = this.host.nowMs();
      this.inbound.parse(count, this.peering);
      this.inbound.open(count);
      this.accept(socket, count, nowMs);
      const written = this.inbound.write();
      this.counters.receivedPackets += written;
      // The kernel answers a lone packet (a ping, an acknowledgement) while it is written: the answer
      // need not wait for what follows, nor for another turn of the event loop.
      if (written > 0 && count < FEW && this.isTunRead) this.onTunReadable();
      this.report(nowMs);
      // Last, since they may wipe keys that the batch was still opened with.
      this.handshakes(socket, nowMs);
      if (this.isClosed) return;
      // What is held has a deadline, and a report may be due soon.
      this.arm(nowMs);
      if (count < FEW) return;
    }
  }

  /** What opened, in the order received: replay window, then everything that may learn from it. */
  private accept(socket: LinkSocket, count: number, nowMs: number): void {
    const { inbound } = this;
    // The datagrams of a run have one source, which is compared once.
    let comparedLink: Link | undefined = undefined;
    let comparedAt = -1;
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
      if (link === undefined) {
        this.counters.unknown++;
        continue;
      }
      if (epoch === session.current && inbound.isNewest(slot)) {
        if (link.socket !== socket) this.heardElsewhere(link, socket, nowMs);
        if (link !== comparedLink || sourceAt !== comparedAt) {
          const isKnown = this.learnEndpoint(link, sourceAt, inbound.sizeOf(slot), nowMs);
          comparedLink = isKnown && link.isReached ? link : undefined;
          comparedAt = sourceAt;
        }
        if (link.leftEpoch !== -1) link.heardAgain(epoch.number, inbound.counterOf(slot));
      }
      link.heardMs = nowMs;
      this.heardMs = nowMs;
      inbound.learn(slot, link.reception, link.outerBytes, nowMs);

      const flags = inbound.flagsOf(slot);
      if (!areFlagsValid(flags)) this.counters.malformed++;
      else if ((flags & Flag.control) !== 0) {
        this.onControl(session, link, slot, nowMs);
        // It may have been what moves the link.
        comparedLink = undefined;
      } else inbound.collect(slot, flags, this.reports.holdMs, nowMs);
    }
  }

  /** The link with this id; its first datagram makes it. Undefined for one that nobody configured, or too many. */
  private linkFor(
    id: number,
    socket: LinkSocket,
    sourceAt: number,
    nowMs: number,
  ): Link | undefined {
    const known = this.set.byId[id];
    if (known !== undefined) return known;
    if (!this.set.mayAdd(id)) return undefined;
    const link = this.set.add(id, socket, this.inbound.endpoints, sourceAt);
    link.probeAtMs = nowMs;
    this.linksChanged();
    this.arm(nowMs);
    return link;
  }

  /** A client's link that comes in through another socket, after either end was configured anew. */
  private heardElsewhere(link: Link, socket: LinkSocket, nowMs: number): void {
    if (this.config.role === 'client') return;
    this.set.adopt(link, socket, nowMs);
    this.linksChanged();
  }

  /** Whether the link's peer is known to be where the newest datagram came from. */
  private learnEndpoint(link: Link, sourceAt: number, size: number, nowMs: number): boolean {
    const { endpoints } = this.inbound;
    const where = this.set.learnEndpoint(link, endpoints, sourceAt, size, nowMs);
    if (where === 'elsewhere') this.arm(nowMs);
    return where === 'known';
  }

  private onControl(session: Session, link: Link, slot: number, nowMs: number): void {
    const { inbound } = this;
    // No end of ours sends control so that others can read it (PROTOCOL §5.6).
    if (inbound.isClear(slot)) {
      this.counters.malformed++;
      return;
    }
    const { kind, body } = inbound.controlOf(slot);
    if (kind === Control.report) {
      this.reports.receive(body, this.set.byId, nowMs, (about) => this.onReport(about, nowMs));
      return;
    }
    if (kind === Control.left) {
      this.onLeft(body, nowMs);
      return;
    }
    const message = {
      kind,
      body,
      datagramBytes: inbound.sizeOf(slot),
      sources: inbound.endpoints,
      at: inbound.sourceAt(slot),
    };
    const request = this.control.receive(session, link, message, nowMs);
    if (request === 'rekey') this.peering.rekeyAsked(nowMs);
    else if (request === 'goodbye') this.peering.goodbye(nowMs);
    this.arm(nowMs);
  }

  /** The peer has closed a link's socket: what is under way there goes over the others. */
  private onLeft(body: Uint8Array, nowMs: number): void {
    const link = body.length === LEFT_BYTES ? this.set.byId[body[0]] : undefined;
    if (link === undefined || link.state === 'down') return;
    const counter = new DataView(body.buffer, body.byteOffset).getUint32(2);
    link.left(body[1], counter);
    if (!this.isBonding) return;
    this.bonding?.suspect(link, this.links, nowMs);
    this.pump(nowMs);
  }

  /** What the peer has received over `link`: repairs what it has not, and uses the room. */
  private onReport(link: Link, nowMs: number): void {
    const { bonding } = this;
    if (bonding === undefined || !this.isBonding) {
      if (link.needsRepair(nowMs)) this.startBonding();
      return;
    }
    bonding.reported(link, this.links, nowMs);
    this.pump(nowMs);
  }

  private handshakes(socket: LinkSocket, nowMs: number): void {
    const { inbound } = this;
    if (inbound.messageCount === 0) return;
    for (let i = 0; i < inbound.messageCount; i++) {
      const slot = inbound.messageSlots[i];
      const message = inbound.messageOf(slot);
      this.peering.onMessage(message, socket, inbound.endpoints, inbound.sourceAt(slot), nowMs);
    }
    this.arm(nowMs);
  }

  /** Says goodbye, closes the links and wipes every key. */
  close(): void {
    if (this.isClosed) return;
    this.sayGoodbye(this.host.nowMs());
    this.isClosed = true;
    this.host.wakeAt(Number.POSITIVE_INFINITY);
    this.pause();
    for (const socket of this.set.sockets) socket?.close();
    this.peering.wipe();
    wipeSharedKeys(this.config.keys);
  }
}
