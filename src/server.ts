/**
 * The server's side of the session: answers handshakes, and lets a new session or new keys take over
 * when, and only when, the client has proved that it has them (PROTOCOL §3.3, §3.4).
 */
import { formatEndpoint } from './address.ts';
import { isEqual, wipe } from './crypto.ts';
import { SILENT_MS } from './constants.ts';
import { Cipher } from './native.ts';
import type { LinkSocket } from './host.ts';
import type { Peering, PeeringContext } from './peering.ts';
import { Responder, type Decision, type Pending } from './responder.ts';
import { Epoch, Session } from './session.ts';
import { INSTANCE_BYTES, MessageType, VerdictCode, type Payload1, type Payload2 } from './wire.ts';

/** A handshake whose keys are ready, waiting for the first datagram that opens with them. */
interface Prepared {
  readonly pending: Pending;
  readonly sessionId: number;
  readonly epoch: Epoch;
}

/** Of four epochs two may be in use, so two are left for handshakes (§3.4). */
const MAX_PENDING_REKEYS = 2;
/** How often a client that does not renew worn keys is asked to. */
const ASK_AGAIN_MS = 1_000;

export class ServerPeering implements Peering {
  session: Session | undefined = undefined;
  private readonly context: PeeringContext;
  private readonly instance = new Uint8Array(INSTANCE_BYTES);
  private readonly responder: Responder;
  private readonly askForKeys: () => void;
  private prepared: Prepared[] = [];
  private askAtMs = Number.NEGATIVE_INFINITY;

  /** `askForKeys` sends the client a request for new keys. */
  constructor(context: PeeringContext, askForKeys: () => void) {
    this.context = context;
    this.askForKeys = askForKeys;
    context.host.randomBytes(this.instance);
    this.responder = new Responder(
      context.config.keys,
      (client, pending, nowMs) => this.decide(client, pending, nowMs),
      (pending) => this.forget(pending),
    );
  }

  epochFor(sessionId: number, number: number): Epoch | undefined {
    if (sessionId === this.session?.localId) {
      const epoch = this.session.epoch(number);
      if (epoch !== undefined) return epoch;
    }
    for (const { sessionId: id, epoch } of this.prepared) {
      if (id === sessionId && epoch.number === number) return epoch;
    }
    return undefined;
  }

  opened(epoch: Epoch, sources: Uint8Array, at: number, nowMs: number): void {
    const prepared = this.prepared.find((candidate) => candidate.epoch === epoch);
    if (prepared !== undefined) this.promote(prepared, sources, at, nowMs);
    this.session?.confirm(epoch, this.context.slowestRttMs(), nowMs);
  }

  onMessage(
    message: Uint8Array,
    socket: LinkSocket,
    sources: Uint8Array,
    at: number,
    nowMs: number,
  ): void {
    if (message[0] !== MessageType.message1) return;
    const outcome = this.responder.readMessage1(message, sources, at, nowMs);
    if (outcome === undefined) return;
    if (outcome.made !== undefined) this.prepare(outcome.made, nowMs);
    this.context.sendMessage(outcome.answer, socket, sources, at);
  }

  /** A server learns its links from what comes. */
  linkOpened(): void {}

  linkChanged(): void {}

  /** The client is told goodbye by whoever asks for this, and makes a handshake. */
  reset(): void {
    this.endSession();
  }

  /** Only a server asks. */
  rekeyAsked(): void {}

  goodbye(): void {
    this.endSession();
    this.context.host.report({ kind: 'closed' });
  }

  onTimer(nowMs: number): void {
    this.responder.expire(nowMs);
    const { session } = this;
    if (session === undefined) return;
    if (!session.expire(nowMs)) {
      this.endSession();
    } else if (session.current.isWorn() && nowMs >= this.askAtMs) {
      this.askAtMs = nowMs + ASK_AGAIN_MS;
      this.askForKeys();
    }
  }

  deadlineMs(): number {
    return this.session?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
  }

  wipe(): void {
    this.responder.wipe();
    this.session?.wipe();
    this.session = undefined;
  }

  private decide(client: Payload1, pending: readonly Pending[], nowMs: number): Decision {
    const { config } = this.context;
    const refuse = (verdict: number): Payload2 => this.payload(0, verdict, 0, 0);
    const { serverIp, clientIp } = config;
    if (!mayBeSame(client.serverIp, serverIp) || !mayBeSame(client.clientIp, clientIp)) {
      return refuse(VerdictCode.addressesDiffer);
    }
    if (client.modes !== config.modes) return refuse(VerdictCode.modesDiffer);
    const cipher = this.chooseCipher(client.ciphers);
    if (cipher === 0) return refuse(VerdictCode.noCommonCipher);

    const { session } = this;
    if (session !== undefined && isEqual(session.instance, client.instance)) {
      const taken = pending
        .filter((slot) => slot.keys !== undefined && slot.answer.session === session.localId)
        .map((slot) => slot.answer.epoch);
      const epoch = taken.length < MAX_PENDING_REKEYS ? session.freeEpoch(taken) : -1;
      if (epoch === -1) return 'no-epoch';
      return this.payload(session.localId, VerdictCode.accepted, cipher, epoch);
    }
    // One client: another instance waits until the present one was silent (PROTOCOL §3.2).
    if (session !== undefined && nowMs < this.context.heardMs + SILENT_MS) {
      return refuse(VerdictCode.busy);
    }
    return this.payload(this.newSessionId(), VerdictCode.accepted, cipher, 0);
  }

  private payload(session: number, verdict: number, cipher: number, epoch: number): Payload2 {
    return {
      instance: this.instance,
      session,
      verdict,
      cipher,
      epoch,
      ipv6: this.context.config.ipv6,
    };
  }

  /** AES where both ends have it in hardware, else ChaCha20; 0 if nothing is common (§3.4). */
  private chooseCipher(offered: number): number {
    const common = offered & this.context.config.ciphers;
    for (const cipher of [Cipher.aes256Gcm, Cipher.chacha20Poly1305]) {
      if ((common & (1 << (cipher - 1))) !== 0) return cipher;
    }
    return 0;
  }

  /** Random, and no other that is in use. */
  private newSessionId(): number {
    const bytes = new Uint8Array(3);
    for (;;) {
      this.context.host.randomBytes(bytes);
      const id = (bytes[0] << 16) | (bytes[1] << 8) | bytes[2];
      const isTaken =
        id === this.session?.localId || this.prepared.some(({ sessionId }) => sessionId === id);
      if (!isTaken) return id;
    }
  }

  private prepare(pending: Pending, nowMs: number): void {
    if (pending.keys === undefined) return;
    const { session, epoch, cipher } = pending.answer;
    this.prepared.push({
      pending,
      sessionId: session,
      epoch: new Epoch(this.context.host.aead, 'server', epoch, cipher, pending.keys, nowMs),
    });
    wipe(pending.keys.k1, pending.keys.k2);
  }

  private forget(pending: Pending): void {
    this.prepared.find((candidate) => candidate.pending === pending)?.epoch.wipe();
    this.prepared = this.prepared.filter((candidate) => candidate.pending !== pending);
  }

  private promote(prepared: Prepared, sources: Uint8Array, at: number, nowMs: number): void {
    const { pending, epoch, sessionId } = prepared;
    this.prepared = this.prepared.filter((candidate) => candidate !== prepared);
    this.responder.take(pending);
    if (this.session !== undefined && this.session.localId === sessionId) {
      this.session.rekey(epoch);
      this.context.host.report({ kind: 'rekeyed', epoch: epoch.number });
      return;
    }
    this.endSession();
    const { client, answer } = pending;
    this.session = new Session(client.instance, sessionId, client.session, epoch);
    this.context.sessionBegan(nowMs);
    this.context.host.report({
      kind: 'connected',
      endpoint: formatEndpoint(sources.subarray(at)),
      cipher: answer.cipher,
      ipv6: answer.ipv6,
      again: false,
    });
  }

  private endSession(): void {
    if (this.session === undefined) return;
    this.session.wipe();
    this.session = undefined;
    this.context.sessionEnded();
  }
}

/** Whether two ends can have been told the same address; an end that was told none has zeros (§3.1). */
function mayBeSame(theirs: Uint8Array, ours: Uint8Array): boolean {
  const isTold = [theirs, ours].every((address) => address.some((byte) => byte !== 0));
  return !isTold || isEqual(theirs, ours);
}
