/**
 * A host as its user sees it: a home folder, processes and files of its own, `vpn` in PATH, and as many
 * terminals as are wanted. What is written to /etc, /home, /run, /tmp, /var/lib and /var/log stays in memory.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { EXECUTABLE } from './ends.ts';
import { childrenOf, type Daemon } from './daemon.ts';
import type { Host } from './netns.ts';

/** $1 is the name of the host, $2 the executable. Ends as a first process that waits for orphans. */
const INSIDE = `
  hostname "$1"
  mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin
  touch /usr/local/sbin/vpn
  mount --bind "$2" /usr/local/sbin/vpn
  mount -t tmpfs -o mode=755 tmpfs /mnt
  cp -a /etc/. /mnt
  mount --bind /mnt /etc
  umount /mnt
  for folder in home run tmp var/lib var/log; do mount -t tmpfs -o mode=755 tmpfs "/$folder"; done
  chmod 700 /home
  chmod 1777 /tmp
  echo ready
  while sleep 1000; do :; done`;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Of its user, who is root: where commands are typed. */
export const HOME = '/home';

export interface Ended {
  /** Null after a signal. */
  readonly status: number | null;
  /** stdout and stderr as they came. */
  readonly output: string;
}

/** A command in the foreground of a terminal. */
export class Foreground {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** What it has printed so far. */
  get output(): string {
    return this.daemon.output;
  }

  /** Waits for a line that matches, among those printed from `from` (an offset in `output`) on. */
  async line(pattern: RegExp, from: number): Promise<string> {
    return this.daemon.line(pattern, undefined, from);
  }

  /** The status it ended with. */
  async ended(): Promise<number | NodeJS.Signals> {
    return this.daemon.ended();
  }

  /** ^C, which reaches all that was started there: a process group, whose leader nsenter(1) waits for. */
  interrupt(): void {
    const [leader] = childrenOf(this.daemon.pid);
    if (leader !== undefined) process.kill(-leader, 'SIGINT');
  }
}

export class Desk {
  readonly host: Host;
  readonly name: string;
  private pid = 0;

  private constructor(host: Host, name: string) {
    this.host = host;
    this.name = name;
  }

  /** At a host that has its interfaces; `name` is what its user calls it. */
  static async at(host: Host, name = host.name): Promise<Desk> {
    const desk = new Desk(host, name);
    const spaces = ['--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const shell = ['bash', '-euc', INSIDE, 'bash', name, EXECUTABLE];
    const first = host.start(['unshare', ...spaces, ...shell]);
    await first.line(/^ready$/);
    desk.pid = childrenOf(first.pid)[0]!;
    return desk;
  }

  /** Types a line, and waits for its end. */
  async type(line: string): Promise<Ended> {
    const { status, stdout } = await this.host.finish(this.enter(line));
    return { status, output: stdout };
  }

  /** Types a line whose program stays in the foreground. */
  open(line: string): Foreground {
    return new Foreground(this.host.start(this.enter(line)));
  }

  /** Copies a file to another host, where nobody else may read it. */
  copy(path: string, to: Desk): void {
    to.put(path, readFileSync(this.file(path)));
  }

  /** Puts a file there, of mode 0600 unless it is a program. */
  put(path: string, text: string | Uint8Array, isProgram = false): void {
    mkdirSync(dirname(this.file(path)), { recursive: true });
    writeFileSync(this.file(path), text, { mode: isProgram ? 0o755 : 0o600 });
  }

  get(path: string): string {
    return readFileSync(this.file(path), 'utf8');
  }

  private file(path: string): string {
    return `/proc/${this.pid}/root${path}`;
  }

  /** What runs a line there, in a session of its own, as a terminal would. */
  private enter(line: string): readonly string[] {
    const spaces = ['--mount', '--uts', '--pid', '--net'];
    const environment = ['env', '-i', `PATH=${PATH}`, `HOME=${HOME}`, 'TERM=xterm'];
    const shell = ['setsid', '--wait', ...environment, 'bash', '-c', `cd; ${line}`];
    return ['nsenter', '--target', String(this.pid), ...spaces, '--', ...shell];
  }
}
