import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { frame, STATION, TAGS, TYPE, type Frame } from '../test/frames.ts';
import { craft } from '../test/packets.ts';
import { Random } from '../test/random.ts';
import { Classifier, classOf, linkVerdict, TrafficClass } from './classes.ts';
import { parseBpf } from './bpf.ts';
import { packetOffset } from './frame.ts';

const TAGGED: readonly NonNullable<Frame['tags']>[] = [[], TAGS.one, TAGS.two];
const THREE: NonNullable<Frame['tags']> = [...TAGS.two, ...TAGS.one];

const udp = (version: 4 | 6): Buffer =>
  craft({ version, protocol: 17, payload: new Uint8Array(20), partial: false });

interface Drawn {
  readonly bytes: Buffer;
  /** What the model says. */
  readonly offset: number;
}

function draw(random: Random): Drawn {
  const version = random.below(2) === 0 ? 4 : 6;
  const tags = [...TAGGED, THREE][random.below(4)]!;
  const claimed = [TYPE.ipv4, TYPE.ipv6, TYPE.arp][random.below(3)]!;
  const padding = random.below(3) * 5;
  const missing = random.below(3) === 0 ? 1 + random.below(48) : 0;
  const packet = udp(version);
  const payload = Buffer.concat([packet, Buffer.alloc(padding)]);
  const bytes = frame({
    tags,
    type: claimed,
    payload: payload.subarray(0, payload.length - missing),
  });
  const isThere =
    tags.length <= 2 &&
    claimed === (version === 4 ? TYPE.ipv4 : TYPE.ipv6) &&
    padding - missing >= 0;
  return { bytes, offset: isThere ? 14 + 4 * tags.length : -1 };
}

describe('the packet of a frame', () => {
  it('is where a model says that it is', () => {
    const seed = 4;
    const random = new Random(seed);
    const memory = Buffer.alloc(400);
    for (let i = 0; i < 3000; i++) {
      const { bytes, offset } = draw(random);
      random.fill(memory);
      const at = random.below(200);
      memory.set(bytes, at);
      const where = `seed ${seed}, frame ${i}: ${bytes.toString('hex')}`;
      assert.equal(packetOffset(memory, at, bytes.length), offset, where);
    }
  });

  it('is none where there is no whole header', () => {
    const bytes = frame({ tags: TAGS.two, type: TYPE.ipv4, payload: udp(4) });
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(packetOffset(bytes, 0, length), -1, `${length} bytes`);
    }
    const short = Buffer.from(bytes);
    short[22] = 0x44;
    assert.equal(packetOffset(short, 0, short.length), -1, 'an IPv4 header of 16 bytes');
  });
});

describe('the class of a frame', () => {
  /** Anything whose first byte is that of station b: what it is sent to. */
  const toStation = [{ program: parseBpf('4\n48 0 0 5\n21 0 1 11\n6 0 0 1\n6 0 0 0\n') }].map(
    ({ program }) => ({ program, verdict: linkVerdict(0) }),
  );
  const rules = [{ protocol: 'udp', port: 5000, isDuplicated: true }] as const;

  function classify(bytes: Buffer): { readonly trafficClass: number; readonly isPinned: boolean } {
    const classifier = new Classifier(true);
    classifier.setRules(rules, toStation);
    const ring = Buffer.alloc(2000, 0xff);
    ring.set(bytes, 100);
    const verdict = classifier.classify(ring, 100, bytes.length, 7);
    return {
      trafficClass: classOf(verdict),
      isPinned: (verdict & linkVerdict(0)) !== 0,
    };
  }

  for (const version of [4, 6] as const) {
    const type = version === 4 ? TYPE.ipv4 : TYPE.ipv6;
    it(`follows from the ports of its IPv${version} packet behind up to two tags`, () => {
      for (const tags of TAGGED) {
        assert.deepEqual(classify(frame({ tags, type, payload: udp(version) })), {
          trafficClass: TrafficClass.duplicated,
          isPinned: true,
        });
      }
      const { trafficClass } = classify(frame({ tags: THREE, type, payload: udp(version) }));
      assert.equal(trafficClass, TrafficClass.bulk);
    });

    it(`follows from the DSCP of its IPv${version} packet`, () => {
      const packet = craft({ version, payload: new Uint8Array(9), partial: false });
      if (version === 4) packet[1] = 46 << 2;
      else packet.writeUInt16BE(0x6000 | (46 << 6), 0);
      for (const tags of TAGGED) {
        const { trafficClass } = classify(frame({ tags, type, payload: packet }));
        assert.equal(trafficClass, TrafficClass.realtime);
      }
    });
  }

  it('without a packet follows from the filters alone, which see the whole frame', () => {
    // What would be a port or a mark in an IP packet.
    const arp = Buffer.alloc(60, 0xb8);
    for (const [to, isPinned] of [
      [STATION.b, true],
      [STATION.a, false],
    ] as const) {
      const found = classify(frame({ to, type: TYPE.arp, payload: arp }));
      assert.deepEqual(found, { trafficClass: TrafficClass.bulk, isPinned });
    }
  });

  it('of a fragment follows from what all of its packet have', () => {
    const packet = udp(4);
    packet[6] = 0x20;
    const first = frame({ tags: TAGS.one, type: TYPE.ipv4, payload: packet });
    // A byte behind the headers; and the offset of the fragment, which is made that of a later one.
    const filters = ['2\n48 0 0 50\n6 0 0 1\n', '4\n40 0 0 24\n21 0 1 8193\n6 0 0 1\n6 0 0 0\n'];
    const verdicts = filters.map((text) => {
      const classifier = new Classifier(true);
      classifier.setRules(rules, [{ program: parseBpf(text), verdict: linkVerdict(0) }]);
      return classifier.classify(first, 0, first.length, 1);
    });
    assert.deepEqual(verdicts, [0, linkVerdict(0)]);
  });
});
