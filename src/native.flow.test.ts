/**
 * Buckets and flows that the addon tells packets and frames by, against a model that spells out what belongs
 * together. The kernel forwards the packets between two devices, and bridges the frames.
 */
import assert from 'node:assert/strict';
import { frame, framed, STATION, TAGS, TYPE, withBridge, type Frame } from '../test/frames.ts';
import { inNamespace, it } from '../test/nativebed.ts';
import { FROM, TO, craft, onesSum } from '../test/packets.ts';
import { Random } from '../test/random.ts';
import { drain, withForwarding, write } from '../test/tundevices.ts';

const ROUNDS = 300;

interface Drawn {
  readonly version: 4 | 6;
  readonly protocol: 6 | 17;
  readonly isReverse: boolean;
  readonly ports: readonly [source: number, destination: number];
  readonly trafficClass: number;
  /** Bytes in front of this fragment; undefined for a whole packet. */
  readonly fragmentAt: number | undefined;
}

function draw(random: Random): Drawn {
  const version = random.below(2) === 0 ? 4 : 6;
  const isFragment = version === 4 && random.below(4) === 0;
  const port = (): number => 1000 + random.below(2);
  return {
    version,
    protocol: random.below(2) === 0 ? 6 : 17,
    isReverse: random.below(2) === 0,
    ports: [port(), port()],
    trafficClass: [0, 1, 0xb8, 0xba][random.below(4)]!,
    fragmentAt: isFragment ? 800 * random.below(2) : undefined,
  };
}

/** Checksums behind the IP header are those of other ports: who forwards does not look. */
function encode(drawn: Drawn): Buffer {
  const { version, protocol, ports, trafficClass, fragmentAt, isReverse } = drawn;
  const packet = craft({ version, protocol, payload: new Uint8Array(64), partial: false });
  if (isReverse) packet.set([...TO[version], ...FROM[version]], version === 4 ? 12 : 8);
  packet.writeUInt16BE(ports[0], version === 4 ? 20 : 40);
  packet.writeUInt16BE(ports[1], version === 4 ? 22 : 42);
  if (version === 6) {
    packet.writeUInt16BE(0x6000 | (trafficClass << 4), 0);
    return packet;
  }
  packet[1] = trafficClass;
  if (fragmentAt !== undefined) packet.writeUInt16BE(0x2000 | (fragmentAt / 8), 6);
  packet.writeUInt16BE(0, 10);
  packet.writeUInt16BE(0xffff - onesSum(packet.subarray(0, 20)), 10);
  return packet;
}

/** What all packets of one flow have in common. */
function flowKey({ version, protocol, ports, trafficClass, fragmentAt, isReverse }: Drawn): string {
  const rest = fragmentAt === undefined ? ports : 'fragment';
  return JSON.stringify([version, protocol, isReverse, trafficClass, rest]);
}

/** What all packets of one bucket have in common; others may be there, too. */
function bucketKey({ version, protocol, ports, fragmentAt, isReverse }: Drawn): string {
  if (fragmentAt !== undefined) return JSON.stringify([version, 'fragment']);
  return JSON.stringify([version, protocol, isReverse ? ports.toReversed() : ports]);
}

/** A header, and of another frame than that of a packet the rest. */
function drawHeader(random: Random): Partial<Frame> {
  const stations = [STATION.a, STATION.b, [2, 0, 0, 0, 0, 0xc]];
  const from = random.below(3);
  const tags = [[], TAGS.one, TAGS.two][random.below(3)]!;
  return { from: stations[from]!, to: stations[(from + 1 + random.below(2)) % 3]!, tags };
}

inNamespace('flows', import.meta.url, () => {
  it('are told in frames, too, with the bucket that the packet has without its frame', () => {
    const seed = 12;
    const random = new Random(seed);
    const drawn = Array.from({ length: ROUNDS }, () => draw(random));
    const buckets = new Map<string, number>();
    withForwarding(true, true, (input, output) => {
      for (const packet of drawn) {
        const [from, to] = packet.isReverse ? [output, input] : [input, output];
        drain(to.handle);
        const bytes = encode(packet);
        write(from.handle, [{ bytes, flags: 0 }]);
        const [got] = drain(to.handle).filter(({ bytes: { length } }) => length === bytes.length);
        if (got !== undefined) buckets.set(bucketKey(packet), got.bucket);
      }
    });
    const flows = new Map<string, number>();
    withBridge(true, true, (input, output) => {
      drawn.forEach((packet, i) => {
        const header = drawHeader(random);
        const isOther = random.below(4) === 0;
        const type = [TYPE.arp, 0x88cc, 0x8864][random.below(3)]!;
        const bytes = isOther
          ? frame({ ...header, type, payload: encode(packet).subarray(0, 8 + random.below(60)) })
          : framed(encode(packet), header);
        const stations = [header.from, header.to].map((one) => String(one)).sort();
        const bucketOf = isOther ? JSON.stringify([type, stations]) : bucketKey(packet);
        const flowOf = JSON.stringify([header, isOther ? type : flowKey(packet)]);
        assert.equal(write(input.handle, [{ bytes, flags: 0 }]), 0);
        const [got] = drain(output.handle);
        const where = `seed ${seed}, frame ${i}: ${flowOf}`;
        assert.ok(got?.bytes.equals(bytes), where);
        assert.equal(buckets.get(bucketOf) ?? got.bucket, got.bucket, where);
        assert.equal(flows.get(flowOf) ?? got.flow, got.flow, where);
        buckets.set(bucketOf, got.bucket);
        flows.set(flowOf, got.flow);
      });
    });
    assert.ok(buckets.size > 12, `${buckets.size} buckets, told by their keys`);
    assert.equal(new Set(flows.values()).size, flows.size);
    assert.ok(flows.size < ROUNDS, `${flows.size} flows, some met twice`);
  });

  it('differ by addresses, direction, protocol, ports and traffic class; buckets by less', () => {
    const seed = 11;
    const random = new Random(seed);
    const flows = new Map<string, number>();
    const buckets = new Map<string, number>();
    withForwarding(true, true, (input, output) => {
      for (let i = 0; i < ROUNDS; i++) {
        const drawn = draw(random);
        const [from, to] = drawn.isReverse ? [output, input] : [input, output];
        drain(to.handle);
        const bytes = encode(drawn);
        assert.equal(write(from.handle, [{ bytes, flags: 0 }]), 0);
        const [got] = drain(to.handle).filter(({ bytes: { length } }) => length === bytes.length);
        assert.ok(got, `seed ${seed}, packet ${i}: not forwarded`);
        const where = `seed ${seed}, packet ${i}: ${flowKey(drawn)}`;
        assert.equal(flows.get(flowKey(drawn)) ?? got.flow, got.flow, where);
        assert.equal(buckets.get(bucketKey(drawn)) ?? got.bucket, got.bucket, where);
        flows.set(flowKey(drawn), got.flow);
        buckets.set(bucketKey(drawn), got.bucket);
      }
    });
    assert.ok(flows.size > 50 && flows.size < ROUNDS, `${flows.size} flows, some met twice`);
    assert.equal(new Set(flows.values()).size, flows.size);
  });
});
