/**
 * What somebody without the key may send: nothing of it is delivered, moves an address, gets an answer
 * larger than the question, or harms a session or a handshake that is under way.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  checkAnswers,
  checkUnharmed,
  delivered,
  FIRST_MESSAGE,
  fromAttacker,
  MARKED_BYTES,
  payloads,
  TO_SERVER,
  TOOLS,
  towardsAttacker,
} from './attacks.ts';
import { capture, type Datagram } from './capture.ts';
import {
  CLIENT_IP,
  clientPort,
  connected,
  End,
  makeKey,
  startClient,
  startServer,
  tunnel,
  type Tunnel,
} from './ends.ts';
import { attackFrom } from './helpers.ts';
import { netTest, until } from './netns.ts';
import { ping, reaches } from './traffic.ts';
import { CLIENT, INTERNET, SERVER, spoof, stopSpoofing, world, type World } from './world.ts';

/** Without the answers, which have the same length. */
const ECHO_REQUESTS = 'icmp[icmptype] == icmp-echo';

/** A tunnel whose datagrams were captured from the first on, and what came out of it at the server. */
async function recorded(hosts: World): Promise<{
  readonly ends: Tunnel;
  readonly toServer: readonly Datagram[];
  readonly toClient: readonly Datagram[];
}> {
  const wire = await capture(hosts.bed, hosts.router, 'eth1', 'udp port 443');
  const ends = await tunnel(hosts.bed, hosts, SERVER[4]);
  await reaches(hosts.client, INTERNET[4]);
  assert.equal(ping(hosts.client, INTERNET[4], `-q -c 20 -i 0.05 -s ${MARKED_BYTES}`).received, 20);
  await wire.stop();
  const all = wire.datagrams();
  const toServer = all.filter(({ targetPort }) => targetPort === 443);
  const toClient = all.filter(({ sourcePort }) => sourcePort === 443);
  assert.ok(toServer.length > 20 && toClient.length > 20);
  return { ends, toServer, toClient };
}

netTest("a client with the wrong key gets nowhere and is in nobody's way", [], async (bed) => {
  const hosts = world(bed);
  const key = makeKey(bed);
  const server = startServer(bed, hosts.server, { key });
  const wrong = startClient(bed, hosts.attacker, {
    key: makeKey(bed),
    address: SERVER[4],
    options: ['--no-default-routes'],
  });
  const client = startClient(bed, hosts.client, { key, address: SERVER[4] });
  await connected(client);
  assert.equal(ping(hosts.attacker, '192.168.192.254', '-c 3 -i 0.2 -W 0.5').received, 0);
  assert.equal(wrong.daemon.exit, undefined, 'it tries for ever');
  await checkLossless(client);
  assert.equal(server.daemon.exit, undefined);
});

async function checkLossless(client: End): Promise<void> {
  await reaches(client.host, INTERNET[4]);
  const { sent, received } = ping(client.host, INTERNET[4], '-q -c 20 -i 0.05 -W 2');
  assert.equal(received, sent);
}

netTest(
  'replayed datagrams and handshakes do nothing while the session lives',
  TOOLS,
  async (bed) => {
    const hosts = world(bed);
    const { ends, toServer, toClient } = await recorded(hosts);
    const atServer = await capture(bed, hosts.server, ends.server.tun, 'icmp');
    const atClient = await capture(bed, hosts.client, ends.client.tun, 'icmp');

    checkAnswers(await attackFrom(hosts, fromAttacker(payloads(toServer))));
    const port = clientPort(hosts.client);
    spoof(hosts, { address: CLIENT[4], port }, TO_SERVER);
    await attackFrom(hosts, fromAttacker(payloads(toServer)));
    const toClientPort = { address: CLIENT[4], port };
    spoof(hosts, TO_SERVER, toClientPort);
    await attackFrom(hosts, fromAttacker(payloads(toClient), toClientPort));
    stopSpoofing(hosts);

    assert.equal(delivered(atServer), 0);
    assert.equal(delivered(atClient), 0);
    await checkUnharmed(hosts, ends);
  },
);

netTest('messages sent back to their sender do nothing', TOOLS, async (bed) => {
  const hosts = world(bed);
  const { ends, toServer, toClient } = await recorded(hosts);
  const atServer = await capture(bed, hosts.server, ends.server.tun, 'icmp');
  const atClient = await capture(bed, hosts.client, ends.client.tun, 'icmp');
  const port = clientPort(hosts.client);
  spoof(hosts, { address: CLIENT[4], port }, TO_SERVER);
  await attackFrom(hosts, fromAttacker(payloads(toClient)));
  const toClientPort = { address: CLIENT[4], port };
  spoof(hosts, TO_SERVER, toClientPort);
  await attackFrom(hosts, fromAttacker(payloads(toServer), toClientPort));
  stopSpoofing(hosts);
  assert.equal(delivered(atServer), 0);
  assert.equal(delivered(atClient), 0);
  await checkUnharmed(hosts, ends);
});

netTest('a recorded session does nothing after a restart of the server', TOOLS, async (bed) => {
  const hosts = world(bed);
  const { ends, toServer } = await recorded(hosts);
  await ends.client.daemon.stop();
  await ends.server.daemon.stop();
  const server = startServer(bed, hosts.server, { key: ends.key });
  await until('a tun device', () => hosts.server.run('ip -o link show type tun') !== '');
  const before = server.delivered;
  checkAnswers(await attackFrom(hosts, fromAttacker(payloads(toServer))));
  const answers = await capture(bed, hosts.server, 'eth0', `udp src port 443 and dst ${CLIENT[4]}`);
  spoof(hosts, { address: CLIENT[4], port: toServer[0]!.sourcePort }, TO_SERVER);
  await attackFrom(hosts, fromAttacker(payloads(toServer)));
  stopSpoofing(hosts);
  await answers.stop();
  assert.equal(server.delivered, before);
  // Nor is there more for whose address it is: an answer to a first message, and to nothing else.
  const firsts = toServer.filter(({ payload }) => payload[0] === FIRST_MESSAGE);
  const sizes = answers.datagrams().map(({ payload }) => payload.length);
  assert.ok(sizes.length <= firsts.length, `${sizes.length} answers`);
  assert.ok(Math.max(0, ...sizes) <= Math.min(...payloads(firsts).map(({ length }) => length)));
  // None of it holds up the next one.
  const client = startClient(bed, hosts.client, { key: ends.key, address: SERVER[4] });
  await connected(client);
  await checkUnharmed(hosts, { ...ends, client, server });
});

netTest('a recorded session does nothing after a restart of the client', TOOLS, async (bed) => {
  const hosts = world(bed);
  const { ends, toClient } = await recorded(hosts);
  const { key } = ends;
  const { stateDir } = ends.client;
  await ends.client.daemon.stop('SIGKILL');
  hosts.router.run('iptables -I FORWARD -i eth0 -p udp --dport 443 -j DROP');
  const tries = await capture(bed, hosts.router, 'eth0', 'udp dst port 443');
  const client = startClient(bed, hosts.client, { key, address: SERVER[4], stateDir });
  await until('a first message', () => tries.datagrams().length > 0);
  await tries.stop();
  const atClient = await capture(bed, hosts.client, client.tun, 'icmp');
  const replay = async (): Promise<void> => {
    const to = { address: CLIENT[4], port: clientPort(hosts.client) };
    const plan = fromAttacker(payloads(toClient), to);
    checkAnswers(await attackFrom(hosts, plan));
    spoof(hosts, TO_SERVER, to);
    await attackFrom(hosts, plan);
    stopSpoofing(hosts);
    assert.equal(delivered(atClient), 0);
  };
  // While it waits for an answer, and when it has one.
  await replay();
  assert.doesNotMatch(client.daemon.output, /connected to|busy/);
  hosts.router.run('iptables -D FORWARD -i eth0 -p udp --dport 443 -j DROP');
  await connected(client);
  await replay();
  await checkUnharmed(hosts, { ...ends, client });
});

/** Each way: the device of the router where it comes in, what it is, and whose pings travel so. */
const WAYS = {
  'to the server': { device: 'eth0', filter: '--dport 443', from: 'client', pinged: INTERNET[4] },
  'to the client': { device: 'eth1', filter: '--sport 443', from: 'server', pinged: CLIENT_IP },
} as const;
type Way = keyof typeof WAYS;

/**
 * Datagrams with pings that never arrived. Nor does anything since of what goes that way: they are the newest
 * that the receiver could hear of, until `release`.
 */
async function intercept(
  hosts: World,
  way: Way,
  count: number,
): Promise<{ readonly datagrams: readonly Uint8Array[]; readonly release: () => void }> {
  const { device, filter, from, pinged } = WAYS[way];
  const rule = `FORWARD -i ${device} -p udp ${filter} -j DROP`;
  const seen = `udp ${filter === '--dport 443' ? 'dst' : 'src'} port 443`;
  const wire = await capture(hosts.bed, hosts.router, device, seen);
  hosts.router.run(`iptables -I ${rule}`);
  ping(hosts[from], pinged, `-q -c ${count} -i 0.05 -W 0.2 -s ${MARKED_BYTES}`);
  await wire.stop();
  const inner = MARKED_BYTES + 28;
  const datagrams = payloads(wire.datagrams()).filter(
    ({ length }) => length > inner && length <= inner + 60,
  );
  assert.ok(datagrams.length >= count, `${datagrams.length} datagrams intercepted`);
  return { datagrams, release: () => void hosts.router.run(`iptables -D ${rule}`) };
}

function withBit(bytes: Uint8Array, bit: number): Uint8Array {
  const changed = Uint8Array.from(bytes);
  changed[bit >> 3]! ^= 1 << (bit & 7);
  return changed;
}

/** A datagram with each bit of header and tag turned, cut anywhere, and longer. */
function spoilt(fresh: Uint8Array): Uint8Array[] {
  const last = fresh.length * 8;
  const bits = [
    ...Array.from({ length: 24 * 8 }, (_, bit) => bit),
    ...Array.from({ length: 16 * 8 }, (_, bit) => last - 1 - bit),
  ];
  return [
    ...bits.map((bit) => withBit(fresh, bit)),
    ...Array.from(fresh, (_, length) => fresh.subarray(0, length)),
    ...[1, 2, 16, 60, 1000].map((extra) => Buffer.concat([fresh, randomBytes(extra)])),
  ];
}

for (const way of ['to the server', 'to the client'] as const)
  netTest(
    `a datagram ${way} with any bit of its header or tag turned, cut or longer is dropped`,
    TOOLS,
    async (bed) => {
      const hosts = world(bed);
      const ends = await tunnel(bed, hosts, SERVER[4]);
      await reaches(hosts.client, INTERNET[4]);
      const atClient = { address: CLIENT[4], port: clientPort(hosts.client) };
      const [from, to] = way === 'to the server' ? [atClient, TO_SERVER] : [TO_SERVER, atClient];
      const target = way === 'to the server' ? ends.server : ends.client;
      const { datagrams, release } = await intercept(hosts, way, 2);
      const [first, second] = datagrams as [Uint8Array, Uint8Array];
      const seen = await capture(bed, target.host, target.tun, ECHO_REQUESTS);
      const astray = await towardsAttacker(hosts);

      // Where it would have come from; and from elsewhere, whereby an address might move.
      spoof(hosts, from, to);
      await attackFrom(hosts, fromAttacker(spoilt(first), to));
      stopSpoofing(hosts);
      assert.equal((await attackFrom(hosts, fromAttacker(spoilt(second), to))).answers, 0);
      assert.equal(delivered(seen), 0);
      assert.deepEqual(astray.packets(), []);

      // The untouched ones are still good: it was the change that counted.
      spoof(hosts, from, to);
      await attackFrom(hosts, fromAttacker([first], to));
      await until('the untouched datagram', () => delivered(seen) === 1);
      stopSpoofing(hosts);
      // Its address is asked for an answer, which it cannot give, for two seconds; then it is forgotten (§6).
      const last = { ...fromAttacker([second], to), listenMs: 2500 };
      const { answers, answerBytes, sentBytes } = await attackFrom(hosts, last);
      assert.equal(delivered(seen), 2);
      assert.ok(answers > 0 && answerBytes <= 3 * sentBytes, `${answerBytes} bytes`);
      release();
      await checkUnharmed(hosts, ends);
    },
  );

netTest('random datagrams of any size do nothing', TOOLS, async (bed) => {
  const hosts = world(bed);
  const ends = await tunnel(bed, hosts, SERVER[4]);
  const random = Array.from({ length: 1472 }, (_, size) => {
    const bytes = randomBytes(size);
    // Every type there may be, and the common small ones more often.
    if (size > 0) bytes[0] = size % 2 === 0 ? size & 15 : size & 255;
    return bytes;
  });
  checkAnswers(
    await attackFrom(hosts, fromAttacker([...random, randomBytes(9000), randomBytes(60_000)])),
  );
  const port = clientPort(hosts.client);
  const toClient = { address: CLIENT[4], port };
  spoof(hosts, TO_SERVER, toClient);
  await attackFrom(hosts, fromAttacker(random, toClient));
  stopSpoofing(hosts);
  await checkUnharmed(hosts, ends);
});

netTest(
  'a second client with the right key is told "busy", and takes over when the first is gone',
  [],
  async (bed) => {
    const hosts = world(bed);
    const { client, key } = await tunnel(bed, hosts, SERVER[4]);
    const second = startClient(bed, hosts.attacker, {
      key,
      address: SERVER[4],
      options: ['--no-default-routes'],
    });
    await second.daemon.line(/busy|another client/i);
    await checkLossless(client);
    assert.equal(ping(hosts.attacker, '192.168.192.254', '-c 1 -W 1').received, 0);
    await client.daemon.stop('SIGKILL');
    await connected(second, '192.168.192.254', 60_000);
  },
);
