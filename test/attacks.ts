/** What attacks have in common: what is sent, what may come back, and that nothing came of it. */
import assert from 'node:assert/strict';
import type { Plan, Report } from './attacker.ts';
import { capture, type Capture, type Datagram } from './capture.ts';
import { connected, type Tunnel } from './ends.ts';
import { ping, reaches } from './traffic.ts';
import { ATTACKER, INTERNET, SERVER, type World } from './world.ts';

export const TOOLS = ['tcpdump', 'nft'];
/** Of the pings that are captured: no other packet in these tests has this length. */
export const MARKED_BYTES = 333;
/** Types of messages: the first byte (PROTOCOL §3). */
export const FIRST_MESSAGE = 0x10;
export const TO_SERVER = { address: SERVER[4], port: 443 } as const;

export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const isMarked = ({ length }: Uint8Array): boolean => length === MARKED_BYTES + 28;
export const delivered = (seen: Capture): number =>
  seen.packets().filter(({ bytes }) => isMarked(bytes)).length;

export const payloads = (datagrams: readonly Datagram[]): Uint8Array[] =>
  datagrams.map(({ payload }) => payload);

/** From the attacker's own address, unless the router says another (`spoof`). */
export const fromAttacker = (
  datagrams: readonly Uint8Array[],
  to: Plan['to'] = TO_SERVER,
): Plan => ({
  sources: [{ address: ATTACKER[4], port: 0 }],
  to,
  datagrams: datagrams.map(base64),
  perSecond: 2000,
});

/** Types as attacker.ts has them: what can be the question of an answer (PROTOCOL §3, §4). */
const QUESTIONS: Readonly<Record<number, readonly number[]>> = {
  2: [1],
  3: [1],
  4: [1],
  8: [8, 9],
};

/** No source got more than it sent, and no answer is larger than the smallest that it can be the answer to. */
export function checkAnswers(report: Report): void {
  const text = `answers: ${JSON.stringify(report)}`;
  assert.equal(report.amplified, 0, text);
  for (const [type, { largest }] of Object.entries(report.answersOf)) {
    const questions = (QUESTIONS[Number(type)] ?? []).flatMap(
      (one) => report.questionsOf[one]?.smallest ?? [],
    );
    assert.ok(largest <= Math.min(...questions) && questions.length > 0, text);
  }
}

/** The session goes on, at the client's address, and nothing goes to the attacker. */
export async function checkUnharmed(hosts: World, { client }: Tunnel): Promise<void> {
  const astray = await towardsAttacker(hosts);
  await connected(client);
  await reaches(client.host, INTERNET[4]);
  const { sent, received } = ping(client.host, INTERNET[4], '-q -c 20 -i 0.05 -W 2');
  assert.equal(received, sent);
  await astray.stop();
  assert.deepEqual(astray.packets(), [], 'the server sends to the attacker');
}

/** What an end sends to the attacker. */
export const towardsAttacker = ({ bed, router }: World): Promise<Capture> =>
  capture(
    bed,
    router,
    'eth2',
    'udp and not src net (10.9.0.0/24 or 10.66.0.0/16 or 2001:db8:90::/64 or 2001:db8:66::/64)',
  );
