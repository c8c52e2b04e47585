/** The monitor's side of a worker that somebody else runs. This file is the worker, too. */
import { deepEqual, equal, match } from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { loadNative, PollEvent } from '../native.ts';
import { CHANNEL_DESCRIPTOR, WORKER_COMMAND } from './command.ts';
import type { Word } from './messages.ts';
import { WorkerProcess } from './process.ts';

const native = loadNative(join(import.meta.dirname, '..', '..', 'build', 'vpn.node'));

/** What a worker does when it is told that it ends, by the cause it is told. */
const MANNERS: Readonly<Record<string, (say: (text: string) => void) => void>> = {
  obedient: () => process.exit(0),
  'with a status': () => process.exit(7),
  'no message': (say) => say('x'),
  'another word': (say) => say('{"word":"give me root"}'),
  talkative: (say) => {
    for (let i = 0; i < 40_000; i++) say('{"word":"reopen"}');
  },
};

if (process.argv[2] === WORKER_COMMAND) {
  const channel = native.channelAdopt(CHANNEL_DESCRIPTOR);
  const buffer = new Uint8Array(65_536);
  const say = (text: string): void => {
    const bytes = new Uint8Array([0, ...Buffer.from(text)]);
    // Until there is room; killed meanwhile.
    while (!native.channelSend(channel, bytes, 0)) native.channelReceive(channel, buffer, false);
  };
  say('{"word":"running","httpPort":0}');
  native.poll(channel, PollEvent.readable, () => {
    const size = native.channelReceive(channel, buffer, false)?.size ?? 0;
    if (size < 1) process.exit(1);
    const order = JSON.parse(Buffer.from(buffer.subarray(1, size)).toString()) as { cause: string };
    MANNERS[order.cause](say);
  });
} else {
  describe('a worker', () => {
    // One that sees its channel closed may end before the signal comes.
    for (const [manner, end] of [
      ['obedient', /^ended with status 0$/],
      ['with a status', /^ended with status 7$/],
      ['no message', /^sent what is no message, and ended (by SIGKILL|with status 1)$/],
      ['another word', /^sent what is no message, and ended (by SIGKILL|with status 1)$/],
      ['talkative', /^talks too much, and ended (by SIGKILL|with status 1)$/],
    ] as const) {
      it(`that is ${manner} is seen to end`, async () => {
        const words: Word['word'][] = [];
        let isRunning = (): void => undefined;
        const running = new Promise<void>((resolve) => {
          isRunning = resolve;
        });
        const worker = new WorkerProcess(native, ({ word }) => {
          words.push(word);
          if (word === 'running') isRunning();
        });
        await running;
        equal(worker.pid > 0, true);
        await worker.end(manner);
        match(await worker.ended, end);
        deepEqual(
          [...new Set(words)],
          manner === 'talkative' ? ['running', 'reopen'] : ['running'],
        );
      });
    }

    it('that is killed is seen to end', async () => {
      let pid = 0;
      const worker = new WorkerProcess(native, () => process.kill(pid, 'SIGKILL'));
      pid = worker.pid;
      equal(await worker.ended, 'ended by SIGKILL');
    });
  });
}
