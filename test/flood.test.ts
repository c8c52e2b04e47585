/** Floods of first messages by somebody without the key: a handshake under way and a session are not harmed. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { base64, checkAnswers, checkUnharmed, FIRST_MESSAGE, payloads, TOOLS } from './attacks.ts';
import type { Plan } from './attacker.ts';
import { capture } from './capture.ts';
import { connected, makeKey, startClient, startServer } from './ends.ts';
import { firstMessages, readFirstMessage } from './handshakes.ts';
import { attackReport, checkArrived, receiveFile, sendFile, startAttack } from './helpers.ts';
import { netTest, until, type Host } from './netns.ts';
import { counter, reaches } from './traffic.ts';
import { INTERNET, SERVER, world } from './world.ts';

const FLOOD = 100_000;
const SOURCES = 500;
const SOURCE: Readonly<Record<4 | 6, (i: number) => string>> = {
  4: (i) => `10.66.${1 + (i >> 7)}.${1 + (i & 127)}`,
  6: (i) => `2001:db8:66::${(i + 1).toString(16)}`,
};
/** Handshakes that somebody has recorded: many times as many as a server keeps pending. */
const RECORDED = 64;
const MOST_GROWTH_MB = 64;

const COOKIE = 0x30;
const MAC2_AT = 132;
const MESSAGE1_BYTES = 148;

/**
 * Where forged first messages are changed. All up to byte 115 is under mac1, which is keyed by the shared key
 * (PROTOCOL §3.1): an own `e`, as at 24, can only have a wrong one. mac2 is not under mac1: a recorded message
 * with another mac2 is the best that there is, and proves nothing, as a cookie can be read with the key only.
 */
const FORGED_AT = [24, MAC2_AT];

const receives = (server: Host, outside: 4 | 6): number =>
  outside === 4
    ? counter(server, 'Ip', 'InReceives')
    : Number(/^Ip6InReceives\s+(\d+)/m.exec(server.run('cat /proc/net/snmp6'))?.[1]);

for (const [what, outside, forgeAt] of [
  ['replayed', 4, []],
  ['replayed', 6, []],
  ['forged', 4, FORGED_AT],
] as const)
  netTest(
    `100 000 ${what} first messages over IPv${outside} leave a pending handshake and a session unharmed`,
    TOOLS,
    async (bed) => {
      const hosts = world(bed);
      const key = makeKey(bed);
      const server = startServer(bed, hosts.server, { key });
      // From then on the worker runs, and is part of what is measured.
      await server.daemon.line(/waiting for the client/);
      const before = server.daemon.residentMb();

      // A client that does not reach its server yet. Who has listened long enough has many first messages.
      const block = [outside === 4 ? 'iptables' : 'ip6tables', 'FORWARD -i eth0 -p udp -j DROP'];
      hosts.router.run(`${block[0]} -I ${block[1]}`);
      const asked = await capture(bed, hosts.router, 'eth0', 'udp dst port 443');
      const options = ['-v', '--rekey-after', '2'];
      const client = startClient(bed, hosts.client, { key, address: SERVER[outside], options });
      const seen = await until('a first message', () => payloads(asked.datagrams())[0]);
      const secret = Buffer.from(readFileSync(key, 'utf8'), 'base64');
      const its = readFirstMessage(secret, seen);
      const another = { ...its, instance: its.instance.map((byte) => byte ^ 0xff) };
      // Without the one that is under way: that would only take a place for it.
      const messages = [
        ...firstMessages(secret, its, RECORDED + 1),
        ...firstMessages(secret, another, RECORDED),
      ];
      assert.ok(messages.every(({ length }) => length === MESSAGE1_BYTES));

      const plan: Plan = {
        sources: Array.from({ length: SOURCES }, (_, i) => ({
          address: SOURCE[outside](i),
          port: 0,
        })),
        to: { address: SERVER[outside], port: 443 },
        datagrams: messages.map(base64),
        count: FLOOD,
        isEndless: true,
        perSecond: 10_000,
        forgeAt,
      };
      const flood = startAttack(hosts, plan);
      const quiet = receives(hosts.server, outside);
      await until('the flood', () => receives(hosts.server, outside) > quiet + 5_000);
      const answers = await capture(bed, hosts.router, 'eth0', 'udp src port 443');
      hosts.router.run(`${block[0]} -D ${block[1]}`);
      await connected(client);
      for (const wire of [asked, answers]) await wire.stop();
      // All places are taken by others: it had to prove that it is where it says, and did.
      assert.ok(payloads(answers.datagrams()).some(([type]) => type === COOKIE));
      const firsts = payloads(asked.datagrams()).filter(([type]) => type === FIRST_MESSAGE);
      assert.ok(firsts.some((bytes) => bytes.subarray(MAC2_AT).some((byte) => byte !== 0)));

      // The session renews its keys meanwhile, again and again.
      await reaches(hosts.client, INTERNET[4]);
      const receiver = await receiveFile(hosts.internet, 9000);
      const sender = sendFile(hosts.client, INTERNET[4], 9000, 10, 20);
      const from = client.daemon.output.length;
      const renewed = (): number =>
        client.daemon.output.slice(from).match(/new keys \(/g)?.length ?? 0;
      await until('new keys', () => renewed() >= 2);
      await checkArrived(sender, receiver);
      assert.equal(flood.exit, undefined);
      flood.kill('SIGTERM');
      const report = await attackReport(flood);
      assert.ok(report.sent >= FLOOD);
      checkAnswers(report);
      assert.ok(report.answers > 0 && report.answersOf[COOKIE >> 4] !== undefined);
      const grown = server.daemon.residentMb() - before;
      assert.ok(grown < MOST_GROWTH_MB, `memory grew by ${grown.toFixed(0)} MB`);
      assert.equal(client.daemon.output.match(/^vpn: connected to/gm)?.length, 1);
      await checkUnharmed(hosts, { client, server, key });
    },
  );
