/** Frames written to one TAP device of the addon, bridged by the kernel and read from another: any pass. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { BROADCAST, frame, framed, TAGS, TYPE, withBridge, type Frame } from '../test/frames.ts';
import { fill, generator, inNamespace, ip, it, native } from '../test/nativebed.ts';
import { assertChecksum, craft, parse, type Crafted } from '../test/packets.ts';
import { drain, write } from '../test/tundevices.ts';

const whole = (version: 4 | 6, size: number): Buffer =>
  craft({ version, protocol: 17, payload: new Uint8Array(size).fill(7), partial: false });

const NATIVE = join(import.meta.dirname, '..', 'native');

/** A header and nothing else up to what an Ethernet of 1500 carries, with one tag and with two. */
const FRAMES: readonly (readonly [name: string, bytes: Buffer])[] = [
  ['a header alone', frame({ type: 0x88b5, payload: new Uint8Array(0) })],
  ['ARP', frame({ to: BROADCAST, type: TYPE.arp, payload: new Uint8Array(28) })],
  ['ARP, padded', frame({ type: TYPE.arp, payload: new Uint8Array(46) })],
  ['multicast', frame({ to: [1, 0, 0x5e, 0, 0, 9], type: 0x88b5, payload: Buffer.from('many') })],
  ['two tags and little more', frame({ tags: TAGS.two, type: 0x88b5, payload: Buffer.from('ab') })],
  [
    'three tags',
    frame({ tags: [...TAGS.two, ...TAGS.one], type: TYPE.ipv4, payload: whole(4, 9) }),
  ],
  ['IPv4, padded', framed(Buffer.concat([whole(4, 2), Buffer.from('padding')]))],
  [
    'IPv6, padded',
    framed(Buffer.concat([whole(6, 2), Buffer.from('padding')]), { tags: TAGS.one }),
  ],
  ['IPv4 cut short', framed(whole(4, 40).subarray(0, 50))],
  ['IPv6 said to be IPv4', frame({ type: TYPE.ipv4, payload: whole(6, 40) })],
  ['a full frame', framed(whole(4, 1472))],
  ['a full frame with a tag', framed(whole(6, 1452), { tags: TAGS.one })],
  ['802.3 with a length', frame({ type: 46, payload: new Uint8Array(46).fill(0xaa) })],
];

/** Bits, lengths and whole bytes; the stations stay. */
function damage(bytes: Buffer, draw: (below: number) => number): Buffer {
  const copy = Buffer.from(bytes);
  for (let n = draw(6); n >= 0; n--) copy[12 + draw(Math.min(copy.length - 12, 70))] = draw(256);
  return draw(4) === 0 ? copy.subarray(0, draw(copy.length)) : copy;
}

function fuzz(inOffload: boolean, outOffload: boolean): void {
  const seed = 0xe7e4 + (inOffload ? 1 : 0);
  withBridge(inOffload, outOffload, (input, output) => {
    const draw = generator(seed);
    const marks: string[] = [];
    const seen: string[] = [];
    let dropped = 0;
    for (let round = 0; round < 200; round++) {
      const frames = Array.from({ length: 24 }, () => {
        const crafted: Crafted = {
          version: draw(2) === 0 ? 4 : 6,
          protocol: draw(2) === 0 ? 6 : 17,
          sequence: draw(3),
          payload: fill(new Uint8Array([0, 1, 8, 100, 1300][draw(5)]!), draw),
          partial: draw(2) === 0,
        };
        const tags: Frame['tags'] = [[], TAGS.one, TAGS.two, [...TAGS.two, ...TAGS.one]][draw(4)]!;
        const bytes = framed(craft(crafted), { tags });
        return { bytes: draw(3) > 0 ? damage(bytes, draw) : bytes, flags: draw(2) };
      });
      const mark = Buffer.alloc(40, `mark ${round} `);
      const type = [TYPE.arp, 0x88b5][draw(2)]!;
      frames.splice(draw(24), 0, { bytes: frame({ type, payload: mark }), flags: 0 });
      marks.push(mark.toString());
      dropped += write(input.handle, frames);
      for (const { bytes } of drain(output.handle)) {
        const text = bytes.subarray(-40).toString();
        if (text === mark.toString()) seen.push(text);
      }
    }
    assert.deepEqual(seen, marks, `seed ${seed}`);
    assert.ok(dropped > 0, 'none was dropped');
  });
}

/** Gives out what the kernel said to be `offload`, byte by byte in hexadecimal; nothing if it is dropped. */
const CUT = `
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "offload.h"
int main(int, char** words) {
  static uint8_t frame[vpn::kMaxFrame], out[vpn::kMaxFrame];
  const char* hex = words[1];
  const size_t size = strlen(hex) / 2;
  for (size_t i = 0; i < size; i++) sscanf(hex + 2 * i, "%2hhx", frame + i);
  vpn::Offload offload;
  offload.partial = true;
  offload.start = atoi(words[2]);
  offload.offset = 6;
  offload.payload = atoi(words[3]);
  if (offload.payload > 0) offload.run = vpn::Offload::Run::kUdp;
  const uint8_t key[vpn::kHashKeyBytes] = {};
  vpn::Cutter cutter;
  if (!cutter.BeginFrame(frame, size, offload, key)) return 0;
  while (!cutter.done()) {
    const size_t bytes = cutter.next_size();
    cutter.Next(out);
    printf("%d ", cutter.partial());
    for (size_t i = 0; i < bytes; i++) printf("%02x", out[i]);
    printf("\\n");
  }
  return 0;
}
`;

inNamespace('tap devices', import.meta.url, () => {
  describe('a frame with a partial checksum', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vpn-cut-'));
    after(() => rmSync(folder, { recursive: true }));
    const program = join(folder, 'cut');
    const cut = (
      bytes: Buffer,
      start: number,
      payload: number,
    ): { flag: string; bytes: Buffer }[] =>
      execFileSync(program, [bytes.toString('hex'), String(start), String(payload)], {
        encoding: 'utf8',
      })
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => ({ flag: line[0]!, bytes: Buffer.from(line.slice(2), 'hex') }));
    before(() => {
      const sources = ['offload.cc', 'packet.cc'].map((file) => join(NATIVE, file));
      writeFileSync(join(folder, 'cut.cc'), CUT);
      execFileSync('g++', [
        ...['-std=c++17', '-I', NATIVE, '-o', program],
        ...[join(folder, 'cut.cc'), ...sources],
      ]);
    });

    const udp = craft({ protocol: 17, payload: new Uint8Array(64).fill(9), partial: true });
    const three = [...TAGS.two, ...TAGS.one];
    for (const [name, bytes, header, flag] of [
      ['where the other end finds it stays', framed(udp), 14, '1'],
      ['behind two tags stays', framed(udp, { tags: TAGS.two }), 22, '1'],
      ['behind three tags is completed', framed(udp, { tags: three }), 26, '0'],
    ] as const) {
      it(name, () => {
        const [got, ...more] = cut(bytes, header + 20, 0);
        assert.deepEqual([got?.flag, more.length], [flag, 0]);
        assert.ok(got?.bytes.subarray(0, header).equals(bytes.subarray(0, header)));
        assertChecksum(parse(got!.bytes.subarray(header))!, Number(flag));
      });
    }

    it('is dropped when it is said to be in the header, behind the end, or of a run that is none', () => {
      for (const start of [0, 13, 14 + 20 + 72 - 7, 60_000])
        assert.deepEqual(cut(framed(udp), start, 0), []);
      assert.deepEqual(cut(framed(udp, { tags: three }), 26 + 20, 10), []);
      assert.equal(cut(framed(udp), 14 + 20, 10).length, 7);
    });
  });

  describe('tap', () => {
    it('has the name that is wanted, or one of the kernel, and is gone when closed', () => {
      const named = native.tunCreate('vpntap0', false, true);
      assert.deepEqual([named.name, named.offload], ['vpntap0', false]);
      const other = native.tunCreate('', true, true);
      assert.match(other.name, /^tap\d+$/);
      assert.equal(other.offload, true);
      native.tunSetMtu(named.handle, 1280);
      assert.match(ip('link', 'show', 'vpntap0'), /mtu 1280[^]*link\/ether /);
      native.close(named.handle);
      native.close(other.handle);
      assert.equal(ip('-o', 'link').includes('tap'), false);
    });

    for (const offload of [true, false]) {
      it(`carries any frame as it is, offload ${offload}`, () => {
        withBridge(offload, offload, (input, output) => {
          for (const [name, bytes] of FRAMES) {
            assert.equal(write(input.handle, [{ bytes, flags: 0 }]), 0, name);
            const got = drain(output.handle);
            assert.deepEqual(
              got.map((one) => one.bytes.toString('hex')),
              [bytes.toString('hex')],
              name,
            );
            assert.equal(got[0]!.flags, 0, name);
          }
        });
      });

      it(`passes good frames among bad ones, offload ${offload}`, () => fuzz(offload, offload));
    }

    it('drops what is no frame, and a partial checksum that is not where it must be', () => {
      withBridge(true, true, (input, output) => {
        const udp = craft({ protocol: 17, payload: new Uint8Array(64), partial: true });
        const fragment = Buffer.from(udp);
        fragment[6] = 0x20;
        const bad: readonly (readonly [bytes: Buffer, flags: number])[] = [
          [framed(udp).subarray(0, 13), 0],
          [framed(fragment), 1],
          [framed(udp, { tags: [...TAGS.two, ...TAGS.one] }), 1],
          [frame({ type: TYPE.arp, payload: udp }), 1],
          [frame({ type: TYPE.ipv6, payload: udp }), 1],
          [framed(Buffer.concat([udp, Buffer.from('padding')])), 1],
          [framed(udp.subarray(0, 40)), 1],
        ];
        bad.forEach(([bytes, flags], i) =>
          assert.equal(write(input.handle, [{ bytes, flags }]), 1, `row ${i}`),
        );
        assert.deepEqual(drain(output.handle), []);
        assert.equal(write(input.handle, [{ bytes: framed(udp), flags: 1 }]), 0);
        const [got] = drain(output.handle);
        assertChecksum(parse(got!.bytes.subarray(14))!, got!.flags);
      });
    });
  });
});
