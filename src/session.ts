/**
 * What two running instances share: up to four epochs of keys, their counters and replay windows,
 * and the sequences of the flow buckets (PROTOCOL §3.4, §4). Told the time; knows no link state.
 *
 * No nonce can repeat: `Epoch.reserve` is the only source of counters, it only goes up, and it lives
 * as long as the key does, whatever becomes of the link.
 */
import {
  EPOCHS,
  OLD_KEYS_EXTRA_MS,
  REJECT_AFTER_COUNTER,
  REJECT_AFTER_MS,
  REKEY_AFTER_COUNTER,
} from './constants.ts';
import type { Host } from './host.ts';
import type { Handle } from './native.ts';
import type { TransportKeys } from './noise.ts';
import { ReplayWindow } from './replay.ts';
import { BUCKETS, LINK_IDS } from './wire.ts';

type Aead = Host['aead'];
export type Role = 'client' | 'server';

/** One set of keys. */
export class Epoch {
  readonly number: number;
  readonly cipher: number;
  readonly sealKey: Handle;
  readonly openKey: Handle;
  readonly bornMs: number;
  /** When the peer was first heard under these keys; Infinity until then. */
  confirmedMs = Number.POSITIVE_INFINITY;
  /** When they stop opening, once a newer epoch is confirmed. */
  openUntilMs = Number.POSITIVE_INFINITY;
  private readonly aead: Aead;
  private readonly counters = new Float64Array(LINK_IDS);
  private readonly windows: (ReplayWindow | undefined)[] = new Array(LINK_IDS).fill(undefined);
  /** Counters given out, over all links. */
  private used = 0;
  private isWiped = false;

  /** `keys` are borrowed: the caller wipes them. */
  constructor(
    aead: Aead,
    role: Role,
    number: number,
    cipher: number,
    keys: TransportKeys,
    nowMs: number,
  ) {
    const isClient = role === 'client';
    this.aead = aead;
    this.number = number;
    this.cipher = cipher;
    this.bornMs = nowMs;
    this.sealKey = aead.aeadCreate(cipher, isClient ? keys.k1 : keys.k2);
    this.openKey = aead.aeadCreate(cipher, isClient ? keys.k2 : keys.k1);
  }

  /**
   * The first of `count` consecutive counters of a link, never given again. −1 when the key has
   * sealed all it may, or is wiped: its handle may then be another key's.
   */
  reserve(link: number, count: number): number {
    if (this.isWiped || this.used + count > REJECT_AFTER_COUNTER) return -1;
    const first = this.counters[link];
    this.counters[link] = first + count;
    this.used += count;
    return first;
  }

  /** The last counter given out for a link; −1: none. */
  lastCounter(link: number): number {
    return this.counters[link] - 1;
  }

  /** The replay window of a link. Made when first asked for: ask only for what names this epoch. */
  window(link: number): ReplayWindow {
    return (this.windows[link] ??= new ReplayWindow());
  }

  /** The window if the link was heard under these keys, else undefined: before a datagram has opened. */
  knownWindow(link: number): ReplayWindow | undefined {
    return this.windows[link];
  }

  /** Whether our direction has used so many counters that new keys are due. */
  isWorn(): boolean {
    return this.used >= REKEY_AFTER_COUNTER;
  }

  /** When these keys must be gone. */
  deadlineMs(): number {
    const isConfirmed = this.confirmedMs !== Number.POSITIVE_INFINITY;
    const startMs = isConfirmed ? this.confirmedMs : this.bornMs;
    return Math.min(this.openUntilMs, startMs + REJECT_AFTER_MS);
  }

  wipe(): void {
    if (this.isWiped) return;
    this.isWiped = true;
    this.aead.aeadFree(this.sealKey);
    this.aead.aeadFree(this.openKey);
  }
}

export class Session {
  /** The peer's instance. */
  readonly instance: Uint8Array;
  /** The id that datagrams to us carry. */
  readonly localId: number;
  /** The id that datagrams to the peer carry. */
  readonly peerId: number;
  /** Next sequence of each flow bucket (§5.2); goes on across rekeys. */
  readonly sequences = new Uint32Array(BUCKETS);
  /** The epoch that seals. */
  current: Epoch;
  private readonly epochs: (Epoch | undefined)[] = new Array(EPOCHS).fill(undefined);

  constructor(instance: Uint8Array, localId: number, peerId: number, first: Epoch) {
    this.instance = instance;
    this.localId = localId;
    this.peerId = peerId;
    this.current = first;
    this.epochs[first.number] = first;
  }

  epoch(number: number): Epoch | undefined {
    return this.epochs[number];
  }

  /**
   * Seals with `epoch` from now on; the others only open. The server gives free numbers. A client that
   * is given one of its own again drops what it has under it: the server forgot those keys, for example
   * because nothing that was sealed with them arrived in time.
   */
  rekey(epoch: Epoch): void {
    this.epochs[epoch.number]?.wipe();
    this.epochs[epoch.number] = epoch;
    this.current = epoch;
  }

  /** The peer was heard under `epoch`: older ones open for two round trips and a second more. */
  confirm(epoch: Epoch, slowestRttMs: number, nowMs: number): void {
    // Not ours any more: of two handshakes heard in one batch, the first has dropped the other.
    if (this.epochs[epoch.number] !== epoch) return;
    if (epoch.confirmedMs !== Number.POSITIVE_INFINITY) return;
    epoch.confirmedMs = nowMs;
    for (const other of this.epochs) {
      if (other === undefined || other === epoch || other.bornMs > epoch.bornMs) continue;
      other.openUntilMs = Math.min(other.openUntilMs, nowMs + 2 * slowestRttMs + OLD_KEYS_EXTRA_MS);
    }
  }

  /** A number for the next epoch that neither live keys nor `taken` have; −1 if there is none. */
  freeEpoch(taken: readonly number[]): number {
    for (let step = 1; step < EPOCHS; step++) {
      const number = (this.current.number + step) % EPOCHS;
      if (this.epochs[number] === undefined && !taken.includes(number)) return number;
    }
    return -1;
  }

  /** Wipes keys whose time is over. False when none that seals is left: the session is over. */
  expire(nowMs: number): boolean {
    for (let number = 0; number < EPOCHS; number++) {
      const epoch = this.epochs[number];
      if (epoch === undefined || nowMs < epoch.deadlineMs()) continue;
      epoch.wipe();
      this.epochs[number] = undefined;
      if (epoch === this.current) return false;
    }
    return true;
  }

  nextDeadlineMs(): number {
    let deadline = Number.POSITIVE_INFINITY;
    for (const epoch of this.epochs) {
      if (epoch !== undefined) deadline = Math.min(deadline, epoch.deadlineMs());
    }
    return deadline;
  }

  wipe(): void {
    for (let number = 0; number < EPOCHS; number++) {
      this.epochs[number]?.wipe();
      this.epochs[number] = undefined;
    }
  }
}
