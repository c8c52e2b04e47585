/**
 * The messages of PROTOCOL §3, client side and what both sides share. Told the time; sends nothing.
 */
import { COOKIE_MS, EPOCHS, HANDSHAKE_RETRY_MS, PROTOCOL_VERSION } from './constants.ts';
import { isEqual, keyedHash, openCookie, release } from './crypto.ts';
import { NoiseInitiator, type TransportKeys } from './noise.ts';
import {
  COOKIE_BYTES,
  COOKIE_MESSAGE_BYTES,
  COOKIE_NONCE_AT,
  COOKIE_SEALED_AT,
  decodePayload2,
  encodePayload1,
  MAC_BYTES,
  MESSAGE1_BYTES,
  MESSAGE1_MAC1_AT,
  MESSAGE1_MAC2_AT,
  MESSAGE2_BYTES,
  MESSAGE2_MAC1_AT,
  message2Session,
  MessageType,
  noisePart,
  PAYLOAD2_BYTES,
  VerdictCode,
  VERSION_AT,
  VERSION_ECHO_AT,
  VERSION_MAC_AT,
  VERSION_MESSAGE_BYTES,
  type Payload1,
  type Payload2,
} from './wire.ts';
import type { SharedKeys } from './sharedkey.ts';

export const PROLOGUE: Uint8Array = new TextEncoder().encode('vpn 1 client');

/** The 16-byte MAC that every handshake message carries, over its bytes before `end`. */
export function messageMac(key: Uint8Array, message: Uint8Array, end: number): Uint8Array {
  const mac = new Uint8Array(MAC_BYTES);
  keyedHash(mac, key, message.subarray(0, end));
  return mac;
}

/** Whether the MAC at `at` is right: so far the sender has the shared key, or repeats one who has. */
export function isMacRight(key: Uint8Array, message: Uint8Array, at: number): boolean {
  return isEqual(messageMac(key, message, at), message.subarray(at, at + MAC_BYTES));
}

/** What a second message brings. The taker wipes `keys`; with a refusing verdict they open nothing. */
export interface Accepted {
  readonly payload: Payload2;
  readonly keys: TransportKeys;
}

/** One handshake of the client: a first message, repeated until its answer comes or it is given up. */
export class Initiator {
  /** The first message; its last 16 bytes change when a cookie comes. Borrowed until the next call. */
  readonly message = new Uint8Array(MESSAGE1_BYTES);
  /** When it is to be sent (again). */
  sendAtMs: number;
  private attempt = 0;
  private readonly noise: NoiseInitiator;
  private readonly shared: SharedKeys;
  private readonly session: number;
  private readonly ciphers: number;

  constructor(shared: SharedKeys, payload: Payload1, cookie: Cookie, nowMs: number) {
    this.shared = shared;
    this.session = payload.session;
    this.ciphers = payload.ciphers;
    this.sendAtMs = nowMs;
    this.noise = new NoiseInitiator(shared.psk, PROLOGUE);
    this.message[0] = MessageType.message1;
    this.message[VERSION_AT] = PROTOCOL_VERSION;
    this.noise.writeMessage1(noisePart(this.message), encodePayload1(payload));
    this.message.set(messageMac(shared.mac, this.message, MESSAGE1_MAC1_AT), MESSAGE1_MAC1_AT);
    this.prove(cookie, nowMs);
  }

  /** Whether its tries are used up: make a new one. */
  isSpent(nowMs: number): boolean {
    return this.attempt >= HANDSHAKE_RETRY_MS.length && nowMs >= this.sendAtMs;
  }

  /** To be called after each sending. */
  sent(nowMs: number): void {
    this.sendAtMs =
      nowMs + HANDSHAKE_RETRY_MS[Math.min(this.attempt, HANDSHAKE_RETRY_MS.length - 1)];
    this.attempt++;
  }

  /** Takes a cookie message; whether it was a new answer to ours. Then the message is due at once. */
  takeCookie(answer: Uint8Array, cookie: Cookie, nowMs: number): boolean {
    if (answer.length !== COOKIE_MESSAGE_BYTES || answer[0] !== MessageType.cookie) return false;
    if ((answer[1] | answer[2] | answer[3]) !== 0) return false;
    const opened = new Uint8Array(COOKIE_BYTES);
    const isOurs = openCookie(
      opened,
      this.shared.cookie,
      answer.subarray(COOKIE_NONCE_AT, COOKIE_SEALED_AT),
      this.message.subarray(MESSAGE1_MAC1_AT, MESSAGE1_MAC2_AT),
      answer.subarray(COOKIE_SEALED_AT),
    );
    if (!isOurs) return false;
    // A repeated answer must not make us send again and again.
    if (isEqual(opened, cookie.bytes)) return false;
    // Nor must two of them, repeated in turn.
    if (nowMs - cookie.atMs >= HANDSHAKE_RETRY_MS[0]) this.sendAtMs = nowMs;
    cookie.bytes.set(opened);
    cookie.atMs = nowMs;
    this.prove(cookie, nowMs);
    return true;
  }

  /** The version the peer speaks, if `answer` is a genuine answer to our message (§3.3). */
  readVersion(answer: Uint8Array): number | undefined {
    if (answer.length !== VERSION_MESSAGE_BYTES || answer[0] !== MessageType.version)
      return undefined;
    const echo = answer.subarray(VERSION_ECHO_AT, VERSION_MAC_AT);
    if (!isEqual(echo, this.message.subarray(MESSAGE1_MAC1_AT, MESSAGE1_MAC2_AT))) return undefined;
    return isMacRight(this.shared.mac, answer, VERSION_MAC_AT) ? answer[VERSION_AT] : undefined;
  }

  /** The server's answer; undefined, with nothing changed, if it is not one to our message. */
  readMessage2(answer: Uint8Array): Accepted | undefined {
    if (answer.length !== MESSAGE2_BYTES || answer[0] !== MessageType.message2) return undefined;
    if (message2Session(answer) !== this.session) return undefined;
    if (!isMacRight(this.shared.mac, answer, MESSAGE2_MAC1_AT)) return undefined;
    const bytes = new Uint8Array(PAYLOAD2_BYTES);
    const keys = this.noise.readMessage2(bytes, noisePart(answer));
    if (keys === undefined) return undefined;
    const payload = decodePayload2(bytes);
    if (payload.verdict === VerdictCode.accepted && !this.isUsable(payload)) {
      release(keys.k1, keys.k2);
      return undefined;
    }
    return { payload, keys };
  }

  /** The peer has the key, but may be buggy: a cipher that was offered, and an epoch that exists. */
  private isUsable({ cipher, epoch }: Payload2): boolean {
    if (epoch >= EPOCHS || cipher < 1 || cipher > 8) return false;
    return (this.ciphers & (1 << (cipher - 1))) !== 0;
  }

  wipe(): void {
    this.noise.wipe();
  }

  private prove(cookie: Cookie, nowMs: number): void {
    if (nowMs - cookie.atMs >= COOKIE_MS) return;
    this.message.set(messageMac(cookie.bytes, this.message, MESSAGE1_MAC2_AT), MESSAGE1_MAC2_AT);
  }
}

/** The last cookie the server gave us; outlives a handshake. */
export interface Cookie {
  readonly bytes: Uint8Array;
  atMs: number;
}

export function noCookie(): Cookie {
  return { bytes: new Uint8Array(COOKIE_BYTES), atMs: Number.NEGATIVE_INFINITY };
}
