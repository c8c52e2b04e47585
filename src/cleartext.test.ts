/** Data in the clear (PROTOCOL §5.6) between two ends over simulated links: what is readable, and what is not taken. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { SimBond, type BondLink } from '../test/simbond.ts';
import { CLIENT_IP, SERVER_IP } from '../test/simends.ts';
import type { Figures } from '../test/wan.ts';
import { NONCE_BYTES, sealTable } from './batch.ts';
import { TAG_BYTES } from './crypto.ts';
import {
  CLEAR_BIT,
  Control,
  DATAGRAM_TYPE,
  EPOCH_MASK,
  Flag,
  HEADER_BYTES,
  INNER_BYTES,
  innerFlags,
  Mode,
  writeHeader,
  writeInner,
  writeNonce,
} from './wire.ts';

const SEED = 56;
const CLEAR = { modes: Mode.cleartext };
const SEALED = { modes: 0 };
const CLEAN: Figures = { delayMs: 10 };
const MARK = Buffer.from('what somebody on the path is looking for');
const BUCKETS = 5;
const TYPE_MASK = 0xf0;

/** An IPv4 packet of `size` bytes with a number and the mark in it. */
function packet(from: Uint8Array, to: Uint8Array, size: number, number: number): Uint8Array {
  const bytes = new Uint8Array(size).fill(number);
  bytes.set([0x45, 0, size >>> 8, size, 0, 0, 0, 0, 64, 17, 0, 0, ...from, ...to]);
  new DataView(bytes.buffer).setUint32(20, number);
  bytes.set(MARK, 24);
  // At both ends, so that neither half of it is without.
  bytes.set(MARK, size - MARK.length);
  return bytes;
}

const numberOf = (bytes: Uint8Array): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(20);

const hasMark = (bytes: Uint8Array): boolean => Buffer.from(bytes).includes(MARK);
const isClear = (bytes: Uint8Array): boolean =>
  (bytes[0] & TYPE_MASK) === (DATAGRAM_TYPE | CLEAR_BIT);
const isSealed = (bytes: Uint8Array): boolean => (bytes[0] & TYPE_MASK) === DATAGRAM_TYPE;

/** Puts `change` in the way of what enters one way of a link; what it returns goes on. */
function watch(way: BondLink['up'], change: (bytes: Uint8Array) => Uint8Array): void {
  const send = way.send.bind(way);
  way.send = (datagram, size) => send({ ...datagram, bytes: change(datagram.bytes) }, size);
}

interface Carried {
  readonly given: Map<number, Uint8Array>;
  readonly atServer: Uint8Array[];
  readonly atClient: Uint8Array[];
}

/** Sends so many packets each way, two in a millisecond, of all sizes, and waits for the last. */
async function carry(net: SimBond, count: number): Promise<Carried> {
  const random = new Random(SEED);
  const given = new Map<number, Uint8Array>();
  const atServer: Uint8Array[] = [];
  const atClient: Uint8Array[] = [];
  net.server.onPacket = (bytes) => void atServer.push(bytes.slice());
  net.client.onPacket = (bytes) => void atClient.push(bytes.slice());
  for (let i = 1; i <= count; i++) {
    const size = 120 + random.below(1_381);
    const up = packet(CLIENT_IP, SERVER_IP, size, i);
    const down = packet(SERVER_IP, CLIENT_IP, size, count + i);
    given.set(i, up.slice());
    given.set(count + i, down.slice());
    net.client.inject(up, i % BUCKETS, i % BUCKETS);
    net.server.inject(down, i % BUCKETS, i % BUCKETS);
    if (i % 2 === 0) await net.clock.run(1);
  }
  await net.clock.run(2_000);
  return { given, atServer, atClient };
}

/** Holds what came out of both ends against what went in: all of it, as it was, in the order of each flow. */
function check({ given, atServer, atClient }: Carried): void {
  assert.equal(atServer.length + atClient.length, given.size);
  for (const arrived of [atServer, atClient]) {
    const last = new Array<number>(BUCKETS).fill(0);
    for (const bytes of arrived) {
      const number = numberOf(bytes);
      assert.deepEqual(bytes, given.get(number), `packet ${number}`);
      assert.ok(number > last[number % BUCKETS]!, `packet ${number} after its successor`);
      last[number % BUCKETS] = number;
    }
  }
}

const LOSSY: readonly Figures[] = [
  { delayMs: 10, rateMbit: 20, queueMs: 200, lossRatio: 0.03 },
  { delayMs: 25, rateMbit: 20, queueMs: 200, lossRatio: 0.03 },
];

interface Sent {
  readonly way: string;
  readonly bytes: Uint8Array;
}

/** A run over links, and every datagram that entered them. */
async function runOver(figures: readonly Figures[], both: { readonly modes: number }) {
  const net = new SimBond({ figures, seed: SEED, client: both, server: both });
  const wire: Sent[] = [];
  net.links.forEach((link, i) => {
    for (const way of ['up', 'down'] as const) {
      watch(link[way], (bytes) => {
        wire.push({ way: `${way} ${i}`, bytes: bytes.slice() });
        return bytes;
      });
    }
  });
  await net.connect();
  const carried = await carry(net, 2_000);
  return { net, wire, carried };
}

/** Packets readable, control not, and no nonce twice under a key; returns the datagrams of each type. */
function checkWire(wire: readonly Sent[]): { readonly clear: number; readonly sealed: number } {
  const nonces = new Set<string>();
  const count = { clear: 0, sealed: 0 };
  for (const { way, bytes } of wire) {
    if (!isClear(bytes) && !isSealed(bytes)) continue;
    // Direction, epoch, link and counter, whatever the type.
    const numbers = Buffer.from(bytes.subarray(1, HEADER_BYTES)).toString('hex');
    const nonce = `${way.slice(0, 2)} ${bytes[0] & EPOCH_MASK} ${numbers}`;
    assert.ok(!nonces.has(nonce), nonce);
    nonces.add(nonce);
    assert.equal(hasMark(bytes), isClear(bytes));
    if (isClear(bytes)) assert.equal(innerFlags(bytes, HEADER_BYTES) & Flag.control, 0);
    count[isClear(bytes) ? 'clear' : 'sealed']++;
  }
  return count;
}

describe('data in the clear', () => {
  it('goes over one clean link readable, beside sealed control', async () => {
    const { net, wire, carried } = await runOver([CLEAN], CLEAR);
    check(carried);
    const { clear, sealed } = checkWire(wire);
    assert.ok(clear >= carried.given.size && sealed > 20, `${clear} and ${sealed} datagrams`);
    for (const { tunnel } of [net.client, net.server])
      assert.equal(tunnel!.parts.bonding, undefined);
  });

  it('goes over two lossy links readable and repaired, beside sealed control', async () => {
    const { net, wire, carried } = await runOver(LOSSY, CLEAR);
    check(carried);
    const { clear, sealed } = checkWire(wire);
    assert.ok(clear > carried.given.size, `${clear} in the clear, repairs among them`);
    assert.ok(sealed > 100, `${sealed} sealed`);
    for (const { tunnel } of [net.client, net.server]) {
      const { counters, bonding } = tunnel!.parts;
      assert.ok(bonding!.counters.repaired > 50, `${bonding!.counters.repaired} repaired`);
      assert.deepEqual([counters.forged, counters.malformed, counters.unknown], [0, 0, 0]);
    }
  });

  it('has the lengths, times and ways of the same data sealed', async () => {
    const clear = await runOver(LOSSY, CLEAR);
    const sealed = await runOver(LOSSY, SEALED);
    check(sealed.carried);
    const shape = ({ wire }: typeof clear): string[] =>
      wire.map(({ way, bytes }) => `${way}: ${bytes.length}`);
    assert.deepEqual(shape(clear), shape(sealed));
    assert.equal(clear.net.client.tunMtu, sealed.net.client.tunMtu);
    assert.ok(sealed.wire.every(({ bytes }) => !hasMark(bytes) && !isClear(bytes)));
  });

  it('that was altered on the way is not taken, whatever byte it was', async () => {
    const net = new SimBond({ figures: [CLEAN, CLEAN], seed: SEED, client: CLEAR, server: CLEAR });
    await net.connect();
    const random = new Random(SEED);
    let altered = 0;
    for (const { up, down } of net.links) {
      for (const way of [up, down]) {
        watch(way, (bytes) => {
          if (!isClear(bytes) || random.below(16) > 0) return bytes;
          altered++;
          const other = bytes.slice();
          // Every second time among the bytes that are not the packet's.
          const at = random.below(
            random.below(2) === 0 ? other.length : HEADER_BYTES + INNER_BYTES,
          );
          other[at] ^= 1 << random.below(8);
          return other;
        });
      }
    }
    check(await carry(net, 1_500));
    const counts = [net.client, net.server].map(({ tunnel }) => tunnel!.parts.counters);
    const forged = counts.reduce((sum, count) => sum + count.forged, 0);
    assert.ok(altered > 150 && forged > altered / 2, `${altered} altered, ${forged} found forged`);
  });

  it('needs both ends: one that was not told so refuses, and so it does the other way round', async () => {
    for (const [client, server] of [
      [CLEAR, SEALED],
      [SEALED, CLEAR],
    ]) {
      const net = new SimBond({ figures: [CLEAN], seed: SEED, client, server });
      await net.connect();
      const { events, tunnel } = net.client;
      assert.ok(events.some((event) => event.kind === 'refused' && event.why === 'modes-differ'));
      assert.ok(events.every(({ kind }) => kind !== 'connected'));
      assert.equal(tunnel!.parts.session, undefined);
      assert.equal(net.server.tunnel!.parts.session, undefined);
    }
  });
});

/** A datagram of the client as nobody else can make it, of either type. */
function made(
  net: SimBond,
  isInClear: boolean,
  kind: number,
  flags: number,
  body: Uint8Array,
): Uint8Array {
  const session = net.client.tunnel!.parts.session!;
  const epoch = session.current;
  const counter = epoch.reserve(0, 1);
  const plain = new Uint8Array(INNER_BYTES + body.length);
  writeInner(plain, 0, kind, 0, 0, flags);
  plain.set(body, INNER_BYTES);
  const table = sealTable(1);
  table.sizes[0] = plain.length;
  assert.equal(table.nonces.length, NONCE_BYTES);
  writeNonce(table.nonces, 0, 0, counter);
  const datagram = new Uint8Array(HEADER_BYTES + plain.length + TAG_BYTES);
  const epochBits = isInClear ? epoch.number | CLEAR_BIT : epoch.number;
  writeHeader(datagram, 0, epochBits, 0, session.peerId, counter);
  const protect = isInClear ? net.aead.authenticate : net.aead.seal;
  protect(epoch.sealKey, plain, datagram, HEADER_BYTES, table, 1);
  return datagram;
}

async function delivered(net: SimBond, bytes: Uint8Array): Promise<number> {
  let packets = 0;
  net.server.onPacket = () => void packets++;
  net.server.arrive(0, { bytes, peer: net.links[0].outside });
  await net.clock.run(50);
  return packets;
}

describe('of what a holder of the keys might send,', () => {
  const nothing = new Uint8Array(0);
  const data = packet(CLIENT_IP, SERVER_IP, 200, 7);

  async function connected(both: { readonly modes: number }): Promise<SimBond> {
    const net = new SimBond({ figures: [CLEAN], seed: SEED, client: both, server: both });
    await net.connect();
    assert.ok(net.server.tunnel!.parts.session !== undefined);
    return net;
  }

  it('control in the clear is dropped, and sealed is taken', async () => {
    const net = await connected(CLEAR);
    const { tunnel } = net.server;
    await delivered(net, made(net, true, Control.goodbye, Flag.control, nothing));
    assert.ok(tunnel!.parts.session !== undefined);
    assert.equal(tunnel!.parts.counters.malformed, 1);
    await delivered(net, made(net, false, Control.goodbye, Flag.control, nothing));
    assert.equal(tunnel!.parts.session, undefined);
    assert.equal(tunnel!.parts.counters.malformed, 1);
  });

  it('a packet in the clear is taken only in that mode, a sealed one in both, each once', async () => {
    for (const [both, isInClear, times] of [
      [CLEAR, true, 1],
      [CLEAR, false, 1],
      [SEALED, true, 0],
      [SEALED, false, 1],
    ] as const) {
      const net = await connected(both);
      const bytes = made(net, isInClear, 3, 0, data);
      const what = `modes ${both.modes}, ${isInClear ? 'clear' : 'sealed'}`;
      let answers = 0;
      watch(net.links[0].down, (answer) => {
        if (!isSealed(answer)) answers++;
        return answer;
      });
      assert.equal(await delivered(net, bytes), times, what);
      assert.equal(await delivered(net, bytes), 0, `${what}, repeated`);
      assert.equal(net.server.tunnel!.parts.counters.replayed, times, what);
      assert.equal(answers, 0, what);
    }
  });
});
