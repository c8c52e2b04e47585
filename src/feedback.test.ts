import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import {
  decodeSection,
  difference16,
  encodeSection,
  MOST_RANGES,
  REPORT_BYTES,
  section,
  type Section,
} from './feedback.ts';

const SECTION_BYTES = 28;

function randomSection(random: Random, runCount: number): Section {
  const made = section();
  made.link = random.below(255);
  made.epoch = random.below(4);
  made.highest = random.below(2 ** 32);
  made.age = random.below(2 ** 16);
  made.arrival = random.below(2 ** 32);
  made.packets = random.below(2 ** 32);
  made.bytes = random.below(2 ** 32);
  made.leastDelay = random.below(2 ** 16);
  made.meanDelay = random.below(2 ** 16);
  made.reordering = random.below(2 ** 16);
  made.runCount = runCount;
  for (let i = 0; i < runCount; i++) made.runs[i] = random.below(2 ** 16);
  return made;
}

/** What a section says: of its runs only those that count. */
const meaning = (part: Section): unknown => ({
  ...part,
  runs: [...part.runs.subarray(0, part.runCount)],
});

describe('a section of a report', () => {
  it('comes back from its bytes as it was, several in one body', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new Random(seed);
      const body = new Uint8Array(REPORT_BYTES);
      const sections: Section[] = [];
      let end = 0;
      for (;;) {
        const one = randomSection(random, random.below(random.below(2 * MOST_RANGES + 1) + 1));
        const next = encodeSection(body, end, one);
        if (next === end) break;
        assert.equal(next - end, SECTION_BYTES + 2 * one.runCount);
        sections.push(one);
        end = next;
      }
      const read: Section[] = [];
      for (let at = 0; at < end;) {
        const one = section();
        at = decodeSection(body.subarray(0, end), at, one);
        assert.notEqual(at, -1, `seed ${seed}`);
        read.push(one);
      }
      assert.deepEqual(read.map(meaning), sections.map(meaning), `seed ${seed}`);
    }
  });

  it('the largest has room in a report, and one without room leaves the body as it was', () => {
    const random = new Random(1);
    const largest = randomSection(random, 2 * MOST_RANGES);
    const body = new Uint8Array(REPORT_BYTES).fill(0xee);
    assert.ok(encodeSection(body, 0, largest) > 0);
    const small = new Uint8Array(SECTION_BYTES + 4 * MOST_RANGES - 1).fill(0xee);
    assert.equal(encodeSection(small, 0, largest), 0);
    assert.ok(small.every((byte) => byte === 0xee));
    assert.equal(encodeSection(body, REPORT_BYTES, largest), REPORT_BYTES);
  });

  it('lies where PROTOCOL §5.5 says', () => {
    const one = section();
    Object.assign(one, { link: 0x01, epoch: 0x02, highest: 0x03040506, age: 0x0708 });
    Object.assign(one, { arrival: 0x090a0b0c, packets: 0x0d0e0f10, bytes: 0x11121314 });
    Object.assign(one, { leastDelay: 0x1516, meanDelay: 0x1718, reordering: 0x191a, runCount: 2 });
    one.runs.set([0x1d1e, 0x1f20]);
    const body = new Uint8Array(32);
    assert.equal(encodeSection(body, 0, one), 32);
    const expected = Array.from({ length: 32 }, (_, i) => i + 1);
    expected.splice(26, 2, 0, 2);
    expected.splice(28, 4, 0x1d, 0x1e, 0x1f, 0x20);
    assert.deepEqual([...body], expected);
  });

  it('is refused when it is cut short or says that it has more than there is', () => {
    const random = new Random(2);
    const body = new Uint8Array(REPORT_BYTES);
    const end = encodeSection(body, 0, randomSection(random, 20));
    for (let length = 0; length < end; length++) {
      assert.equal(decodeSection(body.subarray(0, length), 0, section()), -1, `${length} bytes`);
    }
    assert.equal(decodeSection(body.subarray(0, end), 0, section()), end);
    const counts = [21, 255, 2 * MOST_RANGES + 1, 2 * MOST_RANGES + 2, 0x7fff, 0x8000, 0xffff];
    for (const count of counts) {
      new DataView(body.buffer).setUint16(26, count);
      assert.equal(decodeSection(body.subarray(0, end), 0, section()), -1, `${count} runs`);
    }
  });

  it('of random bytes is refused or lies wholly within them, and nothing around them counts', () => {
    let accepted = 0;
    for (let seed = 1; seed <= 4_000; seed++) {
      const random = new Random(seed);
      const around = new Uint8Array(1_300);
      random.fill(around);
      const start = random.below(100);
      const body = around.subarray(start, start + random.below(REPORT_BYTES + 1));
      // Otherwise hardly one count of runs would be small enough.
      const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
      const at = random.below(40);
      if (random.below(2) === 0 && at + SECTION_BYTES <= body.length) {
        view.setUint16(at + 26, random.below(2 * MOST_RANGES + 10));
      }
      const read = section();
      const end = decodeSection(body, at, read);
      const alone = section();
      assert.equal(decodeSection(body.slice(), at, alone), end, `seed ${seed}`);
      if (end === -1) continue;
      accepted++;
      assert.deepEqual(meaning(read), meaning(alone), `seed ${seed}`);
      assert.ok(end <= body.length && end === at + SECTION_BYTES + 2 * read.runCount);
      assert.ok(read.epoch < 4 && read.link <= 255 && read.runCount <= read.runs.length);
    }
    assert.ok(accepted > 500, `${accepted} of 4000 were sections`);
  });
});

it('times of 16 bits differ by the shorter way', () => {
  const table: readonly (readonly [a: number, b: number, difference: number])[] = [
    [5, 3, 2],
    [3, 5, -2],
    [2, 0xfffe, 4],
    [0xfffe, 2, -4],
    [0x8000, 0, -0x8000],
    [0x7fff, 0, 0x7fff],
    [-3, 0xfffb, 2],
  ];
  for (const [a, b, difference] of table)
    assert.equal(difference16(a, b), difference, `${a} − ${b}`);
});
