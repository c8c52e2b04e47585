/** Headers and checksums of inner packets as a slow, obvious model sees them. */
import assert from 'node:assert/strict';
import { PacketFlag } from '../src/batch.ts';

export const SYN = 2;
export const PSH = 8;
export const ACK = 16;

export function onesSum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

export interface Parsed {
  readonly version: number;
  readonly protocol: number;
  readonly destination: string;
  readonly transport: Buffer;
  readonly payload: Buffer;
  readonly pseudo: number;
}

/** Asserts that every length and the IPv4 checksum are right. Undefined for what is not TCP or UDP. */
export function parse(packet: Buffer): Parsed | undefined {
  const version = packet[0]! >> 4;
  const header = version === 4 ? (packet[0]! & 15) * 4 : 40;
  const protocol = version === 4 ? packet[9]! : packet[6]!;
  const total = version === 4 ? packet.readUInt16BE(2) : 40 + packet.readUInt16BE(4);
  assert.equal(total, packet.length);
  if (version === 4) assert.equal(onesSum(packet.subarray(0, header)), 0xffff);
  if (protocol !== 6 && protocol !== 17) return undefined;
  const transport = packet.subarray(header);
  const addresses = version === 4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
  if (protocol === 17) assert.equal(transport.readUInt16BE(4), transport.length);
  return {
    version,
    protocol,
    destination: addresses.subarray(addresses.length / 2).toString('hex'),
    transport,
    payload: transport.subarray(protocol === 17 ? 8 : (transport[12]! >> 4) * 4),
    pseudo: onesSum(addresses, protocol + transport.length),
  };
}

export function checksumOf({ protocol, transport }: Parsed): number {
  return transport.readUInt16BE(protocol === 6 ? 16 : 6);
}

/** That a partial checksum is the sum of the pseudo header, and a full one is right. */
export function assertChecksum(parsed: Parsed, flags: number): void {
  if ((flags & PacketFlag.partialChecksum) !== 0) {
    assert.equal(checksumOf(parsed) % 0xffff, parsed.pseudo % 0xffff);
  } else {
    assert.equal(onesSum(parsed.transport, parsed.pseudo), 0xffff);
  }
}

export interface Crafted {
  readonly version?: 4 | 6;
  readonly protocol?: 6 | 17;
  readonly sequence?: number;
  readonly flags?: number;
  readonly id?: number;
  readonly dontFragment?: boolean;
  readonly options?: Uint8Array;
  readonly payload: Uint8Array;
  readonly partial: boolean;
  readonly wrongChecksum?: boolean;
}

export const FROM = { 4: [10, 1, 0, 2], 6: [0xfd, 1, ...Array<number>(13).fill(0), 2] };
export const TO = { 4: [10, 2, 0, 2], 6: [0xfd, 2, ...Array<number>(13).fill(0), 2] };

export function craft(c: Crafted): Buffer {
  const version = c.version ?? 4;
  const protocol = c.protocol ?? 6;
  const options = c.options ?? new Uint8Array(0);
  const ip = version === 4 ? 20 : 40;
  const transport = protocol === 17 ? 8 : 20 + options.length;
  const packet = Buffer.alloc(ip + transport + c.payload.length);
  if (version === 4) {
    packet.set([0x45, 0], 0);
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE(c.id ?? 1, 4);
    packet.set([c.dontFragment === false ? 0 : 0x40, 0, 64, protocol], 6);
    packet.set([...FROM[4], ...TO[4]], 12);
    packet.writeUInt16BE(0xffff - onesSum(packet.subarray(0, 20)), 10);
  } else {
    packet[0] = 0x60;
    packet.writeUInt16BE(packet.length - 40, 4);
    packet.set([protocol, 64, ...FROM[6], ...TO[6]], 6);
  }
  const segment = packet.subarray(ip);
  segment.writeUInt16BE(4000, 0);
  segment.writeUInt16BE(5000, 2);
  if (protocol === 6) segment.set(options, 20);
  segment.set(c.payload, transport);
  if (protocol === 6) {
    segment.writeUInt32BE(c.sequence ?? 1, 4);
    segment.writeUInt32BE(77, 8);
    segment.set([(transport / 4) << 4, c.flags ?? ACK, 1, 0], 12);
  } else {
    segment.writeUInt16BE(segment.length, 4);
  }
  const at = protocol === 6 ? 16 : 6;
  const parsed = parse(packet)!;
  const sum = 0xffff - onesSum(segment, parsed.pseudo);
  segment.writeUInt16BE(c.partial ? parsed.pseudo : sum === 0 ? 0xffff : sum, at);
  if (c.wrongChecksum === true) segment[at]! ^= 1;
  return packet;
}
