/** What is read of real tunnels, over a simulated network (test/sim.ts). */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { path, SimWorld } from '../../test/sim.ts';
import type { SimEnd } from '../../test/sim.ts';
import { REKEY_AFTER_MS } from '../constants.ts';
import { PLAIN_LINK, type TunnelConfig } from '../peering.ts';
import { sharedKeys } from '../sharedkey.ts';
import { Tunnel } from '../vpn.ts';
import { snapshot } from './snapshot.ts';
import type { TunnelParts } from './snapshot.ts';
import type { TunnelStatus } from './status.ts';

const SERVER_IP = Uint8Array.of(192, 168, 192, 254);
const CLIENT_IP = Uint8Array.of(192, 168, 192, 1);

function config(role: 'client' | 'server', names: readonly string[]): TunnelConfig {
  return {
    role,
    keys: sharedKeys(new Uint8Array(32).fill(9)),
    modes: 0,
    serverIp: SERVER_IP,
    clientIp: CLIENT_IP,
    ciphers: 1,
    ipv6: false,
    mtu: 0,
    rekeyAfterMs: REKEY_AFTER_MS,
    sources: undefined,
    links: names.map((name) => ({ ...PLAIN_LINK, name })),
    realtime: [],
  };
}

/** The parts as the tunnel hands them over: private to the compiler only. */
function statusOf(end: SimEnd): TunnelStatus {
  const tunnel = end.tunnel as unknown as Record<string, never>;
  const { peering, inbound, reports, tunMtu } = tunnel as unknown as {
    peering: { session: TunnelParts['session'] };
    inbound: { reorder: TunnelParts['reorder'] };
    reports: { holdMs: number };
    tunMtu: { current: number };
  };
  return snapshot(
    {
      config: tunnel.config,
      set: tunnel.set,
      session: peering.session,
      bonding: tunnel.bonding,
      reorder: inbound.reorder,
      holdMs: reports.holdMs,
      tunMtu: tunMtu.current,
      heardMs: tunnel.heardMs,
      counters: tunnel.counters,
      countsOf: () => ({ sentPackets: 1, sentBytes: 2, repairedPackets: 3 }),
    },
    end.host.nowMs(),
  );
}

async function connected(): Promise<{ client: SimEnd; server: SimEnd; world: SimWorld }> {
  const world = new SimWorld(1);
  const client = world.add('198.51.100.2', 40_000, path({ delayMs: 20 }));
  const server = world.add('203.0.113.1', 443, path({ delayMs: 20 }));
  server.tunnel = new Tunnel(config('server', ['adsl']), server.host, []);
  server.tunnel.start();
  client.tunnel = new Tunnel(config('client', ['dsl']), client.host, [[server.address]]);
  client.tunnel.start();
  await world.clock.run(5_000);
  return { world, client, server };
}

describe('a snapshot of a real tunnel', () => {
  it('has what the tunnel has measured, at both ends', async () => {
    const { client, server } = await connected();
    const status = statusOf(client);
    equal(status.role, 'client');
    equal(status.hasSession, true);
    equal(status.cipher, 1);
    equal(status.isBonding, false);
    ok(status.keyAgeMs !== undefined && status.keyAgeMs > 4_000 && status.keyAgeMs < 5_000);
    ok(status.tunMtu > 1280);
    equal(status.dropped.forged, 0);
    ok(!('sentPackets' in status.dropped));
    const [link] = status.links;
    equal(link.name, 'dsl');
    equal(link.state, 'up');
    equal(link.endpoint, '203.0.113.1:443');
    ok(link.rttMs >= 40 && link.rttMs < 60, `RTT ${link.rttMs}`);
    ok(link.receivedPackets > 0 && link.receivedBytes > 0);
    deepEqual([link.sentPackets, link.sentBytes, link.repairedPackets], [1, 2, 3]);
    ok(link.heardAgoMs !== undefined && link.heardAgoMs <= 1_100);
    ok(link.mtu > 1280);

    const [other] = statusOf(server).links;
    equal(other.name, 'adsl');
    equal(other.endpoint, '198.51.100.2:40000');
  });

  it('lists a link of the configuration that has no session, and counts nothing for it', async () => {
    const world = new SimWorld(2);
    const client = world.add('198.51.100.2', 40_000, path({}));
    client.tunnel = new Tunnel(config('client', ['dsl']), client.host, [[]]);
    client.tunnel.start();
    await world.clock.run(1_000);
    const status = statusOf(client);
    equal(status.hasSession, false);
    equal(status.keyAgeMs, undefined);
    equal(status.heardAgoMs, undefined);
    equal(status.links.length, 1);
    deepEqual([status.links[0].name, status.links[0].state], ['dsl', 'down']);
    equal(status.links[0].sentBytes, 0);
  });

  it('can be written as JSON and changes nothing', async () => {
    const { client } = await connected();
    const first = statusOf(client);
    deepEqual(JSON.parse(JSON.stringify(first)), first);
    deepEqual(statusOf(client), first);
  });
});
