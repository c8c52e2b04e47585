/**
 * What crossed a wire: captures by tcpdump, read back, with a check of the checksums in user space.
 *
 * The format is pcap (draft-ietf-opsawg-pcap), link types Ethernet and raw IP.
 */
import { readFileSync } from 'node:fs';
import { Daemon, Host, until, type Bed } from './netns.ts';

/** One IP packet, from the first byte of its IP header, without padding. */
export interface Captured {
  readonly timeMs: number;
  readonly bytes: Uint8Array;
}

export interface Datagram {
  readonly timeMs: number;
  readonly source: string;
  readonly sourcePort: number;
  readonly target: string;
  readonly targetPort: number;
  readonly payload: Uint8Array;
}

const LINK_ETHERNET = 1;
const ETHERNET_HEADER_BYTES = 14;
const UDP = 17;
const TCP = 6;

export class Capture {
  private readonly tcpdump: Daemon;
  private readonly file: string;

  constructor(tcpdump: Daemon, file: string) {
    this.tcpdump = tcpdump;
    this.file = file;
  }

  /** What was captured up to now. */
  packets(): Captured[] {
    return readPcap(readFileSync(this.file));
  }

  datagrams(): Datagram[] {
    return this.packets().flatMap((packet) => datagramOf(packet) ?? []);
  }

  async stop(): Promise<void> {
    await this.tcpdump.stop('SIGINT');
  }
}

/** Starts to capture; returns when it does. */
export async function capture(
  bed: Bed,
  host: Host,
  device: string,
  filter: string,
): Promise<Capture> {
  const file = bed.file('pcap');
  const tcpdump = host.start(
    `tcpdump -i ${device} -n -U --immediate-mode -s 0 -Z root -w ${file} ${filter}`.split(' '),
  );
  await tcpdump.line(/listening on/);
  return new Capture(tcpdump, file);
}

export function readPcap(file: Uint8Array): Captured[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 24) return [];
  const isLittle = view.getUint32(0, true) === 0xa1b2c3d4;
  const headerBytes = view.getUint32(20, isLittle) === LINK_ETHERNET ? ETHERNET_HEADER_BYTES : 0;
  const packets: Captured[] = [];
  for (let at = 24; at + 16 <= file.length;) {
    const seconds = view.getUint32(at, isLittle);
    const micros = view.getUint32(at + 4, isLittle);
    const length = view.getUint32(at + 8, isLittle);
    const frame = file.subarray(at + 16 + headerBytes, at + 16 + length);
    // The last record may be half written.
    if (at + 16 + length > file.length) break;
    at += 16 + length;
    const bytes = withoutPadding(frame);
    if (bytes !== undefined) packets.push({ timeMs: seconds * 1000 + micros / 1000, bytes });
  }
  return packets;
}

const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;

function withoutPadding(frame: Uint8Array): Uint8Array | undefined {
  const version = frame[0]! >> 4;
  if (version === 4) return frame.subarray(0, u16(frame, 2));
  if (version === 6) return frame.subarray(0, 40 + u16(frame, 4));
  return undefined;
}

interface Transport {
  readonly protocol: number;
  /** Where the transport header begins. */
  readonly at: number;
  readonly isFragment: boolean;
}

function transportOf(bytes: Uint8Array): Transport {
  if (bytes[0]! >> 4 === 4)
    return {
      protocol: bytes[9]!,
      at: (bytes[0]! & 15) * 4,
      isFragment: (u16(bytes, 6) & 0x3fff) !== 0,
    };
  return { protocol: bytes[6]!, at: 40, isFragment: bytes[6]! === 44 };
}

export function datagramOf({ timeMs, bytes }: Captured): Datagram | undefined {
  const { protocol, at, isFragment } = transportOf(bytes);
  if (protocol !== UDP || isFragment) return undefined;
  const [source, target] = addresses(bytes);
  return {
    timeMs,
    source: text(source),
    sourcePort: u16(bytes, at),
    target: text(target),
    targetPort: u16(bytes, at + 2),
    payload: bytes.slice(at + 8),
  };
}

function addresses(bytes: Uint8Array): [Uint8Array, Uint8Array] {
  return bytes[0]! >> 4 === 4
    ? [bytes.subarray(12, 16), bytes.subarray(16, 20)]
    : [bytes.subarray(8, 24), bytes.subarray(24, 40)];
}

/** IPv6 without shortening: only compared with itself. */
function text(address: Uint8Array): string {
  if (address.length === 4) return address.join('.');
  return Array.from({ length: 8 }, (_, i) => u16(address, 2 * i).toString(16)).join(':');
}

export interface Checksums {
  readonly right: number;
  readonly wrong: number;
}

/** Counts TCP and UDP packets by whether their checksum (and IPv4's own) is right; fragments are left out. */
export function checksums(packets: readonly Captured[]): Checksums {
  let right = 0;
  let wrong = 0;
  for (const { bytes } of packets) {
    const { protocol, at, isFragment } = transportOf(bytes);
    if (isFragment || (protocol !== TCP && protocol !== UDP)) continue;
    const isIpRight = bytes[0]! >> 4 === 6 || fold(sum(bytes, 0, at)) === 0xffff;
    if (isIpRight && isTransportRight(bytes, protocol, at)) right++;
    else wrong++;
  }
  return { right, wrong };
}

function isTransportRight(bytes: Uint8Array, protocol: number, at: number): boolean {
  // RFC 768: over IPv4, zero means that none was computed.
  if (protocol === UDP && bytes[0]! >> 4 === 4 && u16(bytes, at + 6) === 0) return true;
  const [source, target] = addresses(bytes);
  const pseudo =
    sum(source, 0, source.length) + sum(target, 0, target.length) + protocol + (bytes.length - at);
  return fold(pseudo + sum(bytes, at, bytes.length)) === 0xffff;
}

// RFC 1071.
function sum(bytes: Uint8Array, from: number, to: number): number {
  let total = 0;
  for (let at = from; at < to; at += 2)
    total += (bytes[at]! << 8) | (at + 1 < to ? bytes[at + 1]! : 0);
  return total;
}

function fold(total: number): number {
  let folded = total;
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/**
 * Makes a host do all the work of its network card in software before a packet leaves, so that what is
 * captured at the other end of the cable has its final length and checksum.
 */
export function withoutCardOffloads(host: Host, device: string): void {
  // TCP segmentation depends on checksumming and goes with it.
  host.run(`ethtool -K ${device} tx off gso off gro off`);
}

/** Waits until `count` packets are there. */
export async function captured(
  from: Capture,
  count: number,
  withinMs?: number,
): Promise<Captured[]> {
  return until(
    `${count} packets captured`,
    () => {
      const packets = from.packets();
      return packets.length >= count ? packets : undefined;
    },
    withinMs,
  );
}
