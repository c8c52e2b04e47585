/** TUN devices for the tests of the addon: what is read from them and written to them. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { packetTable, type PacketTable } from '../src/batch.ts';
import type { Handle } from '../src/native.ts';
import { ip, native } from './nativebed.ts';
import { TO, parse, type Parsed } from './packets.ts';

export const HASH_KEY = Uint8Array.from({ length: 16 }, (_, i) => i * 7);
export interface Packet {
  readonly bytes: Buffer;
  readonly flags: number;
  readonly bucket: number;
  readonly flow: number;
}

export const HEADROOM = 23;

export function drain(
  handle: Handle,
  table: PacketTable = packetTable(),
  ringBytes = 1 << 20,
): Packet[] {
  const ring = new Uint8Array(ringBytes);
  const packets: Packet[] = [];
  for (;;) {
    const count = native.tunRead(handle, ring, 5, HEADROOM, table, HASH_KEY);
    assert.ok(count >= 0, `tunRead: ${count}`);
    if (count === 0) return packets;
    let at = 5;
    for (let i = 0; i < count; i++) {
      assert.equal(table.offsets[i], at + HEADROOM, 'packets lie one behind the other');
      at += HEADROOM + table.lengths[i]!;
      const bytes = Buffer.from(ring.slice(table.offsets[i]!, at));
      const flow = table.flows[i]!;
      packets.push({ bytes, flags: table.flags[i]!, bucket: table.buckets[i]!, flow });
    }
  }
}

export function write(
  handle: Handle,
  packets: readonly { bytes: Buffer; flags: number }[],
): number {
  const bytes = new Uint8Array(packets.reduce((sum, packet) => sum + packet.bytes.length, 0));
  const table = packetTable(packets.length);
  let at = 0;
  packets.forEach((packet, i) => {
    bytes.set(packet.bytes, at);
    table.offsets[i] = at;
    table.lengths[i] = packet.bytes.length;
    table.flags[i] = packet.flags;
    at += packet.bytes.length;
  });
  return native.tunWrite(handle, bytes, table, packets.length);
}

/** Writes that reached the kernel: a joined run counts once. */
export function writesOf(device: string): number {
  return JSON.parse(ip('-s', '-j', 'link', 'show', device))[0].stats64.rx.packets;
}

export interface Device {
  readonly handle: Handle;
  readonly name: string;
  readonly offload: boolean;
}

export function device(
  name: string,
  offload: boolean,
  addresses: readonly string[],
  ethernet = false,
): Device {
  const made = native.tunCreate(name, offload, ethernet);
  assert.equal(made.name, name);
  assert.equal(made.offload, offload, 'this kernel has TUN offloads');
  for (const address of addresses) {
    ip('addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
  }
  ip('link', 'set', name, 'up');
  return made;
}

/** Two devices with the kernel forwarding between them. */
export function withForwarding(
  inOffload: boolean,
  outOffload: boolean,
  run: (input: Device, output: Device) => void,
): void {
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
  const input = device('in0', inOffload, ['10.1.0.1/24', 'fd01::1/64']);
  const output = device('out0', outOffload, ['10.2.0.1/24', 'fd02::1/64']);
  try {
    run(input, output);
  } finally {
    native.close(input.handle);
    native.close(output.handle);
  }
}

/** What came out for `TO`; `unwrap` takes the packet out of its frame. */
export function forwarded(
  output: Device,
  unwrap: (bytes: Buffer) => Buffer | undefined = (bytes) => bytes,
): { parsed: Parsed; packet: Packet }[] {
  const wanted = new Set([TO[4], TO[6]].map((address) => Buffer.from(address).toString('hex')));
  return drain(output.handle).flatMap((packet) => {
    const inner = unwrap(packet.bytes);
    const parsed = inner === undefined ? undefined : parse(inner);
    return parsed !== undefined && wanted.has(parsed.destination) ? [{ parsed, packet }] : [];
  });
}
