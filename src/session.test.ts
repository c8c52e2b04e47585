import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import {
  EPOCHS,
  OLD_KEYS_EXTRA_MS,
  REJECT_AFTER_COUNTER,
  REJECT_AFTER_MS,
  REKEY_AFTER_COUNTER,
} from './constants.ts';
import type { Host } from './host.ts';
import { Epoch, Session, type Role } from './session.ts';
import { LINK_IDS, writeNonce } from './wire.ts';

const CHACHA = 2;
const INSTANCE = new Uint8Array(8);

/** Counts keys, and gives handles again as soon as they are free, as the addon does. */
class FakeAead implements Pick<Host['aead'], 'aeadCreate' | 'aeadFree'> {
  /** Which key a live handle stands for. */
  readonly keys = new Map<number, string>();
  created = 0;
  freed = 0;

  aeadCreate(_cipher: number, key: Uint8Array): number {
    let handle = 1;
    while (this.keys.has(handle)) handle++;
    this.keys.set(handle, Buffer.from(key).toString('hex'));
    this.created++;
    return handle;
  }

  aeadFree(handle: number): void {
    assert.ok(this.keys.delete(handle), `handle ${handle} is not in use`);
    this.freed++;
  }

  seal(): void {}

  authenticate(): void {}

  open(): number {
    return 0;
  }
}

let nextKey = 1;

function newEpoch(aead: FakeAead, number: number, nowMs: number, role: Role = 'client'): Epoch {
  const keys = { k1: new Uint8Array(32), k2: new Uint8Array(32) };
  new DataView(keys.k1.buffer).setUint32(0, nextKey++);
  new DataView(keys.k2.buffer).setUint32(0, nextKey++);
  return new Epoch(aead, role, number, CHACHA, keys, nowMs);
}

function newSession(aead: FakeAead, nowMs = 0): Session {
  return new Session(INSTANCE, 1, 2, newEpoch(aead, 0, nowMs));
}

/** A number that stands for the whole nonce: link, and counter below 2^40. */
function nonceNumber(nonce: Uint8Array): number {
  assert.equal(nonce[0] | nonce[1] | nonce[2] | nonce[4] | nonce[5] | nonce[6], 0);
  const view = new DataView(nonce.buffer, nonce.byteOffset);
  return (nonce[3] * 2 ** 8 + nonce[7]) * 2 ** 32 + view.getUint32(8);
}

describe('no nonce repeats under one key', () => {
  it('over links, directions, rekeys, and links that come back', () => {
    const nonce = new Uint8Array(12);
    let drawn = 0;
    for (let seed = 1; seed <= 8; seed++) {
      const random = new Random(seed);
      const aead = new FakeAead();
      const used = new Map<string, number[]>();
      // Both ends of one tunnel, with the same k1 and k2 in opposite roles.
      const firstKey = nextKey;
      const ends = (['client', 'server'] as const).map((role) => {
        nextKey = firstKey;
        return new Session(INSTANCE, 1, 2, newEpoch(aead, 0, 0, role));
      });
      for (let step = 0; step < 8_000; step++) {
        if (random.below(400) === 0) {
          const free = ends[0].freeEpoch([]);
          const sharedKey = nextKey;
          for (const [i, role] of (['client', 'server'] as const).entries()) {
            nextKey = sharedKey;
            ends[i].rekey(newEpoch(aead, free, step, role));
            ends[i].confirm(ends[i].current, 10, step);
          }
          for (const end of ends) end.expire(step + OLD_KEYS_EXTRA_MS + 20);
        }
        // A link that went and came back has the same id. Only the newest keys seal; what was not sent when they
        // came is sealed with them. That the tunnel does so: nonces.test.ts.
        const { current } = ends[random.below(2)];
        const link = random.below(4) === 0 ? random.below(LINK_IDS) : random.below(3);
        const count = 1 + random.below(40);
        const first = current.reserve(link, count);
        assert.ok(first >= 0);
        const key = aead.keys.get(current.sealKey)!;
        let list = used.get(key);
        if (list === undefined) used.set(key, (list = []));
        for (let i = 0; i < count; i++) {
          writeNonce(nonce, 0, link, first + i);
          list.push(nonceNumber(nonce));
        }
        drawn += count;
      }
      for (const [key, list] of used) {
        assert.equal(new Set(list).size, list.length, `seed ${seed}, key ${key}`);
      }
      assert.ok(used.size > 10, 'there were rekeys, and two directions');
    }
    assert.ok(drawn > 1_000_000, `${drawn} nonces`);
  });

  it('around 2^32, where the header wraps', () => {
    const epoch = newEpoch(new FakeAead(), 0, 0);
    assert.equal(epoch.reserve(7, 2 ** 32 - 2), 0);
    const nonce = new Uint8Array(12);
    const seen = [0, 1, 2, 3].map(() => {
      writeNonce(nonce, 0, 7, epoch.reserve(7, 1));
      return nonceNumber(nonce) % 2 ** 40;
    });
    assert.deepEqual(seen, [2 ** 32 - 2, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1]);
  });

  it('even if somebody seals with keys that are wiped, whose handle is another key by now', () => {
    const aead = new FakeAead();
    const old = newEpoch(aead, 0, 0);
    old.wipe();
    assert.equal(newEpoch(aead, 1, 0).sealKey, old.sealKey);
    assert.equal(old.reserve(0, 1), -1);
  });
});

describe('the limits of a key', () => {
  it('count all links of the direction', () => {
    const epoch = newEpoch(new FakeAead(), 0, 0);
    epoch.reserve(0, REKEY_AFTER_COUNTER / 2);
    epoch.reserve(1, REKEY_AFTER_COUNTER / 2 - 1);
    assert.equal(epoch.isWorn(), false);
    epoch.reserve(2, 1);
    assert.equal(epoch.isWorn(), true);
  });

  it('let 2^33 counters pass and no more', () => {
    const epoch = newEpoch(new FakeAead(), 0, 0);
    assert.equal(epoch.reserve(0, REJECT_AFTER_COUNTER - 3), 0);
    assert.equal(epoch.reserve(1, 4), -1);
    assert.equal(epoch.reserve(0, 3), REJECT_AFTER_COUNTER - 3, 'a refusal uses nothing up');
    assert.equal(epoch.reserve(0, 1), -1);
    assert.equal(epoch.reserve(1, 1), -1);
  });
});

describe('a new epoch', () => {
  it('gets no number that live keys or pending handshakes have', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    assert.equal(session.freeEpoch([]), 1);
    assert.equal(session.freeEpoch([1]), 2);
    assert.equal(session.freeEpoch([1, 2]), 3);
    assert.equal(session.freeEpoch([1, 2, 3]), -1);
    session.rekey(newEpoch(aead, 1, 10));
    assert.equal(session.freeEpoch([]), 2);
    assert.equal(session.freeEpoch([2, 3]), -1, '0 still opens');
    session.confirm(session.current, 0, 20);
    assert.ok(session.expire(20 + OLD_KEYS_EXTRA_MS));
    assert.equal(session.freeEpoch([2, 3]), 0, '0 is wiped');
  });

  it('seals at once, while the old one opens', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    const old = session.current;
    const next = newEpoch(aead, 1, 10);
    session.rekey(next);
    assert.equal(session.current, next);
    assert.deepEqual(
      [session.epoch(0), session.epoch(1), session.epoch(2)],
      [old, next, undefined],
    );
  });

  it('takes the place of one with its number that the peer has forgotten, and frees those keys', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    const lost = newEpoch(aead, 1, 10);
    session.rekey(lost);
    const next = newEpoch(aead, 1, 20);
    session.rekey(next);
    assert.equal(session.epoch(1), next);
    assert.equal(lost.reserve(0, 1), -1);
    assert.equal(aead.keys.size, 4);
  });

  it('goes on with the sequences and starts with fresh windows', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    session.sequences[9] = 1_234;
    session.current.window(3).accept(77);
    session.rekey(newEpoch(aead, 1, 10));
    assert.equal(session.sequences[9], 1_234);
    assert.equal(session.current.knownWindow(3), undefined);
    assert.equal(session.current.window(3).highest, -1);
    assert.equal(session.epoch(0)?.knownWindow(3)?.highest, 77);
  });
});

describe('old keys', () => {
  it('open until two round trips and a second after the new ones were confirmed', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    session.confirm(session.current, 50, 5);
    const old = session.current;
    session.rekey(newEpoch(aead, 1, 1_000));
    assert.equal(old.deadlineMs(), 5 + REJECT_AFTER_MS, 'not before the new ones are confirmed');
    session.confirm(session.current, 50, 2_000);
    const untilMs = 2_000 + 2 * 50 + OLD_KEYS_EXTRA_MS;
    assert.equal(old.deadlineMs(), untilMs);
    assert.equal(session.nextDeadlineMs(), untilMs);
    assert.ok(session.expire(untilMs - 0.001));
    assert.equal(session.epoch(0), old);
    assert.ok(session.expire(untilMs));
    assert.equal(session.epoch(0), undefined);
  });

  it('are not given more time by later datagrams', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    const old = session.current;
    session.rekey(newEpoch(aead, 1, 1_000));
    session.confirm(session.current, 0, 2_000);
    session.confirm(session.current, 500, 2_500);
    session.rekey(newEpoch(aead, 2, 2_600));
    session.confirm(session.current, 500, 2_700);
    assert.equal(old.deadlineMs(), 3_000);
  });

  it('confirmed late do not shorten the life of newer ones', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    const first = session.current;
    session.rekey(newEpoch(aead, 1, 1_000));
    session.confirm(first, 0, 2_000);
    assert.equal(session.current.deadlineMs(), 1_000 + REJECT_AFTER_MS);
  });

  it('that belong to no epoch of the session confirm nothing', () => {
    const aead = new FakeAead();
    const session = newSession(aead);
    const { current } = session;
    const stray = newEpoch(aead, 1, 10);
    session.confirm(stray, 0, 20);
    assert.equal(stray.confirmedMs, Number.POSITIVE_INFINITY);
    assert.equal(current.openUntilMs, Number.POSITIVE_INFINITY);
  });
});

describe('a session', () => {
  it('is over 180 s after its keys were confirmed, or made if they never were', () => {
    for (const confirmedMs of [undefined, 7_000]) {
      const aead = new FakeAead();
      const session = newSession(aead, 1_000);
      if (confirmedMs !== undefined) session.confirm(session.current, 0, confirmedMs);
      const endMs = (confirmedMs ?? 1_000) + REJECT_AFTER_MS;
      assert.equal(session.nextDeadlineMs(), endMs);
      assert.equal(session.expire(endMs - 0.001), true);
      assert.equal(session.expire(endMs), false);
      assert.equal(session.current.reserve(0, 1), -1, 'what seals no more gives no counters');
      session.wipe();
      assert.equal(aead.keys.size, 0);
    }
  });

  it('frees every key exactly once, whatever happens in whatever order', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new Random(seed);
      const aead = new FakeAead();
      let nowMs = 0;
      let session = newSession(aead);
      for (let step = 0; step < 300; step++) {
        nowMs += random.below(random.below(10) === 0 ? 100_000 : 1_000);
        const number = random.below(2) === 0 ? session.freeEpoch([]) : random.below(EPOCHS);
        const action = random.below(6);
        if (action === 0 && number !== -1) {
          session.rekey(newEpoch(aead, number, nowMs));
        } else if (action === 1) {
          session.confirm(session.epoch(random.below(EPOCHS)) ?? session.current, 10, nowMs);
        } else if (action === 2 && random.below(20) === 0) {
          session.wipe();
          session.wipe();
          session = newSession(aead, nowMs);
        } else if (!session.expire(nowMs)) {
          session.wipe();
          session = newSession(aead, nowMs);
        }
        const live = [0, 1, 2, 3].filter((i) => session.epoch(i) !== undefined).length;
        assert.equal(aead.keys.size, 2 * live, `seed ${seed}, step ${step}`);
        assert.equal(session.epoch(session.current.number), session.current);
      }
      session.wipe();
      assert.deepEqual([aead.keys.size, aead.freed], [0, aead.created], `seed ${seed}`);
    }
  });
});

it('seals with the key of its own direction and opens with the other', () => {
  const aead = new FakeAead();
  const keys = { k1: new Uint8Array(32).fill(1), k2: new Uint8Array(32).fill(2) };
  const client = new Epoch(aead, 'client', 0, CHACHA, keys, 0);
  const server = new Epoch(aead, 'server', 0, CHACHA, keys, 0);
  const key = (handle: number): string => aead.keys.get(handle)!.slice(0, 2);
  assert.deepEqual([client.sealKey, client.openKey].map(key), ['01', '02']);
  assert.deepEqual([server.sealKey, server.openKey].map(key), ['02', '01']);
});
