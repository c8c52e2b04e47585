import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { PACKET_HEADROOM, TABLE_SLOTS } from './batch.ts';
import { PACKETS, PacketStore, Piece } from './store.ts';

/** Room for a batch of full packets of any size below: what `prepare` promises. */
const BATCH_BYTES = 64 * 1024;
const EXTRA_BYTES = 77;

interface Kept {
  readonly row: number;
  readonly ticket: number;
  readonly at: number;
  readonly length: number;
  readonly mark: number;
}

/** What is kept, as a list; each packet's bytes all hold a mark of its own. */
class Model {
  readonly store = new PacketStore(EXTRA_BYTES);
  readonly kept: Kept[] = [];
  readonly released: Kept[] = [];
  readonly everTickets = new Set<number>();
  private mark = 0;

  /** Reads as `Bonding.read` does: into the present chunk, some of it kept. Returns whether there was room. */
  read(random: Random, mostLength: number, keep: number): boolean {
    const { store } = this;
    if (!store.prepare()) return false;
    const { target } = store;
    let at = store.targetAt;
    const end = Math.min(target.length, at + BATCH_BYTES);
    assert.equal(end, at + BATCH_BYTES, 'a batch has room in front of the end of its chunk');
    const read: { readonly at: number; readonly length: number; readonly mark: number }[] = [];
    while (read.length < TABLE_SLOTS) {
      const length = 1 + random.below(mostLength);
      if (at + PACKET_HEADROOM + length > end) break;
      this.mark = (this.mark + 1) % 256;
      target.fill(this.mark, at, at + PACKET_HEADROOM + length);
      read.push({ at: at + PACKET_HEADROOM, length, mark: this.mark });
      at += PACKET_HEADROOM + length;
    }
    for (const packet of read) {
      if (random.next() < keep) this.add(packet);
    }
    return true;
  }

  private add(packet: {
    readonly at: number;
    readonly length: number;
    readonly mark: number;
  }): void {
    const { store } = this;
    const row = store.add(packet.at, packet.length, packet.mark & 1, packet.mark, packet.at);
    const ticket = store.sent(row, Piece.whole);
    assert.notEqual(ticket, 0);
    assert.ok(!this.everTickets.has(ticket), 'no ticket is given twice');
    this.everTickets.add(ticket);
    this.kept.push({ row, ticket, ...packet });
  }

  release(index: number): void {
    const [one] = this.kept.splice(index, 1);
    this.store.release(one.row);
    this.released.push(one);
  }

  check(where: string): void {
    const { store, kept } = this;
    assert.equal(store.count, kept.length, where);
    assert.equal(new Set(kept.map(({ row }) => row)).size, kept.length, where);
    for (const { row, ticket, at, length, mark } of kept) {
      assert.equal(store.row(ticket), row, where);
      assert.deepEqual(
        [store.offsets[row], store.lengths[row], store.flags[row], store.buckets[row]],
        [at, length, mark & 1, mark],
        where,
      );
      const { ring } = store;
      const isWhole = ring[at] === mark && ring[at + length - 1] === mark;
      assert.ok(isWhole && ring[at - PACKET_HEADROOM] === mark, `${where}: overwritten at ${at}`);
    }
    for (const { ticket } of this.released) assert.equal(store.row(ticket), -1, where);
  }
}

describe('the store', () => {
  it('never overwrites a packet that is kept, and agrees with a list', () => {
    for (let seed = 1; seed <= 4; seed++) {
      const random = new Random(seed);
      const model = new Model();
      for (let step = 0; step < 120; step++) {
        const isFilling = Math.floor(step / 30) % 2 === 0;
        model.read(random, random.below(4) === 0 ? 100 : 1_500, random.next());
        const most = model.kept.length * (isFilling ? 0.3 : 1);
        for (let n = random.below(most + 1); n > 0; n--)
          model.release(random.below(model.kept.length));
        if (step % 10 === 9) model.check(`seed ${seed}, step ${step}`);
      }
    }
  });

  it('is full of bytes or of rows, refuses, and takes everything again when all was released', () => {
    const rows: readonly (readonly [mostLength: number, what: string])[] = [
      [1_500, 'bytes'],
      [60, 'rows'],
    ];
    for (const [mostLength, what] of rows) {
      const random = new Random(7);
      const model = new Model();
      const fill = (): number => {
        let reads = 0;
        while (model.read(random, mostLength, 1)) reads++;
        return reads;
      };
      const first = fill();
      const kept = model.kept.length;
      assert.ok(kept > PACKETS / 2 && kept <= PACKETS, `${what}: ${kept} packets`);
      assert.equal(model.store.prepare(), false, what);
      model.check(what);
      while (model.kept.length > 0) model.release(random.below(model.kept.length));
      assert.equal(model.store.count, 0);
      const second = fill();
      assert.ok(Math.abs(second - first) < first / 20, `${what}: ${first} reads, then ${second}`);
      model.check(`${what}, again`);
    }
  });

  it('one packet keeps no more than its own chunk', () => {
    const random = new Random(3);
    const model = new Model();
    model.read(random, 1_500, 1);
    while (model.kept.length > 1) model.release(1);
    let reads = 0;
    // Hundreds of times the size of the whole store.
    for (; reads < 2_000; reads++) {
      assert.ok(model.read(random, 1_500, 0.02), `read ${reads}`);
      while (model.kept.length > 1) model.release(1);
      model.everTickets.clear();
      model.released.length = 0;
    }
    model.check('at the end');
  });

  it('a row that is used again and again never answers to an old ticket', () => {
    const store = new PacketStore(0);
    assert.ok(store.prepare());
    const tickets: number[] = [];
    for (let i = 0; i < 2 ** 16 - 2; i++) {
      const row = store.add(store.targetAt, 1, 0, 0, 0);
      const ticket = store.sent(row, Piece.whole);
      if (i < 3 || i % 10_000 === 0) tickets.push(ticket);
      store.release(row);
      assert.notEqual(ticket, 0);
    }
    // The row's generations are used up only now.
    for (const ticket of tickets) assert.equal(store.row(ticket), -1);
    assert.equal(new Set(tickets).size, tickets.length);
  });

  it('knows what is missing of a packet that went out whole, in halves, or in both ways', () => {
    const { first, second, whole } = Piece;
    type Step = readonly [what: 'sent' | 'arrived' | 'lost', pieces: number, says?: boolean];
    const table: readonly (readonly Step[])[] = [
      [
        ['sent', whole],
        ['arrived', whole, true],
      ],
      [
        ['sent', whole],
        ['lost', whole, true],
      ],
      [
        ['sent', whole],
        ['sent', whole],
        ['lost', whole, false],
        ['lost', whole, true],
      ],
      [
        ['sent', first],
        ['sent', second],
        ['arrived', first, false],
        ['arrived', second, true],
      ],
      // The first half twice is not the whole.
      [
        ['sent', first],
        ['sent', second],
        ['lost', first, true],
        ['sent', first],
        ['sent', second],
        ['arrived', first, false],
        ['arrived', first, false],
        ['lost', second, false],
        ['lost', second, true],
      ],
      // Of the half that is lost the whole packet is under way elsewhere.
      [
        ['sent', whole],
        ['sent', first],
        ['sent', second],
        ['lost', first, false],
        ['arrived', second, false],
        ['lost', whole, true],
      ],
      [
        ['sent', first],
        ['sent', second],
        ['arrived', first, false],
        ['sent', whole],
        ['lost', second, false],
        ['arrived', whole, true],
      ],
    ];
    table.forEach((steps, i) => {
      const store = new PacketStore(0);
      store.prepare();
      const row = store.add(store.targetAt, 1, 0, 0, 0);
      const tickets = new Map<number, number>();
      for (const [what, pieces, says] of steps) {
        if (what === 'sent') tickets.set(pieces, store.sent(row, pieces));
        else assert.equal(store[what](row, tickets.get(pieces)!), says, `${i}: ${what} ${pieces}`);
      }
    });
  });

  it('forgets everything when cleared, and leaves the caller its bytes', () => {
    const random = new Random(5);
    const model = new Model();
    const { store } = model;
    store.ring.fill(0xee, store.extraAt);
    while (model.read(random, 1_500, 1));
    const tickets = model.kept.map(({ ticket }) => ticket);
    store.clear();
    assert.equal(store.count, 0);
    for (const ticket of tickets) assert.equal(store.row(ticket), -1);
    model.kept.length = 0;
    for (let i = 0; i < 10; i++) assert.ok(model.read(random, 1_500, 1));
    model.check('after clear');
    assert.equal(store.ring.length - store.extraAt, EXTRA_BYTES);
    assert.ok(store.ring.subarray(store.extraAt).every((byte) => byte === 0xee));
  });
});
