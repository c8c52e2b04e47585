/** Polling, worker threads, and what the addon tells of the system. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ADDON, ANY, batch, endpoint, native, receive, send, until } from '../test/nativebed.ts';
import { PollEvent } from './native.ts';

const NO_PROC = process.platform === 'linux' ? false : 'needs /proc';

/** Of this process: pages of files, which the kernel may have in other processes too. */
function residentFileBytes(): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/^RssFile:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

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

  it('gives program files back, and goes on with them', { skip: NO_PROC }, async () => {
    // Needs what is given back: code of node, of the addon, and data of the ICU library.
    const work = (): string => {
      const upper = 'straße'.toLocaleUpperCase('de');
      return createHash('sha256').update(upper).update(native.netnsCookie()).digest('hex');
    };
    const before = work();
    const touched = residentFileBytes();
    native.trimMemory();
    const left = residentFileBytes();
    assert.ok(left < touched / 2, `${left} of ${touched} bytes are left`);
    assert.equal(work(), before);
    assert.ok(residentFileBytes() > left, 'what is needed has come back');
  });
});
