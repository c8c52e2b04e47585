import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Failure, UsageFailure } from '../report.ts';
import {
  announce,
  chooseInstance,
  claimName,
  defaultSocket,
  livingInstances,
  withdraw,
} from './instances.ts';
import type { InstanceFile } from './instances.ts';

let folder = '';
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vpn-instances-'));
});

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.close();
    await once(server, 'close');
  }
  rmSync(folder, { recursive: true, force: true });
});

function instance(name: string, netns = '17'): InstanceFile {
  return { name, netns, device: 'tun0', pid: 4242, socket: defaultSocket(folder, netns, name) };
}

async function living(name: string, netns = '17'): Promise<InstanceFile> {
  const one = instance(name, netns);
  const server = createServer((socket) => socket.on('error', () => undefined));
  server.listen(one.socket);
  await once(server, 'listening');
  servers.push(server);
  announce(folder, one);
  return one;
}

describe('the instances of a network namespace', () => {
  it('are those that answer, and of this namespace', async () => {
    await living('home');
    await living('work');
    await living('home', '18');
    announce(folder, instance('dead'));
    writeFileSync(join(folder, '17-garbage.instance'), '{"name":7}');
    writeFileSync(join(folder, '17-tun0-abc.journal'), '');
    const found = await livingInstances(folder, '17');
    deepEqual(
      found.map(({ name }) => name),
      ['home', 'work'],
    );
    deepEqual(await livingInstances(join(folder, 'none'), '17'), []);
  });

  it('are announced for their owner alone', async () => {
    const one = await living('home');
    const file = readdirSync(folder).find((name) => name.endsWith('.instance'))!;
    equal(statSync(join(folder, file)).mode & 0o777, 0o600);
    withdraw(folder, one);
    deepEqual(await livingInstances(folder, '17'), []);
  });

  it('have names of their own; dead ones leave no trace', async () => {
    await living('home');
    announce(folder, instance('dead'));
    writeFileSync(join(folder, 'broken.instance'), 'x');
    await rejects(
      claimName(folder, '17', 'home'),
      /instance "home": runs here already \(pid 4242\)/,
    );
    await claimName(folder, '17', 'dead');
    await claimName(folder, '18', 'home');
    ok(!existsSync(join(folder, '17-dead.instance')));
    ok(!existsSync(join(folder, 'broken.instance')));
    equal((await livingInstances(folder, '17')).length, 1);
  });

  it('live in a folder that nobody else can write to', async () => {
    const made = join(folder, 'a', 'b');
    await claimName(made, '17', 'home');
    equal(statSync(made).mode & 0o777, 0o700);
    chmodSync(folder, 0o770);
    await rejects(claimName(folder, '17', 'home'), /cannot trust the folder/);
  });
});

describe('the instance that is meant', () => {
  const [home, work] = [instance('home'), instance('work')];

  it('is the one there is, or the one that is named', () => {
    equal(chooseInstance([home], ''), home);
    equal(chooseInstance([home, work], 'work'), work);
  });

  it('is not guessed: a list, and exit status 2', () => {
    throws(
      () => chooseInstance([home, work], ''),
      (error) =>
        error instanceof UsageFailure &&
        error.message === 'several instances run here: home, work; choose one with -n NAME',
    );
  });

  it('has to run: exit status 1', () => {
    for (const [all, name, why] of [
      [[], '', /^no vpn runs in this network namespace/],
      [[], 'home', /^no vpn runs/],
      [[home], 'work', /^instance "work": does not run here; there is home$/],
    ] as const) {
      throws(
        () => chooseInstance(all, name),
        (error) =>
          error instanceof Failure && !(error instanceof UsageFailure) && why.test(error.message),
      );
    }
  });
});
