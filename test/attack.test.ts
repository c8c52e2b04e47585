/**
 * What somebody without the key may send: nothing of it is delivered, moves an address, gets an answer
 * larger than the question, or harms a session or a handshake that is under way.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { capture, type Capture, type Datagram } from './capture.ts';
import {
  clientPort,
  connected,
  End,
  makeKey,
  startClient,
  startServer,
  tunnel,
  type Tunnel,
} from './ends.ts';
import {
  attackFrom,
  attackReport,
  checkArrived,
  receiveFile,
  sendFile,
  startAttack,
} from './helpers.ts';
import type { Plan, Report } from './attacker.ts';
import { netTest, until } from './netns.ts';
import { counter, ping, reaches } from './traffic.ts';
import {
  ATTACKER,
  CLIENT,
  INTERNET,
  SERVER,
  spoof,
  stopSpoofing,
  world,
  type World,
} from './world.ts';

const TOOLS = ['tcpdump', 'nft'];
/** Of the pings that are captured: no other packet in these tests has this length. */
const MARKED_BYTES = 333;
const TO_SERVER = { address: SERVER[4], port: 443 } as const;

/** Without the answers, which have the same length. */
const ECHO_REQUESTS = 'icmp[icmptype] == icmp-echo';

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const isMarked = ({ length }: Uint8Array): boolean => length === MARKED_BYTES + 28;
const delivered = (seen: Capture): number =>
  seen.packets().filter(({ bytes }) => isMarked(bytes)).length;

const fromAttacker = (datagrams: readonly Uint8Array[], to: Plan['to'] = TO_SERVER): Plan => ({
  sources: [{ address: ATTACKER[4], port: 0 }],
  to,
  datagrams: datagrams.map(base64),
  perSecond: 2000,
});

function checkAnswers(report: Report): void {
  assert.equal(report.amplified, 0, `answers: ${JSON.stringify(report)}`);
}

/** The session goes on, at the client's address, and nothing goes to the attacker. */
async function checkUnharmed(hosts: World, { client }: Tunnel): Promise<void> {
  const astray = await capture(hosts.bed, hosts.router, 'eth2', 'udp and not src net 10.9.0.0/24');
  await connected(client);
  await reaches(hosts.client, INTERNET[4]);
  const { sent, received } = ping(hosts.client, INTERNET[4], '-q -c 20 -i 0.05 -W 2');
  assert.equal(received, sent);
  await astray.stop();
  assert.deepEqual(astray.packets(), [], 'the server sends to the attacker');
}

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

const payloads = (datagrams: readonly Datagram[]): Uint8Array[] =>
  datagrams.map(({ payload }) => payload);

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
  spoof(hosts, { address: CLIENT[4], port: toServer[0]!.sourcePort }, TO_SERVER);
  await attackFrom(hosts, fromAttacker(payloads(toServer)));
  stopSpoofing(hosts);
  assert.equal(server.delivered, before);
  // None of it holds up the next one.
  const client = startClient(bed, hosts.client, { key: ends.key, address: SERVER[4] });
  await connected(client);
  await checkUnharmed(hosts, { ...ends, client, server });
});

/** Datagrams that the client sent and the server never saw. */
async function intercepted(hosts: World, count: number): Promise<Uint8Array[]> {
  const wire = await capture(hosts.bed, hosts.router, 'eth0', 'udp dst port 443');
  hosts.router.run('iptables -I FORWARD -p udp --dport 443 -j DROP');
  ping(hosts.client, INTERNET[4], `-q -c ${count} -i 0.05 -W 0.2 -s ${MARKED_BYTES}`);
  hosts.router.run('iptables -D FORWARD -p udp --dport 443 -j DROP');
  await wire.stop();
  const inner = MARKED_BYTES + 28;
  const found = payloads(wire.datagrams()).filter(
    ({ length }) => length > inner && length <= inner + 60,
  );
  assert.ok(found.length >= count, `${found.length} datagrams intercepted`);
  return found;
}

function withBit(bytes: Uint8Array, bit: number): Uint8Array {
  const changed = Uint8Array.from(bytes);
  changed[bit >> 3]! ^= 1 << (bit & 7);
  return changed;
}

netTest(
  'a datagram with any bit of its header or tag turned, cut or longer is dropped',
  TOOLS,
  async (bed) => {
    const hosts = world(bed);
    const ends = await tunnel(bed, hosts, SERVER[4]);
    await reaches(hosts.client, INTERNET[4]);
    const [fresh] = await intercepted(hosts, 1);
    const last = fresh!.length * 8;
    const bits = [
      ...Array.from({ length: 24 * 8 }, (_, bit) => bit),
      ...Array.from({ length: 16 * 8 }, (_, bit) => last - 1 - bit),
    ];
    const forged = [
      ...bits.map((bit) => withBit(fresh!, bit)),
      ...Array.from(fresh!, (_, length) => fresh!.subarray(0, length)),
      ...[1, 2, 16, 60, 1000].map((extra) => Buffer.concat([fresh!, randomBytes(extra)])),
    ];
    const atServer = await capture(bed, hosts.server, ends.server.tun, ECHO_REQUESTS);
    spoof(hosts, { address: CLIENT[4], port: clientPort(hosts.client) }, TO_SERVER);
    await attackFrom(hosts, fromAttacker(forged));
    assert.equal(delivered(atServer), 0);
    // The untouched one is still good: it was the change that counted.
    await attackFrom(hosts, fromAttacker([fresh!]));
    await until('the untouched datagram', () => delivered(atServer) === 1);
    stopSpoofing(hosts);
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

/** The first message of a client that found nobody. */
async function firstMessage(hosts: World, key: string): Promise<Uint8Array> {
  const wire = await capture(hosts.bed, hosts.router, 'eth0', 'udp dst port 443');
  const client = startClient(hosts.bed, hosts.client, { key, address: SERVER[4] });
  const [first] = await until('a first message', () => {
    const seen = wire.datagrams();
    return seen.length > 0 ? seen : undefined;
  });
  await client.daemon.stop();
  await wire.stop();
  return first!.payload;
}

const FLOOD = 100_000;
const manySources = Array.from({ length: 500 }, (_, i) => ({
  address: `10.66.${1 + (i >> 7)}.${1 + (i & 127)}`,
  port: 0,
}));

for (const [what, forgeAt] of [
  ['replayed', undefined],
  ['forged', 24],
] as const)
  netTest(
    `100 000 ${what} first messages leave a pending handshake and a session unharmed`,
    TOOLS,
    async (bed) => {
      const hosts = world(bed);
      const key = makeKey(bed);
      const message = await firstMessage(hosts, key);
      const server = startServer(bed, hosts.server, { key });
      // From then on the worker runs, and is part of what is measured.
      await server.daemon.line(/waiting for the client/);
      const plan: Plan = {
        sources: manySources,
        to: TO_SERVER,
        datagrams: [base64(message)],
        count: FLOOD,
        perSecond: 10_000,
        ...(forgeAt === undefined ? {} : { forgeAt }),
      };
      const before = server.daemon.residentMb();
      const flood = startAttack(hosts, plan);
      const received = (): number => counter(hosts.server, 'Ip', 'InReceives');
      const quiet = received();
      await until('the flood at the server', () => received() > quiet + 5_000);
      const client = startClient(bed, hosts.client, { key, address: SERVER[4] });
      await connected(client);
      assert.equal(flood.exit, undefined, 'the flood ended before the client was connected');
      await reaches(hosts.client, INTERNET[4]);
      const receiver = await receiveFile(hosts.internet, 9000);
      await checkArrived(sendFile(hosts.client, INTERNET[4], 9000, 10, 20), receiver);
      const report = await attackReport(flood);
      assert.equal(report.sent, FLOOD);
      checkAnswers(report);
      const grown = server.daemon.residentMb() - before;
      assert.ok(grown < 64, `memory grew by ${grown.toFixed(0)} MB`);
      await checkUnharmed(hosts, { client, server, key });
    },
  );

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
