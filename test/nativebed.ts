/**
 * What the tests of the addon share: the addon itself, random cases, datagrams over sockets, and a
 * network namespace of their own, which takes everything with it when it ends.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { describe, it as testOf } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ENDPOINT_BYTES, datagramTable } from '../src/batch.ts';
import { loadNative, type Handle, type UdpOptions } from '../src/native.ts';

const IN_NAMESPACE = 'VPN_TEST_NAMESPACE';
export const ADDON = fileURLToPath(new URL('../build/vpn.node', import.meta.url));
export const native = loadNative(ADDON);

/** mulberry32: small, seeded, good enough to draw test cases from. */
export function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export function fill(bytes: Uint8Array, draw: (below: number) => number): Uint8Array {
  for (let i = 0; i < bytes.length; i++) bytes[i] = draw(256);
  return bytes;
}

export async function until<T>(what: string, probe: () => T | undefined): Promise<T> {
  for (let i = 0; i < 1000; i++) {
    const found = probe();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`waited in vain for ${what}`);
}

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' });
}

let skip: string | false = false;

/** A test among those of `inNamespace`: skipped by its own name where there can be no namespace. */
export function it(name: string, body: () => void | Promise<void>): void {
  void testOf(name, { skip }, body);
}

/** One test that runs the file at `url` once more in a namespace, where it is `tests` instead. */
export function inNamespace(name: string, url: string, tests: () => void): void {
  if (process.env[IN_NAMESPACE] !== undefined) {
    ip('link', 'set', 'lo', 'up');
    tests();
    return;
  }
  const title = `${name}, in a network namespace`;
  if (spawnSync('unshare', ['-n', 'ip', 'tuntap', 'list']).status !== 0) {
    skip = 'needs root, unshare and ip';
    void describe(title, tests);
    return;
  }
  void testOf(title, () => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const child = spawnSync(
      'unshare',
      ['-n', process.execPath, ...process.execArgv, fileURLToPath(url)],
      {
        env: { ...env, [IN_NAMESPACE]: '1' },
        encoding: 'utf8',
        timeout: 120_000,
      },
    );
    assert.equal(child.status, 0, child.stdout + child.stderr);
  });
}

// ---- UDP

export const ANY: UdpOptions = {
  family: 4,
  dualStack: false,
  address: '127.0.0.1',
  port: 0,
  device: '',
  mark: 0,
  offload: true,
  bufferBytes: 1 << 20,
};

export function endpoint(
  family: 4 | 6,
  port: number,
  remote: number[],
  local: number[] = [],
): Uint8Array {
  const bytes = new Uint8Array(ENDPOINT_BYTES);
  bytes[0] = family;
  bytes[2] = port >> 8;
  bytes[3] = port & 255;
  bytes.set(remote, 8);
  bytes.set(local, 24);
  return bytes;
}

export interface Datagram {
  readonly bytes: Buffer;
  readonly source: Uint8Array;
}

export function receive(handle: Handle, slab = new Uint8Array(1 << 21), table = datagramTable()) {
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

export interface Batch {
  readonly slab: Uint8Array;
  readonly to: Uint32Array;
  readonly sizes: Uint16Array;
  readonly datagrams: Buffer[];
}

/** Datagrams of these sizes, with `gap` free bytes before those whose number `gap` divides. */
export function batch(sizes: readonly number[], seed: number, gapEvery = 0): Batch {
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

export function send(handle: Handle, { slab, to, sizes }: Batch, target: Uint8Array): number {
  return native.udpSend(handle, slab, to, sizes, 0, sizes.length, target, 0);
}
