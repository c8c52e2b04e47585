/** Two ends that carry Ethernet frames (PROTOCOL §5.7), over a simulated network and a virtual clock. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BROADCAST, frame, framed, STATION, TAGS, TYPE } from '../test/frames.ts';
import { craft } from '../test/packets.ts';
import { Random } from '../test/random.ts';
import { path, SimWorld, type Path, type SimEnd } from '../test/sim.ts';
import { REKEY_AFTER_MS } from './constants.ts';
import { PLAIN_LINK, type TunnelConfig } from './peering.ts';
import { sharedKeys } from './sharedkey.ts';
import { Tunnel } from './vpn.ts';
import { HEADER_BYTES, INNER_BYTES, Mode } from './wire.ts';

const SEED = 8;
const UDP_IPV4_BYTES = 28;
const TAG_BYTES = 16;

interface Ends {
  readonly world: SimWorld;
  readonly client: SimEnd;
  readonly server: SimEnd;
}

function config(role: 'client' | 'server', changes: Partial<TunnelConfig>): TunnelConfig {
  return {
    role,
    keys: sharedKeys(new Uint8Array(32).fill(9)),
    modes: Mode.ethernet,
    serverIp: Uint8Array.of(10, 42, 43, 1),
    clientIp: Uint8Array.of(10, 42, 43, 2),
    ciphers: 3,
    ipv6: false,
    mtu: 0,
    rekeyAfterMs: REKEY_AFTER_MS,
    // Of a tun, they would let nothing in.
    sources: role === 'server' ? [] : undefined,
    links: [PLAIN_LINK],
    realtime: [],
    ...changes,
  };
}

async function ends(both: Partial<Path>, changes: Partial<TunnelConfig> = {}): Promise<Ends> {
  const world = new SimWorld(SEED);
  const client = world.add('198.51.100.2', 40_000, path(both));
  const server = world.add('203.0.113.1', 443, path(both));
  for (const [end, role] of [
    [server, 'server'],
    [client, 'client'],
  ] as const) {
    end.resolved = [server.address];
    const known = role === 'client' ? [[server.address]] : [];
    end.tunnel = new Tunnel(config(role, changes), end.host, known);
    end.tunnel.start();
  }
  await world.clock.run(15_000);
  assert.ok(client.events.some(({ kind }) => kind === 'connected'));
  return { world, client, server };
}

/** Sends them both ways; what arrived must be what was sent, each once and in order. */
async function carries({ world, client, server }: Ends, frames: readonly Buffer[]): Promise<void> {
  client.delivered.length = 0;
  server.delivered.length = 0;
  for (const bytes of frames) {
    client.inject(bytes);
    server.inject(bytes);
    await world.clock.run(1);
  }
  await world.clock.run(1_500);
  const hex = (all: readonly Uint8Array[]): readonly string[] =>
    all.map((bytes) => Buffer.from(bytes).toString('hex'));
  assert.deepEqual(hex(server.delivered), hex(frames));
  assert.deepEqual(hex(client.delivered), hex(frames));
}

/** The buckets of the simulated device are the last byte of each: one here, so that the order is one. */
const payload = (bytes: number): Buffer => Buffer.alloc(bytes, 1);
const ipv4 = (bytes: number): Buffer =>
  craft({ protocol: 17, payload: payload(bytes), partial: false });

describe('two ends with taps', () => {
  it('carry frames of any kind, from and to anybody', async () => {
    const found = await ends({});
    await carries(found, [
      framed(ipv4(100)),
      framed(ipv4(100), { tags: TAGS.two }),
      frame({ to: BROADCAST, type: TYPE.arp, payload: payload(28) }),
      frame({ to: [0x33, 0x33, 0, 0, 0, 1], type: TYPE.ipv6, payload: payload(40) }),
      frame({ from: STATION.b, to: STATION.a, type: 0x88cc, payload: payload(1) }),
      // 14 bytes are the least; the last is the bucket.
      frame({ type: 0x8801, payload: new Uint8Array(0) }),
    ]);
    const { client, server } = found;
    for (const { tunnel } of [client, server]) {
      assert.equal(tunnel!.counters.malformed + tunnel!.counters.foreign, 0);
    }
  });

  it('pass whatever is as long as a header, and nothing shorter', async () => {
    const { world, client, server } = await ends({});
    const random = new Random(SEED);
    const all = Array.from({ length: 400 }, (_, i) => {
      const bytes = Buffer.alloc(i % 2 === 0 ? 1 + random.below(30) : 1 + random.below(1522));
      random.fill(bytes);
      return bytes;
    });
    for (const bytes of all) {
      client.inject(bytes);
      await world.clock.run(1);
    }
    await world.clock.run(2_000);
    // Their last bytes are their buckets: in order only among those of one.
    const sorted = (frames: readonly Uint8Array[]): readonly string[] =>
      frames.map((bytes) => Buffer.from(bytes).toString('hex')).sort();
    const whole = all.filter(({ length }) => length >= 14);
    assert.deepEqual(sorted(server.delivered), sorted(whole));
    assert.equal(server.tunnel!.counters.malformed, all.length - whole.length);
  });

  it('find the MTU whose frames, with a tag, fit the link', async () => {
    const found = await ends({ mtu: 1500 });
    const { client, server } = found;
    const most = 1500 - UDP_IPV4_BYTES - HEADER_BYTES - INNER_BYTES - TAG_BYTES - 18;
    for (const { tunMtu } of [client, server]) {
      assert.ok(tunMtu <= most && tunMtu > most - 8, `${tunMtu}, at most ${most}`);
    }
    client.keepsSent = true;
    await carries(found, [framed(ipv4(client.tunMtu - 28), { tags: TAGS.one })]);
    const large = client.sent.filter(({ bytes }) => bytes.length > 500 && bytes.length < 1400);
    assert.deepEqual(large, [], 'no halves');
  });

  it('carry full frames of a fixed MTU in halves over a link that has no room for them', async () => {
    const found = await ends({ mtu: 1400 }, { mtu: 1500 });
    const random = new Random(SEED);
    const sizes = Array.from({ length: 200 }, () => 1 + random.below(1472));
    const frames = [...sizes, 1472].map((bytes) =>
      framed(ipv4(bytes), { tags: [[], TAGS.one, TAGS.two][random.below(3)]! }),
    );
    await carries(found, frames);
    assert.equal(found.client.tunMtu, 1280, 'nothing was set');
  });

  it('repair what links lose', async () => {
    const found = await ends({ lossRatio: 0.02 });
    const { world, client, server } = found;
    // Loss is shown to both before it counts.
    for (let i = 0; i < 3_000; i++) {
      client.inject(framed(ipv4(300)));
      await world.clock.run(1);
    }
    await world.clock.run(2_000);
    server.delivered.length = 0;
    for (let i = 0; i < 1_000; i++) {
      client.inject(framed(ipv4(300), { tags: TAGS.one }));
      await world.clock.run(1);
    }
    await world.clock.run(2_000);
    assert.equal(server.delivered.length, 1_000);
  });
});
