/** Starts the helper programs of this directory inside hosts, on the node that the executable embeds. */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import type { Plan, Report } from './attacker.ts';
import { NODE, type End } from './ends.ts';
import { until, type Bed, type Daemon, type Host } from './netns.ts';
import type { World } from './world.ts';

const program = (name: string): string[] => [
  ...['env', `NODE_COMPILE_CACHE=${process.env['NODE_COMPILE_CACHE'] ?? ''}`, NODE],
  '--disable-warning=ExperimentalWarning',
  resolve(import.meta.dirname, name),
];

/** Starts an attack and returns its program. */
export function startAttack({ bed, attacker }: World, plan: Plan, from: Host = attacker): Daemon {
  const file = bed.file('plan.json');
  bed.write(file, JSON.stringify(plan));
  return from.start([...program('attacker.ts'), file]);
}

export async function attackReport(attack: Daemon): Promise<Report> {
  const exit = await attack.ended(120_000);
  if (exit !== 0) throw new Error(`the attacker failed: ${attack.output}`);
  return JSON.parse(attack.output) as Report;
}

export async function attackFrom(hosts: World, plan: Plan, from?: Host): Promise<Report> {
  return attackReport(startAttack(hosts, plan, from));
}

/** Waits for a transfer on `port`, and returns when it listens. Its second line is the digest. */
export async function receiveFile(host: Host, port: number): Promise<Daemon> {
  const receiver = host.start([...program('transfer.ts'), 'receive', String(port)]);
  await receiver.line(/listening/);
  return receiver;
}

export function sendFile(
  host: Host,
  to: string,
  port: number,
  megabytes: number,
  mbit = 1e6,
  way: 'up' | 'down' = 'up',
): Daemon {
  const words = [to, port, megabytes, mbit, way].map(String);
  return host.start([...program('transfer.ts'), 'send', ...words]);
}

/** Two ends of transfer.ts have ended well, and with the same digest of the same bytes. */
export async function checkArrived(
  sender: Daemon,
  receiver: Daemon,
  withinMs = 90_000,
): Promise<void> {
  assert.equal(await sender.ended(withinMs), 0, sender.output);
  assert.equal(await receiver.ended(), 0, receiver.output);
  assert.equal(receiver.output.trim().split('\n').at(-1), sender.output.trim().split('\n').at(-1));
}

/** The MTU of an end's device once the search for it is over: when it has not changed for a second. */
export async function settledMtu(end: End): Promise<number> {
  let seen = end.tunMtu;
  let since = performance.now();
  return until('an MTU that stays', () => {
    const now = end.tunMtu;
    if (now !== seen) [seen, since] = [now, performance.now()];
    return performance.now() - since > 1000 ? now : undefined;
  });
}

/** Starts meter.ts, and returns when it sends or listens. */
export async function startMeter(host: Host, ...words: readonly string[]): Promise<Daemon> {
  const meter = host.start([...program('meter.ts'), ...words]);
  await meter.line(/^ready$/);
  return meter;
}

/** Starts chatter.ts: a listener, when `word` is an address, or the plan in a file. */
export async function startChatter(host: Host, word: string): Promise<Daemon> {
  const chatter = host.start([...program('chatter.ts'), word]);
  if (!word.endsWith('.json')) await chatter.line(/^listening$/);
  return chatter;
}

/** Starts a name server on `address` that knows these names. */
export async function startNameServer(
  bed: Bed,
  host: Host,
  address: string,
  names: Readonly<Record<string, string>>,
): Promise<Daemon> {
  const file = bed.file('names.json');
  bed.write(file, JSON.stringify(names));
  const server = host.start([...program('nameserver.ts'), address, file]);
  await server.line(/^ready$/);
  return server;
}
