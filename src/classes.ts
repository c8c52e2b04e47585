/**
 * Which class a flow is in, and which filters put it on a link (design §5.9). Decided once per flow and
 * kept by the flow that the addon computes (batch.ts), so that bulk costs one look per packet.
 *
 * Nothing is guessed: small or seldom packets are bulk until a rule or their own mark says otherwise.
 *
 * 1. The class: the first `--realtime` rule (either port), else the first realtime filter that matches;
 *    without one, DSCP EF (RFC 3246) is realtime.
 * 2. Apart from that, all filters that match and name a link. The first whose link can take the packet
 *    decides; that is found out per packet (`firstMatch`), since links come and go.
 *
 * Fragments but the first have no ports, so no fragment has for what is asked here: all are decided by
 * their IP header alone.
 *
 * Of Ethernet frames filters see all, from the destination address on; ports and DSCP are those of the IP
 * packet in it. A frame without one is decided by the filters alone.
 */
import { runBpf, type BpfProgram } from './bpf.ts';
import { MOST_FRAME_HEADER_BYTES, packetOffset } from './frame.ts';
import type { RealtimeRule } from './peering.ts';

/** Realtime is never held; duplicated is realtime over the two quickest links. */
export const TrafficClass = { bulk: 0, realtime: 1, duplicated: 2 } as const;

/** A compiled filter and what its match says: one of `TrafficClass`, or `linkVerdict`. */
export interface Filter {
  readonly program: BpfProgram;
  readonly verdict: number;
}

/** The class is in the low bits of a verdict, the link filters that match above. */
const CLASS_BITS = 2;
const CLASS_MASK = (1 << CLASS_BITS) - 1;
/** A verdict stays positive, and a small integer on every build of V8 (31 bits with their sign). */
export const MOST_LINK_FILTERS = 30 - CLASS_BITS;

/** Two places per set: 8192 flows in 64 KiB. What is pushed out is decided again. */
const SETS = 4096;
const UNKNOWN = -1;

const DSCP_EF = 46;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
const FRAGMENT_HEADER_BYTES = 8;
const LONGEST_IPV4_HEADER_BYTES = 60;
/** Extension headers that are walked over, as in native/packet.cc (RFC 8200 §4.1). */
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION = 60;
/** A packet should have each once, destination options twice. */
const MOST_EXTENSIONS = 8;

/** The verdict of the n-th link filter, from 0 to `MOST_LINK_FILTERS` − 1. */
export function linkVerdict(n: number): number {
  return 1 << (CLASS_BITS + n);
}

/** The `TrafficClass` of a verdict. */
export function classOf(verdict: number): number {
  return verdict & CLASS_MASK;
}

/** The first link filter of a verdict whose link can take the packet now; −1 leaves the choice free. */
export function firstMatch(verdict: number, isUsable: (filter: number) => boolean): number {
  for (let rest = verdict >>> CLASS_BITS; rest !== 0; rest &= rest - 1) {
    const filter = 31 - Math.clz32(rest & -rest);
    if (isUsable(filter)) return filter;
  }
  return -1;
}

export class Classifier {
  private readonly flows = new Uint32Array(2 * SETS);
  private readonly verdicts = new Int32Array(2 * SETS).fill(UNKNOWN);
  private rules: readonly RealtimeRule[] = [];
  private filters: readonly Filter[] = [];
  /** The header of a fragment as that of a later one. */
  private readonly later = new Uint8Array(MOST_FRAME_HEADER_BYTES + LONGEST_IPV4_HEADER_BYTES);
  private readonly isEthernet: boolean;

  /** `isEthernet`: what is classified are Ethernet frames, and filters are compiled for them. */
  constructor(isEthernet: boolean) {
    this.isEthernet = isEthernet;
  }

  /** From now on these rules; every flow is decided anew. */
  setRules(rules: readonly RealtimeRule[], filters: readonly Filter[]): void {
    this.rules = rules;
    this.filters = filters;
    this.clear();
  }

  /** Forgets every flow. */
  clear(): void {
    this.verdicts.fill(UNKNOWN);
  }

  /**
   * The verdict on the packet of `length` bytes at `at` (for `classOf` and `firstMatch`), which is of
   * `flow` (`PacketTable.flows`). A whole packet by its own length field, or a frame, as `tunRead` gives it.
   */
  classify(ring: Uint8Array, at: number, length: number, flow: number): number {
    const { flows, verdicts } = this;
    const first = (flow & (SETS - 1)) << 1;
    if (flows[first] === flow && verdicts[first] !== UNKNOWN) return verdicts[first];
    const second = first + 1;
    if (flows[second] === flow && verdicts[second] !== UNKNOWN) return verdicts[second];
    flows[second] = flows[first];
    verdicts[second] = verdicts[first];
    flows[first] = flow;
    const verdict = this.decide(ring, at, length);
    verdicts[first] = verdict;
    return verdict;
  }

  private decide(ring: Uint8Array, at: number, length: number): number {
    const headers = this.headersOf(ring, at, length);
    let trafficClass = this.classByPort(headers);
    let links = 0;
    for (const { program, verdict } of this.filters) {
      if (classOf(verdict) !== TrafficClass.bulk && trafficClass !== TrafficClass.bulk) continue;
      if (!this.matches(program, ring, at, length, headers)) continue;
      if (classOf(verdict) === TrafficClass.bulk) links |= verdict;
      else trafficClass = verdict;
    }
    if (trafficClass === TrafficClass.bulk && headers.trafficClass >>> 2 === DSCP_EF) {
      trafficClass = TrafficClass.realtime;
    }
    return links | trafficClass;
  }

  private headersOf(ring: Uint8Array, at: number, length: number): Headers {
    if (!this.isEthernet) return headersOf(ring, at, length, 0);
    const offset = packetOffset(ring, at, length);
    return offset === -1 ? NO_PACKET : headersOf(ring, at + offset, length - offset, offset);
  }

  private classByPort({ protocol, sourcePort, destinationPort }: Headers): number {
    for (const rule of this.rules) {
      const wanted = rule.protocol === 'udp' ? PROTOCOL_UDP : PROTOCOL_TCP;
      if (protocol !== wanted) continue;
      if (rule.port !== sourcePort && rule.port !== destinationPort) continue;
      return rule.isDuplicated ? TrafficClass.duplicated : TrafficClass.realtime;
    }
    return TrafficClass.bulk;
  }

  private matches(
    program: BpfProgram,
    ring: Uint8Array,
    at: number,
    length: number,
    { offset, isFragment, headerBytes }: Headers,
  ): boolean {
    if (!isFragment) return runBpf(program, ring, at, length, length) !== 0;
    // The first fragment shows ports that the others do not have, and which comes first is chance.
    const { later } = this;
    const bytes = offset + headerBytes;
    for (let i = 0; i < bytes; i++) later[i] = ring[at + i];
    if (later[offset] >>> 4 === 4) later[offset + 7] |= 1;
    return runBpf(program, later, 0, bytes, length) !== 0;
  }
}

/** Of one packet; ports are −1 where they cannot be told. */
interface Headers {
  /** Bytes of the frame in front of it. */
  readonly offset: number;
  readonly trafficClass: number;
  readonly isFragment: boolean;
  /** Of all that each fragment has alike. */
  readonly headerBytes: number;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** Of a frame that carries no IP packet. */
const NO_PACKET: Headers = {
  offset: 0,
  trafficClass: 0,
  isFragment: false,
  headerBytes: 0,
  protocol: -1,
  sourcePort: -1,
  destinationPort: -1,
};

function headersOf(ring: Uint8Array, at: number, length: number, offset: number): Headers {
  const isIpv4 = ring[at] >>> 4 === 4;
  const trafficClass = isIpv4 ? ring[at + 1] : ((ring[at] << 4) | (ring[at + 1] >>> 4)) & 0xff;
  let protocol = isIpv4 ? ring[at + 9] : ring[at + 6];
  let transport = isIpv4 ? (ring[at] & 0x0f) * 4 : IPV6_HEADER_BYTES;
  let isFragment = isIpv4 && (((ring[at + 6] << 8) | ring[at + 7]) & 0x3fff) !== 0;
  for (let i = 0; !isIpv4 && i < MOST_EXTENSIONS && isExtension(protocol); i++) {
    if (protocol === FRAGMENT) {
      isFragment = true;
      break;
    }
    if (transport + 8 > length) break;
    protocol = ring[at + transport];
    transport += 8 + 8 * ring[at + transport + 1];
  }
  const hasPorts =
    !isFragment &&
    (protocol === PROTOCOL_UDP || protocol === PROTOCOL_TCP) &&
    transport + 4 <= length;
  const portAt = (offset: number): number =>
    hasPorts ? (ring[at + transport + offset] << 8) | ring[at + transport + offset + 1] : -1;
  return {
    offset,
    trafficClass,
    isFragment,
    headerBytes: Math.min(
      length,
      isIpv4 ? Math.max(transport, IPV4_HEADER_BYTES) : IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES,
    ),
    protocol,
    sourcePort: portAt(0),
    destinationPort: portAt(2),
  };
}

function isExtension(protocol: number): boolean {
  return (
    protocol === HOP_BY_HOP ||
    protocol === ROUTING ||
    protocol === DESTINATION ||
    protocol === FRAGMENT
  );
}
