/**
 * The commands that ask a running instance: status, top, check, events, reset, link, reload and stop. Each
 * takes the words and options behind its name, and returns the exit status.
 */
import { withNativeCode } from '../assets.ts';
import { loadNative } from '../native.ts';
import { EXIT_FAILURE, EXIT_SUCCESS, Failure, fail, print, UsageFailure } from '../report.ts';
import { check, systemPing } from './check.ts';
import { sleep } from './clock.ts';
import { Connection } from './connect.ts';
import { chooseInstance, livingInstances, ownNamespace } from './instances.ts';
import type { InstanceFile } from './instances.ts';
import { LINK_USAGE, parseLinkChange } from './protocol.ts';
import type { ControlAnswer } from './protocol.ts';
import type { Status } from './status.ts';
import { terminalColumns } from './terminal.ts';
import { statusText } from './text.ts';
import { top } from './top.ts';

/** What is left of the command line: `Arguments` of options.ts. */
export interface CommandArguments {
  readonly words: readonly string[];
  readonly options: Pick<ReadonlyMap<string, readonly string[]>, 'get' | 'has'>;
}

const STATE_DIR = '/var/lib/vpn';
/** The status script may take a minute at the end (hooks.ts), and undoing some seconds. */
const STOP_LIMIT_MS = 120_000;
const STOP_STEP_MS = 50;

export async function statusCommand(args: CommandArguments): Promise<number> {
  expectNoWords(args, 'vpn status');
  return await withInstance(args, async (connection) => {
    const status = await askStatus(connection);
    const isJson = args.options.has('json');
    print(isJson ? `${JSON.stringify(status)}\n` : statusText(status, terminalColumns()));
    return EXIT_SUCCESS;
  });
}

export async function topCommand(args: CommandArguments): Promise<number> {
  expectNoWords(args, 'vpn top');
  return await withInstance(args, top);
}

/** Exit status 1 also when no instance runs: a monitor must not take that for good. */
export async function checkCommand(args: CommandArguments): Promise<number> {
  expectNoWords(args, 'vpn check');
  return await withInstance(args, async (connection) => {
    const lines = await check(await askStatus(connection), systemPing);
    for (const { line } of lines) print(`${line}\n`);
    return lines.every(({ isOk }) => isOk) ? EXIT_SUCCESS : EXIT_FAILURE;
  });
}

/** A line of JSON for each event: those that are remembered, then each that comes, until interrupted. */
export async function eventsCommand(args: CommandArguments): Promise<number> {
  expectNoWords(args, 'vpn events');
  return await withInstance(args, async (connection) => {
    const answer = await connection.ask({ command: 'events', follow: true });
    if ('events' in answer) for (const event of answer.events) print(`${JSON.stringify(event)}\n`);
    for (;;) {
      const event = await connection.nextEvent();
      if (event === undefined) return EXIT_SUCCESS;
      print(`${JSON.stringify(event)}\n`);
    }
  });
}

export async function resetCommand(args: CommandArguments): Promise<number> {
  expectNoWords(args, 'vpn reset');
  return await act(args, { command: 'reset' });
}

export async function reloadCommand(args: CommandArguments): Promise<number> {
  expectNoWords(args, 'vpn reload');
  return await act(args, { command: 'reload' });
}

export async function stopCommand(args: CommandArguments): Promise<number> {
  expectNoWords(args, 'vpn stop');
  return await withInstance(args, async (connection, { name, pid }) => {
    await connection.ask({ command: 'stop' });
    // Until nothing of it is left: a start right after is to find the host as it was.
    for (let waitedMs = 0; isAlive(pid); waitedMs += STOP_STEP_MS) {
      if (waitedMs >= STOP_LIMIT_MS) {
        const why = `did not end within ${STOP_LIMIT_MS / 1000} s (pid ${pid})`;
        throw new Failure(`instance "${name}"`, why, 'see what it waits for in its log');
      }
      await sleep(STOP_STEP_MS);
    }
    return EXIT_SUCCESS;
  });
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

export async function linkCommand(args: CommandArguments): Promise<number> {
  const [name, ...change] = args.words;
  if (name === undefined) throw new UsageFailure('too few words', '', LINK_USAGE);
  // Wrong words are told without asking anybody.
  parseLinkChange(change);
  return await act(args, { command: 'link', name, change });
}

/** Asks for a change, and prints what came of it. */
async function act(args: CommandArguments, request: object): Promise<number> {
  return await withInstance(args, async (connection) => {
    const answer = await connection.ask(request);
    if ('lines' in answer) for (const line of answer.lines) print(`${line}\n`);
    return EXIT_SUCCESS;
  });
}

async function askStatus(connection: Connection): Promise<Status> {
  const answer: ControlAnswer = await connection.ask({ command: 'status' });
  if ('status' in answer) return answer.status;
  throw new Failure('vpn status', 'the instance gave another answer', 'upgrade the older of both');
}

async function withInstance(
  { options }: CommandArguments,
  body: (connection: Connection, instance: InstanceFile) => Promise<number>,
): Promise<number> {
  try {
    const folder = options.get('state-dir')?.at(-1) ?? STATE_DIR;
    const netns = ownNamespace(withNativeCode('vpn.node', loadNative));
    const instances = await livingInstances(folder, netns);
    const instance = chooseInstance(instances, options.get('name')?.at(-1) ?? '');
    const connection = await Connection.open(instance.socket);
    try {
      return await body(connection, instance);
    } finally {
      connection.close();
    }
  } catch (error) {
    return fail(error);
  }
}

function expectNoWords({ words }: CommandArguments, usage: string): void {
  if (words.length === 0) return;
  throw new UsageFailure(`unknown word "${words[0]}"`, 'one too many', `write ${usage}`);
}
