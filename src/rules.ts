/**
 * The rule engine: expands the templates of os.ts, runs commands, writes sysctls, takes them back.
 *
 * It does not know which rules exist, nor when to apply them (setup.ts). Every change is recorded in
 * the journal before it is made, so that a process killed in between leaves at worst the undo of
 * something that was never done, which `Platform.absent` recognises.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import type { Row } from './os.ts';
import { Failure } from './report.ts';

/** Longest run of one external command; a hanging one is killed and counts as failed. */
export const COMMAND_LIMIT_MS = 5000;

export type Variables = Readonly<Record<string, string | readonly string[]>>;

/** A row with its variables filled in. */
export type Change =
  | {
      readonly kind: 'command';
      /** Empty: nothing to do now. */
      readonly up: readonly string[];
      /** Empty: nothing to undo. */
      readonly down: readonly string[];
    }
  | {
      readonly kind: 'sysctl';
      readonly name: string;
      readonly value: string;
      readonly beside: readonly string[];
      readonly optional: boolean;
    };

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
  run(argv: readonly string[]): Promise<Outcome>;
  runSync(argv: readonly string[]): Outcome;
  /** Undefined when the host has no such sysctl. `name` is a path below /proc/sys. */
  readSysctl(name: string): string | undefined;
  /** Throws what the kernel says. */
  writeSysctl(name: string, value: string): void;
  /** The names that a path with one `*` component stands for. */
  listSysctls(pattern: string): readonly string[];
}

/** Replaces every `$NAME`; a list variable gives one result per value. An unknown or empty one is a bug. */
export function expand(template: string, variables: Variables): readonly (readonly string[])[] {
  const used = [...new Set(template.match(/\$[A-Z0-9_]+/g) ?? [])].map((name) => name.slice(1));
  let choices: Readonly<Record<string, string>>[] = [{}];
  for (const name of used) {
    const value = Object.hasOwn(variables, name) ? variables[name] : undefined;
    if (value === undefined || value === '') throw new Error(`$${name} has no value: ${template}`);
    const values = typeof value === 'string' ? [value] : value;
    choices = choices.flatMap((choice) => values.map((one) => ({ ...choice, [name]: one })));
  }
  const words = template.split(' ').filter((word) => word !== '');
  return choices.map((choice) =>
    words.map((word) => word.replace(/\$[A-Z0-9_]+/g, (name) => choice[name.slice(1)] ?? '')),
  );
}

/** The changes that `rows` stand for on a host where `facts` hold. */
export function expandRows(
  rows: readonly Row[],
  variables: Variables,
  facts: ReadonlySet<string>,
): readonly Change[] {
  const changes: Change[] = [];
  for (const row of rows) {
    if (!(row.need ?? '').split(' ').every((need) => need === '' || facts.has(need))) continue;
    if ('sysctl' in row) {
      for (const [name] of expand(row.sysctl, variables)) {
        changes.push({
          kind: 'sysctl',
          name: name ?? '',
          value: row.value,
          beside: row.beside ?? [],
          optional: row.optional ?? false,
        });
      }
    } else {
      const ups = row.up === undefined ? undefined : expand(row.up, variables);
      const downs = row.down === undefined ? undefined : expand(row.down, variables);
      if (ups === undefined) {
        for (const down of downs ?? []) changes.push({ kind: 'command', up: [], down });
      } else {
        // A down without the list variable of its up is the same for all of them.
        ups.forEach((up, i) =>
          changes.push({ kind: 'command', up, down: downs?.[i] ?? downs?.[0] ?? [] }),
        );
      }
    }
  }
  return changes;
}

/** A command as one would type it. */
export function commandLine(argv: readonly string[]): string {
  return argv
    .map((word) => (/^[\w@%+=:,./!$-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ');
}

/** `net/ipv6/conf/eth0.5/forwarding` as sysctl(8) writes it: `net.ipv6.conf.eth0/5.forwarding`. */
export function sysctlLine(name: string, value: string): string {
  const dotted = name.replace(/[./]/g, (character) => (character === '/' ? '.' : '/'));
  return `sysctl -w ${commandLine([`${dotted}=${value}`])}`;
}

/** The failure of a command of ours, in one line. */
export function commandFailure(argv: readonly string[], outcome: Outcome): Failure {
  const [program = '', ...rest] = argv;
  const subject = rest.find((word) => !word.startsWith('-')) ?? '';
  const what =
    program !== 'ip'
      ? 'cannot set up the firewall'
      : subject === 'route' || subject === 'rule'
        ? 'cannot set up routing'
        : 'cannot set up the tun device';
  let remedy = 'see every command with -v';
  if (/not permitted|[Pp]ermission denied/.test(outcome.reason)) {
    remedy = 'run as root or grant CAP_NET_ADMIN';
  } else if (/File exists/.test(outcome.reason)) {
    remedy = 'another program owns it: stop it, or pass --no-default-routes';
  } else if (/was not found/.test(outcome.reason)) {
    remedy = `install ${program === 'ip' ? 'iproute2' : 'iptables'}, or check PATH`;
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

/**
 * The runner of this host. `path` is the PATH in which commands are found, `echo` gets each command
 * before it runs (wg-quick's `[#]` lines).
 */
export function hostRunner(path: string, echo: (line: string) => void): Runner {
  // Messages of ip(8) and iptables(8) are compared (Platform.absent), so they must be in English.
  const env = { PATH: path, LC_ALL: 'C' };
  const file = (name: string): string => `/proc/sys/${name}`;
  return {
    run: (argv) =>
      new Promise((resolve) => {
        echo(`[#] ${commandLine(argv)}`);
        const [program = '', ...words] = argv;
        // A process group of its own: Ctrl-C must not kill a command half way, and a wrapper script
        // that hangs is killed together with what it started.
        const child = spawn(program, words, {
          env,
          detached: true,
          stdio: ['ignore', 'pipe', 'pipe'],
        });
        const out: Buffer[] = [];
        const err: Buffer[] = [];
        child.stdout.on('data', (piece: Buffer) => out.push(piece));
        child.stderr.on('data', (piece: Buffer) => err.push(piece));
        let timedOut = false;
        const settle = (
          error: NodeJS.ErrnoException | undefined,
          status: number | null,
          signal: string | null,
        ): void => {
          clearTimeout(timer);
          const text = (pieces: Buffer[]): string => Buffer.concat(pieces).toString();
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
          child.stdout.destroy();
          child.stderr.destroy();
          settle(undefined, null, 'SIGKILL');
        }, COMMAND_LIMIT_MS);
        child.on('error', (error) => settle(error, null, null));
        child.on('close', (status, signal) => settle(undefined, status, signal));
      }),
    runSync: (argv) => {
      echo(`[#] ${commandLine(argv)}`);
      const [program = '', ...words] = argv;
      const done = spawnSync(program, words, {
        env,
        stdio: ['ignore', 'pipe', 'pipe'],
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
    listSysctls: (pattern) => {
      const [before = '', after] = pattern.split('/*/');
      if (after === undefined) return [pattern];
      try {
        return readdirSync(file(before)).map((name) => `${before}/${name}/${after}`);
      } catch {
        return [];
      }
    },
  };
}
