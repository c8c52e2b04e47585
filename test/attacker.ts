/**
 * Sends datagrams that nobody should believe, and listens for answers. Run inside a host:
 *
 *   node attacker.ts PLAN.json        prints a Report as JSON
 *
 * From several sources the datagrams go out in turn. A source hears only what is sent to itself.
 */
import { createSocket, type Socket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Plan {
  /** address, and port (0 for any). */
  readonly sources: readonly { readonly address: string; readonly port: number }[];
  readonly to: { readonly address: string; readonly port: number };
  /** Base64. */
  readonly datagrams: readonly string[];
  /** How many to send, starting again with the first; each once unless given. */
  readonly count?: number;
  /** Each gets a number of its own written over the four bytes at one of these in turn: no two are equal. */
  readonly forgeAt?: readonly number[];
  /** Goes on behind `count` until SIGTERM. */
  readonly isEndless?: boolean;
  readonly perSecond?: number;
  /** How long to wait for answers at the end. */
  readonly listenMs?: number;
}

/** What was sent, or came back, with one type: the high half of the first byte (PROTOCOL §3). */
export interface Sizes {
  readonly count: number;
  readonly smallest: number;
  readonly largest: number;
}

export interface Report {
  readonly sent: number;
  readonly answers: number;
  /** Of all sources together. */
  readonly sentBytes: number;
  readonly answerBytes: number;
  readonly questionsOf: Readonly<Record<number, Sizes>>;
  readonly answersOf: Readonly<Record<number, Sizes>>;
  /** Sources that got more bytes than they had sent. */
  readonly amplified: number;
}

const BATCH = 64;

async function open(address: string, port: number): Promise<Socket> {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4' });
  socket.on('error', () => {
    // ICMP errors are not answers.
  });
  socket.bind(port, address);
  await once(socket, 'listening');
  return socket;
}

function count(sizes: Record<number, Sizes>, { 0: first = 0, length }: Uint8Array): void {
  const type = first >> 4;
  const { count, smallest, largest } = sizes[type] ?? { count: 0, smallest: length, largest: 0 };
  sizes[type] = {
    count: count + 1,
    smallest: Math.min(smallest, length),
    largest: Math.max(largest, length),
  };
}

export async function attack(plan: Plan): Promise<Report> {
  const sockets = await Promise.all(plan.sources.map(({ address, port }) => open(address, port)));
  const sentBytes = sockets.map(() => 0);
  const answerBytes = sockets.map(() => 0);
  const questionsOf: Record<number, Sizes> = {};
  const answersOf: Record<number, Sizes> = {};
  let answers = 0;
  sockets.forEach((socket, i) =>
    socket.on('message', (message) => {
      answers++;
      answerBytes[i]! += message.length;
      count(answersOf, message);
    }),
  );

  const datagrams = plan.datagrams.map((text) => Buffer.from(text, 'base64'));
  const wanted = plan.count ?? datagrams.length;
  const { forgeAt = [] } = plan;
  const startMs = performance.now();
  let isEnough = plan.isEndless !== true;
  process.once('SIGTERM', () => (isEnough = true));
  let sent = 0;
  while (sent < wanted || !isEnough) {
    const batch = isEnough ? Math.min(BATCH, wanted - sent) : BATCH;
    const done: Promise<void>[] = [];
    for (let i = sent; i < sent + batch; i++) {
      const bytes = Buffer.from(datagrams[i % datagrams.length]!);
      if (forgeAt.length > 0) bytes.writeUInt32BE(i, forgeAt[i % forgeAt.length]!);
      count(questionsOf, bytes);
      const from = i % sockets.length;
      sentBytes[from]! += bytes.length;
      done.push(
        new Promise((resolve) =>
          sockets[from]!.send(bytes, plan.to.port, plan.to.address, () => resolve()),
        ),
      );
    }
    await Promise.all(done);
    sent += batch;
    const aheadMs =
      plan.perSecond === undefined
        ? 0
        : (sent * 1000) / plan.perSecond - (performance.now() - startMs);
    if (aheadMs > 1) await sleep(aheadMs);
  }
  await sleep(plan.listenMs ?? 500);
  for (const socket of sockets) socket.close();

  const total = (bytes: readonly number[]): number => bytes.reduce((sum, n) => sum + n, 0);
  return {
    sent,
    answers,
    sentBytes: total(sentBytes),
    answerBytes: total(answerBytes),
    questionsOf,
    answersOf,
    amplified: answerBytes.filter((bytes, i) => bytes > sentBytes[i]!).length,
  };
}

if (import.meta.filename === process.argv[1])
  process.stdout.write(
    `${JSON.stringify(await attack(JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as Plan))}\n`,
  );
