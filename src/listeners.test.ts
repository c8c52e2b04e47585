import { deepEqual, equal, rejects, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { serverConfig } from './config.ts';
import { Listeners } from './listeners.ts';
import { parseArguments } from './options.ts';
import { Failure } from './report.ts';

const config = (...ports: readonly number[]) =>
  serverConfig(parseArguments(['k', ...ports.flatMap((port) => ['--listen', `*:${port}`])]));

/** A tunnel that opens what it is told, and tells. */
function bed(...ports: readonly number[]) {
  const told: string[] = [];
  const taken = new Set<number>();
  const { listen } = config(...ports);
  const listeners = new Listeners(listen, ({ port, address }) => {
    if (address !== '') return undefined;
    if (taken.has(port)) throw new Failure(`port ${port}`, 'taken', '');
    return port;
  });
  listeners.attach({
    linkUp: (index) => told.push(`up ${index} ${listeners.open(index)}`),
    linkDown: (index) => told.push(`down ${index}`),
    dropLink: (index) => told.push(`drop ${index}`),
    removeLink: (index) => told.push(`remove ${index}`),
    settled: () => Promise.resolve(),
    addLink: () => {
      told.push(`add ${listeners.open(listeners.configs.length - 1)}`);
      return listeners.configs.length - 1;
    },
  });
  return { listeners, told, taken };
}

describe('the sockets of a server', () => {
  it('are those of its configuration at the start', () => {
    const { listeners } = bed(1, 2);
    deepEqual([listeners.open(0), listeners.open(1)], [1, 2]);
  });

  it('say which address is none of this host', () => {
    const away = new Listeners([{ address: '192.0.2.1', port: 5 }], () => undefined);
    throws(() => away.open(0), {
      message:
        'cannot listen on UDP port 5: "192.0.2.1" is not an address of this host; give one, or auto',
    });
  });

  it('come, change and go when it is settled', async () => {
    const { listeners, told } = bed(1, 2);
    equal(listeners.add(config(1, 2, 3), 2), 2);
    listeners.replace(1, config(1, 4, 3), 1);
    listeners.remove(0);
    await listeners.settle();
    deepEqual(told, ['add undefined', 'drop 1', 'remove 0', 'up 2 3', 'up 1 4']);
    // A place that is free is taken again.
    equal(listeners.add(config(4, 3, 7), 2), 0);
    await listeners.settle();
    equal(told.at(-1), 'up 0 7');
  });

  it('stay closed while they are held', async () => {
    const { listeners, told } = bed(1, 2);
    listeners.hold(1, true);
    await listeners.settle();
    equal(listeners.open(1), undefined);
    listeners.hold(1, false);
    await listeners.settle();
    deepEqual(told, ['down 1', 'up 1 2']);
  });

  it('are tried again where a port was taken, and the others are opened', async () => {
    const { listeners, told, taken } = bed(1);
    taken.add(2);
    listeners.add(config(1, 2, 3), 1);
    listeners.add(config(1, 2, 3), 2);
    await rejects(listeners.settle(), { message: 'port 2: taken' });
    equal(told.at(-1), 'up 2 3');
    taken.clear();
    await listeners.settle();
    equal(told.at(-1), 'up 1 2');
  });
});
