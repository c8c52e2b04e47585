/**
 * The TUN and TAP devices of the addon against the kernel.
 *
 *     namespace of the test                        second namespace
 *     TCP client ─▶ tun 'left' ─▶ this process ─▶ tun 'right' ─▶ TCP server, echoes
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { describe } from 'node:test';
import {
  ANY,
  batch,
  endpoint,
  fill,
  generator,
  inNamespace,
  ip,
  it,
  native,
  send,
  until,
} from '../test/nativebed.ts';
import { TYPE } from '../test/frames.ts';
import { assertChecksum, craft, parse } from '../test/packets.ts';
import { HASH_KEY, device, drain, write, type Device } from '../test/tundevices.ts';
import { PacketFlag, packetTable } from './batch.ts';
import { PollEvent, type Handle } from './native.ts';

/** Kernel to kernel through two devices; every packet is held against the model. */
async function stream(
  version: 4 | 6,
  leftOffload: boolean,
  rightOffload: boolean,
  ethernet: boolean,
): Promise<void> {
  const held: ChildProcess[] = [];
  const left = device('left0', leftOffload, ['10.9.0.1/24', 'fd09::1/64'], ethernet);
  const right = native.tunCreate('right0', rightOffload, ethernet);
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
        if (ethernet && bytes.readUInt16BE(12) === TYPE.arp) continue;
        const parsed = parse(ethernet ? bytes.subarray(14) : bytes);
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

inNamespace('tun devices', import.meta.url, () => {
  describe('tun', () => {
    it('has the name that is wanted, or one of the kernel, and is gone when closed', () => {
      const named = native.tunCreate('vpntest0', false, false);
      assert.equal(named.name, 'vpntest0');
      assert.equal(named.offload, false);
      const other = native.tunCreate('', true, false);
      assert.match(other.name, /^tun\d+$/);
      native.tunSetMtu(named.handle, 1280);
      assert.match(ip('link', 'show', 'vpntest0'), /mtu 1280/);
      const refused = (code: string, syscall: string) => (error: NodeJS.ErrnoException) =>
        error.code === code && error.syscall === syscall;
      assert.throws(() => native.tunSetMtu(named.handle, 7), refused('EINVAL', 'SIOCSIFMTU'));
      assert.throws(() => native.tunCreate('vpntest0', true, false), refused('EBUSY', 'TUNSETIFF'));
      assert.throws(() => native.tunCreate('lo', true, false), refused('EBUSY', 'TUNSETIFF'));
      assert.throws(
        () => native.tunCreate('a'.repeat(16), true, false),
        refused('EINVAL', 'TUNSETIFF'),
      );
      ip('tuntap', 'add', 'vpntest1', 'mode', 'tun');
      assert.throws(() => native.tunCreate('vpntest1', true, false), refused('EBUSY', 'TUNSETIFF'));
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
      const { handle } = native.tunCreate('', true, false);
      const bytes = new Uint8Array(10);
      const table = packetTable(2);
      table.lengths[1] = 11;
      assert.throws(() => native.tunWrite(handle, bytes, table, 2), RangeError);
      assert.throws(() => native.tunWrite(handle, bytes, table, 3), RangeError);
      assert.throws(() => native.tunRead(handle, bytes, 11, 0, table, HASH_KEY), RangeError);
      assert.throws(() => native.tunRead(handle, bytes, 0, 0, table, bytes), RangeError);
      const uneven = { ...table, flows: new Uint32Array(1) };
      assert.throws(() => native.tunRead(handle, bytes, 0, 0, uneven, HASH_KEY), RangeError);
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
          assert.equal(new Set(got.map(({ flow }) => flow)).size, 1);
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

    it('tells a full socket buffer by a short count', () => {
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
      assert.equal(qdisc.status, 0, 'tc (iproute2) sets a tbf');
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

    for (const version of [4, 6] as const) {
      for (const [left, right] of [
        [true, true],
        [true, false],
        [false, true],
        [false, false],
      ] as const) {
        it(`carries a TCP stream of the kernel over IPv${version}, offloads ${left} and ${right}`, () =>
          stream(version, left, right, false));
        if (left !== right) continue;
        it(`carries it in frames over IPv${version}, offloads ${left} and ${right}`, () =>
          stream(version, left, right, true));
      }
    }
  });
});
