/**
 * Packets written to one TUN or TAP device of the addon, forwarded by the kernel and read from another, held
 * against a model of headers and checksums: what is joined and cut on the way, and what is dropped.
 */
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { fill, generator, inNamespace, it } from '../test/nativebed.ts';
import { MEDIA } from '../test/frames.ts';
import { ACK, PSH, SYN, assertChecksum, craft, parse, type Crafted } from '../test/packets.ts';
import { drain, forwarded, withForwarding, write, writesOf } from '../test/tundevices.ts';

interface JoinCase {
  readonly name: string;
  readonly packets: readonly Crafted[];
  /** Writes expected with offloads. */
  readonly writes: number;
}

function joinCases(version: 4 | 6): JoinCase[] {
  const draw = generator(21);
  const pieces = (
    sizes: readonly number[],
    change: (i: number) => Partial<Crafted> = () => ({}),
  ) => {
    let sequence = 0xfffff000;
    return sizes.map((size, i): Crafted => {
      const payload = fill(new Uint8Array(size), draw);
      const crafted = { version, sequence: sequence >>> 0, id: i + 1, payload, partial: true };
      sequence += size;
      return { ...crafted, ...change(i) };
    });
  };
  const equal = (count: number, size = 1300): number[] => Array<number>(count).fill(size);
  const udp = { protocol: 17 } as const;
  return [
    { name: 'one packet', packets: pieces([1000]), writes: 1 },
    { name: 'a run', packets: pieces(equal(20)), writes: 1 },
    { name: 'a run with a shorter end', packets: pieces([...equal(20), 7]), writes: 1 },
    { name: 'what does not fit 64 KiB', packets: pieces(equal(60)), writes: 2 },
    { name: 'full checksums', packets: pieces(equal(8), () => ({ partial: false })), writes: 1 },
    { name: 'both kinds', packets: pieces(equal(8), (i) => ({ partial: i % 2 === 0 })), writes: 1 },
    {
      name: 'PSH ends a run',
      packets: pieces(equal(6), (i) => ({ flags: i === 2 ? ACK | PSH : ACK })),
      writes: 2,
    },
    { name: 'a shorter one ends a run', packets: pieces([900, 900, 500, 900, 900]), writes: 2 },
    { name: 'a longer one starts a run', packets: pieces([900, 901, 901]), writes: 2 },
    { name: 'a gap', packets: pieces(equal(6)).filter((_, i) => i !== 3), writes: 2 },
    {
      name: 'SYN stands alone',
      packets: pieces(equal(4), (i) => ({ flags: i === 1 ? ACK | SYN : ACK })),
      writes: 3,
    },
    {
      name: 'FIN stands alone',
      packets: pieces(equal(4), (i) => ({ flags: i === 3 ? ACK | 1 : ACK })),
      writes: 2,
    },
    {
      name: 'other options',
      packets: pieces(equal(4), (i) => ({ options: Uint8Array.of(1, 1, 1, i >> 1) })),
      writes: 2,
    },
    {
      name: 'no DF, consecutive ids',
      packets: pieces(equal(4), () => ({ dontFragment: false })),
      writes: 1,
    },
    {
      name: 'no DF, other ids',
      packets: pieces(equal(4), (i) => ({ dontFragment: false, id: 9 - i })),
      writes: version === 4 ? 4 : 1,
    },
    { name: 'pure acknowledgements', packets: pieces([0, 0, 0]), writes: 3 },
    {
      name: 'a wrong checksum',
      packets: pieces(equal(5), (i) => ({ partial: false, wrongChecksum: i === 2 })),
      writes: 3,
    },
    {
      name: 'a wrong checksum first',
      packets: pieces(equal(3), (i) => ({ partial: false, wrongChecksum: i === 0 })),
      writes: 2,
    },
    { name: 'UDP', packets: pieces([...equal(30, 1200), 40], () => udp), writes: 1 },
    { name: 'more UDP than a run holds', packets: pieces(equal(100, 400), () => udp), writes: 2 },
    {
      name: 'UDP with full checksums',
      packets: pieces(equal(9, 1200), () => ({ ...udp, partial: false })),
      writes: 1,
    },
  ];
}

function joinTests(inOffload: boolean, outOffload: boolean): void {
  const all = ([4, 6] as const).flatMap((version) =>
    MEDIA[version].map((medium) => ({ version, medium })),
  );
  for (const { version, medium } of all) {
    it(`IPv${version} packets come out as they went in, over ${medium.name}`, () => {
      medium.run(inOffload, outOffload, (input, output) => {
        drain(output.handle);
        for (const { name, packets, writes } of joinCases(version)) {
          const before = writesOf(input.name);
          const crafted = packets.map((c) => ({
            bytes: medium.wrap(craft(c)),
            flags: c.partial ? 1 : 0,
          }));
          const want = packets.map((c) => parse(craft({ ...c, partial: false }))!);
          assert.equal(write(input.handle, crafted), 0, name);
          assert.equal(writesOf(input.name) - before, inOffload ? writes : packets.length, name);
          const got = forwarded(output, medium.unwrap);
          assert.equal(got.length, want.length, name);
          got.forEach(({ parsed, packet }, i) => {
            // All but the checksum is the same, and the checksum is right unless it was wrong.
            const at = parsed.protocol === 6 ? 16 : 6;
            if (packets[i]!.wrongChecksum !== true) assertChecksum(parsed, packet.flags);
            parsed.transport.writeUInt16BE(0, at);
            want[i]!.transport.writeUInt16BE(0, at);
            assert.ok(parsed.transport.equals(want[i]!.transport), `${name}: packet ${i}`);
          });
        }
      });
    });
  }
}

/** Random damage: bits, lengths, whole bytes. Never the same length as a check that would hide it. */
function damage(packet: Buffer, draw: (below: number) => number): Buffer {
  const copy = Buffer.from(packet);
  for (let n = draw(6); n >= 0; n--) copy[draw(Math.min(copy.length, 60))] = draw(256);
  return draw(4) === 0 ? copy.subarray(0, 1 + draw(copy.length)) : copy;
}

function fuzz(inOffload: boolean, outOffload: boolean): void {
  const SEED = 0xf0220 + (inOffload ? 1 : 0);
  withForwarding(inOffload, outOffload, (input, output) => {
    const draw = generator(SEED);
    const marks: string[] = [];
    const seen: string[] = [];
    let dropped = 0;
    for (let round = 0; round < 300; round++) {
      const packets: { bytes: Buffer; flags: number }[] = [];
      for (let i = 0; i < 24; i++) {
        const payload = fill(new Uint8Array([0, 1, 8, 100, 1300][draw(5)]!), draw);
        const crafted: Crafted = {
          version: draw(2) === 0 ? 4 : 6,
          protocol: draw(2) === 0 ? 6 : 17,
          sequence: draw(3) * payload.length,
          payload,
          partial: draw(2) === 0,
        };
        const bytes =
          draw(10) === 0 ? Buffer.from(fill(Buffer.alloc(1 + draw(99)), draw)) : craft(crafted);
        packets.push({
          bytes: draw(3) > 0 ? damage(bytes, draw) : bytes,
          flags: draw(4) === 0 ? draw(256) : draw(2),
        });
      }
      const mark = Buffer.alloc(40, `mark ${round} `);
      const good: Crafted = {
        version: round % 2 === 0 ? 4 : 6,
        protocol: 17,
        payload: mark,
        partial: round % 3 === 0,
      };
      packets.splice(draw(24), 0, { bytes: craft(good), flags: round % 3 === 0 ? 1 : 0 });
      marks.push(mark.toString());
      dropped += write(input.handle, packets);
      for (const packet of drain(output.handle)) {
        const text = packet.bytes.subarray(-40).toString();
        if (text === mark.toString()) seen.push(text);
      }
    }
    assert.deepEqual(seen, marks, `seed ${SEED}`);
    assert.ok(dropped > 0);
  });
}

inNamespace('packets joined and cut', import.meta.url, () => {
  describe('device to device', () => {
    for (const inOffload of [true, false]) {
      for (const outOffload of [true, false]) {
        describe(`written to a device with offload ${inOffload}, read from one with ${outOffload}:`, () =>
          joinTests(inOffload, outOffload));
      }
      it(`passes good packets among bad ones, offload ${inOffload}`, () =>
        fuzz(inOffload, inOffload));
    }

    it('drops a partial checksum that is not on a TCP or UDP header of the packet', () => {
      withForwarding(true, true, (input, output) => {
        drain(output.handle);
        const payload = new Uint8Array(64);
        const udp = craft({ protocol: 17, payload, partial: true });
        const change = (edit: (packet: Buffer) => void, source = udp): Buffer => {
          const packet = Buffer.from(source);
          edit(packet);
          return packet;
        };
        const v6 = craft({ version: 6, protocol: 17, payload, partial: true });
        const bad = [
          change((p) => (p[9] = 1)),
          change((p) => (p[6] = 0x20)),
          change((p) => (p[7] = 1)),
          change((p) => (p[0] = 0x4f)).subarray(0, 62),
          change((p) => (p[0] = 0x44)),
          change((p) => p.writeUInt16BE(27, 2)),
          change((p) => p.writeUInt16BE(p.length + 1, 2)),
          change((p) => (p[6] = 44), v6),
          change((p) => (p[6] = 60), v6),
          change((p) => p.writeUInt16BE(7, 4), v6),
          change((p) => (p[32] = 0xf0), craft({ payload: new Uint8Array(3), partial: true })),
          Buffer.from([0x45]),
        ];
        for (const [i, bytes] of bad.entries())
          assert.equal(write(input.handle, [{ bytes, flags: 1 }]), 1, `row ${i}`);
        assert.equal(forwarded(output).length, 0);
        assert.equal(write(input.handle, [{ bytes: udp, flags: 1 }]), 0);
        assert.equal(forwarded(output).length, 1);
      });
    });
  });
});
