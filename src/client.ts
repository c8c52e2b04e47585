/**
 * The client's side of the session: makes handshakes, renews keys, and never gives up (PROTOCOL §3.4, §6).
 */
import { isSameRemote } from './address.ts';
import { ENDPOINT_BYTES } from './batch.ts';
import { isEqual, wipe } from './crypto.ts';
import { SILENT_MS } from './constants.ts';
import { Initiator, noCookie, type Accepted } from './handshake.ts';
import { formatEndpoint } from './address.ts';
import type { LinkSocket } from './host.ts';
import type { Peering, PeeringContext } from './peering.ts';
import { Epoch, Session } from './session.ts';
import { INSTANCE_BYTES, MessageType, VerdictCode } from './wire.ts';

/** Handshakes do not follow one another faster than this, also if no data follows them. */
const HANDSHAKE_GAP_MS = 1_000;
/** How long to wait after the server refused: long enough to be no load, short enough to be no pain. */
const REFUSED_WAIT_MS = 3_000;

/** Why a server refuses; whatever else it may say is of a later version. */
const WHY: Readonly<Record<number, 'no-common-cipher' | 'addresses-differ' | 'modes-differ'>> = {
  [VerdictCode.noCommonCipher]: 'no-common-cipher',
  [VerdictCode.addressesDiffer]: 'addresses-differ',
  [VerdictCode.modesDiffer]: 'modes-differ',
};

export class ClientPeering implements Peering {
  session: Session | undefined = undefined;
  private readonly context: PeeringContext;
  private readonly instance = new Uint8Array(INSTANCE_BYTES);
  private readonly localId: number;
  private readonly cookie = noCookie();
  private initiator: Initiator | undefined = undefined;
  /** As each link reaches the server, best first. */
  private readonly endpoints: (readonly Uint8Array[] | undefined)[];
  /** How often each link was given another server: an answer about an earlier one comes too late. */
  private readonly changes: number[] = [];
  private nextEndpoint = 0;
  private readonly resolving = new Set<number>();
  private isRekeyAsked = false;
  private quietUntilMs = Number.NEGATIVE_INFINITY;
  private hasConnected = false;
  /** The last refusal that was reported: each is said once, not with every try. */
  private reported = '';

  constructor(context: PeeringContext, endpoints: readonly (readonly Uint8Array[])[]) {
    this.context = context;
    this.endpoints = [...endpoints];
    context.host.randomBytes(this.instance);
    const id = new Uint8Array(3);
    context.host.randomBytes(id);
    this.localId = (id[0] << 16) | (id[1] << 8) | id[2];
  }

  epochFor(sessionId: number, number: number): Epoch | undefined {
    return sessionId === this.localId ? this.session?.epoch(number) : undefined;
  }

  opened(epoch: Epoch, _sources: Uint8Array, _at: number, nowMs: number): void {
    this.session?.confirm(epoch, this.context.slowestRttMs(), nowMs);
  }

  onMessage(
    message: Uint8Array,
    socket: LinkSocket,
    sources: Uint8Array,
    at: number,
    nowMs: number,
  ): void {
    if (this.initiator === undefined) return;
    if (message[0] === MessageType.cookie) {
      this.initiator.takeCookie(message, this.cookie, nowMs);
    } else if (message[0] === MessageType.version) {
      const version = this.initiator.readVersion(message);
      if (version !== undefined) this.refused('version', version, nowMs);
    } else if (message[0] === MessageType.message2) {
      const accepted = this.initiator.readMessage2(message);
      if (accepted !== undefined) this.answered(accepted, socket, sources, at, nowMs);
    }
  }

  linkChanged(index: number): void {
    this.endpoints[index] = undefined;
    this.changes[index] = (this.changes[index] ?? 0) + 1;
    this.resolving.delete(index);
  }

  reset(): void {
    this.forgetSession();
    this.quietUntilMs = Number.NEGATIVE_INFINITY;
  }

  linkOpened(index: number, nowMs: number): void {
    this.resolve(index);
    if (this.session !== undefined) this.useLink(index, nowMs);
  }

  rekeyAsked(): void {
    this.isRekeyAsked = true;
  }

  goodbye(): void {
    this.endSession();
    this.context.host.report({ kind: 'closed' });
  }

  onTimer(nowMs: number): void {
    if (this.session?.expire(nowMs) === false) this.forgetSession();
    if (!this.isHandshakeDue(nowMs)) {
      this.dropInitiator();
      return;
    }
    if (nowMs < this.quietUntilMs) return;
    if (this.initiator === undefined || this.initiator.isSpent(nowMs)) this.begin(nowMs);
    if (this.initiator !== undefined && nowMs >= this.initiator.sendAtMs) {
      this.sendMessage1(this.initiator, nowMs);
    }
  }

  deadlineMs(): number {
    const expiry = this.session?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (this.initiator !== undefined) {
      return Math.min(expiry, Math.max(this.initiator.sendAtMs, this.quietUntilMs));
    }
    if (this.session === undefined) return this.quietUntilMs;
    const rekeyMs = this.isRekeyAsked ? this.quietUntilMs : this.rekeyMs(this.session);
    const silentMs = this.context.heardMs + SILENT_MS;
    return Math.min(expiry, Math.max(this.quietUntilMs, Math.min(rekeyMs, silentMs)));
  }

  wipe(): void {
    this.dropInitiator();
    this.session?.wipe();
    this.session = undefined;
    wipe(this.cookie.bytes);
  }

  private isHandshakeDue(nowMs: number): boolean {
    const { session } = this;
    if (session === undefined || this.isSilent(nowMs) || this.isRekeyAsked) return true;
    return session.current.isWorn() || nowMs >= this.rekeyMs(session);
  }

  /**
   * When new keys are due. Keys that the server was never heard under may be keys that it has forgotten,
   * while under the old ones it is heard well: those are renewed soon.
   */
  private rekeyMs(session: Session): number {
    const { current } = session;
    const isConfirmed = current.confirmedMs !== Number.POSITIVE_INFINITY;
    return current.bornMs + (isConfirmed ? this.context.config.rekeyAfterMs : SILENT_MS);
  }

  private isSilent(nowMs: number): boolean {
    return nowMs >= this.context.heardMs + SILENT_MS;
  }

  private begin(nowMs: number): void {
    const { config } = this.context;
    this.dropInitiator();
    if (this.session === undefined || this.isSilent(nowMs)) this.resolveAll();
    const payload = {
      instance: this.instance,
      session: this.localId,
      ciphers: config.ciphers,
      modes: config.modes,
      serverIp: config.serverIp,
      clientIp: config.clientIp,
    };
    this.initiator = new Initiator(config.keys, payload, this.cookie, nowMs);
    const isRekey = this.session !== undefined && !this.isSilent(nowMs);
    this.context.host.report({ kind: 'handshake', isRekey });
  }

  /**
   * Over every link, since any may be dead: to the endpoint in use; while it does not answer, to it and to
   * each address of the name in turn: a server that has moved may be known by nothing else.
   */
  private sendMessage1(initiator: Initiator, nowMs: number): void {
    initiator.sent(nowMs);
    const { sockets, links } = this.context;
    sockets.forEach((socket, index) => {
      if (socket === undefined) return;
      const link = links.find(({ id }) => id === index);
      const inUse = link === undefined ? [] : [link.endpoint];
      const isLost = inUse.length === 0 || this.isSilent(nowMs);
      const endpoints = isLost ? [...(this.endpoints[index] ?? []), ...inUse] : inUse;
      if (endpoints.length === 0) return;
      const endpoint = endpoints[this.nextEndpoint % endpoints.length];
      this.context.sendMessage(initiator.message, socket, endpoint, 0);
    });
    this.nextEndpoint++;
  }

  /** Takes up link `index`, towards the server's address that answered if that is one of its own. */
  private useLink(index: number, nowMs: number, answered?: Uint8Array): void {
    const endpoints = this.endpoints[index] ?? [];
    const same = endpoints.find(
      (one) => answered !== undefined && isSameRemote(one, 0, answered, 0),
    );
    const endpoint = same ?? endpoints[0];
    if (endpoint !== undefined) this.context.linkFound(index, endpoint, 0, nowMs);
  }

  private resolveAll(): void {
    for (let index = 0; index < this.context.sockets.length; index++) this.resolve(index);
  }

  private resolve(index: number): void {
    if (this.resolving.has(index)) return;
    this.resolving.add(index);
    const nothing: readonly Uint8Array[] = [];
    const found = this.context.host.resolve(index).catch(() => nothing);
    const change = this.changes[index];
    void found.then((endpoints) => {
      if (this.changes[index] !== change) return;
      this.resolving.delete(index);
      // A name that does not resolve now may well be the tunnel's own outage: keep what was known.
      if (endpoints.length > 0) {
        const isNew = this.endpoints[index] === undefined;
        this.endpoints[index] = endpoints;
        if (isNew && this.session !== undefined) this.useLink(index, this.context.host.nowMs());
        return;
      }
      this.reportOnce('unresolved', () => this.context.host.report({ kind: 'unresolved' }));
    });
  }

  private answered(
    accepted: Accepted,
    socket: LinkSocket,
    sources: Uint8Array,
    at: number,
    nowMs: number,
  ): void {
    const { payload, keys } = accepted;
    this.dropInitiator();
    try {
      if (payload.verdict !== VerdictCode.accepted) {
        this.refused('verdict', payload.verdict, nowMs);
        return;
      }
      const { config, host } = this.context;
      // The cipher must be one we offered: the peer has the key, but may be buggy.
      if (payload.cipher < 1 || (config.ciphers & (1 << (payload.cipher - 1))) === 0) return;
      if (payload.epoch > 3) return;
      this.isRekeyAsked = false;
      this.quietUntilMs = nowMs + HANDSHAKE_GAP_MS;
      this.reported = '';
      const { session } = this;
      const isRekey =
        session !== undefined &&
        isEqual(session.instance, payload.instance) &&
        session.peerId === payload.session;
      const epoch = new Epoch(host.aead, 'client', payload.epoch, payload.cipher, keys, nowMs);
      if (isRekey) {
        // The same server by another address, while the one in use is dead: the answer is fresh, so
        // whoever sent it is there.
        if (this.isSilent(nowMs)) this.context.peerFound(socket, sources, at, nowMs);
        session.rekey(epoch);
        host.report({ kind: 'rekeyed', epoch: epoch.number });
      } else {
        this.endSession();
        this.session = new Session(payload.instance, this.localId, payload.session, epoch);
        this.context.sessionBegan(nowMs);
        const answered = sources.subarray(at, at + ENDPOINT_BYTES);
        this.context.sockets.forEach((one, index) => {
          if (one === socket) this.context.linkFound(index, answered, 0, nowMs);
          else if (one !== undefined) this.useLink(index, nowMs, answered);
        });
        this.reportConnected(payload.ipv6, epoch.cipher, sources, at);
      }
      this.context.confirmKeys(nowMs);
    } finally {
      wipe(keys.k1, keys.k2);
    }
  }

  private reportConnected(ipv6: boolean, cipher: number, sources: Uint8Array, at: number): void {
    this.context.host.report({
      kind: 'connected',
      endpoint: formatEndpoint(sources.subarray(at)),
      cipher,
      ipv6,
      again: this.hasConnected,
    });
    this.hasConnected = true;
  }

  private refused(why: 'version' | 'verdict', value: number, nowMs: number): void {
    const { host } = this.context;
    this.dropInitiator();
    this.quietUntilMs = nowMs + REFUSED_WAIT_MS;
    this.context.peerAnswered(nowMs);
    this.reportOnce(`${why} ${value}`, () => {
      if (why === 'version') host.report({ kind: 'version', peer: value });
      else if (value === VerdictCode.busy) host.report({ kind: 'busy' });
      else host.report({ kind: 'refused', why: WHY[value] ?? 'modes-differ' });
    });
  }

  private reportOnce(what: string, report: () => void): void {
    if (this.reported === what) return;
    this.reported = what;
    report();
  }

  private dropInitiator(): void {
    this.initiator?.wipe();
    this.initiator = undefined;
  }

  /**
   * The server may still have it, since a goodbye may be lost. To the same instance it would give new keys of that
   * session, with sequences that go on, while ours start again: it would take our packets for repeated ones.
   */
  private forgetSession(): void {
    this.dropInitiator();
    this.endSession();
    this.context.host.randomBytes(this.instance);
  }

  private endSession(): void {
    if (this.session === undefined) return;
    this.session.wipe();
    this.session = undefined;
    this.context.sessionEnded();
  }
}
