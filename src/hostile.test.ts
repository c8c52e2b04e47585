/**
 * A peer that has the keys and means harm: every control message, right, mutated or made up, through a whole
 * tunnel. It may spoil its own tunnel, but not end the program, fill its memory, or keep it from going on.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { endpoint, parseIp } from './address.ts';
import { mutated, randomBytes } from '../test/mutate.ts';
import { Random } from '../test/random.ts';
import { SimBond, type BondEnd } from '../test/simbond.ts';
import { CLIENT_IP, SERVER_IP } from '../test/simends.ts';
import { Flows, Steady } from '../test/simflows.ts';
import { sealTable } from './batch.ts';
import { MOST_LINKS, SILENT_MS } from './constants.ts';
import { TAG_BYTES } from './crypto.ts';
import { encodeSection, REPORT_BYTES, section, type Section } from './feedback.ts';
import type { Link } from './link.ts';
import type { Session } from './session.ts';
import {
  CLEAR_BIT,
  Control,
  Flag,
  HEADER_BYTES,
  INNER_BYTES,
  LEFT_BYTES,
  LINK_IDS,
  LINK_SETTINGS_BYTES,
  Mode,
  writeHeader,
  writeInner,
  writeLinkSettings,
  writeNonce,
} from './wire.ts';

const LOAD = { mbit: 1, bytes: 600, isExpedited: false, port: 9_000 };
const STRANGER = endpoint(parseIp('192.0.2.66')!, 6_666);
const MOST_BYTES = 1_400;
const PACKETS = 20;
/** Bonding, which begins when a link is reported to lose, keeps 16 MiB of packets. */
const BREATH_BYTES = 20_000_000;
/** What a link is, with its flight and windows. */
const LINK_BYTES = 800_000;

/** Bytes of all that can be reached from `root`, roughly; without what is the host's. */
function weight(root: object): number {
  const seen = new Set<unknown>();
  const toDo: unknown[] = [root];
  let bytes = 0;
  while (toDo.length > 0) {
    const value = toDo.pop();
    if (typeof value === 'string') bytes += value.length;
    if (typeof value !== 'object' || value === null || seen.has(value)) continue;
    seen.add(value);
    if (ArrayBuffer.isView(value)) {
      if (seen.has(value.buffer)) continue;
      seen.add(value.buffer);
      bytes += value.buffer.byteLength;
    } else if (value instanceof Map) {
      bytes += 16 * value.size;
      toDo.push(...value.keys(), ...value.values());
    } else if (value instanceof Set) {
      bytes += 8 * value.size;
      toDo.push(...value);
    } else {
      const entries = Object.entries(value).filter(([key]) => key !== 'host' && key !== 'socket');
      bytes += 8 * entries.length;
      toDo.push(...entries.map(([, entry]) => entry as unknown));
    }
  }
  return bytes;
}

/** Sends with the keys of one end, whose tunnel knows nothing of it, to the other. */
class Hostile {
  /** Datagrams of each kind of control message; and of packets, at 256. */
  readonly sent = new Map<number, number>();
  private readonly net: SimBond;
  private readonly random: Random;
  private readonly from: BondEnd;
  private readonly to: BondEnd;
  private readonly ids: number;
  private readonly table = sealTable(1);

  /** `ids`: link ids it sends under, beside those in use; `who` it is. */
  constructor(net: SimBond, who: 'client' | 'server', ids: number, random: Random) {
    this.net = net;
    this.random = random;
    this.ids = ids;
    this.from = who === 'client' ? net.client : net.server;
    this.to = who === 'client' ? net.server : net.client;
  }

  send(mayEnd: boolean): void {
    const { random } = this;
    const parts = this.from.tunnel!.parts;
    const { session } = parts;
    const links = parts.set.list;
    if (session === undefined || links.length === 0) return;
    const place = random.below(links.length);
    const id = this.ids > 0 && random.below(4) === 0 ? random.below(this.ids) : links[place].id;
    const bodies = this.bodies(session, links);
    const kinds = [...bodies.keys()];
    let kind = kinds[random.below(kinds.length)];
    let body: Uint8Array = bodies.get(kind)!;
    const change = random.below(4);
    if (change === 0) body = mutated(random, [...bodies.values()]);
    else if (change === 1) body = mutated(random, [body]);
    if (random.below(30) === 0) kind = random.below(256);
    if (kind === Control.goodbye && !mayEnd) return;
    let flags: number = random.below(3) === 0 ? Flag.control | Flag.ordered : Flag.control;
    if (random.below(20) === 0) flags = random.below(256);
    const isControl = flags === Flag.control || flags === (Flag.control | Flag.ordered);
    this.transmit(session, id, kind, flags, body.subarray(0, MOST_BYTES));
    const name = isControl ? kind : 256;
    this.sent.set(name, (this.sent.get(name) ?? 0) + 1);
  }

  /** A true report on each link, but for what `change` does to it. */
  sendReport(change: (part: Section) => void): void {
    const { session } = this.from.tunnel!.parts;
    const theirs = this.to.tunnel!.parts;
    if (session === undefined || theirs.session === undefined) return;
    const body = new Uint8Array(REPORT_BYTES);
    let at = 0;
    for (const { id, flight } of theirs.set.list) {
      const part = section();
      const { current } = theirs.session;
      part.link = id;
      part.epoch = current.number;
      part.highest = Math.max(0, current.lastCounter(id));
      part.packets = flight.sent;
      part.runs[0] = Math.min(65_535, part.highest + 1);
      part.runCount = 1;
      change(part);
      at = encodeSection(body, at, part);
    }
    this.transmit(session, 0, Control.report, Flag.control, body.subarray(0, at));
  }

  /** What an end might send now, by kind. */
  private bodies(session: Session, links: readonly Link[]): Map<number, Uint8Array> {
    const { random } = this;
    const theirs = this.to.tunnel!.parts;
    const token = new Uint8Array(4);
    new DataView(token.buffer).setUint32(0, random.below(2_000));
    const probe = new Uint8Array(4 + LINK_SETTINGS_BYTES + random.below(1_000));
    probe.set(randomBytes(random, 4 + LINK_SETTINGS_BYTES));
    if (random.below(2) === 0) {
      const maxRate = random.below(2 ** 32);
      const weight = random.below(20);
      const name = String.fromCharCode(...randomBytes(random, 20));
      writeLinkSettings(probe, 4, { name, isBackup: random.below(2) === 0, maxRate, weight });
    }
    const { roaming } = theirs.set.list[random.below(theirs.set.list.length)] ?? links[0];
    const challenges = [roaming.candidateChallenge, roaming.presentChallenge];
    const left = new Uint8Array(LEFT_BYTES);
    left[0] = links[random.below(links.length)].id;
    left[1] = random.below(8) === 0 ? random.below(256) : session.current.number;
    const counter = session.current.lastCounter(left[0]) + random.below(10);
    new DataView(left.buffer).setUint32(2, random.below(4) === 0 ? random.below(2 ** 32) : counter);
    return new Map([
      [Control.probe, probe],
      [Control.probeReply, Uint8Array.from([...token, ...randomBytes(random, 2)])],
      [Control.challenge, randomBytes(random, 8)],
      [Control.challengeReply, challenges[random.below(2)].slice()],
      [Control.rekey, new Uint8Array(0)],
      [Control.goodbye, new Uint8Array(0)],
      [Control.report, this.report(theirs.session, theirs.set.list)],
      [Control.left, left],
    ]);
  }

  /** On what the other end has sent: plausible, but for what was drawn otherwise. */
  private report(theirs: Session | undefined, links: readonly Link[]): Uint8Array {
    const { random } = this;
    const body = new Uint8Array(REPORT_BYTES);
    let at = 0;
    for (const link of links) {
      const part = section();
      const number = random.below(4) === 0 ? random.below(4) : (theirs?.current.number ?? 0);
      const last = theirs?.epoch(number)?.lastCounter(link.id) ?? 0;
      part.link = link.id;
      part.epoch = number;
      part.highest = random.below(4) === 0 ? random.below(2 ** 32) : Math.max(0, last);
      part.age = random.below(65_536) >> random.below(16);
      part.arrival = random.below(2 ** 32);
      part.packets = random.below(2 ** 32) >>> random.below(32);
      part.bytes = random.below(2 ** 32) >>> random.below(32);
      part.leastDelay = random.below(65_536);
      part.meanDelay = random.below(65_536);
      part.reordering = random.below(65_536) >> random.below(16);
      part.runCount = random.below(random.below(2) === 0 ? 4 : 511);
      for (let i = 0; i < part.runCount; i++)
        part.runs[i] = random.below(65_536) >> random.below(17);
      at = encodeSection(body, at, part);
    }
    return body.slice(0, at);
  }

  private transmit(
    session: Session,
    id: number,
    kind: number,
    flags: number,
    body: Uint8Array,
  ): void {
    const { net, random, table } = this;
    const { current: epoch, peerId } = session;
    const counter = epoch.reserve(id, 1);
    const isClear = (this.from.tunnel!.parts.config.modes & Mode.cleartext) !== 0;
    const isReadable = isClear && (flags & Flag.control) === 0;
    const text = new Uint8Array(INNER_BYTES + body.length);
    writeInner(text, 0, kind, random.below(2 ** 24), random.below(65_536), flags);
    text.set(body, INNER_BYTES);
    const bytes = new Uint8Array(HEADER_BYTES + text.length + TAG_BYTES);
    writeHeader(
      bytes,
      0,
      isReadable ? epoch.number | CLEAR_BIT : epoch.number,
      id,
      peerId,
      counter,
    );
    writeNonce(table.nonces, 0, id, counter);
    table.sizes[0] = text.length;
    const { authenticate, seal } = net.aead;
    const protect = isReadable ? authenticate : seal;
    protect(epoch.sealKey, text, bytes, HEADER_BYTES, table, 1);
    const link = net.links[random.below(net.links.length)];
    const isAway = random.below(20) === 0;
    if (this.to === net.server) {
      net.server.arrive(0, { bytes, peer: isAway ? STRANGER : link.outside });
    } else {
      const socket = net.links.indexOf(link);
      net.client.arrive(socket, { bytes, peer: isAway ? STRANGER : net.serverEndpoint });
    }
  }
}

/** A packet each way, told apart by its number; how many of `count` arrive. */
async function carried(net: SimBond, count: number): Promise<[up: number, down: number]> {
  const up = new Set<number>();
  const down = new Set<number>();
  const numberOf = (bytes: Uint8Array): number => bytes[20] * 256 + bytes[21];
  net.server.onPacket = (bytes) => void up.add(numberOf(bytes));
  net.client.onPacket = (bytes) => void down.add(numberOf(bytes));
  for (let i = 0; i < count; i++) {
    const packet = (from: Uint8Array, to: Uint8Array): Uint8Array => {
      const header = [0x45, 0, 0, 64, 0, 0, 0, 0, 64, 17, 0, 0, ...from, ...to, i >> 8, i];
      return Uint8Array.from([...header, ...new Uint8Array(64 - header.length)]);
    };
    net.client.inject(packet(CLIENT_IP, SERVER_IP), 200, 200);
    net.server.inject(packet(SERVER_IP, CLIENT_IP), 201, 201);
    await net.clock.run(20);
  }
  await net.clock.run(3_000);
  return [up.size, down.size];
}

interface Case {
  readonly who: 'client' | 'server';
  readonly links: number;
  readonly ids: number;
  readonly modes: number;
  readonly mayEnd: boolean;
}

const CASES: readonly Case[] = [
  { who: 'client', links: 1, ids: 0, modes: 0, mayEnd: false },
  { who: 'server', links: 1, ids: 0, modes: 0, mayEnd: false },
  { who: 'client', links: 2, ids: 0, modes: 0, mayEnd: false },
  { who: 'server', links: 2, ids: 0, modes: 0, mayEnd: false },
  { who: 'client', links: 2, ids: LINK_IDS, modes: 0, mayEnd: false },
  { who: 'server', links: 2, ids: LINK_IDS, modes: 0, mayEnd: false },
  { who: 'client', links: 2, ids: 0, modes: Mode.cleartext, mayEnd: false },
  { who: 'client', links: 2, ids: 0, modes: 0, mayEnd: true },
  { who: 'server', links: 2, ids: 0, modes: 0, mayEnd: true },
];

describe('what a peer with the keys makes up', () => {
  for (const { who, links, ids, modes, mayEnd } of CASES) {
    const name =
      `a ${who} over ${links} links` +
      `${ids > 0 ? ', any ids' : ''}${modes === 0 ? '' : ', in the clear'}${mayEnd ? ', and goodbyes' : ''}`;
    it(`${name}: the other end goes on`, async () => {
      for (let seed = 1; seed <= 3; seed++) {
        const figures = Array.from({ length: links }, (_, i) => ({
          delayMs: 10 + 10 * i,
          rateMbit: 20,
          queueMs: 100,
        }));
        const both = { modes };
        const net = new SimBond({ figures, seed, client: both, server: both });
        await net.connect();
        const flows = new Flows(net);
        const steady = [new Steady(flows, 'up', LOAD), new Steady(flows, 'down', LOAD)];
        await net.clock.run(3_000);
        const random = new Random(seed);
        const hostile = new Hostile(net, who, ids, random);
        const victim = who === 'client' ? net.server : net.client;
        const before = weight(victim.tunnel!);
        for (let ms = 0; ms < 15_000; ms += 10) {
          for (let count = random.below(6); count > 0; count--) {
            hostile.send(mayEnd && random.below(100) === 0);
          }
          await net.clock.run(10);
          if (ms % 1_000 !== 0) continue;
          const { set } = victim.tunnel!.parts;
          const most = before + BREATH_BYTES + LINK_BYTES * (set.list.length - links);
          const now = weight(victim.tunnel!);
          assert.ok(now <= most, `seed ${seed}, ${ms} ms: ${before} bytes became ${now}`);
          // A client has those of its configuration, whatever comes.
          const mostLinks = ids > 0 && who === 'client' ? MOST_LINKS : links;
          assert.ok(set.list.length <= mostLinks, `${set.list.length} links`);
          for (const { capacity, settings } of set.list) {
            // A window may well be wrong if reports are.
            assert.ok(!Number.isNaN(capacity.limit) && !Number.isNaN(capacity.window));
            assert.ok(settings.name.length <= 15);
          }
        }
        for (const kind of Object.values(Control)) {
          const isEnd = kind === Control.goodbye;
          const count = hostile.sent.get(kind) ?? 0;
          assert.ok(isEnd ? count > 0 === mayEnd : count > 0, `kind ${kind}: ${count}`);
        }
        for (const flow of steady) flow.isStopped = true;
        const events = victim.events.map(({ kind }) => kind);
        if (!mayEnd) assert.ok(!events.includes('closed') || ids > 0, `seed ${seed}`);
        else assert.ok(events.includes('closed'), `seed ${seed}: a goodbye ends the session`);
        await net.clock.run(SILENT_MS + 12_000);
        const said = `seed ${seed}: ${JSON.stringify(events)}`;
        const [up, down] = await carried(net, PACKETS);
        const [fromPeer, toPeer] = who === 'client' ? [up, down] : [down, up];
        assert.equal(fromPeer, PACKETS, said);
        if (toPeer === PACKETS) continue;
        // What the peer said of its links may make them slow; that ends with the session.
        victim.tunnel!.reset();
        for (let i = 0; i < links; i++) victim.tunnel!.linkUp(i);
        await net.clock.run(SILENT_MS + 12_000);
        assert.deepEqual(await carried(net, PACKETS), [PACKETS, PACKETS], said);
      }
    });
  }

  it('of how long a report has waited does not stop what goes to it', async () => {
    const figures = [{ delayMs: 10 }, { delayMs: 20 }];
    const net = new SimBond({ figures, seed: 1 });
    await net.connect();
    const random = new Random(1);
    const hostile = new Hostile(net, 'client', 0, random);
    const steady = new Steady(new Flows(net), 'down', LOAD);
    for (let i = 1; i < 300; i++) {
      hostile.sendReport((part) => {
        part.age = 0xffff;
        // So that no later report of an honest end seems to be newer.
        part.packets = 2 ** 30 + 50 * i;
        part.bytes = 50_000 * i;
        part.arrival = 40 * i;
      });
      await net.clock.run(10);
    }
    steady.isStopped = true;
    await net.clock.run(10_000);
    assert.deepEqual(await carried(net, PACKETS), [PACKETS, PACKETS]);
  });
});
