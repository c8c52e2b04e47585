/** A client and a server over one link of the simulated network (sim.ts), and the packets they carry. */
import { PLAIN_LINK, type TunnelConfig } from '../src/peering.ts';
import { REKEY_AFTER_MS } from '../src/constants.ts';
import type { TunnelEvent } from '../src/host.ts';
import { sharedKeys } from '../src/sharedkey.ts';
import { Tunnel } from '../src/vpn.ts';
import { path, SimWorld, type Path, type SimEnd } from './sim.ts';

export const SERVER_IP = Uint8Array.of(192, 168, 192, 254);
export const CLIENT_IP = Uint8Array.of(192, 168, 192, 1);
export const BOTH_CIPHERS = 3;

export interface Setting {
  readonly world: SimWorld;
  readonly client: SimEnd;
  readonly server: SimEnd;
}

export function config(
  role: 'client' | 'server',
  changes: Partial<TunnelConfig> = {},
): TunnelConfig {
  const isServer = role === 'server';
  return {
    role,
    keys: sharedKeys(new Uint8Array(32).fill(9)),
    modes: 0,
    serverIp: SERVER_IP,
    clientIp: CLIENT_IP,
    ciphers: BOTH_CIPHERS,
    ipv6: false,
    mtu: 0,
    rekeyAfterMs: REKEY_AFTER_MS,
    sources: isServer ? [{ address: CLIENT_IP, bits: 32 }] : undefined,
    links: [PLAIN_LINK],
    realtime: [],
    ...changes,
  };
}

export function startServer(end: SimEnd, changes: Partial<TunnelConfig> = {}): void {
  end.tunnel = new Tunnel(config('server', changes), end.host, []);
  end.tunnel.start();
}

export function startClient(
  end: SimEnd,
  server: SimEnd,
  changes: Partial<TunnelConfig> = {},
): void {
  end.resolved = [server.address];
  end.tunnel = new Tunnel(config('client', changes), end.host, [[server.address]]);
  end.tunnel.start();
}

/** Both ends, started. */
export function setting(
  seed: number,
  both: Partial<Path> = {},
  changes: Partial<TunnelConfig> = {},
): Setting {
  const world = new SimWorld(seed);
  const client = world.add('198.51.100.2', 40_000, path(both));
  const server = world.add('203.0.113.1', 443, path(both));
  startServer(server, changes);
  startClient(client, server, changes);
  return { world, client, server };
}

/** An IPv4 packet of `size` bytes; `tag` tells packets apart. */
export function packet(
  source: Uint8Array,
  destination: Uint8Array,
  size: number,
  tag: number,
): Uint8Array {
  const bytes = new Uint8Array(size);
  bytes[0] = 0x45;
  bytes[2] = size >>> 8;
  bytes[3] = size;
  bytes[8] = 64;
  bytes[9] = 17;
  bytes.set(source, 12);
  bytes.set(destination, 16);
  for (let i = 20; i < size; i++) bytes[i] = (tag * 31 + i) & 0xff;
  new DataView(bytes.buffer).setUint32(20, tag);
  return bytes;
}

export const outgoing = (tag: number, size = 200): Uint8Array =>
  packet(CLIENT_IP, SERVER_IP, size, tag);
export const incoming = (tag: number, size = 200): Uint8Array =>
  packet(SERVER_IP, CLIENT_IP, size, tag);
export const tagOf = (bytes: Uint8Array): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(20);
/** Without the attempts, of which there are many. */
export const kinds = (end: SimEnd): string[] =>
  end.events.map((event: TunnelEvent) => event.kind).filter((kind) => kind !== 'handshake');

/** Sends `count` packets each way, one a millisecond, and says which tags arrived, in order. */
export async function exchange(
  { world, client, server }: Setting,
  count: number,
  first = 1,
): Promise<{ atServer: number[]; atClient: number[] }> {
  client.delivered.length = 0;
  server.delivered.length = 0;
  for (let i = 0; i < count; i++) {
    client.inject(outgoing(first + i));
    server.inject(incoming(first + i));
    await world.clock.run(1);
  }
  await world.clock.run(1_500);
  return { atServer: server.delivered.map(tagOf), atClient: client.delivered.map(tagOf) };
}

export const range = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i);
