/**
 * The rule engine: expands the templates of os.ts, runs commands, writes sysctls, takes them back.
 *
 * It does not know which rules exist, nor when to apply them (setup.ts). Every change is recorded in
 * the journal before it is made, so that a process killed in between leaves at worst the undo of
 * something that was never done, which `Platform.absent` recognises.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  accessSync,
  constants,
  fstatSync,
  readFileSync,
  readSync,
  readdirSync,
  writeFileSync,
} from 'node:fs';
import { HOST_FILES } from './hostfiles.ts';
import type { HostFiles } from './hostfiles.ts';
import { FOUND } from './os.ts';
import type { Line, Row } from './os.ts';
import { Failure } from './report.ts';

/** Longest run of one external command; a hanging one is killed and counts as failed. */
export const COMMAND_LIMIT_MS = 5000;

export type Variables = Readonly<Record<string, string | readonly string[]>>;

/** Where the word `FOUND` of an undo comes from: `Row.find` with its variables filled in. */
export interface Search {
  readonly list: readonly string[];
  readonly holding: string;
}

/** A row with its variables filled in. */
export type Change =
  | {
      readonly kind: 'command';
      /** Empty: nothing to do now. */
      readonly up: readonly string[];
      /** Empty: nothing to undo. */
      readonly down: readonly string[];
      /** Takes it back where `down` is empty, while the instance goes on. */
      readonly remove?: readonly string[];
      readonly find?: Search;
      readonly says?: string;
      readonly input?: string;
      readonly once?: true;
      readonly ifDead?: true;
      readonly stays?: true;
      /** `down` is run now, if what it takes back was made. */
      readonly revert?: true;
    }
  | {
      readonly kind: 'sysctl';
      readonly name: string;
      readonly value: string;
      readonly beside: readonly string[];
      readonly optional: boolean;
    }
  | { readonly kind: 'file'; readonly file: string; readonly text: string };

/** How a command ended. */
export interface Outcome {
  /** Exit status; -1 when there is none (not found, killed, over the time limit). */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  /** 'exited with 2: File exists', 'was not found', 'took longer than 5 s', … */
  readonly reason: string;
  /** It refused: nothing was changed. After a kill nobody knows. */
  readonly refused: boolean;
}

/** What touches the host. Tests give another. */
export interface Runner {
  /** Never rejects. */
  run(argv: readonly string[], io?: InOut): Promise<Outcome>;
  runSync(argv: readonly string[], io?: InOut): Outcome;
  /** Undefined when the host has no such sysctl. `name` is a path below /proc/sys. */
  readSysctl(name: string): string | undefined;
  /** Throws what the kernel says. */
  writeSysctl(name: string, value: string): void;
  /** False where writing is certain to fail (a container's /proc/sys). */
  canWriteSysctl?(name: string): boolean;
  /** The names that a path with one `*` component stands for. */
  listSysctls(pattern: string): readonly string[];
  /** `writeSysctl` as one would type it, where that is not sysctl(8). */
  sysctlLine?(name: string, value: string): string;
  /** Files that rows write; absent where none does. */
  readonly files?: HostFiles;
}

/** Where a command reads and writes, if not nowhere and into its `Outcome`. */
export interface InOut {
  readonly input?: string;
  /** A file for all it says, open for appending and reading. */
  readonly fd?: number;
}

type Choice = Readonly<Record<string, string>>;

/** One choice of values for each combination of those of the list variables in `template`. */
function choicesOf(template: string, variables: Variables): readonly Choice[] {
  const spread = [...template.matchAll(SPREAD)].map(([, name = '']) => variables[name]);
  if (spread.some((values) => values?.length === 0)) return [];
  const names = template.replace(SPREAD, '').match(/\$[A-Z0-9_]+/g) ?? [];
  const used = [...new Set(names)].map((name) => name.slice(1));
  let choices: readonly Choice[] = [{}];
  for (const name of used) {
    const value = Object.hasOwn(variables, name) ? variables[name] : undefined;
    if (value === undefined || value === '') throw new Error(`$${name} has no value: ${template}`);
    const values = typeof value === 'string' ? [value] : value;
    choices = choices.flatMap((choice) => values.map((one) => ({ ...choice, [name]: one })));
  }
  return choices;
}

/** `$NAME*`: each value of a list is a word. */
const SPREAD = /\$([A-Z0-9_]+)\*/g;

/** A row whose lists are spread over its words. */
function spread(text: string, variables: Variables): string {
  return text.replace(SPREAD, (_, name: string) => [variables[name] ?? []].flat().join(' '));
}

/** The words of a template, each `$NAME` replaced. */
function fill(template: string, choice: Choice): readonly string[] {
  const replace = (word: string): string =>
    word.replace(/\$[A-Z0-9_]+/g, (name) => {
      const value = choice[name.slice(1)];
      if (value === undefined) throw new Error(`${name} has no value: ${template}`);
      return value;
    });
  return template
    .split(' ')
    .filter((word) => word !== '')
    .map(replace);
}

/** Replaces every `$NAME`; a list variable gives one result per value. An unknown or empty one is a bug. */
export function expand(template: string, variables: Variables): readonly (readonly string[])[] {
  return choicesOf(template, variables).map((choice) => fill(template, choice));
}

/** The changes that `rows` stand for on a host where `facts` hold. */
export function expandRows(
  rows: readonly Row[],
  variables: Variables,
  facts: ReadonlySet<string>,
): readonly Change[] {
  const holds = (need: string): boolean => need === '' || facts.has(need);
  return rows
    .filter((row) => (row.need ?? '').split(' ').every(holds))
    .flatMap((row) => {
      const input = (choice: Choice): string =>
        linesOf('input' in row ? row.input : undefined, { ...variables, ...choice }, holds);
      if ('file' in row) {
        return [{ kind: 'file', file: row.file, text: linesOf(row.lines, variables, holds) }];
      }
      return choicesOf(templateOf(row), variables).map((choice) =>
        changeOf(row, choice, input(choice), variables),
      );
    });
}

type PlainRow = Exclude<Row, { readonly file: string }>;

/** Words for one value are those of its undo, too. */
function templateOf(row: PlainRow): string {
  if ('sysctl' in row) return row.sysctl;
  if ('revert' in row) return row.revert;
  return `${row.up ?? ''} ${row.down ?? ''}`;
}

/** What the lines of `Row.input` stand for. */
function linesOf(
  lines: readonly Line[] | undefined,
  variables: Variables,
  holds: (need: string) => boolean,
): string {
  return (lines ?? [])
    .filter((line) => (line.need ?? '').split(' ').every(holds))
    .flatMap(({ text }) => expand(text, variables))
    .map((words) => `${words.join(' ')}\n`)
    .join('');
}

function changeOf(row: PlainRow, choice: Choice, input: string, variables: Variables): Change {
  if ('revert' in row) {
    return { kind: 'command', up: [], down: fill(row.revert, choice), revert: true };
  }
  if ('sysctl' in row) {
    return {
      kind: 'sysctl',
      name: fill(row.sysctl, choice).join(' '),
      value: row.value,
      beside: row.beside ?? [],
      optional: row.optional ?? false,
    };
  }
  if (row.up === undefined) {
    const down = fill(row.down, choice);
    const { ifDead, stays } = row;
    const when = { ...(ifDead ? { ifDead } : {}), ...(stays ? { stays } : {}) };
    return { kind: 'command', up: [], down, ...when };
  }
  const { find, says, once, stays, remove } = row;
  return {
    kind: 'command',
    up: fill(spread(row.up, variables), choice),
    down: fill(row.down ?? '', choice),
    ...(remove === undefined ? {} : { remove: fill(remove, choice) }),
    ...(says === undefined ? {} : { says }),
    ...(input === '' ? {} : { input }),
    ...(once ? { once } : {}),
    ...(stays ? { stays } : {}),
    ...(find === undefined
      ? {}
      : { find: { list: fill(find.list, choice), holding: fill(find.holding, choice).join(' ') } }),
  };
}

/** A command as one would type it. */
export function commandLine(argv: readonly string[]): string {
  return argv
    .map((word) => (/^[\w@%+=:,./!$-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ');
}

/** A command with what it reads, a line each, as one would type it. */
export function typed(argv: readonly string[], input: string | undefined): readonly string[] {
  if (input === undefined) return [commandLine(argv)];
  return [`${commandLine(argv)} << 'END'`, ...input.trimEnd().split('\n'), 'END'];
}

/** An undo as one would type it; what must be looked up first is shown by what it is found by. */
export function undoLine(undo: readonly string[], find: Search | undefined): string {
  const words = undo.map((word) => (word === FOUND ? 'N' : word));
  if (find === undefined) {
    return `${commandLine(words)}${undo.includes(FOUND) ? ' # N: what it said then' : ''}`;
  }
  return `${commandLine(words)} # N: see ${find.holding} in ${commandLine(find.list)}`;
}

/** `net/ipv6/conf/eth0.5/forwarding` as sysctl(8) writes it: `net.ipv6.conf.eth0/5.forwarding`. */
export function sysctlLine(name: string, value: string): string {
  const dotted = name.replace(/[./]/g, (character) => (character === '/' ? '.' : '/'));
  return `sysctl -w ${commandLine([`${dotted}=${value}`])}`;
}

/** What distributions call the package of a program. */
const PACKAGES: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  ip6tables: 'iptables',
  nft: 'nftables',
};

const TASKS: Readonly<Record<string, string>> = {
  route: 'cannot set up routing',
  ifconfig: 'cannot set up the tun device',
};

/** The failure of a command of ours, in one line. */
export function commandFailure(argv: readonly string[], outcome: Outcome): Failure {
  const [program = '', ...rest] = argv;
  const subject = rest.find((word) => !word.startsWith('-')) ?? '';
  // ip(8) is both ifconfig(8) and route(8).
  const task = program === 'ip' ? (/^(route|rule)$/.test(subject) ? 'route' : 'ifconfig') : program;
  const what = TASKS[task] ?? 'cannot set up the firewall';
  let remedy = 'see every command with -v';
  if (/not permitted|[Pp]ermission denied/.test(outcome.reason)) {
    remedy = 'run as root or grant CAP_NET_ADMIN';
  } else if (/File exists/.test(outcome.reason)) {
    remedy = 'another program owns it: stop it, or pass --no-default-routes';
  } else if (/was not found/.test(outcome.reason)) {
    remedy = `install ${PACKAGES[program] ?? program}, or check PATH`;
  } else if (/invalid gateway|unreachable/.test(outcome.reason)) {
    remedy = 'check the gateway address';
  }
  return new Failure(what, `"${commandLine(argv)}" ${outcome.reason}`, remedy);
}

function outcomeOf(
  error: NodeJS.ErrnoException | undefined,
  status: number | null,
  signal: string | null,
  timedOut: boolean,
  stdout: string,
  stderr: string,
): Outcome {
  // The cause is in the first line for ip(8), in the last for some; hints on help are not causes.
  const said = stderr
    .split('\n')
    .map((line) => line.trim().replace(/^(RTNETLINK answers|Error): /, ''))
    .find((line) => line !== '');
  let reason = `exited with ${status}`;
  if (timedOut) reason = `took longer than ${COMMAND_LIMIT_MS / 1000} s`;
  else if (error !== undefined)
    reason = error.code === 'ENOENT' ? 'was not found' : `did not start: ${error.message}`;
  else if (signal !== null) reason = `was killed by ${signal}`;
  if (said !== undefined && error === undefined && !timedOut) reason += `: ${said}`;
  return {
    status: timedOut || error !== undefined || status === null ? -1 : status,
    stdout,
    stderr,
    reason,
    refused: !timedOut && (error !== undefined || status !== null),
  };
}

/** What was appended to a file since it had `from` bytes. */
function tailOf(fd: number, from: number): Buffer {
  const bytes = Buffer.alloc(Math.max(0, fstatSync(fd).size - from));
  return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, from));
}

/**
 * The runner of this host. `path` is the PATH in which commands are found, `echo` gets each command
 * before it runs (wg-quick's `[#]` lines).
 */
export function hostRunner(path: string, echo: (line: string) => void): Runner {
  // Messages of ip(8) and iptables(8) are compared (Platform.absent), so they must be in English.
  const env = { PATH: path, LC_ALL: 'C' };
  const file = (name: string): string => `/proc/sys/${name}`;
  return {
    run: (argv, { input, fd } = {}) =>
      new Promise((resolve) => {
        for (const line of typed(argv, input)) echo(`[#] ${line}`);
        const [program = '', ...words] = argv;
        // A process group of its own: Ctrl-C must not kill a command half way, and a wrapper script
        // that hangs is killed together with what it started.
        const from = fd === undefined ? 0 : fstatSync(fd).size;
        const child = spawn(program, words, {
          env,
          detached: true,
          stdio: [input === undefined ? 'ignore' : 'pipe', fd ?? 'pipe', fd ?? 'pipe'],
        });
        const out: Buffer[] = [];
        const err: Buffer[] = [];
        child.stdout?.on('data', (piece: Buffer) => out.push(piece));
        child.stderr?.on('data', (piece: Buffer) => err.push(piece));
        // One that does not read all of it says why itself.
        child.stdin?.on('error', () => undefined);
        child.stdin?.end(input);
        let timedOut = false;
        const settle = (
          error: NodeJS.ErrnoException | undefined,
          status: number | null,
          signal: string | null,
        ): void => {
          clearTimeout(timer);
          const text = (pieces: Buffer[]): string => Buffer.concat(pieces).toString();
          if (fd !== undefined) err.push(tailOf(fd, from));
          resolve(outcomeOf(error, status, signal, timedOut, text(out), text(err)));
        };
        const timer = setTimeout(() => {
          timedOut = true;
          try {
            // Never kill(0): that is our own group.
            if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
          } catch {
            // It ended just now.
          }
          child.stdout?.destroy();
          child.stderr?.destroy();
          settle(undefined, null, 'SIGKILL');
        }, COMMAND_LIMIT_MS);
        child.on('error', (error) => settle(error, null, null));
        child.on('close', (status, signal) => settle(undefined, status, signal));
      }),
    runSync: (argv, { input } = {}) => {
      for (const line of typed(argv, input)) echo(`[#] ${line}`);
      const [program = '', ...words] = argv;
      const done = spawnSync(program, words, {
        env,
        stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
        ...(input === undefined ? {} : { input }),
        timeout: COMMAND_LIMIT_MS,
        killSignal: 'SIGKILL',
      });
      const error: NodeJS.ErrnoException | undefined = done.error;
      const timedOut = error?.code === 'ETIMEDOUT';
      const text = (bytes: Buffer | null): string => bytes?.toString() ?? '';
      return outcomeOf(
        timedOut ? undefined : error,
        done.status,
        done.signal,
        timedOut,
        text(done.stdout),
        text(done.stderr),
      );
    },
    readSysctl: (name) => {
      try {
        return readFileSync(file(name), 'utf8').trim();
      } catch {
        return undefined;
      }
    },
    writeSysctl: (name, value) => {
      echo(`[#] ${sysctlLine(name, value)}`);
      writeFileSync(file(name), value, { flag: 'r+' });
    },
    canWriteSysctl: (name) => {
      try {
        accessSync(file(name), constants.W_OK);
        return true;
      } catch {
        return false;
      }
    },
    listSysctls: (pattern) => {
      const [before = '', after] = pattern.split('/*/');
      if (after === undefined) return [pattern];
      try {
        return readdirSync(file(before)).map((name) => `${before}/${name}/${after}`);
      } catch {
        return [];
      }
    },
    files: {
      ...HOST_FILES,
      write: (path, file) => {
        echo(`[#] ${commandLine(['tee', path])}`);
        HOST_FILES.write(path, file);
      },
    },
  };
}
