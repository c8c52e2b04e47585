/**
 * Somebody on the path who sends a client's datagrams on from other addresses, and sooner: what goes to those
 * addresses, and what becomes of the tunnel (PROTOCOL §6, §7).
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { endpoint, formatEndpoint, parseIp } from './address.ts';
import { Random } from '../test/random.ts';
import type { SimWorld } from '../test/sim.ts';
import { exchange, kinds, range, setting, type Setting } from '../test/simends.ts';

const VICTIMS = [1, 2, 3].map((i) => endpoint(parseIp(`192.0.2.${i}`)!, 6_000 + i));
/** Of IPv4 and of IPv6 with UDP; and UDP's payload alone. */
const OUTER_BYTES = [0, 28, 48];

interface Sums {
  readonly bytes: number;
  readonly datagrams: number;
}
const NONE: Sums = { bytes: 0, datagrams: 0 };

class Relay {
  /** Which of the client's datagrams go on from which address; none while undefined. */
  victim: () => Uint8Array | undefined = () => undefined;
  /** Whether what is sent on arrives as well, later. */
  doesDrop = false;
  readonly from = new Map<string, Sums>();
  readonly to = new Map<string, Sums>();
  private readonly relayed = new WeakSet<Uint8Array>();

  constructor({ world, client, server }: Setting) {
    world.onSent = (from, bytes, to) => {
      if (from === server) this.sentBack(to, bytes.length);
      const victim = from === client ? this.victim() : undefined;
      if (victim === undefined) return;
      this.relayed.add(bytes);
      const copy = bytes.slice();
      world.clock.at(world.clock.nowMs + 1, () => {
        add(this.from, formatEndpoint(victim), copy.length);
        server.arrive(copy, victim);
      });
    };
    world.isDropped = (_from, bytes) => this.doesDrop && this.relayed.has(bytes);
  }

  private sentBack(to: Uint8Array, size: number): void {
    const name = formatEndpoint(to);
    if (!VICTIMS.some((victim) => formatEndpoint(victim) === name)) return;
    add(this.to, name, size);
    const { from } = this;
    for (const outer of OUTER_BYTES) {
      const sum = ({ bytes, datagrams }: Sums): number => bytes + outer * datagrams;
      const [came, went] = [sum(from.get(name) ?? NONE), sum(this.to.get(name)!)];
      assert.ok(went <= 3 * came, `${went} bytes to ${name}, from where ${came} came (+ ${outer})`);
    }
  }
}

function add(sums: Map<string, Sums>, name: string, size: number): void {
  const { bytes, datagrams } = sums.get(name) ?? NONE;
  sums.set(name, { bytes: bytes + size, datagrams: datagrams + 1 });
}

async function checkUnharmed(ends: Setting): Promise<void> {
  const { atServer, atClient } = await exchange(ends, 20);
  // What is sent on may overtake the rest.
  for (const tags of [atServer, atClient]) {
    assert.deepEqual(
      tags.toSorted((a, b) => a - b),
      range(1, 20),
    );
  }
}

async function untilIdle(world: SimWorld): Promise<void> {
  await world.clock.run(5_000);
}

describe('a client whose datagrams come from elsewhere too', () => {
  for (const share of [1, 0.5, 0.05]) {
    it(`${share * 100} % of them: three times as much goes there, nothing moves, all is delivered`, async () => {
      for (let seed = 1; seed <= 6; seed++) {
        const ends = setting(seed, { jitterMs: seed % 2 }, { rekeyAfterMs: 4_000 });
        const { world, server } = ends;
        const relay = new Relay(ends);
        await world.clock.run(3_000);
        const random = new Random(seed);
        relay.victim = () =>
          random.next() < share ? VICTIMS[random.below(1 + (seed % VICTIMS.length))] : undefined;
        for (let round = 0; round < 5; round++) {
          await checkUnharmed(ends);
          await world.clock.run(3_000);
        }
        assert.ok(relay.from.size > 0 && relay.to.size > 0, `seed ${seed}: nobody was asked`);
        assert.ok(!kinds(server).includes('moved'), `seed ${seed}`);
        relay.victim = () => undefined;
        await untilIdle(world);
        await checkUnharmed(ends);
      }
    });
  }

  it('now and then, and from nowhere else meanwhile: no more follows than that is good for', async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const ends = setting(seed);
      const { world, client, server } = ends;
      const relay = new Relay(ends);
      await world.clock.run(3_000);
      for (let round = 0; round < 10; round++) {
        // The next datagram of the client goes on from elsewhere; all others are lost, and so the answer
        // that would tell the server that the client is where it was.
        let isOver = false;
        relay.victim = () => (isOver ? undefined : VICTIMS[round % VICTIMS.length]);
        world.isDropped = (from) => {
          if (from === client) isOver = true;
          return from === client;
        };
        await world.clock.run(2_600 + 100 * seed);
        relay.victim = () => undefined;
        world.isDropped = () => false;
        await untilIdle(world);
      }
      assert.ok(!kinds(server).includes('moved'), `seed ${seed}`);
      for (const victim of VICTIMS) {
        assert.ok(relay.to.get(formatEndpoint(victim))!.datagrams > 2, `seed ${seed}: was asked`);
      }
      await checkUnharmed(ends);
    }
  });

  for (const doesDrop of [false, true]) {
    const what = doesDrop ? 'instead' : 'first';
    it(`from the beginning, ${what}: no more goes there either, and all is well when it ends`, async () => {
      for (let seed = 1; seed <= 6; seed++) {
        const ends = setting(seed, { jitterMs: seed % 2 });
        const relay = new Relay(ends);
        relay.doesDrop = doesDrop;
        const random = new Random(seed);
        // Now and then a datagram gets through, or there would never be a session.
        relay.victim = () => (random.below(10) > 0 ? VICTIMS[0] : undefined);
        await ends.world.clock.run(60_000);
        assert.ok(relay.to.size > 0, `seed ${seed}: nobody was asked`);
        relay.victim = () => undefined;
        await untilIdle(ends.world);
        await checkUnharmed(ends);
      }
    });
  }

  it('once, its first datagram: no more than three datagrams follow it, however long nothing else comes', async () => {
    for (const doesDrop of [false, true]) {
      const ends = setting(7);
      const { world, client } = ends;
      const relay = new Relay(ends);
      relay.doesDrop = doesDrop;
      const inner = world.isDropped;
      let isOver = false;
      relay.victim = () => VICTIMS[0];
      world.isDropped = (from, bytes) => {
        const isDatagram = from === client && (bytes[0] & 0xf0) === 0x80;
        if (isDatagram && !isOver) {
          isOver = true;
          relay.victim = () => undefined;
          return inner(from, bytes);
        }
        return isOver && from === client ? true : inner(from, bytes);
      };
      await world.clock.run(170_000);
      const name = formatEndpoint(VICTIMS[0]);
      assert.ok(isOver && (relay.to.get(name)?.datagrams ?? 0) > 1, 'it was the endpoint');
      world.isDropped = () => false;
      await untilIdle(world);
      await checkUnharmed(ends);
    }
  });
});
