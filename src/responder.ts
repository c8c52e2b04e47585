/**
 * The server's side of the handshake (PROTOCOL §3.3): a few pending handshakes, and cookies when they
 * run out. Told the time; sends nothing. No answer is longer than the message it answers.
 */
import { ENDPOINT_REMOTE_BYTES } from './batch.ts';
import { COOKIE_MS, PENDING_MS, PENDING_SLOTS, PROTOCOL_VERSION, REFUSED_MS } from './constants.ts';
import {
  isEqual,
  KEY_BYTES,
  keyedHash,
  random,
  release,
  sealCookie,
  secret,
  wipe,
} from './crypto.ts';
import { isMacRight, messageMac, PROLOGUE } from './handshake.ts';
import type { SharedKeys } from './sharedkey.ts';
import { NoiseResponder, type TransportKeys } from './noise.ts';
import {
  COOKIE_BYTES,
  COOKIE_MESSAGE_BYTES,
  COOKIE_NONCE_AT,
  COOKIE_SEALED_AT,
  decodePayload1,
  encodePayload2,
  MAC_BYTES,
  MESSAGE1_BYTES,
  MESSAGE1_MAC1_AT,
  MESSAGE1_MAC2_AT,
  MESSAGE2_BYTES,
  MESSAGE2_MAC1_AT,
  MessageType,
  NOISE_AT,
  noisePart,
  PAYLOAD1_BYTES,
  VerdictCode,
  VERSION_AT,
  VERSION_ECHO_AT,
  VERSION_MAC_AT,
  VERSION_MESSAGE_BYTES,
  writeMessage2Session,
  type Payload1,
  type Payload2,
} from './wire.ts';

/** A handshake that was answered. With `keys` it waits for the first datagram that opens with them. */
export interface Pending {
  readonly e: Uint8Array;
  readonly message2: Uint8Array;
  readonly client: Payload1;
  readonly answer: Payload2;
  /** Whoever takes the pending handshake owns and wipes them. Undefined when refused. */
  readonly keys: TransportKeys | undefined;
  /** The sender showed a cookie, so it has the key and is where it says it is. */
  readonly proved: boolean;
  readonly expiresAtMs: number;
}

/** How the owner wants to answer a client; `no-epoch` when all epochs of its session are in use. */
export type Decision = Payload2 | 'no-epoch';

/** Asked for each new first message, once it is known to come from a holder of the key. */
export type Decide = (client: Payload1, pending: readonly Pending[], nowMs: number) => Decision;

export interface ResponderOutcome {
  /** What to send to where the message came from. */
  readonly answer: Uint8Array;
  /** Set when this message made it: the owner prepares the keys for the first datagram. */
  readonly made: Pending | undefined;
}

export class Responder {
  private readonly shared: SharedKeys;
  private readonly decide: Decide;
  /** Called when a pending handshake is dropped, so that the owner frees what it prepared. */
  private readonly dropped: (pending: Pending) => void;
  private slots: Pending[] = [];
  private secretAtMs = Number.NEGATIVE_INFINITY;
  private readonly secrets = [secret(KEY_BYTES), secret(KEY_BYTES)];

  constructor(shared: SharedKeys, decide: Decide, dropped: (pending: Pending) => void) {
    this.shared = shared;
    this.decide = decide;
    this.dropped = dropped;
  }

  get pending(): readonly Pending[] {
    return this.slots;
  }

  /** Answers a first message from the peer at `source[sourceAt]` (an endpoint), or stays silent. */
  readMessage1(
    message: Uint8Array,
    source: Uint8Array,
    sourceAt: number,
    nowMs: number,
  ): ResponderOutcome | undefined {
    const mac1At = message.length - 2 * MAC_BYTES;
    // The type counts here too: a second message with 16 bytes behind it has its MAC in the same place.
    if (mac1At < NOISE_AT || message[0] !== MessageType.message1) return undefined;
    if (!isMacRight(this.shared.mac, message, mac1At)) return undefined;
    if (message[VERSION_AT] !== PROTOCOL_VERSION) {
      return { answer: this.versionAnswer(message, mac1At), made: undefined };
    }
    if (message.length !== MESSAGE1_BYTES) return undefined;

    this.expire(nowMs);
    const e = message.subarray(NOISE_AT, NOISE_AT + KEY_BYTES);
    const known = this.slots.find((slot) => isEqual(slot.e, e));
    if (known !== undefined) return { answer: known.message2, made: undefined };

    const proved = this.isProved(message, source, sourceAt, nowMs);
    if (this.slots.length >= PENDING_SLOTS && !proved) {
      return { answer: this.cookieAnswer(message, source, sourceAt), made: undefined };
    }
    return this.answer(message, source, sourceAt, proved, nowMs);
  }

  /**
   * Takes a pending handshake out, because its client proved the keys; the others are dropped. Cookies
   * given until now are void: a first message recorded with one must not pass for a proof again.
   */
  take(pending: Pending): void {
    for (const slot of this.slots) {
      if (slot !== pending) this.drop(slot);
    }
    this.slots = [];
    this.secretAtMs = Number.NEGATIVE_INFINITY;
  }

  expire(nowMs: number): void {
    const stays = (slot: Pending): boolean => nowMs < slot.expiresAtMs;
    for (const slot of this.slots) {
      if (!stays(slot)) this.drop(slot);
    }
    this.slots = this.slots.filter(stays);
  }

  wipe(): void {
    for (const slot of this.slots) this.drop(slot);
    this.slots = [];
    wipe(...this.secrets);
  }

  private answer(
    message: Uint8Array,
    source: Uint8Array,
    sourceAt: number,
    proved: boolean,
    nowMs: number,
  ): ResponderOutcome | undefined {
    const noise = new NoiseResponder(this.shared.psk, PROLOGUE);
    try {
      const payload = new Uint8Array(PAYLOAD1_BYTES);
      if (!noise.readMessage1(payload, noisePart(message))) return undefined;
      const client = decodePayload1(payload);
      let decision = this.decide(client, this.slots, nowMs);
      if (decision === 'no-epoch') {
        if (!proved)
          return { answer: this.cookieAnswer(message, source, sourceAt), made: undefined };
        this.evict((slot) => isEqual(slot.client.instance, client.instance));
        decision = this.decide(client, this.slots, nowMs);
        if (decision === 'no-epoch') return undefined;
      }
      if (this.slots.length >= PENDING_SLOTS) this.evict(() => true);
      return this.accept(noise, message, client, decision, proved, nowMs);
    } finally {
      noise.wipe();
    }
  }

  private accept(
    noise: NoiseResponder,
    message: Uint8Array,
    client: Payload1,
    answer: Payload2,
    proved: boolean,
    nowMs: number,
  ): ResponderOutcome | undefined {
    const message2 = new Uint8Array(MESSAGE2_BYTES);
    message2[0] = MessageType.message2;
    writeMessage2Session(message2, client.session);
    const keys = noise.writeMessage2(noisePart(message2), encodePayload2(answer));
    if (keys === undefined) return undefined;
    message2.set(messageMac(this.shared.mac, message2, MESSAGE2_MAC1_AT), MESSAGE2_MAC1_AT);

    const isAccepted = answer.verdict === VerdictCode.accepted;
    if (!isAccepted) release(keys.k1, keys.k2);
    const made: Pending = {
      e: message.slice(NOISE_AT, NOISE_AT + KEY_BYTES),
      message2,
      client,
      answer,
      keys: isAccepted ? keys : undefined,
      proved,
      expiresAtMs: nowMs + (isAccepted ? PENDING_MS : REFUSED_MS),
    };
    this.slots.push(made);
    return { answer: message2, made };
  }

  /** Drops the oldest unproved slot that qualifies, else the oldest that does. */
  private evict(qualifies: (slot: Pending) => boolean): void {
    const candidates = this.slots.filter(qualifies);
    const victim = candidates.find((slot) => !slot.proved) ?? candidates[0];
    if (victim === undefined) return;
    this.drop(victim);
    this.slots = this.slots.filter((slot) => slot !== victim);
  }

  private drop(slot: Pending): void {
    this.dropped(slot);
    if (slot.keys !== undefined) wipe(slot.keys.k1, slot.keys.k2);
  }

  private isProved(message: Uint8Array, source: Uint8Array, at: number, nowMs: number): boolean {
    this.renewSecret(nowMs);
    const mac2 = message.subarray(MESSAGE1_MAC2_AT);
    return this.secrets.some((key) => {
      const cookie = this.cookie(key, source, at);
      return isEqual(messageMac(cookie, message, MESSAGE1_MAC2_AT), mac2);
    });
  }

  private cookieAnswer(message: Uint8Array, source: Uint8Array, sourceAt: number): Uint8Array {
    const answer = new Uint8Array(COOKIE_MESSAGE_BYTES);
    answer[0] = MessageType.cookie;
    const nonce = answer.subarray(COOKIE_NONCE_AT, COOKIE_SEALED_AT);
    random(nonce);
    sealCookie(
      answer.subarray(COOKIE_SEALED_AT),
      this.shared.cookie,
      nonce,
      message.subarray(MESSAGE1_MAC1_AT, MESSAGE1_MAC2_AT),
      this.cookie(this.secrets[0], source, sourceAt),
    );
    return answer;
  }

  private versionAnswer(message: Uint8Array, mac1At: number): Uint8Array {
    const answer = new Uint8Array(VERSION_MESSAGE_BYTES);
    answer[0] = MessageType.version;
    answer[VERSION_AT] = PROTOCOL_VERSION;
    answer.set(message.subarray(mac1At, mac1At + MAC_BYTES), VERSION_ECHO_AT);
    answer.set(messageMac(this.shared.mac, answer, VERSION_MAC_AT), VERSION_MAC_AT);
    return answer;
  }

  private cookie(key: Uint8Array, source: Uint8Array, at: number): Uint8Array {
    const cookie = new Uint8Array(COOKIE_BYTES);
    keyedHash(cookie, key, source.subarray(at, at + ENDPOINT_REMOTE_BYTES));
    return cookie;
  }

  /**
   * Two secrets, so that a cookie given just before the change still counts (§3.3). Done only when
   * asked for, so the last one may be too old to be kept even as the previous one.
   */
  private renewSecret(nowMs: number): void {
    if (nowMs - this.secretAtMs < COOKIE_MS) return;
    const [current, previous] = this.secrets;
    if (nowMs - this.secretAtMs >= 2 * COOKIE_MS) random(previous);
    else previous.set(current);
    random(current);
    this.secretAtMs = nowMs;
  }
}
