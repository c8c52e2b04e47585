/** What the answers to control messages, and the questions, may bring to an address that proved nothing. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { endpoint, isSameRemote } from './address.ts';
import { ControlMessages } from './control.ts';
import type { Host, LinkSocket } from './host.ts';
import type { Link } from './link.ts';
import { Links } from './links.ts';
import { PLAIN_LINK, type TunnelConfig } from './peering.ts';
import { Epoch, Session } from './session.ts';
import { Control, HEADER_BYTES, INNER_BYTES, LINK_SETTINGS_BYTES } from './wire.ts';

/** Header, inner header, tag. */
const AROUND_BYTES = 32;
const OUTER_BYTES = 28;
const CHACHA = 2;
const NOTHING: Host['aead'] = {
  aeadCreate: () => 1,
  aeadFree: () => undefined,
  // Readable, so that what is sent can be looked at.
  seal: (_key, ring, slab, headerBytes, table) => {
    slab.set(ring.subarray(0, table.sizes[0]), headerBytes);
  },
  authenticate: () => undefined,
  open: () => 0,
};
/** Lengths of bodies that are answered, and of some that are not. */
const BODIES: readonly (readonly [kind: number, length: number])[] = [
  [Control.probe, 4 + LINK_SETTINGS_BYTES],
  [Control.probe, 6],
  [Control.probe, 5],
  [Control.probe, 1_400],
  [Control.challenge, 8],
  [Control.challenge, 9],
  [Control.challengeReply, 8],
  [Control.rekey, 0],
  [0, 0],
];

const address = (host: number): Uint8Array => endpoint(Uint8Array.of(192, 0, 2, host), 443);
const PRESENT = 1;

interface Sent {
  readonly host: number;
  readonly kind: number;
  readonly size: number;
}

/** A link of a server, and a peer's datagrams that come to it from anywhere. */
class Bed {
  readonly sent: Sent[] = [];
  readonly link: Link;
  private readonly links: Links;
  private readonly control = new ControlMessages(NOTHING);
  private readonly session: Session;

  constructor(random: Random) {
    const config = { role: 'server', links: [PLAIN_LINK] } as unknown as TunnelConfig;
    const host: Pick<Host, 'randomBytes'> = { randomBytes: (bytes) => random.fill(bytes) };
    this.links = new Links(config, host as Host);
    const keys = { k1: new Uint8Array(32), k2: new Uint8Array(32) };
    const epoch = new Epoch(NOTHING, 'server', 0, CHACHA, keys, 0);
    this.session = new Session(new Uint8Array(8), 1, 2, epoch);
    const socket: LinkSocket = {
      receive: () => 0,
      send: (slab, _to, sizes, _first, _count, to, at) => {
        this.sent.push({ host: to[at + 11], kind: slab[HEADER_BYTES], size: sizes[0] });
        return 1;
      },
      errno: () => 0,
      watch: () => undefined,
      close: () => undefined,
    };
    this.link = this.links.add(0, socket, address(PRESENT), 0);
  }

  /** An authenticated control message, as the tunnel handles it. */
  arrive(host: number, kind: number, body: Uint8Array, isNewest: boolean, nowMs: number): number {
    const datagramBytes = AROUND_BYTES + body.length;
    const sources = address(host);
    if (isNewest) this.links.learnEndpoint(this.link, sources, 0, datagramBytes, nowMs);
    const message = { kind, body, datagramBytes, sources, at: 0 };
    this.control.receive(this.session, this.link, message, nowMs);
    return datagramBytes;
  }

  tend(nowMs: number): 'moved' | 'stays' {
    return this.control.tend(this.session, this.link, nowMs);
  }

  /** A probe of ours is answered from the endpoint: it is proved. */
  prove(nowMs: number): void {
    this.link.probeAnswered(this.link.probe(0, nowMs), nowMs + 20);
  }
}

class Sums {
  bytes = 0;
  datagrams = 0;

  add(size: number): void {
    this.bytes += size;
    this.datagrams++;
  }

  with(outerBytes: number): number {
    return this.bytes + outerBytes * this.datagrams;
  }
}

describe('to an address that proved nothing', () => {
  for (const isProved of [true, false]) {
    it(`go three times what came from it, the link's own ${isProved ? 'being' : 'not being'} proved`, () => {
      let answers = 0;
      let challenges = 0;
      let withheld = 0;
      for (let seed = 1; seed <= 60; seed++) {
        const random = new Random(seed);
        const bed = new Bed(random);
        if (isProved) bed.prove(0);
        const received = Array.from({ length: 8 }, () => new Sums());
        const sent = Array.from({ length: 8 }, () => new Sums());
        let looked = 0;
        const look = (nowMs: number): void => {
          for (; looked < bed.sent.length; looked++) {
            const { host, kind, size } = bed.sent[looked]!;
            if (isProved && host === PRESENT) continue;
            sent[host].add(size);
            if (kind === Control.challenge) challenges++;
            else answers++;
            for (const outer of [0, OUTER_BYTES, OUTER_BYTES + 20]) {
              assert.ok(
                sent[host].with(outer) <= 3 * received[host].with(outer),
                `seed ${seed}, ${nowMs} ms: ${sent[host].with(outer)} bytes to ${host}, from where ` +
                  `${received[host].with(outer)} came, with ${outer} around each`,
              );
            }
          }
        };
        for (let nowMs = 100; nowMs < 30_000; nowMs += 1 + random.below(60)) {
          if (random.below(seed % 10 === 0 ? 2 : 8) === 0) {
            const host = PRESENT + (random.below(3) === 0 ? 0 : random.below(5));
            const [kind, length] = BODIES[random.below(BODIES.length)];
            const body = new Uint8Array(length);
            random.fill(body);
            received[host].add(AROUND_BYTES + length);
            const before = bed.sent.length;
            bed.arrive(host, kind, body, random.below(4) > 0, nowMs);
            const isAsked = kind === Control.challenge && length === 8;
            if (isAsked && bed.sent.length === before) withheld++;
            look(nowMs);
          }
          assert.equal(bed.tend(nowMs), 'stays');
          look(nowMs);
        }
      }
      for (const [what, count] of Object.entries({ answers, challenges, withheld })) {
        assert.ok(count > 10, `${count} ${what}`);
      }
    });
  }

  it('goes no answer longer than its question, whatever it asks and wherever it is', () => {
    const random = new Random(9);
    for (const [kind] of BODIES) {
      for (let length = 0; length < 100; length++) {
        const bed = new Bed(random);
        // A candidate there is already; this is a third.
        bed.arrive(2, Control.rekey, new Uint8Array(0), true, 100);
        const asked = bed.arrive(3, kind, new Uint8Array(length), true, 110);
        const answered = bed.sent.reduce((sum, { size }) => sum + size, 0);
        assert.ok(answered <= asked, `${answered} bytes for ${asked}`);
      }
    }
  });
});

describe('an address that answers', () => {
  it('a challenge is the endpoint and proved: it gets probes of the path MTU', () => {
    const bed = new Bed(new Random(3));
    bed.arrive(2, Control.probe, new Uint8Array(25), true, 100);
    assert.equal(bed.tend(100), 'stays');
    assert.ok(bed.sent.some(({ host, kind }) => host === 2 && kind === Control.challenge));
    bed.arrive(2, Control.challengeReply, bed.link.roaming.candidateChallenge.slice(), true, 140);
    let nowMs = 140;
    while (bed.tend(nowMs) === 'stays' && nowMs < 1_000) nowMs += 10;
    assert.ok(nowMs < 1_000 && isSameRemote(bed.link.endpoint, 0, address(2), 0));
    bed.sent.length = 0;
    bed.tend(nowMs + 10);
    assert.ok(bed.sent.filter(({ host, size }) => host === 2 && size > 1_280).length > 5);
  });

  it('a probe, as its first endpoint, has no bound any more', () => {
    const bed = new Bed(new Random(4));
    bed.arrive(PRESENT, Control.probe, new Uint8Array(25), true, 0);
    for (let nowMs = 0; nowMs < 60_000; nowMs += 100) bed.tend(nowMs);
    const before = bed.sent.length;
    assert.ok(before > 0 && before <= 3, `${before} datagrams`);
    bed.prove(60_000);
    for (let nowMs = 60_000; nowMs < 70_000; nowMs += 100) bed.tend(nowMs);
    assert.ok(bed.sent.length >= before + 10);
    assert.ok(bed.sent.every(({ size }) => size >= HEADER_BYTES + INNER_BYTES));
  });
});
