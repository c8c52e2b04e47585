/**
 * A virtual machine's port on the bridge `br0` of a host, for frames that no program of the host would send:
 *
 *   node station.ts answer MAC          sends each frame for it, or for all, back to its sender
 *   node station.ts ask HEX…            sends each of these frames until it is back with its stations exchanged
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { packetTable } from '../src/batch.ts';
import { PollEvent } from '../src/native.ts';
import { BROADCAST } from './frames.ts';
import { ip, native } from './nativebed.ts';
import { drain, write } from './tundevices.ts';

const RETRY_MS = 100;
const TRIES = 50;

const port = native.tunCreate('vm0', false, true);
const table = packetTable();

const returned = (bytes: Buffer, own: Buffer): Buffer =>
  Buffer.concat([bytes.subarray(6, 12), own, bytes.subarray(12)]);

const send = (bytes: Buffer): void => {
  assert.equal(write(port.handle, [{ bytes, flags: 0 }]), 0);
};

function answer(mac: string): void {
  const own = Buffer.from(mac.replaceAll(':', ''), 'hex');
  native.poll(port.handle, PollEvent.readable, () => {
    for (const { bytes } of drain(port.handle, table)) {
      const to = bytes.subarray(0, 6);
      if (to.equals(own) || to.equals(Buffer.from(BROADCAST))) send(returned(bytes, own));
    }
  });
}

async function ask(bytes: Buffer): Promise<boolean> {
  const isBack = (got: Buffer): boolean =>
    got.subarray(0, 6).equals(bytes.subarray(6, 12)) && got.subarray(12).equals(bytes.subarray(12));
  for (let i = 0; i < TRIES; i++) {
    send(bytes);
    await sleep(RETRY_MS);
    if (drain(port.handle, table).some((got) => isBack(got.bytes))) return true;
  }
  return false;
}

const [what, ...words] = process.argv.slice(2);
ip('link', 'set', 'vm0', 'addrgenmode', 'none', 'master', 'br0', 'up');
if (what === 'answer') {
  answer(words[0]!);
  process.stdout.write('ready\n');
} else {
  for (const word of words) {
    const isAnswered = await ask(Buffer.from(word, 'hex'));
    process.stdout.write(`${isAnswered ? 'answered' : 'lost'}: ${word.slice(0, 60)}\n`);
    if (!isAnswered) process.exitCode = 1;
  }
  native.close(port.handle);
}
