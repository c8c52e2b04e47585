/**
 * Both ends of a handshake without sockets and clocks, for the tests of handshake.ts and responder.ts, and first
 * messages for attacks on real ends.
 */
import assert from 'node:assert/strict';
import { endpoint } from '../src/address.ts';
import { PENDING_SLOTS } from '../src/constants.ts';
import { Initiator, noCookie, PROLOGUE, type Cookie } from '../src/handshake.ts';
import { NoiseResponder } from '../src/noise.ts';
import { sharedKeys } from '../src/sharedkey.ts';
import { Responder, type Decision, type Pending } from '../src/responder.ts';
import {
  decodePayload1,
  noisePart,
  PAYLOAD1_BYTES,
  VerdictCode,
  type Payload1,
} from '../src/wire.ts';

export const KEYS = sharedKeys(new Uint8Array(32).fill(5));
export const HERE = endpoint(Uint8Array.of(192, 0, 2, 1), 1_000);
export const THERE = endpoint(Uint8Array.of(192, 0, 2, 1), 1_001);
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export function payload1(instance: number): Payload1 {
  return {
    instance: new Uint8Array(8).fill(instance),
    session: 0x112233,
    ciphers: 3,
    modes: 0,
    serverIp: Uint8Array.of(10, 0, 0, 1),
    clientIp: Uint8Array.of(10, 0, 0, 2),
  };
}

export const initiator = (nowMs = 0, instance = 1, cookie: Cookie = noCookie()): Initiator =>
  new Initiator(KEYS, payload1(instance), cookie, nowMs);

/** First messages of one client, each of a handshake of its own, as a network has seen them. */
export function firstMessages(key: Uint8Array, client: Payload1, count: number): Uint8Array[] {
  const keys = sharedKeys(key);
  return Array.from({ length: count }, () => {
    const one = new Initiator(keys, client, noCookie(), 0);
    const message = one.message.slice();
    one.wipe();
    return message;
  });
}

/** What the client says in a first message; whoever has the key can read it. */
export function readFirstMessage(key: Uint8Array, message: Uint8Array): Payload1 {
  const noise = new NoiseResponder(sharedKeys(key).psk, PROLOGUE);
  const payload = new Uint8Array(PAYLOAD1_BYTES);
  assert.ok(noise.readMessage1(payload, noisePart(message)));
  noise.wipe();
  return decodePayload1(payload);
}

export const firstMessage = (instance = 1): Uint8Array => initiator(0, instance).message.slice();

/** A server that knows instance 1: its handshakes are rekeys of one session with epochs 1 and 2. */
export class Server {
  readonly dropped: Pending[] = [];
  decisions = 0;
  verdict: number = VerdictCode.accepted;
  readonly responder = new Responder(
    KEYS,
    (client, pending) => this.decide(client, pending),
    (pending) => this.dropped.push(pending),
  );

  /** The answer to a message, which is never longer than the message. */
  answer(message: Uint8Array, source: Uint8Array, nowMs: number): Uint8Array | undefined {
    const outcome = this.responder.readMessage1(message, source, 0, nowMs);
    if (outcome === undefined) return undefined;
    assert.ok(outcome.answer.length <= message.length);
    assert.ok(this.responder.pending.length <= PENDING_SLOTS);
    return outcome.answer.slice();
  }

  get pendingE(): string[] {
    return this.responder.pending.map(({ e }) => toHex(e));
  }

  private decide(client: Payload1, pending: readonly Pending[]): Decision {
    this.decisions++;
    const isRekey = client.instance[0] === 1;
    const taken = pending.filter((slot) => slot.client.instance[0] === 1);
    const epoch = [1, 2].find((number) => !taken.some((slot) => slot.answer.epoch === number));
    if (isRekey && epoch === undefined) return 'no-epoch';
    const instance = new Uint8Array(8).fill(0xee);
    const accepted = { verdict: this.verdict, cipher: 2, epoch: isRekey ? epoch! : 0, ipv6: false };
    return { instance, session: 0x445566, ...accepted };
  }
}

export const typeOf = (answer: Uint8Array | undefined): number | undefined => answer?.[0];

/** Fills the server's slots with first messages of other instances; returns them. */
export function fillSlots(server: Server, nowMs: number): Uint8Array[] {
  const messages = Array.from({ length: PENDING_SLOTS }, (_, i) => firstMessage(10 + i));
  for (const message of messages) server.answer(message, THERE, nowMs);
  assert.equal(server.responder.pending.length, PENDING_SLOTS);
  return messages;
}
