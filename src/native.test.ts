/**
 * The addon against oracles: node:crypto for the AEAD, the kernel itself for sockets and devices, and
 * a slow obvious model of headers and checksums for what is cut and joined.
 *
 * What makes TUN devices runs this file once more in a network namespace of its own, which takes
 * everything with it when it ends:
 *
 *     namespace of the test                        second namespace
 *     TCP client ─▶ tun 'left' ─▶ this process ─▶ tun 'right' ─▶ TCP server, echoes
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import {
  ENDPOINT_BYTES,
  NONCE_BYTES,
  PacketFlag,
  datagramTable,
  packetTable,
  sealTable,
  type DatagramTable,
  type PacketTable,
} from './batch.ts';
import { Cipher, PollEvent, loadNative, type Handle, type UdpOptions } from './native.ts';

const ADDON = fileURLToPath(new URL('../build/vpn.node', import.meta.url));
const IN_NAMESPACE = 'VPN_TEST_NAMESPACE';
const native = loadNative(ADDON);

/** mulberry32: small, seeded, good enough to draw test cases from. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

function fill(bytes: Uint8Array, draw: (below: number) => number): Uint8Array {
  for (let i = 0; i < bytes.length; i++) bytes[i] = draw(256);
  return bytes;
}

async function until<T>(what: string, probe: () => T | undefined): Promise<T> {
  for (let i = 0; i < 1000; i++) {
    const found = probe();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`waited in vain for ${what}`);
}

// ---- AEAD

const HEADER = 9;
const TAG = 16;

function oracle(cipher: number, key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, text: Buffer) {
  const name = cipher === Cipher.aes256Gcm ? 'aes-256-gcm' : 'chacha20-poly1305';
  const seal = createCipheriv(name as 'aes-256-gcm', key, nonce, { authTagLength: TAG });
  seal.setAAD(aad, { plaintextLength: text.length });
  return Buffer.concat([seal.update(text), seal.final(), seal.getAuthTag()]);
}

function aeadTests(name: string, cipher: number): void {
  describe(`aead ${name}`, () => {
    const SEED = 0x5eed0 + cipher;
    const SIZES = [0, 1, 15, 16, 17, 255, 1280, 1420, 1500, 9000, 65000];

    it('seals as node:crypto does and opens what it sealed', () => {
      const draw = generator(SEED);
      const keyBytes = fill(new Uint8Array(32), draw);
      const key = native.aeadCreate(cipher, keyBytes);
      const sizes = [...SIZES, ...Array.from({ length: 30 }, () => draw(65001))];
      const ring = fill(new Uint8Array(sizes.reduce((sum, size) => sum + size, 0)), draw);
      const total = ring.length + sizes.length * (HEADER + TAG);
      const slab = fill(new Uint8Array(total), draw);
      const seal = sealTable(sizes.length);
      const open = datagramTable(sizes.length);
      fill(seal.nonces, draw);
      open.nonces.set(seal.nonces);
      let from = 0;
      let to = 0;
      // The last slot ends exactly where ring and slab end.
      sizes.forEach((size, i) => {
        seal.from[i] = from;
        seal.sizes[i] = size;
        seal.to[i] = open.offsets[i] = to;
        open.lengths[i] = HEADER + size + TAG;
        open.keys[i] = key;
        from += size;
        to += HEADER + size + TAG;
      });
      const headers = slab.slice();
      native.seal(key, ring, slab, HEADER, seal, sizes.length);
      sizes.forEach((size, i) => {
        const at = open.offsets[i]!;
        const plain = Buffer.from(ring.subarray(seal.from[i]!, seal.from[i]! + size));
        const aad = headers.subarray(at, at + HEADER);
        const nonce = seal.nonces.subarray(i * NONCE_BYTES, (i + 1) * NONCE_BYTES);
        const want = Buffer.concat([aad, oracle(cipher, keyBytes, nonce, aad, plain)]);
        const got = Buffer.from(slab.subarray(at, at + want.length));
        assert.ok(want.equals(got), `slot ${i} of ${size} bytes, seed ${SEED}`);
      });
      assert.equal(native.open(slab, HEADER, open, sizes.length), 0);
      sizes.forEach((size, i) => {
        const at = open.offsets[i]! + HEADER;
        assert.equal(open.lengths[i], HEADER + size + TAG);
        const plain = ring.subarray(seal.from[i]!, seal.from[i]! + size);
        assert.ok(Buffer.from(plain).equals(slab.subarray(at, at + size)), `slot ${i}`);
      });
      native.aeadFree(key);
      assert.throws(() => native.seal(key, ring, slab, HEADER, seal, 0), RangeError);
    });

    it('wipes what does not open, and leaves slots without a key alone', () => {
      const draw = generator(SEED + 1);
      const key = native.aeadCreate(cipher, fill(new Uint8Array(32), draw));
      const COUNT = 400;
      const STRIDE = 128;
      const ring = fill(new Uint8Array(64), draw);
      const slab = new Uint8Array(COUNT * STRIDE);
      const seal = sealTable(COUNT);
      const open = datagramTable(COUNT);
      fill(seal.nonces, draw);
      open.nonces.set(seal.nonces);
      for (let i = 0; i < COUNT; i++) {
        seal.sizes[i] = draw(65);
        seal.to[i] = open.offsets[i] = i * STRIDE;
        open.lengths[i] = HEADER + seal.sizes[i]! + TAG;
        open.keys[i] = i % 4 === 3 ? 0 : key;
      }
      native.seal(key, ring, slab, HEADER, seal, COUNT);
      // By slot: whole, one bit flipped anywhere, cut short, no key.
      let forged = 0;
      for (let i = 0; i < COUNT; i++) {
        const bit = draw(open.lengths[i]! * 8);
        if (i % 4 === 1) slab[i * STRIDE + (bit >> 3)]! ^= 1 << (bit & 7);
        if (i % 4 === 2) open.lengths[i] = draw(open.lengths[i]!);
        if (i % 4 === 1 || i % 4 === 2) forged++;
      }
      const before = slab.slice();
      const lengths = open.lengths.slice();
      assert.equal(native.open(slab, HEADER, open, COUNT), forged);
      for (let i = 0; i < COUNT; i++) {
        const here = slab.subarray(i * STRIDE, i * STRIDE + lengths[i]!);
        const kind = i % 4;
        if (kind === 0) {
          const text = here.subarray(HEADER, HEADER + seal.sizes[i]!);
          assert.deepEqual(text, ring.subarray(0, seal.sizes[i]!), `slot ${i}, seed ${SEED + 1}`);
        } else if (kind === 3) {
          assert.equal(open.lengths[i], lengths[i]);
          assert.deepEqual(here, before.subarray(i * STRIDE, i * STRIDE + lengths[i]!));
        } else {
          assert.equal(open.lengths[i], 0, `slot ${i}, seed ${SEED + 1}`);
          assert.ok(
            here.every((byte) => byte === 0),
            `slot ${i} is wiped`,
          );
        }
      }
      native.aeadFree(key);
    });
  });
}

// ---- UDP

const ANY: UdpOptions = {
  family: 4,
  dualStack: false,
  address: '127.0.0.1',
  port: 0,
  device: '',
  mark: 0,
  offload: true,
  bufferBytes: 1 << 20,
};
const LOOPBACK6 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

function endpoint(family: 4 | 6, port: number, remote: number[], local: number[] = []): Uint8Array {
  const bytes = new Uint8Array(ENDPOINT_BYTES);
  bytes[0] = family;
  bytes[2] = port >> 8;
  bytes[3] = port & 255;
  bytes.set(remote, 8);
  bytes.set(local, 24);
  return bytes;
}

interface Datagram {
  readonly bytes: Buffer;
  readonly source: Uint8Array;
}

function receive(handle: Handle, slab = new Uint8Array(1 << 21), table = datagramTable()) {
  const all: Datagram[] = [];
  for (;;) {
    const count = native.udpReceive(handle, slab, 0, slab.length, table);
    if (count === 0) return all;
    for (let i = 0; i < count; i++) {
      const at = table.offsets[i]!;
      const row = table.sources[i]! * ENDPOINT_BYTES;
      all.push({
        bytes: Buffer.from(slab.slice(at, at + table.lengths[i]!)),
        source: table.endpoints.slice(row, row + ENDPOINT_BYTES),
      });
    }
  }
}

interface Batch {
  readonly slab: Uint8Array;
  readonly to: Uint32Array;
  readonly sizes: Uint16Array;
  readonly datagrams: Buffer[];
}

/** Datagrams of these sizes, with `gap` free bytes before those whose number `gap` divides. */
function batch(sizes: readonly number[], seed: number, gapEvery = 0): Batch {
  const draw = generator(seed);
  const slab = new Uint8Array(sizes.reduce((sum, size) => sum + size + 8, 0));
  const to = new Uint32Array(sizes.length);
  let at = 0;
  const datagrams = sizes.map((size, i) => {
    if (gapEvery > 0 && i % gapEvery === 0) at += 8;
    to[i] = at;
    at += size;
    return Buffer.from(fill(slab.subarray(at - size, at), draw));
  });
  return { slab, to, sizes: Uint16Array.from(sizes), datagrams };
}

function send(handle: Handle, { slab, to, sizes }: Batch, target: Uint8Array): number {
  return native.udpSend(handle, slab, to, sizes, 0, sizes.length, target, 0);
}

function udpTests(): void {
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
}

// ---- poll, workers, system

function pollTests(): void {
  describe('poll', () => {
    it('calls back while there is something to read, and not after it was stopped', async () => {
      const a = native.udpOpen(ANY);
      const target = endpoint(4, a.port, [127, 0, 0, 1]);
      let calls = 0;
      const onReady = (events: number): void => {
        assert.equal(events, PollEvent.readable);
        calls++;
        if (calls === 3) assert.equal(receive(a.handle).length, 2);
      };
      native.poll(a.handle, PollEvent.readable, onReady);
      send(a.handle, batch([10, 10], 1), target);
      await until('three calls', () => (calls >= 3 ? true : undefined));
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(calls, 3, 'level triggered, so quiet once it is read');
      native.poll(a.handle, 0, onReady);
      send(a.handle, batch([10], 1), target);
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(calls, 3);
      native.close(a.handle);
    });

    it('tells readable and writable, and takes another function', async () => {
      const a = native.udpOpen(ANY);
      const seen: number[] = [];
      native.poll(a.handle, PollEvent.readable, () => assert.fail('was replaced'));
      native.poll(a.handle, PollEvent.readable | PollEvent.writable, (events) => {
        seen.push(events);
        native.poll(a.handle, PollEvent.readable, (later) => void seen.push(later));
        send(a.handle, batch([10], 1), endpoint(4, a.port, [127, 0, 0, 1]));
      });
      await until('both', () => (seen.length >= 2 ? true : undefined));
      native.close(a.handle);
      assert.equal(seen[0], PollEvent.writable);
      assert.equal(seen[1], PollEvent.readable);
    });

    it('lets a handle be closed from within its callback', async () => {
      for (let round = 0; round < 20; round++) {
        const a = native.udpOpen(ANY);
        let calls = 0;
        native.poll(a.handle, PollEvent.writable, () => {
          calls++;
          native.close(a.handle);
        });
        await until('the call', () => (calls > 0 ? true : undefined));
        await new Promise((resolve) => setImmediate(resolve));
        assert.equal(calls, 1);
        assert.throws(() => native.poll(a.handle, 0, () => {}), RangeError);
        native.close(native.udpOpen({ ...ANY, port: a.port }).handle);
      }
    });

    it('keeps the process alive while it polls, and an exception in the callback is uncaught', () => {
      const script = `
        const vpn = { exports: {} };
        process.dlopen(vpn, ${JSON.stringify(ADDON)});
        const { handle } = vpn.exports.udpOpen(${JSON.stringify(ANY)});
        process.on('uncaughtException', (error) => {
          console.log(error.message);
          vpn.exports.close(handle);
        });
        vpn.exports.poll(handle, 2, () => { throw new Error('thrown within'); });
      `;
      const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
      assert.equal(child.stdout, 'thrown within\n');
      assert.equal(child.status, 0, child.stderr);
    });
  });

  describe('worker threads', () => {
    it('load the addon for themselves, and may end with handles open', async () => {
      const script = `
        const { parentPort } = require('node:worker_threads');
        const vpn = { exports: {} };
        process.dlopen(vpn, ${JSON.stringify(ADDON)});
        const key = vpn.exports.aeadCreate(1, new Uint8Array(32));
        for (let i = 0; i < 3; i++) {
          const { handle } = vpn.exports.udpOpen(${JSON.stringify(ANY)});
          vpn.exports.poll(handle, i, () => parentPort.postMessage(key));
        }
        if (process.argv[2] === 'exit') setTimeout(() => process.exit(7), 30);
      `;
      for (const how of ['exit', 'terminate']) {
        const worker = new Worker(script, { eval: true, argv: [how] });
        const first = await new Promise((resolve) => worker.once('message', resolve));
        assert.equal(first, 1, 'keys are counted per environment');
        const gone = new Promise<number>((resolve) => worker.once('exit', resolve));
        if (how === 'terminate') await worker.terminate();
        assert.equal(await gone, how === 'exit' ? 7 : 1);
      }
    });
  });

  describe('system', () => {
    it('locks a file for one descriptor at a time', () => {
      const folder = mkdtempSync(join(tmpdir(), 'vpn-native-'));
      const file = join(folder, 'lock');
      const first = openSync(file, 'w');
      const second = openSync(file, 'r+');
      assert.equal(native.lockFile(first), true);
      assert.equal(native.lockFile(first), true);
      assert.equal(native.lockFile(second), false);
      closeSync(first);
      assert.equal(native.lockFile(second), true);
      closeSync(second);
      rmSync(folder, { recursive: true });
      assert.throws(
        () => native.lockFile(second),
        (error: NodeJS.ErrnoException) => error.code === 'EBADF' && error.syscall === 'flock',
      );
    });

    it('tells the namespace and the processor', () => {
      assert.match(native.netnsCookie(), /^(|[1-9][0-9]*)$/);
      assert.equal(native.netnsCookie(), native.netnsCookie());
      assert.equal(typeof native.cpuHasAes(), 'boolean');
    });
  });
}

// ---- TUN: headers as an obvious model sees them

const HASH_KEY = Uint8Array.from({ length: 16 }, (_, i) => i * 7);
const SYN = 2;
const PSH = 8;
const ACK = 16;

function onesSum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

interface Parsed {
  readonly version: number;
  readonly protocol: number;
  readonly destination: string;
  readonly transport: Buffer;
  readonly payload: Buffer;
  readonly pseudo: number;
}

/** Asserts that every length and the IPv4 checksum are right. Undefined for what is not TCP or UDP. */
function parse(packet: Buffer): Parsed | undefined {
  const version = packet[0]! >> 4;
  const header = version === 4 ? (packet[0]! & 15) * 4 : 40;
  const protocol = version === 4 ? packet[9]! : packet[6]!;
  const total = version === 4 ? packet.readUInt16BE(2) : 40 + packet.readUInt16BE(4);
  assert.equal(total, packet.length);
  if (version === 4) assert.equal(onesSum(packet.subarray(0, header)), 0xffff);
  if (protocol !== 6 && protocol !== 17) return undefined;
  const transport = packet.subarray(header);
  const addresses = version === 4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
  if (protocol === 17) assert.equal(transport.readUInt16BE(4), transport.length);
  return {
    version,
    protocol,
    destination: addresses.subarray(addresses.length / 2).toString('hex'),
    transport,
    payload: transport.subarray(protocol === 17 ? 8 : (transport[12]! >> 4) * 4),
    pseudo: onesSum(addresses, protocol + transport.length),
  };
}

function checksumOf({ protocol, transport }: Parsed): number {
  return transport.readUInt16BE(protocol === 6 ? 16 : 6);
}

/** That a partial checksum is the sum of the pseudo header, and a full one is right. */
function assertChecksum(parsed: Parsed, flags: number): void {
  if ((flags & PacketFlag.partialChecksum) !== 0) {
    assert.equal(checksumOf(parsed) % 0xffff, parsed.pseudo % 0xffff);
  } else {
    assert.equal(onesSum(parsed.transport, parsed.pseudo), 0xffff);
  }
}

interface Crafted {
  readonly version?: 4 | 6;
  readonly protocol?: 6 | 17;
  readonly sequence?: number;
  readonly flags?: number;
  readonly id?: number;
  readonly dontFragment?: boolean;
  readonly options?: Uint8Array;
  readonly payload: Uint8Array;
  readonly partial: boolean;
  readonly wrongChecksum?: boolean;
}

const FROM = { 4: [10, 1, 0, 2], 6: [0xfd, 1, ...Array<number>(13).fill(0), 2] };
const TO = { 4: [10, 2, 0, 2], 6: [0xfd, 2, ...Array<number>(13).fill(0), 2] };

function craft(c: Crafted): Buffer {
  const version = c.version ?? 4;
  const protocol = c.protocol ?? 6;
  const options = c.options ?? new Uint8Array(0);
  const ip = version === 4 ? 20 : 40;
  const transport = protocol === 17 ? 8 : 20 + options.length;
  const packet = Buffer.alloc(ip + transport + c.payload.length);
  if (version === 4) {
    packet.set([0x45, 0], 0);
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE(c.id ?? 1, 4);
    packet.set([c.dontFragment === false ? 0 : 0x40, 0, 64, protocol], 6);
    packet.set([...FROM[4], ...TO[4]], 12);
    packet.writeUInt16BE(0xffff - onesSum(packet.subarray(0, 20)), 10);
  } else {
    packet[0] = 0x60;
    packet.writeUInt16BE(packet.length - 40, 4);
    packet.set([protocol, 64, ...FROM[6], ...TO[6]], 6);
  }
  const segment = packet.subarray(ip);
  segment.writeUInt16BE(4000, 0);
  segment.writeUInt16BE(5000, 2);
  if (protocol === 6) segment.set(options, 20);
  segment.set(c.payload, transport);
  if (protocol === 6) {
    segment.writeUInt32BE(c.sequence ?? 1, 4);
    segment.writeUInt32BE(77, 8);
    segment.set([(transport / 4) << 4, c.flags ?? ACK, 1, 0], 12);
  } else {
    segment.writeUInt16BE(segment.length, 4);
  }
  const at = protocol === 6 ? 16 : 6;
  const parsed = parse(packet)!;
  const sum = 0xffff - onesSum(segment, parsed.pseudo);
  segment.writeUInt16BE(c.partial ? parsed.pseudo : sum === 0 ? 0xffff : sum, at);
  if (c.wrongChecksum === true) segment[at]! ^= 1;
  return packet;
}

// ---- TUN: the devices

interface Packet {
  readonly bytes: Buffer;
  readonly flags: number;
  readonly bucket: number;
}

const HEADROOM = 23;

function drain(handle: Handle, table: PacketTable = packetTable(), ringBytes = 1 << 20): Packet[] {
  const ring = new Uint8Array(ringBytes);
  const packets: Packet[] = [];
  for (;;) {
    const count = native.tunRead(handle, ring, 5, HEADROOM, table, HASH_KEY);
    assert.ok(count >= 0, `tunRead: ${count}`);
    if (count === 0) return packets;
    let at = 5;
    for (let i = 0; i < count; i++) {
      assert.equal(table.offsets[i], at + HEADROOM, 'packets lie one behind the other');
      at += HEADROOM + table.lengths[i]!;
      const bytes = Buffer.from(ring.slice(table.offsets[i]!, at));
      packets.push({ bytes, flags: table.flags[i]!, bucket: table.buckets[i]! });
    }
  }
}

function write(handle: Handle, packets: readonly { bytes: Buffer; flags: number }[]): number {
  const bytes = new Uint8Array(packets.reduce((sum, packet) => sum + packet.bytes.length, 0));
  const table = packetTable(packets.length);
  let at = 0;
  packets.forEach((packet, i) => {
    bytes.set(packet.bytes, at);
    table.offsets[i] = at;
    table.lengths[i] = packet.bytes.length;
    table.flags[i] = packet.flags;
    at += packet.bytes.length;
  });
  return native.tunWrite(handle, bytes, table, packets.length);
}

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' });
}

/** Writes that reached the kernel: a joined run counts once. */
function writesOf(device: string): number {
  return JSON.parse(ip('-s', '-j', 'link', 'show', device))[0].stats64.rx.packets;
}

interface Device {
  readonly handle: Handle;
  readonly name: string;
  readonly offload: boolean;
}

function device(name: string, offload: boolean, addresses: readonly string[]): Device {
  const made = native.tunCreate(name, offload);
  assert.equal(made.name, name);
  assert.equal(made.offload, offload, 'this kernel has TUN offloads');
  for (const address of addresses) {
    ip('addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
  }
  ip('link', 'set', name, 'up');
  return made;
}

/** Two devices with the kernel forwarding between them. */
function withForwarding(
  inOffload: boolean,
  outOffload: boolean,
  run: (input: Device, output: Device) => void,
): void {
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
  const input = device('in0', inOffload, ['10.1.0.1/24', 'fd01::1/64']);
  const output = device('out0', outOffload, ['10.2.0.1/24', 'fd02::1/64']);
  try {
    run(input, output);
  } finally {
    native.close(input.handle);
    native.close(output.handle);
  }
}

/** What came out for `TO`. */
function forwarded(output: Device): { parsed: Parsed; packet: Packet }[] {
  const wanted = new Set([TO[4], TO[6]].map((address) => Buffer.from(address).toString('hex')));
  return drain(output.handle).flatMap((packet) => {
    const parsed = parse(packet.bytes);
    return parsed !== undefined && wanted.has(parsed.destination) ? [{ parsed, packet }] : [];
  });
}

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
  for (const version of [4, 6] as const) {
    it(`IPv${version} packets come out as they went in`, () => {
      withForwarding(inOffload, outOffload, (input, output) => {
        drain(output.handle);
        for (const { name, packets, writes } of joinCases(version)) {
          const before = writesOf(input.name);
          const crafted = packets.map((c) => ({ bytes: craft(c), flags: c.partial ? 1 : 0 }));
          const want = packets.map((c) => parse(craft({ ...c, partial: false }))!);
          assert.equal(write(input.handle, crafted), 0, name);
          assert.equal(writesOf(input.name) - before, inOffload ? writes : packets.length, name);
          const got = forwarded(output);
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

/** Kernel to kernel through two devices; every packet is held against the model. */
async function stream(version: 4 | 6, leftOffload: boolean, rightOffload: boolean): Promise<void> {
  const held: ChildProcess[] = [];
  const left = device('left0', leftOffload, ['10.9.0.1/24', 'fd09::1/64']);
  const right = native.tunCreate('right0', rightOffload);
  try {
    const other = spawn('unshare', ['-n', 'sleep', '100'], { stdio: 'ignore' });
    held.push(other);
    const enter = ['-t', String(other.pid), '-n'];
    await until('a namespace', () => {
      const cookie = (pid: string): string =>
        execFileSync('readlink', [`/proc/${pid}/ns/net`], { encoding: 'utf8' });
      return cookie(String(other.pid)) === cookie('self') ? undefined : true;
    });
    ip('link', 'set', right.name, 'netns', String(other.pid));
    for (const words of [
      'addr add 10.9.0.2/24 dev right0',
      'addr add fd09::2/64 dev right0 nodad',
      'link set right0 up',
    ]) {
      execFileSync('nsenter', [...enter, 'ip', ...words.split(' ')]);
    }
    const script = `require('node:net').createServer((s) => s.pipe(s)).listen(7000, '::', () => console.log('up'))`;
    const server = spawn('nsenter', [...enter, process.execPath, '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    held.push(server);
    await new Promise((resolve) => server.stdout!.once('data', resolve));

    let runs = 0;
    let full = 0;
    const buckets = new Set<number>();
    const pump = (from: Device, to: Handle) => (): void => {
      const packets = drain(from.handle);
      for (const { bytes, flags, bucket } of packets) {
        const parsed = parse(bytes);
        if (parsed?.protocol !== 6) continue;
        assertChecksum(parsed, flags);
        if ((flags & PacketFlag.partialChecksum) === 0) full++;
        buckets.add(bucket);
      }
      if (packets.length > 10) runs++;
      write(to, packets);
    };
    native.poll(left.handle, PollEvent.readable, pump(left, right.handle));
    native.poll(right.handle, PollEvent.readable, pump(right, left.handle));

    const data = Buffer.from(fill(new Uint8Array(3_000_000), generator(5)));
    const socket = connect(7000, version === 4 ? '10.9.0.2' : 'fd09::2');
    const hash = createHash('sha256');
    let bytes = 0;
    socket.end(data);
    for await (const chunk of socket) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    assert.equal(bytes, data.length);
    assert.equal(hash.digest('hex'), createHash('sha256').update(data).digest('hex'));
    assert.ok(!leftOffload || runs > 0, 'the kernel gave runs');
    assert.equal(buckets.size, 1, 'one flow, one bucket, both directions');
    assert.equal(full > 0, !leftOffload || !rightOffload);
  } finally {
    native.close(left.handle);
    native.close(right.handle);
    for (const child of held.reverse()) {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
  }
}

function tunTests(): void {
  describe('tun', () => {
    it('has the name that is wanted, or one of the kernel, and is gone when closed', () => {
      const named = native.tunCreate('vpntest0', false);
      assert.equal(named.name, 'vpntest0');
      assert.equal(named.offload, false);
      const other = native.tunCreate('', true);
      assert.match(other.name, /^tun\d+$/);
      native.tunSetMtu(named.handle, 1280);
      assert.match(ip('link', 'show', 'vpntest0'), /mtu 1280/);
      const refused = (code: string, syscall: string) => (error: NodeJS.ErrnoException) =>
        error.code === code && error.syscall === syscall;
      assert.throws(() => native.tunSetMtu(named.handle, 7), refused('EINVAL', 'SIOCSIFMTU'));
      assert.throws(() => native.tunCreate('vpntest0', true), refused('EBUSY', 'TUNSETIFF'));
      assert.throws(() => native.tunCreate('lo', true), refused('EBUSY', 'TUNSETIFF'));
      assert.throws(() => native.tunCreate('a'.repeat(16), true), refused('EINVAL', 'TUNSETIFF'));
      ip('tuntap', 'add', 'vpntest1', 'mode', 'tun');
      assert.throws(() => native.tunCreate('vpntest1', true), refused('EBUSY', 'TUNSETIFF'));
      native.close(named.handle);
      native.close(other.handle);
      assert.equal(ip('-o', 'link').includes('vpntest0'), false);
    });

    it('says when the device is gone', async () => {
      const gone = device('vpntest2', true, []);
      drain(gone.handle);
      const called = new Promise<number>((resolve) =>
        native.poll(gone.handle, PollEvent.readable, resolve),
      );
      ip('link', 'del', 'vpntest2');
      await called;
      const ring = new Uint8Array(1 << 17);
      assert.equal(native.tunRead(gone.handle, ring, 0, 0, packetTable(), HASH_KEY), -77);
      const packet = { bytes: craft({ payload: new Uint8Array(9), partial: true }), flags: 1 };
      assert.equal(write(gone.handle, [packet, packet]), 2);
      native.close(gone.handle);
    });

    it('throws a range error for places outside the memory', () => {
      const { handle } = native.tunCreate('', true);
      const bytes = new Uint8Array(10);
      const table = packetTable(2);
      table.lengths[1] = 11;
      assert.throws(() => native.tunWrite(handle, bytes, table, 2), RangeError);
      assert.throws(() => native.tunWrite(handle, bytes, table, 3), RangeError);
      assert.throws(() => native.tunRead(handle, bytes, 11, 0, table, HASH_KEY), RangeError);
      assert.throws(() => native.tunRead(handle, bytes, 0, 0, table, bytes), RangeError);
      assert.throws(() => native.udpErrno(handle), RangeError);
      native.close(handle);
    });

    for (const version of [4, 6] as const) {
      it(`cuts a UDP run of IPv${version}, also when table and ring are short`, async () => {
        const made = device('in0', true, ['10.1.0.1/24', 'fd01::1/64']);
        const socket = native.udpOpen({ ...ANY, family: version, address: '' });
        drain(made.handle);
        const sizes = [...Array<number>(45).fill(1400), 33];
        const sent = batch(sizes, 9);
        const target = endpoint(
          version,
          5555,
          version === 4 ? [10, 1, 0, 9] : [0xfd, 1, ...Array<number>(13).fill(0), 9],
        );
        for (const [slots, ringBytes] of [
          [1024, 1 << 20],
          [7, 1 << 20],
          [1024, 6000],
        ] as const) {
          assert.equal(send(socket.handle, sent, target), sizes.length);
          assert.equal(native.udpErrno(socket.handle), 0);
          const got = drain(made.handle, packetTable(slots), ringBytes).filter(
            ({ bytes }) => parse(bytes)?.protocol === 17,
          );
          assert.equal(got.length, sizes.length);
          got.forEach(({ bytes, flags }, i) => {
            const parsed = parse(bytes)!;
            assertChecksum(parsed, flags);
            assert.ok(parsed.payload.equals(sent.datagrams[i]!), `datagram ${i}`);
          });
          assert.equal(new Set(got.map(({ bucket }) => bucket)).size, 1);
        }
        // What is left of a run shows as readable although the descriptor is empty.
        send(socket.handle, sent, target);
        const ring = new Uint8Array(1 << 20);
        let count = 0;
        const small = packetTable(10);
        native.poll(made.handle, PollEvent.readable, () => {
          count += native.tunRead(made.handle, ring, 0, 0, small, HASH_KEY);
        });
        await until('all of the run', () => (count >= sizes.length ? true : undefined));
        native.close(socket.handle);
        native.close(made.handle);
      });
    }

    it('drops what is longer than the MTU, one by one, and sends the rest of the batch', () => {
      const made = device('in0', true, ['10.1.0.1/24']);
      native.tunSetMtu(made.handle, 1000);
      for (const offload of [true, false]) {
        const socket = native.udpOpen({ ...ANY, address: '', offload });
        const sent = batch(
          [...Array<number>(9).fill(1100), 972, ...Array<number>(9).fill(973), 7, 9],
          6,
        );
        assert.equal(send(socket.handle, sent, endpoint(4, 9, [10, 1, 0, 9])), 21);
        assert.equal(native.udpErrno(socket.handle), 90);
        const got = drain(made.handle).filter(({ bytes }) => parse(bytes)?.protocol === 17);
        const want = sent.datagrams.filter(({ length }) => length <= 972);
        assert.deepEqual(
          got.map(({ bytes }) => parse(bytes)!.payload),
          want,
        );
        native.close(socket.handle);
      }
      native.close(made.handle);
    });

    it('tells a full socket buffer by a short count', (t) => {
      const made = device('in0', true, ['10.1.0.1/24']);
      const qdisc = spawnSync('tc', [
        'qdisc',
        'add',
        'dev',
        'in0',
        'root',
        'tbf',
        'rate',
        '8kbit',
        'burst',
        '2000',
        'limit',
        '1000000',
      ]);
      if (qdisc.status !== 0) {
        native.close(made.handle);
        t.skip('needs tc and its tbf');
        return;
      }
      for (const offload of [true, false]) {
        const socket = native.udpOpen({ ...ANY, address: '', offload, bufferBytes: 50000 });
        const sent = batch(Array<number>(600).fill(1000), 2);
        const done = send(socket.handle, sent, endpoint(4, 9, [10, 1, 0, 9]));
        assert.ok(done > 0 && done < 600, `${done} went`);
        assert.equal(native.udpErrno(socket.handle), 0);
        native.close(socket.handle);
      }
      native.close(made.handle);
    });

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

    for (const version of [4, 6] as const) {
      for (const [left, right] of [
        [true, true],
        [true, false],
        [false, true],
        [false, false],
      ] as const) {
        it(`carries a TCP stream of the kernel over IPv${version}, offloads ${left} and ${right}`, () =>
          stream(version, left, right));
      }
    }
  });
}

if (process.env[IN_NAMESPACE] === undefined) {
  aeadTests('AES-256-GCM', Cipher.aes256Gcm);
  aeadTests('ChaCha20-Poly1305', Cipher.chacha20Poly1305);
  udpTests();
  pollTests();
  const usable = spawnSync('unshare', ['-n', 'ip', 'tuntap', 'list']).status === 0;
  it(
    'tun devices, in a network namespace',
    { skip: usable ? false : 'needs root, unshare and ip' },
    () => {
      const { NODE_TEST_CONTEXT: _, ...env } = process.env;
      const child = spawnSync(
        'unshare',
        ['-n', process.execPath, ...process.execArgv, fileURLToPath(import.meta.url)],
        {
          env: { ...env, [IN_NAMESPACE]: '1' },
          encoding: 'utf8',
          timeout: 120_000,
        },
      );
      assert.equal(child.status, 0, child.stdout + child.stderr);
    },
  );
} else {
  ip('link', 'set', 'lo', 'up');
  tunTests();
}
