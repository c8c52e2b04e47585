/**
 * One instance's host set-up in a process of its own, driven by lines on stdin: `up`, `connected 0|1`,
 * `undo`, `undoSync`, `cleanup`. Answers each with a line of JSON. `killAt` in the settings kills the
 * process, as SIGKILL does, before (or after, `killAfter`) the n-th change or undo.
 */
import { createInterface } from 'node:readline';
import { loadNative } from '../src/native.ts';
import { hostRunner } from '../src/rules.ts';
import type { Runner } from '../src/rules.ts';
import { cleanUp, plan, prepareHost } from '../src/setup.ts';
import type { HostDeps, HostSettings, HostSetup } from '../src/setup.ts';

interface Orders {
  readonly addon: string;
  readonly journalDir: string;
  readonly settings: HostSettings;
  readonly killAt: number;
  readonly killAfter: boolean;
}

const orders = JSON.parse(process.argv[2] ?? '{}') as Orders;
const warnings: string[] = [];
const log: string[] = [];
const real = hostRunner(process.env.PATH ?? '', (line) => log.push(line));
const isProbe = (argv: readonly string[]): boolean =>
  ['show', '-S', '-V', '-c', '-y', 'get'].some((word) => argv.includes(word));
let changes = 0;

function mortal(isBefore: boolean): void {
  if (isBefore) changes += 1;
  if (changes === orders.killAt && isBefore !== orders.killAfter) {
    process.kill(process.pid, 'SIGKILL');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  }
}

const runner: Runner = {
  ...real,
  run: async (argv) => {
    if (isProbe(argv)) return real.run(argv);
    mortal(true);
    const outcome = await real.run(argv);
    mortal(false);
    return outcome;
  },
  writeSysctl: (name, value) => {
    mortal(true);
    real.writeSysctl(name, value);
    mortal(false);
  },
};
const deps: HostDeps = {
  native: loadNative(orders.addon),
  journalDir: orders.journalDir,
  path: process.env.PATH ?? '',
  log: (line) => log.push(line),
  warn: (line) => warnings.push(line),
  runner,
};

let host: HostSetup | undefined;

async function obey(line: string): Promise<unknown> {
  const [order, argument] = line.split(' ');
  if (order === 'cleanup') return await cleanUp(deps);
  if (order === 'plan') return await plan(orders.settings, deps);
  if (order === 'prepare' || host === undefined) host = await prepareHost(orders.settings, deps);
  if (order === 'up') await host.up();
  if (order === 'connected') await host.connected({ ipv6: argument === '1' });
  if (order === 'undo') return await host.undo();
  if (order === 'undoSync') host.undoSync();
  return { mark: host.mark, ipv6Leaves: host.ipv6Leaves };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer: object;
  try {
    answer = { result: await obey(line) };
  } catch (error) {
    answer = { error: error instanceof Error ? error.message : String(error) };
  }
  console.log(JSON.stringify({ ...answer, warnings, changes, log }));
}
