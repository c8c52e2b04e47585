import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { parseBpf } from './bpf.ts';
import {
  Classifier,
  classOf,
  firstMatch,
  linkVerdict,
  TrafficClass,
  type Filter,
} from './classes.ts';
import type { RealtimeRule } from './peering.ts';

interface Drawn {
  readonly isIpv4: boolean;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly dscp: number;
  readonly ecn: number;
  /** In units of 8 bytes; undefined for a whole packet. */
  readonly fragmentAt: number | undefined;
  /** Of IPv6, each of 8 or 16 bytes. */
  readonly extensions: readonly number[];
  /** Bytes of IPv4 options. */
  readonly options: number;
  /** Bytes behind the headers of IP. */
  readonly payload: number;
}

const PORTS = [53, 5060, 5061, 22];
const FRAGMENT = 44;
const AUTHENTICATION = 51;

function draw(random: Random): Drawn {
  const isIpv4 = random.below(2) === 0;
  const isFragment = random.below(5) === 0;
  const extension = (): number => [0, 43, 60][random.below(3)]!;
  return {
    isIpv4,
    protocol: [6, 17, 17, 1, 132, AUTHENTICATION][random.below(6)]!,
    sourcePort: PORTS[random.below(PORTS.length)]!,
    destinationPort: PORTS[random.below(PORTS.length)]!,
    dscp: [0, 46, 10, 47][random.below(4)]!,
    ecn: random.below(4),
    fragmentAt: isFragment ? [0, 1, 185][random.below(3)]! : undefined,
    extensions: isIpv4 ? [] : Array.from({ length: random.below(4) }, extension),
    options: 4 * random.below(11),
    payload: [0, 3, 20, 60][random.below(4)]!,
  };
}

function encode(drawn: Drawn, random: Random): Uint8Array {
  const { isIpv4, protocol, fragmentAt } = drawn;
  const extensions = [...drawn.extensions];
  if (!isIpv4 && fragmentAt !== undefined) extensions.push(FRAGMENT);
  const lengths = extensions.map((kind) => (kind === FRAGMENT ? 8 : 8 * (1 + random.below(2))));
  const behindIp = lengths.reduce((sum, length) => sum + length, isIpv4 ? drawn.options : 0);
  const headerBytes = (isIpv4 ? 20 : 40) + behindIp;
  const bytes = Buffer.alloc(headerBytes + drawn.payload);
  random.fill(bytes);
  const trafficClass = drawn.dscp * 4 + drawn.ecn;
  if (isIpv4) {
    bytes.set([0x40 + headerBytes / 4, trafficClass], 0);
    bytes.writeUInt16BE(bytes.length, 2);
    const more = fragmentAt === 0 ? 0x2000 : 0;
    bytes.writeUInt16BE(fragmentAt === undefined ? 0x4000 : fragmentAt | more, 6);
    bytes[9] = protocol;
  } else {
    bytes.writeUInt16BE(0x6000 | (trafficClass << 4), 0);
    bytes.writeUInt16BE(bytes.length - 40, 4);
    bytes[6] = extensions[0] ?? protocol;
    let at = 40;
    extensions.forEach((kind, i) => {
      bytes[at] = extensions[i + 1] ?? protocol;
      bytes[at + 1] = lengths[i]! / 8 - 1;
      if (kind === FRAGMENT) bytes.writeUInt16BE((fragmentAt ?? 0) * 8 + 1, at + 2);
      at += lengths[i]!;
    });
  }
  if (drawn.payload >= 4) {
    bytes.writeUInt16BE(drawn.sourcePort, headerBytes);
    bytes.writeUInt16BE(drawn.destinationPort, headerBytes + 2);
  }
  return bytes;
}

const showsPorts = ({ fragmentAt, payload }: Drawn): boolean =>
  fragmentAt === undefined && payload >= 4;

/** A program, and who it is true of. */
interface Known {
  readonly text: string;
  readonly isTrueOf: (drawn: Drawn) => boolean;
}

const KNOWN: readonly Known[] = [
  { text: '1\n6 0 0 1', isTrueOf: () => true },
  { text: '1\n6 0 0 0', isTrueOf: () => false },
  {
    // ip and ip proto 17
    text: '7\n48 0 0 0\n84 0 0 240\n21 0 3 64\n48 0 0 9\n21 0 1 17\n6 0 0 1\n6 0 0 0',
    isTrueOf: ({ isIpv4, protocol }) => isIpv4 && protocol === 17,
  },
  {
    // ip and udp dst port 5060
    text:
      '12\n48 0 0 0\n84 0 0 240\n21 0 7 64\n48 0 0 9\n21 0 5 17\n40 0 0 6\n' +
      '69 3 0 8191\n177 0 0 0\n72 0 0 2\n21 1 0 5060\n6 0 0 0\n6 0 0 1',
    isTrueOf: (drawn) =>
      drawn.isIpv4 && drawn.protocol === 17 && showsPorts(drawn) && drawn.destinationPort === 5060,
  },
  {
    // ip and not udp dst port 5060
    text:
      '12\n48 0 0 0\n84 0 0 240\n21 0 7 64\n48 0 0 9\n21 0 6 17\n40 0 0 6\n' +
      '69 4 0 8191\n177 0 0 0\n72 0 0 2\n21 0 1 5060\n6 0 0 0\n6 0 0 1',
    isTrueOf: (drawn) => {
      if (!drawn.isIpv4) return false;
      if (drawn.protocol !== 17 || drawn.fragmentAt !== undefined) return true;
      return showsPorts(drawn) && drawn.destinationPort !== 5060;
    },
  },
  {
    // ip[1] & 3 == 3
    text: '8\n48 0 0 0\n84 0 0 240\n21 0 4 64\n48 0 0 1\n84 0 0 3\n21 0 1 3\n6 0 0 1\n6 0 0 0',
    isTrueOf: ({ isIpv4, ecn }) => isIpv4 && ecn === 3,
  },
];

interface KnownFilter extends Known {
  readonly verdict: number;
}

/** The class and the link filters, spelled out. */
function model(
  drawn: Drawn,
  rules: readonly RealtimeRule[],
  filters: readonly KnownFilter[],
): { trafficClass: number; links: number[] } {
  const matching = filters.filter(({ isTrueOf }) => isTrueOf(drawn));
  const links = matching.filter(({ verdict }) => verdict > 3).map(({ verdict }) => verdict);
  const byFilter = matching.find(({ verdict }) => verdict <= 3)?.verdict;
  const numbers = { udp: 17, tcp: 6 };
  const rule = rules.find(
    ({ protocol, port }) =>
      showsPorts(drawn) &&
      drawn.protocol === numbers[protocol] &&
      (drawn.sourcePort === port || drawn.destinationPort === port),
  );
  const byRule = rule && (rule.isDuplicated ? TrafficClass.duplicated : TrafficClass.realtime);
  const byMark = drawn.dscp === 46 ? TrafficClass.realtime : TrafficClass.bulk;
  return { trafficClass: byRule ?? byFilter ?? byMark, links };
}

function drawRules(random: Random): RealtimeRule[] {
  return Array.from({ length: random.below(4) }, () => ({
    protocol: random.below(2) === 0 ? 'udp' : 'tcp',
    port: PORTS[random.below(PORTS.length)]!,
    isDuplicated: random.below(2) === 0,
  }));
}

function drawFilters(random: Random): KnownFilter[] {
  return Array.from({ length: random.below(6) }, (_, i) => ({
    ...KNOWN[random.below(KNOWN.length)]!,
    verdict: random.below(2) === 0 ? linkVerdict(i) : 1 + random.below(2),
  }));
}

const compiled = (filters: readonly KnownFilter[]): Filter[] =>
  filters.map(({ text, verdict }) => ({ program: parseBpf(text), verdict }));

/** The link filters of a verdict in the order in which `firstMatch` asks. */
function asked(verdict: number): number[] {
  const links: number[] = [];
  const found = firstMatch(verdict, (filter) => links.push(linkVerdict(filter)) === 0);
  assert.equal(found, -1);
  return links;
}

describe('the classifier', () => {
  it('agrees with a model that knows what was drawn', () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = new Random(seed);
      const classifier = new Classifier(false);
      const rules = drawRules(random);
      const filters = drawFilters(random);
      classifier.setRules(rules, compiled(filters));
      const ring = new Uint8Array(1024);
      // Packets of a flow come again, in a cache that has forgotten some.
      const flows = Array.from({ length: 300 }, (_, n) => ({
        drawn: draw(random),
        flow: n % 3 === 0 ? (n << 12) >>> 0 : random.below(2 ** 32),
      }));
      for (let i = 0; i < 2000; i++) {
        const { drawn, flow } = flows[random.below(flows.length)]!;
        const bytes = encode(drawn, random);
        random.fill(ring);
        const at = random.below(500);
        ring.set(bytes, at);
        const verdict = classifier.classify(ring, at, bytes.length, flow);
        const wanted = model(drawn, rules, filters);
        const found = { trafficClass: classOf(verdict), links: asked(verdict) };
        assert.deepEqual(found, wanted, `seed ${seed}, step ${i}: ${JSON.stringify(drawn)}`);
      }
    }
  });

  it('decides a flow once, until the rules change', () => {
    const random = new Random(1);
    const udp: Drawn = {
      isIpv4: true,
      protocol: 17,
      sourcePort: 53,
      destinationPort: 5060,
      dscp: 0,
      ecn: 0,
      fragmentAt: undefined,
      extensions: [],
      options: 0,
      payload: 20,
    };
    const realtime = encode(udp, random);
    const bulk = encode({ ...udp, destinationPort: 22 }, random);
    const classifier = new Classifier(false);
    const classify = (bytes: Uint8Array, flow: number): number =>
      classOf(classifier.classify(bytes, 0, bytes.length, flow));
    const rule: RealtimeRule = { protocol: 'udp', port: 5060, isDuplicated: false };
    classifier.setRules([rule], []);
    // Flows that share a set: two are remembered.
    const [a, b, c] = [0xffff_f005, 0x1005, 5];
    assert.equal(classify(realtime, a), TrafficClass.realtime);
    assert.equal(classify(bulk, b), TrafficClass.bulk);
    assert.equal(classify(bulk, a), TrafficClass.realtime);
    assert.equal(classify(realtime, b), TrafficClass.bulk);
    assert.equal(classify(realtime, c), TrafficClass.realtime);
    assert.equal(classify(bulk, c), TrafficClass.realtime);
    assert.equal(classify(bulk, a), TrafficClass.bulk, 'pushed out by the third');
    classifier.clear();
    assert.equal(classify(bulk, c), TrafficClass.bulk);
    classifier.setRules([{ ...rule, port: 22, isDuplicated: true }], []);
    assert.equal(classify(bulk, c), TrafficClass.duplicated);
    classifier.setRules([], []);
    assert.equal(classify(bulk, c), TrafficClass.bulk);
  });

  it('decides fragments by what all of a packet have alike', () => {
    const random = new Random(2);
    const base = { protocol: 17, sourcePort: 53, destinationPort: 5060, dscp: 0, ecn: 0 };
    // A byte behind the headers is there.
    const filters = [{ program: parseBpf('2\n48 0 0 50\n6 0 0 1'), verdict: linkVerdict(0) }];
    for (const isIpv4 of [true, false]) {
      const verdicts = [undefined, 0, 185].map((fragmentAt) => {
        const drawn = { ...base, isIpv4, fragmentAt, extensions: [], options: 0, payload: 60 };
        const classifier = new Classifier(false);
        classifier.setRules([], filters);
        const bytes = encode(drawn, random);
        return classifier.classify(bytes, 0, bytes.length, 1);
      });
      assert.deepEqual(verdicts, [linkVerdict(0), 0, 0], `IPv4: ${isIpv4}`);
    }
  });

  it('asks for the next filter when the first cannot be used', () => {
    const verdict = linkVerdict(0) | linkVerdict(3) | linkVerdict(27) | TrafficClass.realtime;
    assert.equal(
      firstMatch(verdict, () => true),
      0,
    );
    assert.equal(
      firstMatch(verdict, (filter) => filter > 0),
      3,
    );
    assert.equal(
      firstMatch(verdict, (filter) => filter === 27),
      27,
    );
    assert.equal(
      firstMatch(verdict, () => false),
      -1,
    );
    assert.equal(
      firstMatch(TrafficClass.duplicated, () => true),
      -1,
    );
  });

  it('stops where headers run out or never end', () => {
    const classifier = new Classifier(false);
    classifier.setRules([{ protocol: 'udp', port: 0, isDuplicated: false }], []);
    const extended = (headers: number): number => {
      const bytes = Buffer.alloc(40 + 8 * headers + 8);
      bytes[0] = 0x60;
      for (let i = 1; i < headers; i++) bytes[40 + 8 * (i - 1)] = 60;
      if (headers > 0) bytes.set([60], 6);
      bytes[headers > 0 ? 40 + 8 * (headers - 1) : 6] = 17;
      return classOf(classifier.classify(bytes, 0, bytes.length, headers));
    };
    assert.deepEqual([0, 1, 8, 9, 100].map(extended), [1, 1, 1, 0, 0]);
    const cut = Buffer.alloc(44);
    cut[0] = 0x60;
    cut[6] = 60;
    cut[40] = 17;
    assert.equal(classifier.classify(cut, 0, cut.length, 1000), 0);
  });
});
