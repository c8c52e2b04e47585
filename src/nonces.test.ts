/**
 * That no nonce is used twice under one key: two whole tunnels over links that lose, come and go, are renumbered
 * by NATs and end with their program, with new keys every two seconds. All that either end seals or
 * authenticates is written down, by the bytes of the key.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { native } from '../test/nativebed.ts';
import { Random } from '../test/random.ts';
import { SimBond, type Aead, type BondEnd } from '../test/simbond.ts';
import { Flows, Steady } from '../test/simflows.ts';
import type { Figures } from '../test/wan.ts';
import { NONCE_BYTES, type SealTable } from './batch.ts';
import type { Handle } from './native.ts';
import { PLAIN_LINK } from './peering.ts';
import { Epoch } from './session.ts';
import { Mode } from './wire.ts';

const SECONDS = 40;
const STEP_MS = 100;
/** Of the client when it starts; the others are added later. */
const LINKS = 3;
const FIGURES: readonly Figures[] = [
  { delayMs: 8, jitterMs: 1, rateMbit: 20, queueMs: 100, lossRatio: 0.02 },
  { delayMs: 20, rateMbit: 10, queueMs: 100, lossRatio: 0.05, duplicateRatio: 0.02 },
  { delayMs: 35, jitterMs: 4, rateMbit: 20, queueMs: 100, lossRatio: 0.01 },
  { delayMs: 12, rateMbit: 5, queueMs: 100, lossRatio: 0.03 },
  { delayMs: 25, rateMbit: 8, queueMs: 100 },
];
const VOICE = { mbit: 0.2, bytes: 200, isExpedited: false, port: 5_060 };
const LOAD = { mbit: 3, bytes: 1_300, isExpedited: false, port: 9_000 };

/** Seals and opens as the addon does, and knows what was sealed under which nonce. */
class Recorder {
  readonly repeats: string[] = [];
  readonly perKey = new Map<string, Set<number>>();
  /** How much was sealed by a key over a link. */
  private readonly perLink = new Map<string, number>();
  private readonly keys = new Map<Handle, string>();

  readonly aead: Aead = {
    aeadCreate: (cipher, key) => {
      const handle = native.aeadCreate(cipher, key);
      this.keys.set(handle, Buffer.from(key).toString('hex'));
      return handle;
    },
    aeadFree: (handle) => {
      this.keys.delete(handle);
      native.aeadFree(handle);
    },
    seal: (handle, ring, slab, headerBytes, table, count) => {
      this.record(handle, table, count);
      native.seal(handle, ring, slab, headerBytes, table, count);
    },
    authenticate: (handle, ring, slab, headerBytes, table, count) => {
      this.record(handle, table, count);
      native.authenticate(handle, ring, slab, headerBytes, table, count);
    },
    open: (bytes, headerBytes, table, count) => native.open(bytes, headerBytes, table, count),
  };

  /** By the key that `handle` is now. */
  sealed(handle: Handle, link: number): number {
    return this.sealedBy(this.keys.get(handle)!, link);
  }

  sealedBy(key: string, link: number): number {
    return this.perLink.get(`${key} ${link}`) ?? 0;
  }

  keyOf(handle: Handle): string {
    return this.keys.get(handle)!;
  }

  private record(handle: Handle, table: SealTable, count: number): void {
    const key = this.keys.get(handle);
    assert.ok(key !== undefined, 'sealed with a key that is wiped');
    let used = this.perKey.get(key);
    if (used === undefined) this.perKey.set(key, (used = new Set()));
    for (let i = 0; i < count; i++) {
      const at = i * NONCE_BYTES;
      const { nonces } = table;
      const view = new DataView(nonces.buffer, nonces.byteOffset + at, NONCE_BYTES);
      // Three bytes of zeros, the link, and a counter that no test brings to 2⁴⁰.
      assert.equal(view.getUint32(0) >>> 8, 0);
      assert.equal(view.getUint32(4) >>> 8, 0);
      const link = nonces[at + 3];
      const nonce = (link * 2 ** 8 + nonces[at + 7]) * 2 ** 32 + view.getUint32(8);
      if (used.has(nonce)) this.repeats.push(`${key.slice(0, 8)}: link ${link}, nonce ${nonce}`);
      used.add(nonce);
      const pair = `${key} ${link}`;
      this.perLink.set(pair, (this.perLink.get(pair) ?? 0) + 1);
    }
  }
}

/** What has to have happened for a run to prove anything. */
interface Events {
  keys: number;
  rekeys: number;
  repaired: number;
  /** Links that were closed and open again, and sealed more under the key that they had sealed under. */
  returned: number;
  restarts: number;
  moved: number;
  delivered: number;
}

class Run {
  readonly recorder = new Recorder();
  readonly net: SimBond;
  private readonly random: Random;
  private readonly ends: readonly BondEnd[];
  private readonly returns: { readonly key: string; link: number; before: number }[] = [];
  private readonly counted = new Map<object, number>();
  private restarts = 0;
  private port = 50_000;
  private links = LINKS;

  constructor(seed: number, modes: number) {
    this.random = new Random(seed);
    const realtime = [{ protocol: 'udp', port: VOICE.port, isDuplicated: true }] as const;
    const both = { modes, rekeyAfterMs: 2_000, realtime };
    const plain = Array.from({ length: LINKS }, () => PLAIN_LINK);
    this.net = new SimBond({
      figures: FIGURES,
      seed,
      aead: this.recorder.aead,
      client: { ...both, links: plain },
      server: both,
    });
    this.ends = [this.net.client, this.net.server];
  }

  async run(): Promise<Events> {
    const { net, recorder } = this;
    await net.connect();
    const flows = new Flows(net);
    const steady = (['up', 'down'] as const).flatMap((way) => [
      new Steady(flows, way, LOAD),
      new Steady(flows, way, VOICE),
    ]);
    for (let ms = 0; ms < SECONDS * 1_000; ms += STEP_MS) {
      if (this.random.below(3) === 0) this.change();
      await net.clock.run(STEP_MS);
      this.count();
    }
    for (const end of this.ends) end.tunnel?.close();
    const events = this.ends.flatMap((end) => end.events.map(({ kind }) => kind));
    const { returns } = this;
    return {
      keys: recorder.perKey.size,
      rekeys: events.filter((kind) => kind === 'rekeyed').length,
      repaired: [...this.counted.values()].reduce((sum, count) => sum + count, 0),
      returned: returns.filter(({ key, link, before }) => recorder.sealedBy(key, link) > before)
        .length,
      restarts: this.restarts,
      moved: events.filter((kind) => kind === 'moved').length,
      delivered: steady.reduce((sum, { received }) => sum + received, 0),
    };
  }

  /** Counts start again with every session. */
  private count(): void {
    for (const { tunnel } of this.ends) {
      const bonding = tunnel?.parts.bonding;
      if (bonding !== undefined) this.counted.set(bonding, bonding.counters.repaired);
    }
  }

  /** One of the things that happen to links and ends. */
  private change(): void {
    const { net, random } = this;
    const client = net.client.tunnel!;
    const server = net.server.tunnel!;
    const index = random.below(this.links);
    const action = random.below(40);
    if (action < 8) {
      // At least one stays.
      if (client.parts.set.sockets.filter((socket) => socket !== undefined).length > 1)
        client.linkDown(index);
    } else if (action < 20) {
      this.open(index);
    } else if (action < 24) {
      client.dropLink(index);
      this.open(index);
    } else if (action < 27) {
      if (this.links < FIGURES.length) {
        client.addLink(PLAIN_LINK);
        this.links++;
      } else {
        client.removeLink(index);
        client.setLink(index, PLAIN_LINK);
        this.open(index);
      }
    } else if (action < 34) {
      net.links[index].rebind(this.port++);
    } else if (action < 37) {
      server.linkDown(0);
      this.note(net.server, index);
      server.linkUp(0);
    } else if (action < 38) {
      client.reset();
      for (let i = 0; i < this.links; i++) client.linkUp(i);
    } else if (action < 39) {
      // Its goodbye does not arrive, as if it had been killed.
      for (const link of net.links) link.down.set({ isCut: true });
      server.close();
      for (const link of net.links) link.down.set({ isCut: false });
      net.startServer();
      this.restarts++;
    }
  }

  private open(index: number): void {
    const { client } = this.net;
    if (client.tunnel!.parts.set.sockets[index] === undefined) this.note(client, index);
    client.tunnel!.linkUp(index);
  }

  /** A link is about to be open again: what the keys of today have sealed for it. */
  private note({ tunnel }: BondEnd, link: number): void {
    const { recorder } = this;
    const session = tunnel!.parts.session;
    if (session === undefined) return;
    const { sealKey } = session.current;
    const before = recorder.sealed(sealKey, link);
    if (before > 0) this.returns.push({ key: recorder.keyOf(sealKey), link, before });
  }
}

describe('no nonce is used twice under one key', () => {
  for (const modes of [0, Mode.cleartext]) {
    const what = modes === 0 ? 'sealed' : 'in the clear';
    it(`over links that come and go, both ways, through rekeys, repairs and restarts, ${what}`, async () => {
      const total: Events = {
        keys: 0,
        rekeys: 0,
        repaired: 0,
        returned: 0,
        restarts: 0,
        moved: 0,
        delivered: 0,
      };
      for (let seed = 1; seed <= 4; seed++) {
        const run = new Run(seed, modes);
        const events = await run.run();
        assert.deepEqual(run.recorder.repeats, [], `seed ${seed}`);
        for (const name of Object.keys(total) as (keyof Events)[]) total[name] += events[name];
      }
      const { keys, rekeys, repaired, returned, restarts, moved, delivered } = total;
      const said = JSON.stringify(total);
      assert.ok(keys > 60 && rekeys > 60, said);
      assert.ok(repaired > 1_000 && returned > 20 && restarts > 3 && moved > 10, said);
      assert.ok(delivered > 40_000, said);
    });
  }
});

describe('a nonce that is used twice is found out', () => {
  const original = Epoch.prototype.reserve;
  const broken: readonly (readonly [string, () => typeof original])[] = [
    [
      'where now and then a batch begins with the last counter of the one before',
      () => {
        let calls = 0;
        return function (this: Epoch, link, count) {
          const first = original.call(this, link, count);
          return first > 0 && ++calls % 5_000 === 0 ? first - 1 : first;
        };
      },
    ],
    [
      'where a link that comes back counts from the beginning',
      () => {
        const last = new WeakMap<Epoch, Map<number, number>>();
        let calls = 0;
        return function (this: Epoch, link, count) {
          const times = last.get(this) ?? new Map<number, number>();
          last.set(this, times);
          // Away for as long as the others need for so many batches.
          if (++calls - (times.get(link) ?? calls) > 500) {
            (this as unknown as { counters: Float64Array }).counters[link] = 0;
          }
          times.set(link, calls);
          return original.call(this, link, count);
        };
      },
    ],
  ];
  for (const [what, make] of broken) {
    it(what, async (t) => {
      t.mock.method(Epoch.prototype, 'reserve', make());
      const run = new Run(1, 0);
      await run.run();
      assert.ok(run.recorder.repeats.length > 0);
    });
  }
});
