/**
 * One link as this end sees it: its socket, the peer's endpoint, round trip time, path MTU, probes.
 * Knows no other link, no key and no packet.
 */
import { isSameRemote } from './address.ts';
import { ENDPOINT_BYTES, ENDPOINT_REMOTE_BYTES } from './batch.ts';
import type { LinkSocket } from './host.ts';
import { PathMtu } from './pathmtu.ts';
import { Capacity } from './capacity.ts';
import { Flight } from './flight.ts';
import { SEND_TIME_UNITS_PER_MS } from './constants.ts';
import type { Section } from './feedback.ts';
import type { LinkSettings } from './peering.ts';
import { Reception } from './reception.ts';
import { Credit, Roaming } from './roaming.ts';
import { LINK_SETTINGS_BYTES, OVERHEAD_BYTES, readLinkSettings } from './wire.ts';
import type { LinkTerms } from './wire.ts';

/** Probes that may wait for their answer; older ones are forgotten. */
const PROBES = 64;
/** UDP's header, and IP's (RFC 791, RFC 8200), by family of the endpoint. */
const UDP_BYTES = 8;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
/** Full-size packets in this time count as traffic for the path MTU's sake. */
const TRAFFIC_MS = 1_000;
/** A peer that answers small probes is heard at least so often. */
const HEARD_MS = 1_500;

/** What one link must show for so long to be repaired: cubic over 40 ms suffers from one packet in 5000. */
const LEAST_LOSS = 0.0002;
const LEAST_REORDERING_MS = 1;
const BAD_MS = 700;
/** A gigabit per second, in bytes per millisecond: what loses there is a buffer of a host. */
const MOST_REPAIRED_RATE = 125_000;
/** Reports that may be late before a link is suspected, beside what round trips explain. */
const PATIENCE_MS = 15;

/**
 * 'up': what is sent arrives. 'suspect': nothing sent lately is known to have arrived; probed, and used
 * only when no other is better. 'down': its socket is closed, or refuses to send.
 */
export type LinkState = 'up' | 'suspect' | 'down';

/** Datagrams that are sealed, in the order in which they go out. */
export interface Output {
  readonly slab: Uint8Array;
  readonly to: Uint32Array;
  readonly sizes: Uint16Array;
}

export class Link {
  /** The id in the header of its datagrams. */
  readonly id: number;
  socket: LinkSocket;
  /** Which of the links in use it is: a bit in `PacketStore.lostOn`. */
  place = 0;
  /** Of this end, with what the client says of it. */
  settings: LinkSettings;
  private configured: LinkSettings;
  private terms: LinkTerms | undefined = undefined;
  state: LinkState = 'up';
  /**
   * The peer has closed its socket: epoch and low 32 bits of the counter of the last datagram it sent; −1 as
   * long as it has not, and again once a later one came.
   */
  leftEpoch = -1;
  leftCounter = -1;
  readonly flight = new Flight();
  readonly capacity = new Capacity();
  readonly reception = new Reception();
  /** Where datagrams go (layout in batch.ts). */
  readonly endpoint = new Uint8Array(ENDPOINT_BYTES);
  readonly pathMtu = new PathMtu();
  readonly roaming: Roaming;
  /** RFC 6298 §2, in milliseconds; 0 until the first answer. */
  rttMs = 0;
  rttVarianceMs = 0;
  /** Last authenticated datagram. */
  heardMs = Number.NEGATIVE_INFINITY;
  /**
   * Whether a probe or challenge was answered since the endpoint was taken over unasked. Until then it gets no
   * path MTU probes: a first datagram that somebody repeats from another's address is worth 20 KB of them.
   */
  isReached = false;
  /** Of control messages, until then: the first datagram may have been repeated from another's address. */
  private readonly credit = new Credit();
  /** When the next small probe is due. */
  probeAtMs = 0;
  /** What of the last batch the socket had no room for: slots of the send table. */
  output: Output | undefined = undefined;
  /** Outer bytes that were given to this link and are not sealed yet. */
  pendingBytes = 0;
  /** What the kernel took, with outer headers, and packets that were lost on this link and repaired. */
  sentPackets = 0;
  sentBytes = 0;
  repairedPackets = 0;
  unsentFirst = 0;
  unsentCount = 0;
  private readonly isAnswering: boolean;
  private fullSizeMs = Number.NEGATIVE_INFINITY;
  private readonly tokens = new Uint32Array(PROBES);
  private readonly sentMs = new Float64Array(PROBES);
  private readonly sizes = new Uint16Array(PROBES);
  private nextToken = 1;
  /** Counters of the last probes for the path MTU, how many there were, and answers to them. */
  private readonly largeProbes = new Uint32Array(PROBES);
  private largeCount = 0;
  private largeAnswered = 0;

  /**
   * `isAnswering`: datagrams leave from the address that the peer sent its own to (a server with
   * several addresses); otherwise the kernel chooses, since ours may change any moment.
   */
  constructor(
    id: number,
    socket: LinkSocket,
    settings: LinkSettings,
    randomBytes: (bytes: Uint8Array) => void,
    isAnswering = true,
  ) {
    this.isAnswering = isAnswering;
    this.id = id;
    this.socket = socket;
    this.settings = settings;
    this.configured = settings;
    this.configure(settings);
    this.roaming = new Roaming(randomBytes);
  }

  /** From now on it is configured so at this end. */
  configure(settings: LinkSettings): void {
    this.configured = settings;
    const { terms } = this;
    this.settings =
      terms === undefined
        ? settings
        : {
            ...settings,
            name: settings.name || terms.name,
            isBackup: settings.isBackup || terms.isBackup,
            maxRate: lesser(settings.maxRate, terms.maxRate),
            weight: settings.weight === 1 ? terms.weight : settings.weight,
          };
    this.capacity.maxRate = lesser(this.settings.maxRate, this.settings.uploadRate);
  }

  /** Bytes around UDP's payload. */
  get outerBytes(): number {
    return UDP_BYTES + (this.endpoint[0] === 4 ? IPV4_BYTES : IPV6_BYTES);
  }

  /** The largest packet that fits one datagram. */
  get packetRoom(): number {
    const { mtu } = this.settings;
    const whole = mtu === 0 ? this.pathMtu.current : Math.min(mtu, this.pathMtu.current);
    return whole - this.outerBytes - OVERHEAD_BYTES;
  }

  /** What the client says of this link; a client knows by itself. */
  learnSettings(body: Uint8Array): void {
    if (!this.isAnswering || body.length < LINK_SETTINGS_BYTES) return;
    const terms = readLinkSettings(body);
    const known = this.terms;
    const isKnown =
      known?.name === terms.name &&
      known.isBackup === terms.isBackup &&
      known.maxRate === terms.maxRate &&
      known.weight === terms.weight;
    if (isKnown) return;
    this.terms = terms;
    this.configure(this.configured);
  }

  /** Whether reports have said anything of it. */
  get isMeasured(): boolean {
    return this.capacity.ackMs > 0;
  }

  /** Worse than its configuration allows: carries bulk only while no other can. */
  get isBad(): boolean {
    const { latencyLimitMs, lossLimit } = this.settings;
    const isSlow = latencyLimitMs > 0 && this.capacity.ackMs > latencyLimitMs;
    return isSlow || (lossLimit > 0 && this.capacity.loss > lossLimit);
  }

  /** Whether another datagram may go out now. */
  hasRoom(nowMs: number): boolean {
    return (
      this.unsentCount === 0 && this.capacity.hasRoom(this.flight.bytes + this.pendingBytes, nowMs)
    );
  }

  /** How long a report may be awaited before what was sent counts as lost. */
  get reportMs(): number {
    const { capacity } = this;
    const most = this.settings.timeoutMs || Number.POSITIVE_INFINITY;
    if (capacity.ackMs === 0) return Math.min(most, Math.max(200, 3 * this.patienceMs));
    const reports = 2 * capacity.intervalMs + PATIENCE_MS;
    const ms = capacity.ackMs + 4 * capacity.ackVarianceMs + reports + this.reorderingMs;
    return Math.min(most, ms);
  }

  /** Its socket is gone: what was under way is lost. */
  closed(): void {
    this.state = 'down';
    this.unsentCount = 0;
    this.flight.abandon();
  }

  /** The peer receives nothing over it any more, and has sent nothing behind this counter. */
  left(epoch: number, counter: number): void {
    this.leftEpoch = epoch;
    this.leftCounter = counter;
  }

  /** Its newest datagram came under this counter: is it from a socket opened since? */
  heardAgain(epoch: number, counter: number): void {
    const isLater = epoch !== this.leftEpoch || ((counter - this.leftCounter) | 0) > 0;
    if (isLater) this.leftEpoch = -1;
  }

  /** It has a socket again; whether that reaches anybody is to be seen. */
  reopened(socket: LinkSocket, nowMs: number): void {
    this.socket = socket;
    this.state = 'suspect';
    this.forgetLocalAddress();
    this.probeAtMs = nowMs;
  }

  /** Whether one link alone needs what several have: it loses or reorders, and not since it is full. */
  needsRepair(nowMs: number): boolean {
    const { capacity } = this;
    if (capacity.deliveredRate > MOST_REPAIRED_RATE) return false;
    if (this.reorderingMs > LEAST_REORDERING_MS) return true;
    const isBad = capacity.loss > LEAST_LOSS && !capacity.isQueueing;
    if (!isBad) this.badSinceMs = Number.POSITIVE_INFINITY;
    else if (this.badSinceMs === Number.POSITIVE_INFINITY) this.badSinceMs = nowMs;
    return nowMs - this.badSinceMs > BAD_MS;
  }

  private badSinceMs = Number.POSITIVE_INFINITY;

  /** When something sent may be lost without anything to show it; Infinity: nothing is awaited. */
  overdueMs(): number {
    return this.flight.oldestMs() + this.reportMs;
  }

  /** Whether nothing that was sent is known to have arrived for longer than can be explained. */
  isSilent(nowMs: number): boolean {
    return nowMs - this.flight.progressMs > this.reportMs;
  }

  /** The peer's report on what was sent over this link. */
  reported(part: Section, nowMs: number): void {
    const { flight, capacity } = this;
    const highest = flight.expand(part.epoch, part.highest);
    // Of what was never sent, or while nobody counted.
    if (flight.sent > 0 && Number.isNaN(highest)) return;
    this.reorderingMs = part.reordering / SEND_TIME_UNITS_PER_MS;
    const first = flight.firstOf(part.epoch);
    const isNew = highest > flight.highest;
    let to = highest;
    for (let i = 0; i < part.runCount && to >= first; i++) {
      const from = to - part.runs[i] + 1;
      if (i % 2 === 0) flight.arrived(Math.max(from, first), to, nowMs);
      to = from - 1;
    }
    const ageMs = part.age / SEND_TIME_UNITS_PER_MS;
    const ackMs = isNew ? nowMs - flight.sentAtMs(highest) - ageMs : Number.NaN;
    flight.detect(this.reorderingMs, nowMs - this.reportMs);
    const counted = flight.sent === 0 ? undefined : flight;
    capacity.report(part, ackMs, counted, this.lostProbes(part.highest), nowMs);
  }

  /** A probe for the path MTU went out under `counter`. */
  largeProbeSent(counter: number): void {
    this.largeProbes[this.largeCount++ % PROBES] = counter % 2 ** 32;
  }

  /** Of those sent up to the counter whose low 32 bits are `highest`, the ones that were not answered. */
  private lostProbes(highest: number): number {
    const recent = Math.min(this.largeCount, PROBES);
    let covered = this.largeCount - recent;
    for (let i = 0; i < recent; i++) {
      if (((highest - this.largeProbes[i]) | 0) >= 0) covered++;
    }
    return covered - this.largeAnswered;
  }

  /** How far a datagram may be overtaken before it counts as lost: as the peer has seen it. */
  reorderingMs = 0;

  /** The retransmission timeout of RFC 6298 §2.3 without its floor: when an answer is overdue. */
  get patienceMs(): number {
    return this.rttMs + 4 * this.rttVarianceMs;
  }

  /** The endpoint in `sources[at]` is the peer's from now on. */
  moveTo(sources: Uint8Array, at: number): void {
    for (let i = 0; i < ENDPOINT_BYTES; i++) this.endpoint[i] = sources[at + i];
    if (!this.isAnswering) this.forgetLocalAddress();
  }

  /** The newest datagram, of `size` bytes, came from the endpoint. */
  heardThere(size: number): void {
    if (!this.isReached) this.credit.earn(size);
  }

  /**
   * Whether a control message of `size` bytes may go to `to[at]`: to an address that is not proved goes at most
   * three times what came from there (PROTOCOL §6), of which this takes. A client speaks only to whom it was told.
   */
  maySend(to: Uint8Array, at: number, size: number): boolean {
    if (to !== this.endpoint && !isSameRemote(this.endpoint, 0, to, at)) {
      return this.roaming.take(to, at, size);
    }
    return this.isReached || !this.isAnswering || this.credit.take(size);
  }

  /** Answers leave from the address that the peer last used. */
  adoptLocalAddress(sources: Uint8Array, at: number): void {
    if (!this.isAnswering) return;
    for (let i = ENDPOINT_REMOTE_BYTES; i < ENDPOINT_BYTES; i++) this.endpoint[i] = sources[at + i];
  }

  /** Our address may be gone: the kernel chooses one until the peer is heard again. */
  forgetLocalAddress(): void {
    this.endpoint.fill(0, ENDPOINT_REMOTE_BYTES);
  }

  /** Packets that fill the path went out: worth checking that they arrive. */
  sentFullSize(nowMs: number): void {
    this.fullSizeMs = nowMs;
  }

  /** Whether large packets go out while the peer is heard: then full-size probes prove something. */
  hasTraffic(nowMs: number): boolean {
    return nowMs - this.fullSizeMs < TRAFFIC_MS && nowMs - this.heardMs < HEARD_MS;
  }

  /** When this link wants something sent (control.ts, `tend`). */
  deadlineMs(nowMs: number): number {
    return Math.min(
      this.probeAtMs,
      this.isReached ? this.pathMtu.deadlineMs(this.hasTraffic(nowMs)) : Number.POSITIVE_INFINITY,
      this.roaming.deadlineMs(this.rttMs),
      this.overdueMs(),
    );
  }

  /** A token for a probe of `size` bytes (whole IP packet; 0 for a small one) sent now. */
  probe(size: number, nowMs: number): number {
    const token = this.nextToken;
    this.nextToken = (token + 1) >>> 0;
    const place = token % PROBES;
    this.tokens[place] = token;
    this.sentMs[place] = nowMs;
    this.sizes[place] = size;
    return token;
  }

  /** The answer to a probe: learns RTT and path MTU, each token once. */
  probeAnswered(token: number, nowMs: number): void {
    const place = token % PROBES;
    if (token === 0 || this.tokens[place] !== token) return;
    this.tokens[place] = 0;
    this.isReached = true;
    this.learnRtt(nowMs - this.sentMs[place]);
    if (this.sizes[place] === 0) return;
    this.largeAnswered++;
    this.pathMtu.answered(this.sizes[place], nowMs);
  }

  private learnRtt(sampleMs: number): void {
    if (this.rttMs === 0) {
      this.rttMs = sampleMs;
      this.rttVarianceMs = sampleMs / 2;
      return;
    }
    this.rttVarianceMs = 0.75 * this.rttVarianceMs + 0.25 * Math.abs(this.rttMs - sampleMs);
    this.rttMs = 0.875 * this.rttMs + 0.125 * sampleMs;
  }
}

/** The smaller of two caps, of which 0 is none. */
function lesser(a: number, b: number): number {
  return a === 0 || b === 0 ? Math.max(a, b) : Math.min(a, b);
}
