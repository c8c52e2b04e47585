/** One end of a tunnel that runs from a configuration file, and the processes it consists of. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { EXECUTABLE } from './ends.ts';
import type { Bed, Daemon, Host, Output } from './netns.ts';

export interface ProcessMemory {
  readonly pid: number;
  /** As ps(1) shows it. */
  readonly title: string;
  readonly residentMb: number;
}

/** A running `vpn --config`; the words of MLVPN's file, one file and one state folder for each end. */
export class FileEnd {
  readonly host: Host;
  readonly daemon: Daemon;
  private readonly bed: Bed;
  private readonly name: string;
  private readonly file: string;
  private readonly stateDir: string;

  constructor(bed: Bed, host: Host, name: string, text: string) {
    this.bed = bed;
    this.host = host;
    this.name = name;
    this.file = bed.file(`${name}.conf`);
    this.stateDir = bed.file('state');
    bed.write(this.file, text);
    const words = ['-c', this.file, '-n', name, '--state-dir', this.stateDir];
    this.daemon = host.start([EXECUTABLE, ...words]);
  }

  /** Puts another text into the file. */
  write(text: string): void {
    this.bed.write(this.file, text);
  }

  /** The words of a command that asks this instance. */
  command(...words: readonly string[]): readonly string[] {
    return [EXECUTABLE, ...words, '-n', this.name, '--state-dir', this.stateDir];
  }

  /** Runs such a command to its end. */
  async ask(...words: readonly string[]): Promise<Output> {
    return this.host.finish(this.command(...words));
  }

  /** Its control socket, which is reached from any network namespace. */
  get socket(): string {
    const file = readdirSync(this.stateDir).find((entry) => entry.endsWith('.sock'));
    if (file === undefined) throw new Error(`no socket in ${this.stateDir}`);
    return `${this.stateDir}/${file}`;
  }

  /** Resident memory of the process that was started and of all below it that run the executable. */
  memory(): readonly ProcessMemory[] {
    return family(this.daemon.pid).filter(isOurs).map(memoryOf);
  }

  /** Processor time that these have used, by all threads. */
  cpuSeconds(): number {
    return family(this.daemon.pid)
      .filter(isOurs)
      .reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
  }
}

function isOurs(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '') === EXECUTABLE;
  } catch {
    return false;
  }
}

/** A process and its descendants. */
function family(pid: number): readonly number[] {
  const parents = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map((entry) => [Number(entry), parentOf(Number(entry))] as const);
  const of = (one: number): readonly number[] => [
    one,
    ...parents.filter(([, parent]) => parent === one).flatMap(([child]) => of(child)),
  ];
  return of(pid);
}

/** 0 for a process that is gone. */
const parentOf = (pid: number): number => Number(fieldsOf(pid)[1] ?? 0);

function cpuSecondsOf(pid: number): number {
  // Behind the name: utime and stime, proc(5), in ticks of 10 ms.
  const fields = fieldsOf(pid);
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100;
}

/** Of /proc/PID/stat, from the state on, which is the first behind the name; none for a process that is gone. */
function fieldsOf(pid: number): readonly string[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

function memoryOf(pid: number): ProcessMemory {
  const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    pid,
    title: words.join(' ').trim(),
    residentMb: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024,
  };
}
