/**
 * The other processes of control.test.ts: `peer PORT COUNT` is a tunnel's client that sends numbered packets at
 * its own pace and says how many; `clients PATH CLIENTS REQUESTS` asks a control socket for its status.
 */
import { connect } from 'node:net';
import { endpoint } from '../src/address.ts';
import { withNativeCode } from '../src/assets.ts';
import type { PacketTable } from '../src/batch.ts';
import { REKEY_AFTER_MS } from '../src/constants.ts';
import type { Tun } from '../src/host.ts';
import { loadNative } from '../src/native.ts';
import { PLAIN_LINK, type TunnelConfig } from '../src/peering.ts';
import { makeHost } from '../src/runtime.ts';
import { sharedKeys } from '../src/sharedkey.ts';
import { Tunnel } from '../src/vpn.ts';

export const SERVER_IP = Uint8Array.of(192, 168, 192, 254);
export const CLIENT_IP = Uint8Array.of(192, 168, 192, 1);
const PACKET_BYTES = 1_200;
/** 50 Mbit/s. */
const PER_MS = 5;
/** After a stall of this program what was not sent in time is not sent in one burst. */
const MOST_AT_ONCE = 100;
/** What may be under way when the last packet was sent. */
const SETTLE_MS = 500;

export function loadConfig(role: 'client' | 'server'): TunnelConfig {
  return {
    role,
    keys: sharedKeys(new Uint8Array(32).fill(5)),
    modes: 0,
    serverIp: SERVER_IP,
    clientIp: CLIENT_IP,
    ciphers: 3,
    ipv6: false,
    mtu: 0,
    rekeyAfterMs: REKEY_AFTER_MS,
    sources: undefined,
    links: [{ ...PLAIN_LINK, name: 'lo' }],
    realtime: [],
  };
}

/** A tun device that gives `due` numbered packets, and counts what is written to it. */
export class CountingTun implements Tun {
  due = 0;
  written = 0;
  private number = 0;
  private readable: (() => void) | undefined = undefined;

  read(ring: Uint8Array, start: number, headroom: number, table: PacketTable): number {
    let at = start + headroom;
    let count = 0;
    for (; count < 64 && this.due > 0; count++, this.due--) {
      const packet = ring.subarray(at, at + PACKET_BYTES);
      packet.fill(0);
      packet[0] = 0x45;
      packet[2] = PACKET_BYTES >>> 8;
      packet[3] = PACKET_BYTES & 0xff;
      packet.set(CLIENT_IP, 12);
      packet.set(SERVER_IP, 16);
      new DataView(ring.buffer, ring.byteOffset + at).setUint32(20, ++this.number);
      table.offsets[count] = at;
      table.lengths[count] = PACKET_BYTES;
      table.flags[count] = 0;
      table.buckets[count] = 0;
      table.flows[count] = 0;
      at += headroom + PACKET_BYTES;
    }
    return count;
  }

  write(_bytes: Uint8Array, _table: PacketTable, count: number): number {
    this.written += count;
    return 0;
  }

  setMtu(): void {}

  onReadable(callback: (() => void) | undefined): void {
    this.readable = callback;
  }

  pump(): void {
    if (this.due > 0) this.readable?.();
  }
}

async function peer(port: number, count: number): Promise<void> {
  const native = withNativeCode('vpn.node', loadNative);
  const tun = new CountingTun();
  const options = {
    native,
    tun,
    openSocket: () => native.udpOpen({ ...LOOPBACK, bufferBytes: 4 * 1024 * 1024 }).handle,
    resolve: () => Promise.resolve([]),
    report: () => undefined,
  };
  const host = makeHost(options, () => tunnel.onTimer());
  const server = [endpoint(Uint8Array.of(127, 0, 0, 1), port)];
  const tunnel: Tunnel = new Tunnel(loadConfig('client'), host, [server]);
  tunnel.start();
  while (tunnel.links.length === 0) await pause(10);
  await pause(SETTLE_MS);
  console.log('ready');
  let lastMs = performance.now();
  let credit = 0;
  for (let given = 0; given < count;) {
    const nowMs = performance.now();
    credit = Math.min(MOST_AT_ONCE, credit + (nowMs - lastMs) * PER_MS);
    lastMs = nowMs;
    const now = Math.min(count - given, Math.floor(credit));
    credit -= now;
    given += now;
    tun.due += now;
    tun.pump();
    await pause(1);
  }
  while (tun.due > 0) {
    tun.pump();
    await pause(1);
  }
  await pause(SETTLE_MS);
  console.log(`sent ${count}`);
  await pause(SETTLE_MS);
  tunnel.close();
  process.exit(0);
}

export const LOOPBACK = {
  family: 4,
  dualStack: false,
  address: '127.0.0.1',
  port: 0,
  device: '',
  mark: 0,
  offload: true,
} as const;

async function clients(path: string, count: number, requests: number): Promise<void> {
  const one = (): Promise<number> =>
    new Promise((done) => {
      const socket = connect(path);
      let answers = 0;
      socket.setEncoding('utf8');
      socket.on('error', () => undefined);
      socket.on('close', () => done(answers));
      socket.write('{"command":"status"}\n');
      socket.on('data', (text: string) => {
        // One request at a time: no line of the next answer is there yet.
        if (!text.endsWith('\n')) return;
        if (++answers === requests) socket.destroy();
        else socket.write('{"command":"status"}\n');
      });
    });
  const answers = await Promise.all(Array.from({ length: count }, one));
  console.log(`answers ${answers.reduce((sum, some) => sum + some, 0)}`);
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

if (process.argv[1] === import.meta.filename) {
  const [role, ...words] = process.argv.slice(2);
  if (role === 'peer') await peer(Number(words[0]), Number(words[1]));
  else await clients(words[0], Number(words[1]), Number(words[2]));
}
