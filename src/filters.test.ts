import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { BROADCAST, frame, framed, TAGS, TYPE } from '../test/frames.ts';
import { craft, TO } from '../test/packets.ts';
import { Classifier, classOf, firstMatch, MOST_LINK_FILTERS, TrafficClass } from './classes.ts';
import { compileFilters, filterSet, type CompiledEntry } from './filters.ts';
import { Failure } from './report.ts';
import { hostRunner } from './rules.ts';

const PATH = process.env['PATH'] ?? '';
const runner = hostRunner(PATH, () => undefined);
const skip = spawnSync('tcpdump', ['--version']).error === undefined ? false : 'needs tcpdump';
const EVERYTHING = '1\n6 0 0 1\n';

const entry = (target: string, expression: string) => ({ target, expression });
const failsWith = (line: string) => (error: unknown) => {
  assert.ok(error instanceof Failure);
  assert.equal(error.message, line);
  return true;
};

describe('compiled filters', { skip }, () => {
  it('put flows on links and into classes', async () => {
    const entries = [
      entry('sdsl', 'udp port 5000'),
      entry('adsl', `dst host ${TO[4].join('.')}`),
      entry('realtime,duplicate', 'udp src port 4000'),
    ];
    const { filters, links } = filterSet(await compileFilters(entries, runner, 'tun'));
    assert.deepEqual(links, ['sdsl', 'adsl']);
    const classifier = new Classifier(false);
    classifier.setRules([], filters);
    const payload = new Uint8Array(5);
    const rows = [
      [craft({ protocol: 17, payload, partial: false }), TrafficClass.duplicated, 'sdsl', 'adsl'],
      [craft({ protocol: 6, payload, partial: false }), TrafficClass.bulk, 'adsl', undefined],
      [
        craft({ version: 6, protocol: 17, payload, partial: false }),
        TrafficClass.duplicated,
        'sdsl',
        undefined,
      ],
      [
        craft({ version: 6, protocol: 6, payload, partial: false }),
        TrafficClass.bulk,
        undefined,
        undefined,
      ],
    ] as const;
    rows.forEach(([packet, trafficClass, link, otherwise], i) => {
      const verdict = classifier.classify(packet, 0, packet.length, i);
      assert.equal(classOf(verdict), trafficClass, `row ${i}`);
      assert.equal(links[firstMatch(verdict, () => true)], link, `row ${i}`);
      const isUsable = (filter: number): boolean => links[filter] !== link;
      assert.equal(links[firstMatch(verdict, isUsable)], otherwise, `row ${i}`);
    });
  });

  it('say in one line what tcpdump says, and take no expression for an option', async () => {
    const rows = [
      ['udp prt 5060', "can't parse filter expression: syntax error; see pcap-filter(7)"],
      ['-r /etc/passwd', "can't parse filter expression: syntax error; see pcap-filter(7)"],
      ['tcp and udp', 'expression rejects all packets; see pcap-filter(7)'],
      [
        'inbound',
        'it cannot be used for a tunnel: only a capture on an interface knows that; use another one',
      ],
      [
        'ip6 protochain 6',
        'it cannot be used for a tunnel: it jumps back or past the end; use another one',
      ],
    ] as const;
    for (const [expression, why] of rows) {
      await assert.rejects(
        compileFilters([entry('adsl', 'udp'), entry('lte', expression)], runner, 'tun'),
        failsWith(`filter "${expression}" of "lte": ${why}`),
      );
    }
  });
});

describe('compiled filters of a tap', { skip }, () => {
  it('see frames, with their stations, tags and types', async () => {
    const expressions = [
      'udp port 5000',
      'vlan 5 and udp port 5000',
      'arp',
      'ether dst 02:00:00:00:00:0b',
      'ether broadcast',
    ];
    const entries = expressions.map((expression, i) => entry(`link${i}`, expression));
    const { filters, links } = filterSet(await compileFilters(entries, runner, 'tap'));
    const matching = (bytes: Buffer): readonly string[] => {
      const classifier = new Classifier(true);
      classifier.setRules([], filters);
      const verdict = classifier.classify(bytes, 0, bytes.length, 1);
      const found: string[] = [];
      firstMatch(
        verdict,
        (filter) => found.push(expressions[Number(links[filter]!.slice(4))]!) === 0,
      );
      return found;
    };
    const packet = craft({ protocol: 17, payload: new Uint8Array(5), partial: false });
    const [plain, tagged, arp, station, broadcast] = expressions;
    assert.deepEqual(matching(framed(packet)), [plain, station]);
    assert.deepEqual(matching(framed(packet, { tags: TAGS.one })), [tagged, station]);
    const payload = new Uint8Array(28);
    const asked = frame({ to: BROADCAST, type: TYPE.arp, payload });
    assert.deepEqual(matching(asked), [arp, broadcast]);
    assert.deepEqual(matching(frame({ type: TYPE.arp, payload })), [arp, station]);
  });
});

describe('filters', () => {
  it('need tcpdump, and none of them none', async () => {
    const without = hostRunner('/nonexistent', () => undefined);
    await assert.rejects(
      compileFilters([entry('adsl', 'udp')], without, 'tun'),
      failsWith('filters need tcpdump: it was not found; install it, or check PATH'),
    );
    assert.deepEqual(await compileFilters([], without, 'tun'), []);
  });

  it('of one link share a number where they stand together', () => {
    const targets = ['a', 'a', 'b', 'realtime', 'b', 'a'];
    const set = filterSet(
      targets.map((target) => ({ target, expression: '', program: EVERYTHING })),
    );
    assert.deepEqual(set.links, ['a', 'b', 'a']);
    const numbers = set.filters.map(({ verdict }) => firstMatch(verdict, () => true));
    assert.deepEqual(numbers, [0, 0, 1, -1, 1, 2]);
  });

  it('are limited in number', () => {
    const many = (count: number): CompiledEntry[] =>
      Array.from({ length: count }, (_, i) => ({
        target: `link${i}`,
        expression: '',
        program: EVERYTHING,
      }));
    const { filters } = filterSet(many(MOST_LINK_FILTERS));
    const classifier = new Classifier(false);
    classifier.setRules([{ protocol: 'udp', port: 5000, isDuplicated: true }], filters);
    const packet = craft({ protocol: 17, payload: new Uint8Array(1), partial: false });
    for (let again = 0; again < 2; again++) {
      const verdict = classifier.classify(packet, 0, packet.length, 1);
      assert.equal(classOf(verdict), TrafficClass.duplicated);
      const last = MOST_LINK_FILTERS - 1;
      assert.equal(
        firstMatch(verdict, (filter) => filter === last),
        last,
      );
    }
    assert.throws(() => filterSet(many(MOST_LINK_FILTERS + 1)), /too many filters: 29 changes/);
  });
});
