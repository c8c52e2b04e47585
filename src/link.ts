/**
 * One link as this end sees it: its socket, the peer's endpoint, round trip time, path MTU, probes.
 * Knows no other link, no key and no packet.
 */
import { ENDPOINT_BYTES, ENDPOINT_REMOTE_BYTES } from './batch.ts';
import type { LinkSocket } from './host.ts';
import { PathMtu } from './pathmtu.ts';
import { Roaming } from './roaming.ts';
import { OVERHEAD_BYTES } from './wire.ts';

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

export class Link {
  /** The id in the header of its datagrams. */
  readonly id: number;
  readonly socket: LinkSocket;
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
   * Whether a probe was answered since the endpoint was taken over unasked. Until then it gets no path
   * MTU probes: a first datagram that somebody repeats from another's address is worth 20 KB of them.
   */
  isReached = false;
  /** When the next small probe is due. */
  probeAtMs = 0;
  /** What of the last batch the socket had no room for: slots of the send table. */
  unsentFirst = 0;
  unsentCount = 0;
  private readonly isAnswering: boolean;
  private fullSizeMs = Number.NEGATIVE_INFINITY;
  private readonly tokens = new Uint32Array(PROBES);
  private readonly sentMs = new Float64Array(PROBES);
  private readonly sizes = new Uint16Array(PROBES);
  private nextToken = 1;

  /**
   * `isAnswering`: datagrams leave from the address that the peer sent its own to (a server with
   * several addresses); otherwise the kernel chooses, since ours may change any moment.
   */
  constructor(
    id: number,
    socket: LinkSocket,
    randomBytes: (bytes: Uint8Array) => void,
    isAnswering = true,
  ) {
    this.isAnswering = isAnswering;
    this.id = id;
    this.socket = socket;
    this.roaming = new Roaming(randomBytes);
  }

  /** Bytes around UDP's payload. */
  get outerBytes(): number {
    return UDP_BYTES + (this.endpoint[0] === 4 ? IPV4_BYTES : IPV6_BYTES);
  }

  /** The largest packet that fits one datagram. */
  get packetRoom(): number {
    return this.pathMtu.current - this.outerBytes - OVERHEAD_BYTES;
  }

  /** The retransmission timeout of RFC 6298 §2.3 without its floor: when an answer is overdue. */
  get patienceMs(): number {
    return this.rttMs + 4 * this.rttVarianceMs;
  }

  /** The endpoint in `sources[at]` is the peer's from now on. */
  moveTo(sources: Uint8Array, at: number): void {
    for (let i = 0; i < ENDPOINT_BYTES; i++) this.endpoint[i] = sources[at + i];
    if (!this.isAnswering) this.forgetLocalAddress();
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
    if (this.sizes[place] !== 0) this.pathMtu.answered(this.sizes[place], nowMs);
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
