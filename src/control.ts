/**
 * Control messages (PROTOCOL §5.4): what a link needs to be asked, and the answers. Seals and sends one
 * message at a time, through memory of its own, so that a probe never waits behind bulk and bulk that
 * waits is not overwritten.
 */
import { constants as os } from 'node:os';
import { sealTable } from './batch.ts';
import { BASE_PATH_MTU, PROBE_INTERVAL_MS, SEND_TIME_UNITS_PER_MS } from './constants.ts';
import { TAG_BYTES } from './crypto.ts';
import { NO_TICKET } from './flight.ts';
import type { Link } from './link.ts';
import type { Host } from './host.ts';
import type { Session } from './session.ts';
import {
  CHALLENGE_BYTES,
  Control,
  Flag,
  HEADER_BYTES,
  INNER_BYTES,
  LEFT_BYTES,
  LINK_SETTINGS_BYTES,
  PROBE_TOKEN_BYTES,
  writeHeader,
  writeInner,
  writeLinkSettings,
  writeNonce,
} from './wire.ts';

/** Room for a probe of any size that is searched for, and for the largest body. */
const CONTROL_BYTES = 2_048;
/** Token, and what is configured of the link (PROTOCOL §5.4). */
const SMALL_PROBE_BYTES = PROBE_TOKEN_BYTES + LINK_SETTINGS_BYTES;
/** Token, and the bytes of the datagram that carried it. */
const PROBE_REPLY_BYTES = PROBE_TOKEN_BYTES + 2;
/** With several links a dead one has to be found in fractions of a second, and one that is back. */
const IDLE_PROBE_MS = 200;
const SUSPECT_PROBE_MS = 100;
const EMPTY = new Uint8Array(0);

/** The send time of PROTOCOL §5.1. */
export function sendTime(nowMs: number): number {
  return Math.floor(nowMs * SEND_TIME_UNITS_PER_MS) & 0xffff;
}

/** What a control message asks of the session's keeper. */
export type Request = 'none' | 'rekey' | 'goodbye';

/** A control message as it lies in the inbound memory, opened. */
export interface ControlMessage {
  readonly kind: number;
  readonly body: Uint8Array;
  /** Bytes of the datagram that carried it. */
  readonly datagramBytes: number;
  /** Where it came from: an endpoint at `sources[at]`. */
  readonly sources: Uint8Array;
  readonly at: number;
}

export class ControlMessages {
  /** Whether what is sent is counted in `Link.flight`. */
  isBonding = false;
  private readonly aead: Host['aead'];
  private readonly plaintext = new Uint8Array(CONTROL_BYTES);
  private readonly slab = new Uint8Array(CONTROL_BYTES);
  private readonly table = sealTable(1);
  private readonly sizes = new Uint16Array(1);
  /** At least as long as its answer, so that no answer is longer than its question. */
  private readonly probe = new Uint8Array(SMALL_PROBE_BYTES);
  private readonly reply = new Uint8Array(PROBE_REPLY_BYTES);
  private readonly left = new Uint8Array(LEFT_BYTES);

  constructor(aead: Host['aead']) {
    this.aead = aead;
  }

  /**
   * Sends one message over `link` to `endpoint[at]` (the link's own endpoint when left out). The
   * plaintext is filled up with zeros to `datagramBytes` of UDP payload. False if nothing was sent: also where
   * the address has not earned so much.
   */
  send(
    session: Session,
    link: Link,
    kind: number,
    body: Uint8Array,
    nowMs: number,
    datagramBytes = 0,
    endpoint: Uint8Array = link.endpoint,
    at = 0,
  ): boolean {
    const least = INNER_BYTES + body.length;
    const size = Math.max(least, Math.min(datagramBytes, CONTROL_BYTES) - HEADER_BYTES - TAG_BYTES);
    if (!link.maySend(endpoint, at, HEADER_BYTES + size + TAG_BYTES)) return false;
    const epoch = session.current;
    const counter = epoch.reserve(link.id, 1);
    if (counter === -1) return false;
    // A small probe finds out whether the link still carries anything; others may well be too large for it.
    const isAwaited = this.isBonding && kind === Control.probe && datagramBytes === 0;
    if (kind === Control.probe && datagramBytes > 0) link.largeProbeSent(counter);
    this.plaintext.fill(0, 0, size);
    const flags = isAwaited ? Flag.control | Flag.ordered : Flag.control;
    writeInner(this.plaintext, 0, kind, 0, sendTime(nowMs), flags);
    this.plaintext.set(body, INNER_BYTES);

    writeHeader(this.slab, 0, epoch.number, link.id, session.peerId, counter);
    writeNonce(this.table.nonces, 0, link.id, counter);
    this.table.from[0] = 0;
    this.table.sizes[0] = size;
    this.table.to[0] = 0;
    this.sizes[0] = HEADER_BYTES + size + TAG_BYTES;
    if (this.isBonding) {
      const bytes = this.sizes[0] + link.outerBytes;
      link.flight.add(epoch.number, counter, NO_TICKET, bytes, isAwaited, nowMs);
    }
    this.aead.seal(epoch.sealKey, this.plaintext, this.slab, HEADER_BYTES, this.table, 1);
    const sent = link.socket.send(this.slab, this.table.to, this.sizes, 0, 1, endpoint, at);
    link.sentPackets += sent;
    link.sentBytes += sent * (this.sizes[0] + link.outerBytes);
    return sent === 1;
  }

  sendEmpty(session: Session, link: Link, kind: number, nowMs: number): boolean {
    return this.send(session, link, kind, EMPTY, nowMs);
  }

  /** Sends a probe that makes an IP packet of `size` bytes, outer headers included; 0: a small one. */
  sendProbe(session: Session, link: Link, size: number, nowMs: number): void {
    writeUint32(this.probe, link.probe(size, nowMs));
    const datagramBytes = size === 0 ? 0 : size - link.outerBytes;
    writeLinkSettings(this.probe, PROBE_TOKEN_BYTES, link.settings);
    link.socket.errno();
    this.send(session, link, Control.probe, this.probe, nowMs, datagramBytes);
    const errno = link.socket.errno();
    if (errno === os.errno.EMSGSIZE && size !== 0) link.pathMtu.refused(size, nowMs);
    else if (errno !== 0) link.forgetLocalAddress();
  }

  /** Says over `link` that nothing is received over `gone` any more, which may be the same. */
  sendLeft(session: Session, link: Link, gone: Link, nowMs: number): void {
    const epoch = session.current;
    this.left[0] = gone.id;
    this.left[1] = epoch.number;
    const last = epoch.lastCounter(gone.id) + (link === gone ? 1 : 0);
    new DataView(this.left.buffer).setUint32(2, Math.max(0, last) % 2 ** 32);
    this.send(session, link, Control.left, this.left, nowMs);
  }

  /**
   * Sends what `link` needs now: its regular probe, path MTU probes, challenges. 'moved' if its
   * endpoint changed.
   */
  tend(session: Session, link: Link, nowMs: number): 'moved' | 'stays' {
    if (nowMs >= link.probeAtMs) {
      const quickMs = link.state === 'up' ? IDLE_PROBE_MS : SUSPECT_PROBE_MS;
      link.probeAtMs = nowMs + (this.isBonding ? quickMs : PROBE_INTERVAL_MS);
      this.sendProbe(session, link, 0, nowMs);
    }
    while (link.isReached) {
      const hasTraffic = link.hasTraffic(nowMs);
      const size = link.pathMtu.due(nowMs, link.patienceMs, hasTraffic, link.heardMs);
      if (size === 0) break;
      this.sendProbe(session, link, size, nowMs);
    }
    const challengeBytes = HEADER_BYTES + INNER_BYTES + CHALLENGE_BYTES + TAG_BYTES;
    const decision = link.roaming.decide(nowMs, link.rttMs, challengeBytes);
    if (decision === 'challenge') {
      const { candidate, candidateChallenge, presentChallenge } = link.roaming;
      this.send(session, link, Control.challenge, candidateChallenge, nowMs, 0, candidate);
      this.send(session, link, Control.challenge, presentChallenge, nowMs);
    } else if (decision === 'moved') {
      link.moveTo(link.roaming.candidate, 0);
      link.isReached = true;
      link.pathMtu.search(BASE_PATH_MTU, nowMs);
      return 'moved';
    }
    return 'stays';
  }

  /** Answers an authenticated control message, or learns from it. */
  receive(session: Session, link: Link, message: ControlMessage, nowMs: number): Request {
    const { kind, body, sources, at } = message;
    if (kind === Control.probe && body.length >= PROBE_REPLY_BYTES) {
      link.learnSettings(body.subarray(PROBE_TOKEN_BYTES));
      this.reply.set(body.subarray(0, PROBE_TOKEN_BYTES));
      this.reply[PROBE_TOKEN_BYTES] = message.datagramBytes >>> 8;
      this.reply[PROBE_TOKEN_BYTES + 1] = message.datagramBytes;
      this.send(session, link, Control.probeReply, this.reply, nowMs, 0, sources, at);
    } else if (kind === Control.probeReply && body.length >= PROBE_TOKEN_BYTES) {
      link.probeAnswered(readUint32(body), nowMs);
    } else if (kind === Control.challenge && body.length === CHALLENGE_BYTES) {
      this.send(session, link, Control.challengeReply, body, nowMs, 0, sources, at);
    } else if (kind === Control.challengeReply) {
      link.roaming.replied(body, sources, at, link.endpoint, nowMs);
    } else if (kind === Control.rekey) {
      return 'rekey';
    } else if (kind === Control.goodbye) {
      return 'goodbye';
    }
    return 'none';
  }
}

function writeUint32(bytes: Uint8Array, value: number): void {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, value);
}

function readUint32(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
}
