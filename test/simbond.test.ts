/** The simulated network of bonding: its parts, and that a single link gives what it gave in namespaces. */
import assert from 'node:assert/strict';
import { constants as os } from 'node:os';
import { describe, it } from 'node:test';
import { datagramTable, ENDPOINT_BYTES, packetTable, type PacketTable } from '../src/batch.ts';
import type { LinkSocket } from '../src/host.ts';
import { profileNamed, type LinkFigures } from './profiles.ts';
import { Random } from './random.ts';
import { Clock } from './sim.ts';
import { SimBond } from './simbond.ts';
import { Flows, Ping, Steady, type Way } from './simflows.ts';
import { measure, type Run } from './simrun.ts';

const BASE = profileNamed('baseline').a;

function runOver(links: readonly LinkFigures[], changes: Partial<Run> = {}): Run {
  return { links, streams: 1, way: 'up', startMs: 3_000, measureMs: 10_000, seed: 1, ...changes };
}

describe('the clock', () => {
  it('runs events in time order, and in the order they were made where times are equal', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      const clock = new Clock();
      const ran: { atMs: number; order: number }[] = [];
      const made: { atMs: number; order: number }[] = [];
      const make = (): void => {
        const event = { atMs: clock.nowMs + random.below(20), order: made.length };
        made.push(event);
        clock.at(event.atMs, () => {
          ran.push(event);
          if (made.length < 400 && random.next() < 0.7) make();
        });
      };
      for (let i = 0; i < 100; i++) make();
      await clock.run(1_000);
      const sorted = made.toSorted((a, b) => a.atMs - b.atMs || a.order - b.order);
      assert.deepEqual(ran, sorted, `seed ${seed}`);
    }
  });

  it('lets a promise settle before the next event', async () => {
    const clock = new Clock();
    const order: string[] = [];
    clock.at(1_001, () => {
      clock.settle();
      void Promise.resolve()
        .then(() => Promise.resolve())
        .then(() => void order.push('promise'));
    });
    clock.at(1_001, () => void order.push('event'));
    await clock.run(5);
    assert.deepEqual(order, ['promise', 'event']);
  });
});

describe('an end', () => {
  it('is woken at whole milliseconds, not before its time, and by the earliest wish', async () => {
    const net = new SimBond({ figures: [BASE], seed: 1 });
    const woken: number[] = [];
    net.client.tunnel = { onTimer: () => void woken.push(net.clock.nowMs) } as never;
    const { host } = net.client;
    await net.clock.run(0.25);
    host.wakeAt(1_007.1);
    host.wakeAt(1_003.5);
    host.wakeAt(1_005);
    await net.clock.run(20);
    host.wakeAt(net.clock.nowMs);
    await net.clock.run(20);
    host.wakeAt(net.clock.nowMs + 5);
    host.wakeAt(Number.POSITIVE_INFINITY);
    await net.clock.run(20);
    assert.deepEqual(woken, [1_004, 1_021]);
  });

  it('drops what its tun device has no room for, and gives the rest in order', () => {
    const { client } = new SimBond({ figures: [BASE], seed: 1 });
    for (let i = 0; i < 503; i++) client.inject(new Uint8Array(100).fill(i), i & 255, i);
    assert.equal(client.tunDrops, 3);
    const table = packetTable();
    const ring = new Uint8Array(100_000);
    assert.equal(client.host.tun.read(ring, 0, 16, table, new Uint8Array(16)), 500);
    for (let i = 0; i < 500; i++) {
      const row = [table.lengths[i], table.buckets[i], table.flows[i], ring[table.offsets[i]]];
      assert.deepEqual(row, [100, i & 255, i, i & 255]);
    }
  });
});

describe('links', () => {
  /** Sockets of both ends without tunnels; the server answers every datagram with its first byte. */
  function sockets(count: number): {
    net: SimBond;
    ask: (link: number, tag: number, bytes?: number) => number;
    answers: [link: number, tag: number][];
  } {
    const net = new SimBond({ figures: Array.from({ length: count }, () => BASE), seed: 1 });
    const answers: [number, number][] = [];
    const table = datagramTable();
    const slab = new Uint8Array(1_000_000);
    const transmit = (
      socket: LinkSocket,
      bytes: Uint8Array,
      to: Uint8Array,
      at: number,
    ): number => {
      socket.send(bytes, Uint32Array.of(0), Uint16Array.of(bytes.length), 0, 1, to, at);
      return socket.errno();
    };
    const nothing = (): void => {};
    const server = net.server.host.openLink(
      0,
      () => {
        const arrived = server.receive(slab, 0, slab.length, table);
        for (let i = 0; i < arrived; i++) {
          const answer = slab.slice(table.offsets[i], table.offsets[i] + 1);
          transmit(server, answer, table.endpoints, table.sources[i] * ENDPOINT_BYTES);
        }
      },
      nothing,
    )!;
    const clients = net.links.map((_link, link) => {
      const socket = net.client.host.openLink(
        link,
        () => {
          const arrived = socket.receive(slab, 0, slab.length, table);
          for (let i = 0; i < arrived; i++) answers.push([link, slab[table.offsets[i]]]);
        },
        nothing,
      )!;
      return socket;
    });
    const ask = (link: number, tag: number, bytes = 100): number =>
      transmit(clients[link], new Uint8Array(bytes).fill(tag), net.serverEndpoint, 0);
    return { net, ask, answers };
  }

  it('lead from each address of the client to the one of the server, and back to where it came from', async () => {
    const { net, ask, answers } = sockets(3);
    net.links[1].set({ delayMs: 5 });
    for (const link of [0, 1, 2]) ask(link, 10 + link);
    await net.clock.run(100);
    assert.deepEqual(answers, [
      [1, 11],
      [0, 10],
      [2, 12],
    ]);
  });

  it('count 28 bytes of IP and UDP for each datagram, and refuse what is longer than 1500', async () => {
    const { net, ask } = sockets(1);
    assert.equal(ask(0, 1, 1_473), os.errno.EMSGSIZE);
    assert.equal(ask(0, 1, 1_472), 0);
    await net.clock.run(100);
    assert.equal(net.links[0].up.deliveredBytes, 1_500);
    assert.equal(net.links[0].down.deliveredBytes, 29);
  });

  it('may be cut one way, be rebound by a NAT, fail here, or not be there', async () => {
    const { net, ask, answers } = sockets(3);
    net.links[0].down.set({ isCut: true });
    // The answer to the first address finds nobody, as it has another when that arrives.
    ask(1, 1);
    net.clock.at(net.clock.nowMs + 30, () => net.links[1].rebind(50_000));
    net.links[2].errno = os.errno.ENETDOWN;
    assert.equal(ask(2, 2), os.errno.ENETDOWN);
    ask(0, 3);
    await net.clock.run(100);
    ask(1, 4);
    await net.clock.run(100);
    assert.deepEqual(answers, [[1, 4]]);
    assert.equal(net.links[0].up.deliveredBytes, 128);
    net.client.missing.add(2);
    assert.equal(
      net.client.host.openLink(
        2,
        () => {},
        () => {},
      ),
      undefined,
    );
  });
});

describe('flows', () => {
  it('find out what is damaged, delivered twice or overtaken', () => {
    const net = new SimBond({ figures: [BASE], seed: 1 });
    const flows = new Flows(net);
    const number = flows.add(() => {});
    const packets = [0, 1, 2, 3].map(() => {
      const packet = new Uint8Array(100);
      packet[99] = number;
      flows.send(packet, 'up');
      return packet;
    });
    const deliver = (packet: Uint8Array): void => {
      const table: PacketTable = packetTable(1);
      table.lengths[0] = packet.length;
      net.server.host.tun.write(packet, table, 1);
    };
    for (const i of [0, 2, 1, 2]) deliver(packets[i]!);
    deliver(packets[3]!.subarray(10));
    const { damaged, duplicated, overtaken } = flows;
    assert.deepEqual(
      { damaged, duplicated, overtaken },
      { damaged: 1, duplicated: 1, overtaken: 1 },
    );
  });

  it('are answered: a ping over a link takes its delay twice, and a steady flow its rate', async () => {
    const net = new SimBond({ figures: [BASE], seed: 1 });
    await net.connect();
    const flows = new Flows(net);
    const ping = new Ping(flows, 'up', 100);
    const voice = { mbit: 2, bytes: 200, isExpedited: true, port: 5_060 };
    const steady = new Steady(flows, 'down', voice);
    await net.clock.run(10_000);
    assert.ok(
      ping.rttMs.every((ms) => ms >= 40 && ms < 42),
      `${Math.max(...ping.rttMs)} ms`,
    );
    assert.equal(ping.sent, 101);
    // 2 Mbit/s are 1250 packets of 200 bytes per second; those of the last 20 ms, and one in
    // the queue, are on their way.
    assert.equal(steady.sent, 12_501);
    assert.equal(steady.received, 12_501 - 26);
  });
});

describe('a tunnel over one link', () => {
  // What `vpn` gave between namespaces (test/bonding-bench.ts).
  const rows: readonly (readonly [name: string, figures: LinkFigures, way: Way, mbit: number])[] = [
    ['baseline', BASE, 'up', 46.24],
    ['bw_4to1, link B', profileNamed('bw_4to1').b, 'down', 11.08],
    ['fiber_lte, link A', profileNamed('fiber_lte').a, 'down', 277.29],
  ];
  for (const [name, figures, way, measured] of rows) {
    it(`${name}: within 3 % of ${measured} Mbit/s`, async () => {
      const { mbit } = await measure(runOver([figures], { way }));
      assert.ok(Math.abs(mbit / measured - 1) < 0.03, `${mbit.toFixed(2)} Mbit/s ${way}`);
    });
  }

  it('is the same for the same seed, sealed or not, and another for another', async () => {
    const run = runOver([profileNamed('jit_5').a], { streams: 2 });
    const result = await measure(run);
    assert.deepEqual(await measure(run), result);
    assert.deepEqual(await measure({ ...run, isSealed: true }), result);
    assert.notDeepEqual((await measure({ ...run, seed: 2 })).perStream, result.perStream);
  });

  it('delivers nothing damaged and nothing twice, whatever the link does', async () => {
    for (const name of ['jit_5', 'jit_20', 'loss_2', 'congested']) {
      const result = await measure(runOver([profileNamed(name).a], { seed: 3 }));
      assert.equal(result.damaged + result.duplicated, 0, name);
      assert.ok(result.linkStats[0]!.up.lost + result.overtaken > 0, name);
    }
  });
});
