/**
 * What a review of two ends over a simulated network (test/sim.ts) found: slow paths, peers that have
 * the key and misbehave, and what is left when a session ends half way.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encode } from 'dns-packet';
import { path, SimWorld, type SimEnd } from '../test/sim.ts';
import { endpoint, isSameRemote, parseIp } from './address.ts';
import { ENDPOINT_BYTES } from './batch.ts';
import { REKEY_AFTER_MS } from './constants.ts';
import type { Host } from './host.ts';
import type { Native } from './native.ts';
import { askServers, resolveName } from './resolve.ts';
import { sharedKeys } from './sharedkey.ts';
import { PLAIN_LINK } from './peering.ts';
import { Tunnel } from './vpn.ts';

const SERVER_IP = Uint8Array.of(192, 168, 192, 254);
const CLIENT_IP = Uint8Array.of(192, 168, 192, 1);

interface Setting {
  readonly world: SimWorld;
  readonly client: SimEnd;
  readonly server: SimEnd;
}

function start(
  end: SimEnd,
  role: 'client' | 'server',
  peers: readonly Uint8Array[],
  host: Host = end.host,
): void {
  end.resolved = peers;
  const config = {
    role,
    keys: sharedKeys(new Uint8Array(32).fill(9)),
    modes: 0,
    serverIp: SERVER_IP,
    clientIp: CLIENT_IP,
    ciphers: 3,
    ipv6: false,
    mtu: 0,
    rekeyAfterMs: REKEY_AFTER_MS,
    sources: role === 'server' ? [{ address: CLIENT_IP, bits: 32 }] : undefined,
    links: [PLAIN_LINK],
    realtime: [],
  };
  end.tunnel = new Tunnel(config, host, [peers]);
  end.tunnel.start();
}

/** Two ends, `delayMs` apart, connected. */
async function connected(seed: number, delayMs = 10): Promise<Setting> {
  const world = new SimWorld(seed);
  const client = world.add('198.51.100.2', 40_000, path({ delayMs }));
  const server = world.add('203.0.113.1', 443, path({ delayMs }));
  start(server, 'server', []);
  start(client, 'client', [server.address]);
  await world.clock.run(5_000 + 10 * delayMs);
  return { world, client, server };
}

/** An IPv4 packet of `size` bytes whose payload starts with `tag`. */
function packet(source: Uint8Array, destination: Uint8Array, tag: number, size = 100): Uint8Array {
  const bytes = new Uint8Array(size);
  bytes.set([0x45, 0, size >>> 8, size, 0, 0, 0, 0, 64, 17]);
  bytes.set(source, 12);
  bytes.set(destination, 16);
  bytes[20] = tag;
  return bytes;
}

const tags = (end: SimEnd): number[] => end.delivered.map((bytes) => bytes[20]);

/** From now on the client's datagrams leave its NAT by `port`, and nothing enters by another. */
function rebind({ world, client, server }: Setting, port: number): void {
  const outside = endpoint(parseIp('198.51.100.2')!, port);
  world.nat = (from) => (from === client.address ? outside : from);
  world.route = (to) => {
    if (to[8] === server.address[8]) return server;
    return to[2] === outside[2] && to[3] === outside[3] ? client : undefined;
  };
}

describe('a NAT that rebinds', () => {
  for (const delayMs of [10, 150, 300, 400, 700, 1_200]) {
    it(`is followed over a path of ${2 * delayMs} ms`, async () => {
      const ends = await connected(1, delayMs);
      rebind(ends, 61_000);
      await ends.world.clock.run(5_000 + 12 * delayMs);
      ends.server.inject(packet(SERVER_IP, CLIENT_IP, 7));
      ends.client.inject(packet(CLIENT_IP, SERVER_IP, 8));
      await ends.world.clock.run(2 * delayMs);
      assert.deepEqual(tags(ends.server), [8]);
      assert.deepEqual(tags(ends.client), [7]);
    });
  }
});

describe('a server that moved', () => {
  it('and restarts is found where it was heard last, though its name says otherwise', async () => {
    const { world, client, server } = await connected(4);
    server.address = endpoint(parseIp('203.0.113.99')!, 443);
    await world.clock.run(5_000);
    server.kill();
    await world.clock.run(1_000);
    start(server, 'server', []);
    await world.clock.run(10_000);
    client.inject(packet(CLIENT_IP, SERVER_IP, 5));
    await world.clock.run(1_000);
    assert.deepEqual(tags(server), [5]);
  });
});

describe('a first datagram that is repeated from the address of another', () => {
  it('brings the other little more than was sent', async () => {
    const world = new SimWorld(3);
    const client = world.add('198.51.100.2', 40_000, path());
    const server = world.add('203.0.113.1', 443, path());
    const victim = endpoint(parseIp('192.0.2.66')!, 53);
    let sent = 0;
    world.isDropped = (from, bytes) => {
      if (from !== client || (bytes[0] & 0xf0) !== 0x80 || sent > 0) return false;
      sent = bytes.length;
      server.arrive(bytes, victim);
      return true;
    };
    let received = 0;
    const send = world.send.bind(world);
    world.send = (from, bytes, to) => {
      if (isSameRemote(to, 0, victim, 0)) received += bytes.length;
      send(from, bytes, to);
    };
    start(server, 'server', []);
    start(client, 'client', [server.address]);
    await world.clock.run(5_000);
    assert.ok(sent > 0 && received <= 4 * sent, `${received} bytes for ${sent}`);
    assert.equal(server.events.filter(({ kind }) => kind === 'moved').length, 1);
    assert.ok(server.tunMtu > 1_400);
  });
});

describe("the server's name", () => {
  it('is resolved although one of the resolvers has an address of a family that is off here', async () => {
    let answer: Uint8Array = new Uint8Array(0);
    let ready = (): void => {};
    const peer = endpoint(Uint8Array.of(192, 0, 2, 53), 53);
    const native = {
      udpOpen: ({ family }: { family: number }) => {
        if (family === 6) throw Object.assign(new Error(), { code: 'EAFNOSUPPORT' });
        return { handle: 1, port: 1 };
      },
      udpSend: (_: number, query: Uint8Array, to: Uint32Array) => {
        const id = (query[0] << 8) | query[1];
        const name = 'vpn.example';
        const answers = [{ type: 'A' as const, name, data: '192.0.2.7' }];
        answer = encode({ type: 'response', id, questions: [{ type: 'A', name }], answers });
        setImmediate(ready);
        return to.length;
      },
      udpErrno: () => 0,
      udpReceive: (
        _: number,
        slab: Uint8Array,
        start: number,
        _end: number,
        table: { offsets: Uint32Array; lengths: Uint16Array; endpoints: Uint8Array },
      ) => {
        slab.set(answer, start);
        table.offsets[0] = start;
        table.lengths[0] = answer.length;
        table.endpoints.set(peer.subarray(0, ENDPOINT_BYTES));
        return 1;
      },
      poll: (_: number, _events: number, onReady: () => void) => {
        ready = onReady;
      },
      close: () => {},
    } as unknown as Native;
    const servers = [parseIp('2001:db8::53')!, parseIp('192.0.2.53')!];
    const found = await askServers(native, servers, 'vpn.example', 443, 0);
    assert.deepEqual(found, [endpoint(Uint8Array.of(192, 0, 2, 7), 443)]);
  });

  it('keeps the scope of a link-local address', async () => {
    const [found] = await resolveName('fe80::1%7', 443);
    assert.deepEqual(found, endpoint(parseIp('fe80::1')!, 443, 7));
  });
});
