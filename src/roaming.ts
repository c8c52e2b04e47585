/**
 * Whether one link's peer has moved (PROTOCOL §6 and RFC 9000 §9.3): bulk follows a new address only after
 * it answered a challenge, and not while the old one still answers. Told the time; sends nothing.
 */
import { ENDPOINT_BYTES } from './batch.ts';
import { isSameRemote } from './address.ts';
import { isEqual } from './crypto.ts';
import { CHALLENGE_BYTES } from './wire.ts';

/** How often a challenge is repeated. */
const CHALLENGE_EVERY_MS = 200;
/** When an unanswered candidate is forgotten: after so long, or so many round trips if that is longer. */
const CANDIDATE_MS = 2_000;
const CANDIDATE_RTTS = 4;
/** RFC 9000 §8.1: to an address that has not answered at most three times what came from it. */
const AMPLIFICATION = 3;
const MIN_GRACE_MS = 50;

export type RoamingDecision = 'none' | 'challenge' | 'moved';

/**
 * What may still go to an address that has proved nothing but that a datagram of the peer's came from it. In
 * bytes of UDP's payload and in datagrams, so that it holds for whole IP packets as well.
 */
export class Credit {
  private bytes = 0;
  private datagrams = 0;

  clear(): void {
    this.bytes = 0;
    this.datagrams = 0;
  }

  /** An authenticated datagram of `size` bytes came from there. */
  earn(size: number): void {
    this.bytes += AMPLIFICATION * size;
    this.datagrams += AMPLIFICATION;
  }

  /** Whether `size` bytes may go there. */
  covers(size: number): boolean {
    return this.bytes >= size && this.datagrams > 0;
  }

  /** Whether `size` bytes may go there, which is then held against it. */
  take(size: number): boolean {
    if (!this.covers(size)) return false;
    this.bytes -= size;
    this.datagrams--;
    return true;
  }
}

export class Roaming {
  /** The address that may become the endpoint; meaningful while `hasCandidate`. */
  readonly candidate = new Uint8Array(ENDPOINT_BYTES);
  /** What the candidate, and the present endpoint, have to send back. */
  readonly candidateChallenge = new Uint8Array(CHALLENGE_BYTES);
  readonly presentChallenge = new Uint8Array(CHALLENGE_BYTES);
  hasCandidate = false;
  private readonly randomBytes: (bytes: Uint8Array) => void;
  private sinceMs = 0;
  private challengeAtMs = 0;
  private answeredAtMs = Number.POSITIVE_INFINITY;
  private readonly credit = new Credit();
  private quietUntilMs = Number.NEGATIVE_INFINITY;

  constructor(randomBytes: (bytes: Uint8Array) => void) {
    this.randomBytes = randomBytes;
  }

  /** An authenticated datagram of `size` bytes, the newest of its link, came from another address. */
  heardElsewhere(sources: Uint8Array, at: number, size: number, nowMs: number): void {
    if (this.hasCandidate) {
      if (isSameRemote(this.candidate, 0, sources, at)) this.credit.earn(size);
      return;
    }
    if (nowMs < this.quietUntilMs) return;
    for (let i = 0; i < ENDPOINT_BYTES; i++) this.candidate[i] = sources[at + i];
    this.randomBytes(this.candidateChallenge);
    this.randomBytes(this.presentChallenge);
    this.hasCandidate = true;
    this.sinceMs = nowMs;
    this.challengeAtMs = nowMs;
    this.answeredAtMs = Number.POSITIVE_INFINITY;
    this.credit.clear();
    this.credit.earn(size);
  }

  /**
   * Whether `size` bytes may go to `to[at]`, which is not the endpoint in use; holds them against the
   * candidate if it is that. To any other nothing goes but one answer to one question, which is no longer.
   */
  take(to: Uint8Array, at: number, size: number): boolean {
    if (!this.hasCandidate || !isSameRemote(this.candidate, 0, to, at)) return true;
    return this.credit.take(size);
  }

  /** A challenge came back from `sources[at]`; `present` is the endpoint in use. */
  replied(
    body: Uint8Array,
    sources: Uint8Array,
    at: number,
    present: Uint8Array,
    nowMs: number,
  ): void {
    if (!this.hasCandidate) return;
    if (isSameRemote(present, 0, sources, at) && isEqual(body, this.presentChallenge)) {
      // The old address is alive: what came from elsewhere was a copy on another way.
      this.forget(nowMs);
    } else if (
      isSameRemote(this.candidate, 0, sources, at) &&
      isEqual(body, this.candidateChallenge)
    ) {
      this.answeredAtMs = Math.min(this.answeredAtMs, nowMs);
    }
  }

  /**
   * What is to be done now. 'challenge': send both challenges, and ask again; 'moved': the candidate
   * is the endpoint from now on. `challengeBytes` is the size of such a datagram; the candidate can be sent one.
   */
  decide(nowMs: number, rttMs: number, challengeBytes: number): RoamingDecision {
    if (!this.hasCandidate) return 'none';
    if (nowMs >= this.endMs(rttMs)) {
      if (this.isAnswered()) {
        this.hasCandidate = false;
        return 'moved';
      }
      this.forget(nowMs);
      return 'none';
    }
    if (nowMs < this.challengeAtMs) return 'none';
    // Without credit, too, the next look is later: else the deadline would be over at once for ever.
    this.challengeAtMs = nowMs + CHALLENGE_EVERY_MS;
    return this.credit.covers(challengeBytes) ? 'challenge' : 'none';
  }

  deadlineMs(rttMs: number): number {
    if (!this.hasCandidate) return Number.POSITIVE_INFINITY;
    return Math.min(this.endMs(rttMs), Math.max(this.challengeAtMs, this.sinceMs));
  }

  private isAnswered(): boolean {
    return this.answeredAtMs !== Number.POSITIVE_INFINITY;
  }

  /** When it is decided: an answer in time gets its whole grace, however long the way. */
  private endMs(rttMs: number): number {
    return this.isAnswered()
      ? this.answeredAtMs + Math.max(MIN_GRACE_MS, 2 * rttMs)
      : this.sinceMs + Math.max(CANDIDATE_MS, CANDIDATE_RTTS * rttMs);
  }

  private forget(nowMs: number): void {
    this.hasCandidate = false;
    // One question per round trip and address is enough, however many copies come.
    this.quietUntilMs = nowMs + CHALLENGE_EVERY_MS;
  }
}
