/** The sockets of the addon against those of the kernel. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ANY, batch, endpoint, native, receive, send } from '../test/nativebed.ts';
import {
  ENDPOINT_BYTES,
  datagramTable,
  packetTable,
  sealTable,
  type DatagramTable,
} from './batch.ts';
import { Cipher, type UdpOptions } from './native.ts';

const LOOPBACK6 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

const runs: [string, number[], number][] = [
  ['one', [100], 0],
  ['a run of equal sizes', Array<number>(50).fill(1400), 0],
  ['more than one run holds', Array<number>(200).fill(1200), 0],
  [
    'a run with a shorter last one',
    [...Array<number>(10).fill(1000), 10, ...Array<number>(5).fill(1000)],
    0,
  ],
  ['growing sizes', Array.from({ length: 60 }, (_, i) => 20 + i), 0],
  ['mixed sizes', Array.from({ length: 300 }, (_, i) => 1 + ((i * 7919) % 1400)), 0],
  ['equal sizes that do not touch', Array<number>(50).fill(1300), 3],
  ['empty slots between', [500, 0, 500, 500, 0, 0, 500], 0],
  ['the largest', [65507, 65507, 1], 0],
];
for (const offload of [true, false]) {
  describe(`udp with offload ${offload}`, () => {
    for (const [name, sizes, gapEvery] of runs) {
      it(`carries ${name}`, async () => {
        const a = native.udpOpen({ ...ANY, offload });
        const b = native.udpOpen({ ...ANY, offload, bufferBytes: 4 << 20 });
        const sent = batch(sizes, 11, gapEvery);
        const done = send(a.handle, sent, endpoint(4, b.port, [127, 0, 0, 1]));
        assert.equal(done, sizes.length);
        assert.equal(native.udpErrno(a.handle), 0);
        // Without offload one place holds a jumbo frame; what is longer is not received in part.
        const most = offload ? 65535 : 9216;
        const want = sent.datagrams.filter(({ length }) => length > 0 && length <= most);
        const got = receive(b.handle);
        assert.equal(got.length, want.length);
        got.forEach(({ bytes, source }, i) => {
          assert.ok(bytes.equals(want[i]!), `datagram ${i}`);
          assert.deepEqual(source, endpoint(4, a.port, [127, 0, 0, 1], [127, 0, 0, 1]));
        });
        native.close(a.handle);
        native.close(b.handle);
      });
    }

    it('works over IPv6 and from a pinned address', () => {
      const a = native.udpOpen({ ...ANY, family: 6, address: '', offload });
      const b = native.udpOpen({ ...ANY, family: 6, address: '::1', offload });
      const sent = batch(Array<number>(40).fill(1100), 7);
      const target = endpoint(6, b.port, LOOPBACK6, LOOPBACK6);
      assert.equal(send(a.handle, sent, target), 40);
      const got = receive(b.handle);
      assert.deepEqual(
        got.map(({ bytes }) => bytes),
        sent.datagrams,
      );
      assert.deepEqual(got[0]!.source, endpoint(6, a.port, LOOPBACK6, LOOPBACK6));
      native.close(a.handle);
      native.close(b.handle);
    });

    it('pins the local address and answers from it, on one and on both stacks', () => {
      for (const family of [4, 6] as const) {
        const dual = native.udpOpen({ ...ANY, family, dualStack: true, address: '', offload });
        const peer = native.udpOpen({ ...ANY, address: '127.0.0.3', offload });
        const sent = batch(Array<number>(9).fill(900), 8);
        send(dual.handle, sent, endpoint(4, peer.port, [127, 0, 0, 3], [127, 0, 0, 9]));
        const there = receive(peer.handle);
        assert.equal(there.length, 9);
        const source = endpoint(4, dual.port, [127, 0, 0, 9], [127, 0, 0, 3]);
        assert.deepEqual(there[0]!.source, source);
        // The row is the endpoint to answer to, as it stands.
        send(peer.handle, sent, there[0]!.source);
        const back = receive(dual.handle);
        assert.deepEqual(
          back.map(({ bytes }) => bytes),
          sent.datagrams,
        );
        const answer = endpoint(4, peer.port, [127, 0, 0, 3], [127, 0, 0, 9]);
        assert.deepEqual(back[0]!.source, answer);
        native.close(dual.handle);
        native.close(peer.handle);
      }
    });

    it('fills no more than the slab and the table hold', () => {
      const a = native.udpOpen({ ...ANY, offload });
      const b = native.udpOpen({ ...ANY, offload, bufferBytes: 4 << 20 });
      const target = endpoint(4, b.port, [127, 0, 0, 1]);
      const sent = batch(
        Array.from({ length: 60 }, (_, i) => 100 + i),
        3,
      );
      send(a.handle, sent, target);
      const slab = new Uint8Array(3 << 16).fill(0xaa);
      const table = datagramTable();
      const start = 1000;
      const end = start + (1 << 16) + 5;
      const got: Buffer[] = [];
      for (;;) {
        const count = native.udpReceive(b.handle, slab, start, end, table);
        if (count === 0) break;
        for (let i = 0; i < count; i++) {
          const at = table.offsets[i]!;
          assert.ok(at >= start && at + table.lengths[i]! <= end);
          got.push(Buffer.from(slab.slice(at, at + table.lengths[i]!)));
        }
      }
      assert.deepEqual(got, sent.datagrams);
      assert.ok(slab.subarray(0, start).every((byte) => byte === 0xaa));
      assert.ok(slab.subarray(end).every((byte) => byte === 0xaa));
      assert.equal(native.udpReceive(b.handle, slab, 0, 100, table), 0);
      send(a.handle, sent, target);
      assert.equal(receive(b.handle, undefined, datagramTable(7)).length, 60);
      native.close(a.handle);
      native.close(b.handle);
    });

    it('drops what the kernel refuses, says why, and goes on', () => {
      const a = native.udpOpen({ ...ANY, offload });
      const b = native.udpOpen({ ...ANY, offload });
      const sent = batch([10, 65530, 10], 4);
      assert.equal(send(a.handle, sent, endpoint(4, b.port, [127, 0, 0, 1])), 3);
      assert.equal(native.udpErrno(a.handle), 90);
      assert.equal(native.udpErrno(a.handle), 0);
      const want = [sent.datagrams[0], sent.datagrams[2]];
      assert.deepEqual(
        receive(b.handle).map(({ bytes }) => bytes),
        want,
      );
      for (const wrong of [endpoint(6, 9, LOOPBACK6), new Uint8Array(ENDPOINT_BYTES)]) {
        assert.equal(send(a.handle, sent, wrong), 3);
        assert.notEqual(native.udpErrno(a.handle), 0);
      }
      native.close(a.handle);
      native.close(b.handle);
    });
  });
}

describe('udp', () => {
  it('throws what the system says', () => {
    const a = native.udpOpen(ANY);
    const cases: [Partial<UdpOptions>, string, string][] = [
      [{ port: a.port }, 'EADDRINUSE', 'bind'],
      [{ address: '192.0.2.1' }, 'EADDRNOTAVAIL', 'bind'],
      [{ address: 'nonsense' }, 'EINVAL', 'bind'],
      [{ device: 'no-such-device0' }, 'ENODEV', 'SO_BINDTODEVICE'],
    ];
    for (const [options, code, syscall] of cases) {
      assert.throws(
        () => native.udpOpen({ ...ANY, ...options }),
        (error: NodeJS.ErrnoException) =>
          error.code === code && error.syscall === syscall && error.errno! < 0,
        code,
      );
    }
    native.close(a.handle);
    native.close(native.udpOpen({ ...ANY, port: a.port }).handle);
  });

  it('throws a range error for slots outside their memory, before anything is sent', () => {
    const { handle, port } = native.udpOpen(ANY);
    const target = endpoint(4, port, [127, 0, 0, 1]);
    const slab = new Uint8Array(100);
    const to = Uint32Array.of(0, 90, 4294967295);
    const sizes = Uint16Array.of(10, 11, 1);
    const table = datagramTable(4);
    const key = native.aeadCreate(Cipher.aes256Gcm, new Uint8Array(32));
    const seal = sealTable(2);
    seal.sizes[0] = 80;
    const open = datagramTable(1);
    open.keys[0] = key;
    open.lengths[0] = 101;
    const stale: DatagramTable = { ...open, keys: Uint32Array.of(key + 1) };
    const short: DatagramTable = { ...table, lengths: new Uint16Array(3) };
    const calls: [string, () => unknown][] = [
      ['end of slab', () => native.udpSend(handle, slab, to, sizes, 0, 2, target, 0)],
      ['offset wraps', () => native.udpSend(handle, slab, to, sizes, 2, 1, target, 0)],
      ['too many', () => native.udpSend(handle, slab, to, sizes, 1, 3, target, 0)],
      ['first wraps', () => native.udpSend(handle, slab, to, sizes, 4294967295, 2, target, 0)],
      ['endpoint', () => native.udpSend(handle, slab, to, sizes, 0, 1, target, 1)],
      ['receive end', () => native.udpReceive(handle, slab, 0, 101, table)],
      ['receive start', () => native.udpReceive(handle, slab, 51, 50, table)],
      ['short column', () => native.udpReceive(handle, slab, 0, 100, short)],
      ['seal', () => native.seal(key, slab, slab, 5, seal, 1)],
      ['seal count', () => native.seal(key, slab, slab, 5, seal, 3)],
      ['open', () => native.open(slab, 5, open, 1)],
      ['open key', () => native.open(slab, 5, stale, 1)],
      ['key bytes', () => native.aeadCreate(Cipher.aes256Gcm, slab)],
      ['cipher', () => native.aeadCreate(3, new Uint8Array(32))],
      ['handle', () => native.close(99999)],
      ['not a device', () => native.tunWrite(handle, slab, packetTable(1), 0)],
    ];
    for (const [name, call] of calls) assert.throws(call, RangeError, name);
    assert.throws(
      () => native.udpSend(handle, slab, to, sizes as never, 0, 1, target, NaN),
      TypeError,
    );
    assert.throws(
      () => native.udpSend(handle, slab, sizes as never, sizes, 0, 1, target, 0),
      TypeError,
    );
    assert.equal(receive(handle).length, 0);
    native.aeadFree(key);
    native.close(handle);
    assert.throws(() => native.udpErrno(handle), RangeError);
  });
});
