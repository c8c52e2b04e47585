/**
 * `vpn selftest`: whether this build works on this machine, without privileges and without changing it.
 * Both ciphers against a second implementation, then two ends over loopback, with tun devices that
 * are mere queues, through several changes of keys.
 */
import { createDecipheriv } from 'node:crypto';
import { endpoint } from './address.ts';
import { withNativeCode } from './assets.ts';
import { NONCE_BYTES, sealTable, type PacketTable } from './batch.ts';
import { isEqual, KEY_BYTES, random, TAG_BYTES } from './crypto.ts';
import { sharedKeys } from './sharedkey.ts';
import type { Tun, TunnelEvent } from './host.ts';
import { Cipher, loadNative, type Handle, type Native } from './native.ts';
import { EXIT_SUCCESS, Failure, print } from './report.ts';
import { makeHost } from './runtime.ts';
import { PLAIN_LINK } from './peering.ts';
import { Tunnel } from './vpn.ts';

const SERVER_IP = Uint8Array.of(192, 168, 192, 254);
const CLIENT_IP = Uint8Array.of(192, 168, 192, 1);
const LOOPBACK = Uint8Array.of(127, 0, 0, 1);
const PACKET_BYTES = 1_400;
const HEADER_BYTES = 9;
const DEFAULT_REKEY_MS = 500;
const REKEYS = 4;
/** Packets under way each way: a window, so that nothing depends on the machine's speed. */
const WINDOW = 64;
const NOTHING = new Uint8Array(0);
/** By the names that node:crypto has for them. */
const CIPHERS = [
  [Cipher.aes256Gcm, 'aes-256-gcm'],
  [Cipher.chacha20Poly1305, 'chacha20-poly1305'],
] as const;
/** Longer than any machine needs; then something is wrong. */
const LIMIT_MS = 60_000;

/** `rekeyMs`: how often keys are renewed. Throws a `Failure` for whatever does not work. */
export async function selftest(rekeyMs = DEFAULT_REKEY_MS): Promise<number> {
  const native = withNativeCode('vpn.node', loadNative);
  for (const [cipher, name] of CIPHERS) checkCipher(native, cipher, name);
  for (const [cipher, name] of CIPHERS) {
    const { packets, rekeys } = await checkTunnel(native, cipher, rekeyMs);
    print(`two ends over loopback, ${name}: ${packets} packets, ${rekeys} rekeys: ok\n`);
  }
  print('selftest passed\n');
  return EXIT_SUCCESS;
}

/** What the addon seals, OpenSSL by way of node:crypto must open; what was altered nobody may. */
function checkCipher(
  native: Native,
  cipher: number,
  name: 'aes-256-gcm' | 'chacha20-poly1305',
): void {
  const key = new Uint8Array(KEY_BYTES);
  const plaintext = new Uint8Array(PACKET_BYTES);
  const slab = new Uint8Array(HEADER_BYTES + PACKET_BYTES + TAG_BYTES);
  random(key);
  random(plaintext);
  random(slab);
  const table = sealTable(1);
  random(table.nonces);
  table.sizes[0] = PACKET_BYTES;
  const handle = native.aeadCreate(cipher, key);
  native.seal(handle, plaintext, slab, HEADER_BYTES, table, 1);
  const nonce = table.nonces.subarray(0, NONCE_BYTES);
  const isSealed = isGenuine(name, key, nonce, slab, HEADER_BYTES, plaintext);
  // The same in the clear (PROTOCOL §5.6): all in front of the tag is associated data.
  random(table.nonces);
  native.authenticate(handle, plaintext, slab, HEADER_BYTES, table, 1);
  const packet = slab.subarray(HEADER_BYTES, HEADER_BYTES + PACKET_BYTES);
  const isReadable = isEqual(packet, plaintext);
  const isAuthentic = isGenuine(name, key, nonce, slab, HEADER_BYTES + PACKET_BYTES, NOTHING);
  native.aeadFree(handle);
  if (!isSealed || !isReadable || !isAuthentic) {
    throw new Failure(`cipher ${name}`, 'two implementations disagree', 'do not use this build');
  }
  print(`cipher ${name}: ok\n`);
}

/** Whether node:crypto opens `datagram`, of which the first `adBytes` are associated data, to `plaintext`. */
function isGenuine(
  name: 'aes-256-gcm' | 'chacha20-poly1305',
  key: Uint8Array,
  nonce: Uint8Array,
  datagram: Uint8Array,
  adBytes: number,
  plaintext: Uint8Array,
): boolean {
  const end = datagram.length - TAG_BYTES;
  // The two overloads of createDecipheriv differ in nothing that matters here.
  const decipher = createDecipheriv(name as 'chacha20-poly1305', key, nonce, {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(datagram.subarray(0, adBytes), { plaintextLength: end - adBytes });
  const opened = decipher.update(datagram.subarray(adBytes, end));
  decipher.setAuthTag(datagram.subarray(end));
  try {
    decipher.final();
  } catch {
    return false;
  }
  return opened.equals(plaintext);
}

/** A tun device that is a queue: numbered packets in, and checked on the other side. */
class QueueTun implements Tun {
  /** Number of the last packet that was delivered here. */
  received = 0;
  error = '';
  private sent = 0;
  private readonly source: Uint8Array;
  private readonly destination: Uint8Array;
  private readonly acknowledged: () => number;
  private readable: (() => void) | undefined = undefined;

  /** `acknowledged` tells how far the other side has come. */
  constructor(source: Uint8Array, destination: Uint8Array, acknowledged: () => number) {
    this.source = source;
    this.destination = destination;
    this.acknowledged = acknowledged;
  }

  read(ring: Uint8Array, start: number, headroom: number, table: PacketTable): number {
    let count = 0;
    let at = start + headroom;
    while (count < WINDOW && this.sent < this.acknowledged() + WINDOW) {
      this.sent++;
      const packet = ring.subarray(at, at + PACKET_BYTES);
      packet.fill(0);
      packet[0] = 0x45;
      packet[2] = PACKET_BYTES >>> 8;
      packet[3] = PACKET_BYTES & 0xff;
      packet.set(this.source, 12);
      packet.set(this.destination, 16);
      new DataView(ring.buffer, ring.byteOffset + at).setUint32(20, this.sent);
      table.offsets[count] = at;
      table.lengths[count] = PACKET_BYTES;
      table.flags[count] = 0;
      table.buckets[count] = 0;
      table.flows[count] = 0;
      at += headroom + PACKET_BYTES;
      count++;
    }
    return count;
  }

  write(bytes: Uint8Array, table: PacketTable, count: number): number {
    for (let i = 0; i < count; i++) {
      const number = new DataView(bytes.buffer, table.offsets[i]).getUint32(20);
      if (number !== this.received + 1) {
        this.error = `packet ${this.received + 1} expected, ${number} came`;
      }
      this.received = number;
    }
    return 0;
  }

  setMtu(): void {}

  onReadable(callback: (() => void) | undefined): void {
    this.readable = callback;
  }

  /** Lets the tunnel read. */
  pump(): void {
    this.readable?.();
  }
}

async function checkTunnel(
  native: Native,
  cipher: number,
  rekeyAfterMs: number,
): Promise<{ readonly packets: number; readonly rekeys: number }> {
  const key = new Uint8Array(KEY_BYTES);
  random(key);
  let rekeys = 0;
  let serverPort = 0;
  const serverTun = new QueueTun(SERVER_IP, CLIENT_IP, () => clientTun.received);
  const clientTun: QueueTun = new QueueTun(CLIENT_IP, SERVER_IP, () => serverTun.received);
  const make = (role: 'client' | 'server', tun: Tun): Tunnel => {
    const report = (event: TunnelEvent): void => {
      if (role === 'client' && event.kind === 'rekeyed') rekeys++;
    };
    const options = {
      native,
      tun,
      openSocket: () => {
        const { handle, port } = openLoopback(native);
        if (role === 'server') serverPort = port;
        return handle;
      },
      resolve: () => Promise.resolve([]),
      report,
    };
    const host = makeHost(options, () => tunnel.onTimer());
    const peer = role === 'client' ? [endpoint(LOOPBACK, serverPort)] : [];
    const tunnel: Tunnel = new Tunnel(
      {
        role,
        keys: sharedKeys(key),
        modes: 0,
        serverIp: SERVER_IP,
        clientIp: CLIENT_IP,
        ciphers: 1 << (cipher - 1),
        ipv6: false,
        mtu: 0,
        rekeyAfterMs,
        sources: role === 'server' ? [{ address: CLIENT_IP, bits: 32 }] : undefined,
        links: [PLAIN_LINK],
        realtime: [],
      },
      host,
      [peer],
    );
    tunnel.start();
    return tunnel;
  };
  const server = make('server', serverTun);
  const client = make('client', clientTun);
  const startedMs = performance.now();
  try {
    while (rekeys < REKEYS) {
      await new Promise((done) => setImmediate(done));
      if (client.links.length > 0) clientTun.pump();
      if (server.links.length > 0) serverTun.pump();
      const error = serverTun.error || clientTun.error;
      if (error !== '') throw new Failure('two ends over loopback', error, 'do not use this build');
      if (performance.now() - startedMs > LIMIT_MS) {
        const why = `only ${rekeys} of ${REKEYS} rekeys in ${LIMIT_MS / 1000} s`;
        throw new Failure('two ends over loopback', why, 'allow UDP on 127.0.0.1');
      }
    }
    return { packets: serverTun.received + clientTun.received, rekeys };
  } finally {
    client.close();
    server.close();
  }
}

function openLoopback(native: Native): { readonly handle: Handle; readonly port: number } {
  return native.udpOpen({
    family: 4,
    dualStack: false,
    address: '127.0.0.1',
    port: 0,
    device: '',
    mark: 0,
    offload: true,
    bufferBytes: 1024 * 1024,
  });
}
