/** Ethernet frames as a slow, obvious model sees them, and what carries packets from one device to another. */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { ip, native } from './nativebed.ts';
import { device, withForwarding, type Device } from './tundevices.ts';

export const STATION = { a: [2, 0, 0, 0, 0, 0xa], b: [2, 0, 0, 0, 0, 0xb] } as const;
export const BROADCAST = [255, 255, 255, 255, 255, 255] as const;
export const TYPE = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, ipv6: 0x86dd, service: 0x88a8 };

export interface Frame {
  readonly to?: readonly number[];
  readonly from?: readonly number[];
  /** Tags in front of the EtherType, the outermost first: TPID and TCI. */
  readonly tags?: readonly (readonly [type: number, control: number])[];
  readonly type: number;
  readonly payload: Uint8Array;
}

export function frame(given: Frame): Buffer {
  const { to = STATION.b, from = STATION.a, tags = [], type, payload } = given;
  const words = [...tags.flat(), type].flatMap((word) => [word >> 8, word & 255]);
  return Buffer.from([...to, ...from, ...words, ...payload]);
}

/** The frame of an IP packet. */
export function framed(packet: Uint8Array, rest: Partial<Frame> = {}): Buffer {
  const type = packet[0]! >> 4 === 4 ? TYPE.ipv4 : TYPE.ipv6;
  return frame({ type, payload: packet, ...rest });
}

/** How packets go from one device through the kernel to another. */
export interface Medium {
  readonly name: string;
  wrap(packet: Buffer): Buffer;
  /** Asserts that the frame is that of `wrap`. Undefined for other traffic. */
  unwrap(bytes: Buffer): Buffer | undefined;
  run(inOffload: boolean, outOffload: boolean, body: (input: Device, output: Device) => void): void;
}

const TUN: Medium = {
  name: 'tun',
  wrap: (packet) => packet,
  unwrap: (bytes) => bytes,
  run: withForwarding,
};

function bridged(name: string, tags: Frame['tags'] = []): Medium {
  return {
    name,
    wrap: (packet) => framed(packet, { tags }),
    unwrap: (bytes) => {
      if (!bytes.subarray(0, 6).equals(Buffer.from(STATION.b))) return undefined;
      const header = 14 + 4 * tags.length;
      const packet = bytes.subarray(header);
      assert.ok(bytes.equals(framed(packet, { tags })), 'the header is what it was');
      return packet;
    },
    run: withBridge,
  };
}

export const TAGS = {
  one: [[TYPE.vlan, 0x6005]],
  two: [
    [TYPE.service, 7],
    [TYPE.vlan, 5],
  ],
} as const;

/** Those for packets of each version of IP. */
export const MEDIA: Readonly<Record<4 | 6, readonly Medium[]>> = {
  4: [TUN, bridged('tap')],
  6: [TUN, bridged('tap with two VLAN tags', TAGS.two)],
};

/** Two TAP devices that are ports of a bridge, which learns nothing: what comes in by one leaves by the other. */
export function withBridge(
  inOffload: boolean,
  outOffload: boolean,
  run: (input: Device, output: Device) => void,
): void {
  // No traffic but ours.
  writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
  leaveBridgedFramesAlone();
  const input = device('in0', inOffload, [], true);
  const output = device('out0', outOffload, [], true);
  ip('link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
  try {
    for (const port of ['in0', 'out0']) {
      ip('link', 'set', port, 'master', 'br0');
      ip('link', 'set', port, 'type', 'bridge_slave', 'learning', 'off');
    }
    ip('link', 'set', 'br0', 'up');
    run(input, output);
  } finally {
    native.close(input.handle);
    native.close(output.handle);
    ip('link', 'delete', 'br0');
    writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '0');
  }
}

/** Netfilter's look at bridged packets (br_netfilter) would cut off padding and drop what is not whole. */
function leaveBridgedFramesAlone(): void {
  for (const family of ['ip', 'ip6']) {
    const file = `/proc/sys/net/bridge/bridge-nf-call-${family}tables`;
    if (existsSync(file)) writeFileSync(file, '0');
  }
}
