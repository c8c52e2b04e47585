import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lonelyLink } from '../test/oneway.ts';
import { Random } from '../test/random.ts';
import { ControlMessages } from './control.ts';
import { decodeSection, encodeSection, section } from './feedback.ts';
import type { Host } from './host.ts';
import type { Link } from './link.ts';
import { ReplayWindow } from './replay.ts';
import { Reports } from './reports.ts';
import { Epoch, Session } from './session.ts';
import { Control, HEADER_BYTES, INNER_BYTES } from './wire.ts';

const TAG_BYTES = 16;

const copy: Host['aead']['seal'] = (_key, ring, slab, headerBytes, table, count) => {
  for (let i = 0; i < count; i++) {
    const from = table.from[i];
    slab.set(ring.subarray(from, from + table.sizes[i]), table.to[i] + headerBytes);
  }
};

/** Seals nothing, so that what goes out can be read. */
const PLAIN: Host['aead'] = {
  aeadCreate: () => 1,
  aeadFree: () => undefined,
  seal: copy,
  authenticate: copy,
  open: () => 0,
};

/** Links whose peer sends what a test says, and the reports that go out over each. */
class Bed {
  readonly reports = new Reports(new ControlMessages(PLAIN));
  readonly session: Session;
  readonly links: Link[];
  readonly sent: { readonly over: number; readonly body: Uint8Array }[] = [];
  private readonly windows: ReplayWindow[];

  constructor(count: number) {
    const keys = { k1: new Uint8Array(32), k2: new Uint8Array(32) };
    this.session = new Session(new Uint8Array(8), 1, 2, new Epoch(PLAIN, 'client', 0, 2, keys, 0));
    this.windows = Array.from({ length: count }, () => new ReplayWindow());
    this.links = Array.from({ length: count }, (_, id) => {
      const link = lonelyLink(id);
      // Only over such the loop sends reports.
      link.isReached = true;
      link.socket = {
        ...link.socket,
        send: (slab, to, sizes) => {
          const bytes = slab.slice(to[0], to[0] + sizes[0]);
          assert.equal(bytes[HEADER_BYTES], Control.report);
          const body = bytes.subarray(HEADER_BYTES + INNER_BYTES, bytes.length - TAG_BYTES);
          this.sent.push({ over: id, body });
          return 1;
        },
      };
      return link;
    });
  }

  receive(id: number, counter: number, nowMs: number, isAwaited = true, isReport = false): void {
    const window = this.windows[id];
    assert.ok(window.accept(counter));
    const { reception } = this.links[id];
    reception.arrived(0, window, counter, (4 * nowMs) & 0xffff, 100, isAwaited, isReport, nowMs);
  }

  report(nowMs: number): void {
    this.reports.send(this.session, this.links, this.links, nowMs);
  }

  /** When a report is due, after the last one. */
  dueMs(sinceMs: number): number {
    return this.reports.deadlineMs(this.links) - sinceMs;
  }
}

/** The links that a body is about. */
function linksOf(body: Uint8Array): number[] {
  const found: number[] = [];
  const part = section();
  for (let at = 0; at < body.length;) {
    at = decodeSection(body, at, part);
    assert.notEqual(at, -1);
    found.push(part.link);
  }
  return found;
}

describe('a report is due', () => {
  it('when something came that asks for one, sooner the more it matters; never for a report', () => {
    const bed = new Bed(2);
    assert.equal(bed.dueMs(0), Number.POSITIVE_INFINITY);
    bed.receive(0, 0, 1_000, false, true);
    assert.equal(bed.dueMs(0), Number.POSITIVE_INFINITY, 'a report');
    bed.receive(0, 1, 1_000, false);
    const casual = bed.dueMs(0);
    bed.receive(0, 2, 1_000);
    const awaited = bed.dueMs(0);
    bed.receive(0, 4, 1_000);
    const urgent = bed.dueMs(0);
    assert.ok(
      1 <= urgent && urgent < awaited && awaited < casual,
      `${urgent} ${awaited} ${casual}`,
    );
    assert.ok(awaited <= 10 && casual <= 100);
    bed.report(1_001);
    assert.equal(bed.dueMs(1_001), Number.POSITIVE_INFINITY, 'all is said');
  });

  it('after a quarter of the least round trip, within 1 and 10 ms', () => {
    const table: readonly (readonly [rttMs: number[], dueMs: number])[] = [
      [[0, 0], 10],
      [[200, 100], 10],
      [[200, 20], 5],
      [[0, 20], 5],
      [[2, 40], 1],
    ];
    for (const [rttMs, dueMs] of table) {
      const bed = new Bed(2);
      bed.links.forEach((link, i) => (link.rttMs = rttMs[i]));
      bed.receive(0, 0, 1_000);
      assert.equal(bed.dueMs(0), dueMs, `${rttMs.join(' and ')} ms`);
    }
  });
});

describe('a report', () => {
  it('speaks of the links over which anything came, and goes over the first, at times the second', () => {
    const bed = new Bed(3);
    for (let i = 0; i < 40; i++) {
      bed.receive(1, i, 1_000 + 10 * i);
      if (i % 2 === 0) bed.receive(2, i, 1_000 + 10 * i);
      bed.report(1_001 + 10 * i);
    }
    const overs = [0, 1, 2].map((over) => bed.sent.filter((one) => one.over === over).length);
    assert.equal(overs[0], 40);
    assert.ok(overs[1] > 0 && overs[1] < 20, `${overs[1]} of 40 doubled`);
    assert.equal(overs[2], 0);
    const first = bed.sent.filter(({ over }) => over === 0).map(({ body }) => linksOf(body));
    first.forEach((about, i) => assert.deepEqual(about, i % 2 === 0 ? [1, 2] : [1], `report ${i}`));
  });

  it('that is too long for one datagram goes in several, none of it lost', () => {
    const bed = new Bed(6);
    const random = new Random(1);
    for (const { id } of bed.links) {
      for (let counter = 0; counter < 600; counter++) {
        if (counter % 2 === 0 || random.below(4) === 0) bed.receive(id, counter, 1_000);
      }
    }
    bed.report(1_010);
    const bodies = bed.sent.filter(({ over }) => over === 0).map(({ body }) => body);
    assert.ok(bodies.length > 1 && bodies.every((body) => body.length <= 1_100));
    assert.deepEqual(bodies.flatMap(linksOf), [0, 1, 2, 3, 4, 5]);
  });
});

describe('a received report', () => {
  function bodyOf(links: readonly number[]): Uint8Array {
    const body = new Uint8Array(1_000);
    const part = section();
    let end = 0;
    for (const link of links) {
      Object.assign(part, { link, highest: 9, packets: 10, arrival: 4_000, runCount: 1 });
      part.runs[0] = 10;
      end = encodeSection(body, end, part);
    }
    return body.slice(0, end);
  }

  it('goes to the links it is about; unknown ones and what is cut off change nothing', () => {
    const whole = bodyOf([0, 7, 1]);
    const table: readonly (readonly [body: Uint8Array, about: number[]])[] = [
      [whole, [0, 1]],
      [whole.subarray(0, whole.length - 1), [0]],
      [whole.subarray(0, 10), []],
      [new Uint8Array(0), []],
      [bodyOf([254, 255]), []],
    ];
    for (const [body, about] of table) {
      const bed = new Bed(2);
      for (const { flight } of bed.links) {
        for (let counter = 0; counter < 20; counter++) flight.add(0, counter, 1, 100, true, 900);
      }
      const heard: number[] = [];
      bed.reports.receive(body, bed.links, 1_000, ({ id }) => void heard.push(id));
      assert.deepEqual(heard, about);
      bed.links.forEach(({ id, flight }) => {
        assert.equal(flight.arrivedCount, about.includes(id) ? 10 : 0);
      });
    }
  });
});

describe('a gap is held', () => {
  it('longer the more the links differ, reorder and take, and never without end', () => {
    const hold = (rttMs: number, apartMs: number, overtakenMs: number): number => {
      const bed = new Bed(2);
      for (const link of bed.links) link.rttMs = rttMs;
      for (let i = 0; i < 200; i++) {
        const nowMs = 1_000 + 10 * i;
        bed.links.forEach(({ reception }, id) => {
          const window = new ReplayWindow();
          window.accept(i);
          const stamp = (4 * (nowMs - id * apartMs)) & 0xffff;
          reception.arrived(0, window, i, stamp, 100, true, false, nowMs);
          reception.reorderingMs = overtakenMs;
        });
      }
      bed.report(3_000);
      return bed.reports.holdMs;
    };
    const least = hold(40, 0, 0);
    assert.ok(least >= 80, `two rounds of 40 ms do not fit in ${least} ms`);
    assert.ok(Math.abs(hold(40, 100, 0) - least - 100) < 10, 'as much longer as they are apart');
    assert.ok(hold(40, 0, 20) >= least + 20 && hold(90, 0, 0) >= least + 100);
    assert.ok(hold(5_000, 0, 500) <= 3_000);
  });
});
