/**
 * Two ends of the tunnel joined by a simulated network under a virtual clock (test/sim.ts): the whole
 * protocol, no privileges, no real time.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { endpoint as makeEndpoint, parseIp } from './address.ts';
import { PENDING_MS, PROBE_INTERVAL_MS, REJECT_AFTER_MS } from './constants.ts';
import type { TunnelConfig } from './peering.ts';
import { sharedKeys } from './sharedkey.ts';
import { MESSAGE1_BYTES, MessageType } from './wire.ts';
import { path, SimWorld } from '../test/sim.ts';
import {
  exchange,
  incoming,
  kinds,
  outgoing,
  packet,
  range,
  SERVER_IP,
  setting,
  startClient,
  startServer,
  tagOf,
} from '../test/simends.ts';

/** When a user is told that nothing comes back. */
const SILENCE_MS = 10_000;

describe('two ends', () => {
  it('connect and carry packets both ways', async () => {
    const ends = setting(1);
    await ends.world.clock.run(2_000);
    assert.equal(kinds(ends.client)[0], 'connected');
    assert.equal(kinds(ends.server)[0], 'connected');
    const { atServer, atClient } = await exchange(ends, 50);
    assert.deepEqual(atServer, range(1, 50));
    assert.deepEqual(atClient, range(1, 50));
  });

  const other = Uint8Array.of(10, 42, 42, 1);
  const none = new Uint8Array(4);
  const addresses: readonly (readonly [string, Partial<TunnelConfig>, boolean])[] = [
    ['other addresses', { serverIp: other }, false],
    ['another address of the client', { clientIp: other }, false],
    ['no addresses', { serverIp: none, clientIp: none }, true],
    ['no address of its own', { clientIp: none }, true],
  ];
  for (const [what, told, doMatch] of addresses) {
    it(`${doMatch ? 'connect' : 'do not connect'} when one was told ${what}`, async () => {
      for (const [server, client] of [
        [told, {}],
        [{}, told],
      ]) {
        const world = new SimWorld(8);
        const ends = [
          world.add('198.51.100.2', 40_000, path()),
          world.add('203.0.113.1', 443, path()),
        ];
        startServer(ends[1], server);
        startClient(ends[0], ends[1], client);
        await world.clock.run(5_000);
        const [event] = ends[0].events.filter(({ kind }) => kind !== 'handshake');
        if (doMatch) assert.equal(event.kind, 'connected');
        else assert.deepEqual(event, { kind: 'refused', why: 'addresses-differ' });
      }
    });
  }

  it('find the MTU that fits the link', async () => {
    for (const [mtu, expected] of [
      [1500, 1440],
      [1400, 1340],
    ]) {
      const ends = setting(2, { mtu });
      await ends.world.clock.run(15_000);
      for (const end of [ends.client, ends.server]) {
        assert.ok(
          end.tunMtu <= expected && end.tunMtu > expected - 8,
          `link ${mtu}: tun has ${end.tunMtu}`,
        );
      }
    }
  });

  it('carry packets of every size from 1200 to 1500 over a link of 1280', async () => {
    const ends = setting(3, { mtu: 1280 });
    await ends.world.clock.run(5_000);
    for (let size = 1200; size <= 1500; size++) {
      ends.client.inject(outgoing(size, size));
      ends.server.inject(incoming(size, size));
    }
    await ends.world.clock.run(1_000);
    assert.deepEqual(
      ends.server.delivered.map((bytes) => Buffer.from(bytes).toString('hex')),
      range(1200, 301).map((size) => Buffer.from(outgoing(size, size)).toString('hex')),
    );
    assert.equal(ends.client.delivered.length, 301);
  });
});

describe('keys', () => {
  it('are renewed without losing a packet', async () => {
    const ends = setting(4, { delayMs: 30, jitterMs: 5 }, { rekeyAfterMs: 2_000 });
    await ends.world.clock.run(1_000);
    const { atServer, atClient } = await exchange(ends, 20_000);
    assert.equal(atServer.length, 20_000);
    assert.equal(atClient.length, 20_000);
    assert.ok(kinds(ends.client).filter((kind) => kind === 'rekeyed').length >= 8);
    assert.equal(kinds(ends.client).filter((kind) => kind === 'connected').length, 1);
  });

  it('are renewed over a link that loses every fifth datagram', async () => {
    const ends = setting(5, { lossRatio: 0.2 }, { rekeyAfterMs: 2_000 });
    await ends.world.clock.run(60_000);
    assert.ok(kinds(ends.server).filter((kind) => kind === 'rekeyed').length >= 15);
    assert.equal(kinds(ends.server).filter((kind) => kind === 'connected').length, 1);
  });

  it('that never reach the server are made anew when the path is back', async () => {
    const ends = setting(30, {}, { rekeyAfterMs: 5_000 });
    const { world, client } = ends;
    await world.clock.run(2_000);
    // From the first rekey on, for longer than the server waits for the proof.
    world.isDropped = (from, bytes) => from === client && (bytes[0] & 0xf0) === 0x80;
    await world.clock.run(PENDING_MS + 5_000);
    world.isDropped = () => false;
    await world.clock.run(5_000);
    const { atServer, atClient } = await exchange(ends, 10);
    assert.deepEqual(atServer, range(1, 10));
    assert.deepEqual(atClient, range(1, 10));
  });

  it('are gone after three minutes of silence, and a new session follows by itself', async () => {
    const ends = setting(6);
    await ends.world.clock.run(2_000);
    ends.world.pathOf(ends.client).isDown = true;
    ends.world.pathOf(ends.server).isDown = true;
    await ends.world.clock.run(REJECT_AFTER_MS + 10_000);
    assert.equal(kinds(ends.client).filter((kind) => kind === 'silent').length, 1);
    ends.world.pathOf(ends.client).isDown = false;
    ends.world.pathOf(ends.server).isDown = false;
    await ends.world.clock.run(10_000);
    assert.equal(kinds(ends.client).filter((kind) => kind === 'connected').length, 2);
    const { atServer } = await exchange(ends, 10);
    assert.deepEqual(atServer, range(1, 10));
  });
});

describe('bad days', () => {
  it('an outage of a minute ends by itself', async () => {
    const ends = setting(7);
    await ends.world.clock.run(2_000);
    ends.world.pathOf(ends.server).isDown = true;
    await ends.world.clock.run(60_000);
    ends.world.pathOf(ends.server).isDown = false;
    await ends.world.clock.run(6_000);
    const { atServer, atClient } = await exchange(ends, 10);
    assert.deepEqual(atServer, range(1, 10));
    assert.deepEqual(atClient, range(1, 10));
  });

  it('a restarted server is found again', async () => {
    const ends = setting(8);
    await ends.world.clock.run(2_000);
    ends.server.kill();
    await ends.world.clock.run(1_000);
    startServer(ends.server);
    await ends.world.clock.run(6_000);
    const { atServer, atClient } = await exchange(ends, 10);
    assert.deepEqual(atServer, range(1, 10));
    assert.deepEqual(atClient, range(1, 10));
  });

  it('a client that is reset is heard again, whether or not its goodbye was', async () => {
    for (const isLost of [false, true]) {
      const ends = setting(32);
      const { world, client } = ends;
      await world.clock.run(2_000);
      await exchange(ends, 200);
      world.isDropped = () => isLost;
      client.tunnel!.reset();
      world.isDropped = () => false;
      client.tunnel!.linkUp(0);
      await world.clock.run(10_000);
      const { atServer, atClient } = await exchange(ends, 200);
      assert.deepEqual(atServer, range(1, 200), `goodbye lost: ${isLost}`);
      assert.deepEqual(atClient, range(1, 200));
    }
  });

  it('a second client with the right key is told that the server is busy, and follows when the first is gone', async () => {
    const ends = setting(9);
    await ends.world.clock.run(2_000);
    const second = ends.world.add('198.51.100.77', 5_000, path());
    startClient(second, ends.server);
    await ends.world.clock.run(20_000);
    assert.deepEqual(kinds(second), ['busy']);
    const { atServer } = await exchange(ends, 10);
    assert.deepEqual(atServer, range(1, 10));
    ends.client.tunnel!.close();
    ends.client.kill();
    await ends.world.clock.run(10_000);
    assert.ok(kinds(second).includes('connected'));
  });

  it('a wrong key gets no answer at all', async () => {
    const world = new SimWorld(10);
    const client = world.add('198.51.100.2', 40_000, path());
    const server = world.add('203.0.113.1', 443, path());
    server.keepsSent = true;
    startServer(server);
    startClient(client, server, { keys: sharedKeys(new Uint8Array(32).fill(8)) });
    await world.clock.run(30_000);
    assert.deepEqual(server.sent, []);
    assert.deepEqual(kinds(client), ['silent']);
  });

  const silences: readonly (readonly [string, (world: SimWorld) => void])[] = [
    ['is not there', () => {}],
    ['cannot be reached', (world) => void (world.isDropped = () => true)],
    ['has no address', (world) => void (world.ends[0].resolved = [])],
  ];
  for (const [what, makeSo] of silences) {
    it(`a server that ${what} is reported once, after 10 s, and asked for ever`, async () => {
      const world = new SimWorld(33);
      const client = world.add('198.51.100.2', 40_000, path());
      const server = world.add('203.0.113.1', 443, path());
      client.keepsSent = true;
      startClient(client, server);
      makeSo(world);
      const reports = (): number => kinds(client).filter((kind) => kind === 'silent').length;
      await world.clock.run(SILENCE_MS - 1);
      assert.equal(reports(), 0, 'not before its time');
      await world.clock.run(1 + PROBE_INTERVAL_MS);
      const told = client.events.filter((event) => event.kind === 'silent');
      assert.equal(told.length, 1);
      assert.ok(told[0].forMs >= SILENCE_MS && told[0].forMs <= SILENCE_MS + PROBE_INTERVAL_MS);
      for (let minute = 0; minute < 30; minute++) {
        client.sent.length = 0;
        await world.clock.run(60_000);
        const asked = client.sent.filter(({ bytes }) => bytes[0] === MessageType.message1);
        assert.ok(asked.every(({ bytes }) => bytes.length === MESSAGE1_BYTES));
        // A new one each 5 s, repeated each second.
        assert.ok(asked.length >= 45 && asked.length <= 75, `${asked.length} in a minute`);
      }
      assert.equal(reports(), 1);
      world.isDropped = () => false;
      startServer(server);
      await world.clock.run(5_000);
      assert.ok(kinds(client).includes('connected') && kinds(client).includes('back'));
    });
  }

  it('a server that falls silent is reported once, 10 s after it was last heard', async () => {
    const { world, client, server } = setting(34);
    await world.clock.run(60_000);
    assert.deepEqual(
      kinds(client).filter((kind) => kind === 'silent'),
      [],
    );
    server.kill();
    const killedMs = world.clock.nowMs;
    let toldMs = 0;
    for (let ms = 0; ms < 120_000; ms += 10) {
      await world.clock.run(10);
      const isTold = kinds(client).includes('silent');
      if (isTold && toldMs === 0) toldMs = world.clock.nowMs;
    }
    // What was last heard was the answer to a probe, which go out each second.
    assert.ok(toldMs >= killedMs + SILENCE_MS - PROBE_INTERVAL_MS - 20);
    assert.ok(toldMs <= killedMs + SILENCE_MS + PROBE_INTERVAL_MS + 20);
    assert.equal(kinds(client).filter((kind) => kind === 'silent').length, 1);
  });

  it('replayed datagrams deliver nothing and move nothing', async () => {
    const ends = setting(11);
    const { world, client, server } = ends;
    client.keepsSent = true;
    await world.clock.run(2_000);
    await exchange(ends, 50);
    server.delivered.length = 0;
    server.keepsSent = true;
    const stranger = makeEndpoint(parseIp('192.0.2.66')!, 6_666);
    const recorded = client.sent.slice();
    for (const { bytes } of recorded) server.arrive(bytes, stranger);
    await world.clock.run(5_000);
    assert.deepEqual(server.delivered, []);
    assert.ok(!kinds(server).includes('moved'));
    const { atClient } = await exchange(ends, 10);
    assert.deepEqual(atClient, range(1, 10));
    // Only replayed first messages are answered, with fewer bytes.
    const asked = recorded.reduce((sum, { bytes }) => sum + bytes.length, 0);
    assert.ok(asked > 0);
  });

  it('follows a client whose NAT rebinds', async () => {
    const ends = setting(12);
    const { world, client } = ends;
    await world.clock.run(2_000);
    const outside = makeEndpoint(parseIp('198.51.100.2')!, 61_000);
    const { route } = world;
    world.nat = (from) => (from === client.address ? outside : from);
    world.route = (to) =>
      to[2] === outside[2] && to[3] === outside[3] ? client : to[8] === 198 ? undefined : route(to);
    await world.clock.run(3_000);
    const { atServer, atClient } = await exchange(ends, 10);
    assert.deepEqual(atServer, range(1, 10));
    assert.deepEqual(atClient, range(1, 10));
  });

  it('finds a server that came up elsewhere by its name, as soon as that says so, and by nothing else', async () => {
    const ends = setting(31);
    const { world, client, server } = ends;
    await world.clock.run(2_000);
    // It has forgotten the session, so that nothing it sends could lead the client there.
    server.kill();
    server.address = makeEndpoint(parseIp('203.0.113.99')!, 443);
    startServer(server);
    server.keepsSent = true;
    await world.clock.run(15_000);
    assert.equal(kinds(client).filter((kind) => kind === 'connected').length, 1);
    assert.deepEqual(server.sent, [], 'nobody has asked it anything');
    client.resolved = [server.address];
    await world.clock.run(15_000);
    assert.equal(kinds(client).filter((kind) => kind === 'connected').length, 2);
    const [last] = client.events.filter(({ kind }) => kind === 'connected').slice(-1);
    assert.ok('endpoint' in last && last.endpoint === '203.0.113.99:443');
    const { atServer, atClient } = await exchange(ends, 10);
    assert.deepEqual(atServer, range(1, 10));
    assert.deepEqual(atClient, range(1, 10));
  });

  it('notices a path MTU that falls from 1500 to 1280 under traffic', async () => {
    const ends = setting(13);
    const { world, client, server } = ends;
    await world.clock.run(5_000);
    for (let tag = 1; tag <= 200; tag++) {
      client.inject(outgoing(tag, 1400));
      await world.clock.run(10);
    }
    world.pathOf(client).mtu = 1280;
    for (let tag = 201; tag <= 1200; tag++) {
      client.inject(outgoing(tag, 1400));
      await world.clock.run(10);
    }
    await world.clock.run(500);
    const last = server.delivered.map(tagOf);
    assert.ok(last.includes(1200), 'full-size packets pass again, in halves');
    assert.equal(client.tunMtu, 1280);
  });

  it('drops a packet whose source is not the client', async () => {
    const ends = setting(14);
    await ends.world.clock.run(2_000);
    ends.client.inject(packet(Uint8Array.of(10, 0, 0, 1), SERVER_IP, 100, 1));
    await ends.world.clock.run(1_000);
    assert.deepEqual(ends.server.delivered, []);
    assert.equal(ends.server.tunnel!.counters.foreign, 1);
  });

  it('carries on under loss, duplication and reordering, each packet at most once', async () => {
    for (let seed = 20; seed < 26; seed++) {
      const ends = setting(seed, { lossRatio: 0.05, duplicateRatio: 0.1, jitterMs: 20 });
      await ends.world.clock.run(5_000);
      const { atServer, atClient } = await exchange(ends, 500);
      for (const tags of [atServer, atClient]) {
        assert.equal(new Set(tags).size, tags.length, `seed ${seed}: delivered twice`);
        assert.ok(tags.length > 400, `seed ${seed}: only ${tags.length} of 500 arrived`);
      }
    }
  });
});
