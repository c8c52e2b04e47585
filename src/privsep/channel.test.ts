import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Random } from '../../test/random.ts';
import { loadNative } from '../native.ts';
import type { Handle } from '../native.ts';
import { Channel } from './channel.ts';
import type { ChannelEvents } from './channel.ts';

const native = loadNative(join(import.meta.dirname, '..', '..', 'build', 'vpn.node'));

/** What arrives at one end. */
class Arrivals implements ChannelEvents {
  readonly messages: unknown[] = [];
  readonly handles: Handle[] = [];
  readonly raws: string[] = [];
  readonly ends: string[] = [];

  message(message: unknown, passed: Handle): void {
    this.messages.push(message);
    if (passed !== 0) this.handles.push(passed);
  }

  raw(bytes: Uint8Array): void {
    this.raws.push(Buffer.from(bytes).toString('hex'));
  }

  ended(why: string): void {
    this.ends.push(why);
  }
}

interface Pair {
  readonly monitor: Channel;
  readonly worker: Channel;
  readonly atMonitor: Arrivals;
  readonly atWorker: Arrivals;
  /** The worker's end, for what no `Channel` sends. */
  readonly descriptor: Handle;
}

function makePair(): Pair {
  const { handle, descriptor } = native.channelPair();
  const atMonitor = new Arrivals();
  const atWorker = new Arrivals();
  const adopted = native.channelAdopt(descriptor);
  return {
    monitor: new Channel(native, handle, false, atMonitor),
    worker: new Channel(native, adopted, true, atWorker),
    atMonitor,
    atWorker,
    descriptor: adopted,
  };
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries++) {
    ok(tries < 5_000, `never: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function socket(): { readonly handle: Handle; readonly port: number } {
  return native.udpOpen({
    family: 4,
    dualStack: false,
    address: '127.0.0.1',
    port: 0,
    device: '',
    mark: 0,
    offload: true,
    bufferBytes: 65_536,
  });
}

describe('a channel', () => {
  it('brings messages of all lengths in order, and raw bytes between them', async () => {
    const seed = 7;
    const random = new Random(seed);
    const next = (): number => random.next();
    const pair = makePair();
    const sent: unknown[] = [];
    for (let i = 0; i < 200; i++) {
      const length = Math.floor(next() ** 4 * 400_000);
      const message = { i, text: 'äx'.repeat(length / 3) };
      sent.push(message);
      pair.monitor.send(message);
      if (i % 50 === 0) pair.monitor.sendRaw(Uint8Array.of(i, 255));
    }
    await until('all of them', () => pair.atWorker.messages.length === sent.length);
    deepEqual(pair.atWorker.messages, sent, `seed ${seed}`);
    deepEqual(pair.atWorker.raws, ['00ff', '32ff', '64ff', '96ff']);
    pair.monitor.close();
    await until('the end', () => pair.atWorker.ends.length === 1);
    deepEqual(pair.atWorker.ends, ['is gone']);
  });

  it('hands over a socket that works on the other side, and closes its own', async () => {
    const pair = makePair();
    const from = socket();
    const to = socket();
    pair.monitor.send({ order: 'socket', index: 3 }, from.handle);
    await until('the socket', () => pair.atWorker.handles.length === 1);
    await rejects(async () => native.udpErrno(from.handle), /no such handle/);
    const [here] = pair.atWorker.handles;
    const endpoint = new Uint8Array(40);
    endpoint.set([4, 0, to.port >> 8, to.port & 255, 0, 0, 0, 0, 127, 0, 0, 1]);
    const slab = Uint8Array.from([1, 2, 3, 4]);
    equal(native.udpSend(here, slab, Uint32Array.of(0), Uint16Array.of(4), 0, 1, endpoint, 0), 1);
    let heard = false;
    native.poll(to.handle, 1, () => {
      heard = true;
      native.poll(to.handle, 0, () => undefined);
    });
    await until('a datagram', () => heard);
    for (const handle of [here, to.handle]) native.close(handle);
    pair.monitor.close();
    pair.worker.close();
  });

  it('lends what is to stay', async () => {
    const pair = makePair();
    const { handle } = socket();
    pair.monitor.send({}, handle, true);
    await until('the socket', () => pair.atWorker.handles.length === 1);
    equal(native.udpErrno(handle), 0);
    for (const one of [handle, ...pair.atWorker.handles]) native.close(one);
    pair.monitor.close();
    pair.worker.close();
  });

  it('takes no descriptor from the worker', async () => {
    const pair = makePair();
    pair.worker.send({ word: 'stop' }, socket().handle);
    await until('the message', () => pair.atMonitor.messages.length === 1);
    deepEqual(pair.atMonitor.handles, []);
    pair.monitor.close();
    pair.worker.close();
  });

  for (const [what, bytes] of [
    ['no JSON', [0, 0x7b]],
    ['another kind of part', [9, 0x7b, 0x7d]],
    ['an empty message', []],
  ] as const) {
    it(`ends at ${what}`, async () => {
      const pair = makePair();
      native.channelSend(pair.descriptor, Uint8Array.from(bytes), 0);
      await until('the end', () => pair.atMonitor.ends.length === 1);
      deepEqual(pair.atMonitor.messages, []);
      pair.worker.close();
    });
  }

  it('ends at a message without an end, and keeps at most 4 MiB of it', async () => {
    const pair = makePair();
    const part = new Uint8Array(40_000).fill(0x20);
    part[0] = 1;
    await until('the end', () => {
      try {
        native.channelSend(pair.descriptor, part, 0);
      } catch {
        // It was closed on the other side.
      }
      return pair.atMonitor.ends.length === 1;
    });
    deepEqual(pair.atMonitor.ends, ['sent what is no message']);
    pair.worker.close();
  });

  it('gives up on a side that does not read', () => {
    const { handle, descriptor } = native.channelPair();
    const arrivals = new Arrivals();
    const channel = new Channel(native, handle, false, arrivals);
    const message = { text: 'x'.repeat(1 << 20) };
    for (let i = 0; i < 40 && arrivals.ends.length === 0; i++) channel.send(message);
    deepEqual(arrivals.ends, ['does not read what it is sent']);
    native.close(native.channelAdopt(descriptor));
  });

  it('is made of nothing but its own kind of socket', async () => {
    await rejects(async () => native.channelAdopt(0), { code: /ENOTSOCK|EPROTOTYPE/ });
  });
});
