/**
 * A machine in namespaces: the files of this one under an overlay in memory, with processes, mounts, network
 * and control groups of its own. What is done to its files can be listed, and nothing is left of it.
 */
import { existsSync, lstatSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, until, words, type Daemon, type Output } from './daemon.ts';
import { lacking, type Bed } from './netns.ts';

const SYSTEMD = '/usr/lib/systemd/systemd';
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** $1 is the folder, $2 the control group, $3 what is to be run as the first process. */
const OUTSIDE = `
  mount -t tmpfs -o mode=755 tmpfs "$1"
  mkdir "$1/upper" "$1/work" "$1/root" "$1/groups"
  mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
  mount -t cgroup2 cgroup2 "$1/groups"
  mkdir "$1/groups/$2"
  echo 0 >"$1/groups/$2/cgroup.procs"
  exec unshare --cgroup --pid --fork --kill-child --uts --ipc --net --mount --propagation private \\
    sh -euc "$3" sh "$1/root"`;
/** A /dev of its own: systemd makes links there. */
const MOUNTS = `
  cd "$1"
  mount -t proc proc proc
  mount -t sysfs sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  for folder in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
  chmod 1777 tmp
  mkdir -p dev/net dev/pts dev/shm
  while read -r name major minor; do mknod -m 666 "dev/$name" c "$major" "$minor"; done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
net/tun 10 200
END
  ln -s /proc/self/fd dev/fd
  ip link set lo up`;
const PLAIN = `${MOUNTS}
  exec chroot . sleep 1000`;
/** Of all that this host starts at boot, only the journal. */
const BOOTED = `${MOUNTS}
  units=run/systemd/system
  mkdir -p "$units"
  for unit in usr/lib/systemd/system/*.wants/* etc/systemd/system/*.wants/*; do
    ln -sf /dev/null "$units/\${unit##*/}"
  done
  rm -f "$units"/systemd-journald* "$units"/*.target
  printf '[Unit]\\nWants=systemd-journald.socket systemd-journald.service\\n' >"$units/test.target"
  exec chroot . env -i container=other PATH=${PATH} ${SYSTEMD} --system --unit=test.target --log-target=journal --show-status=0`;

/** Why there can be no such machine here; false if there can. */
export function lackingMachine(isBooted: boolean): string | false {
  const lack = lacking(['unshare', 'nsenter', 'dpkg', 'dpkg-deb', 'readelf']);
  if (lack !== false) return lack;
  const kinds = readFileSync('/proc/filesystems', 'utf8');
  if (!/\toverlay$/m.test(kinds)) return 'needs overlayfs';
  if (!/\tcgroup2$/m.test(kinds)) return 'needs control groups, version 2';
  return isBooted && !existsSync(SYSTEMD) && 'needs systemd';
}

export class Machine {
  private readonly bed: Bed;
  private readonly folder: string;
  private readonly group: string;
  private readonly outside: Daemon;
  private pid = 0;
  private readonly before = new Set<string>();

  private constructor(bed: Bed, isBooted: boolean) {
    this.bed = bed;
    this.folder = bed.file('machine');
    this.group = `vpn-test-${process.pid}-${this.folder.replace(/\D+/g, '')}`;
    const inside = isBooted ? BOOTED : PLAIN;
    const shell = ['bash', '-euc', `mkdir "$1"; ${OUTSIDE}`, 'bash'];
    this.outside = bed.spawn(
      ['unshare', '--mount', '--propagation', 'private', ...shell, this.folder, this.group, inside],
      {},
    );
  }

  /** The first process runs, systemd if `isBooted`. */
  static async start(bed: Bed, isBooted: boolean): Promise<Machine> {
    const machine = new Machine(bed, isBooted);
    const first = isBooted ? 'systemd' : 'sleep';
    machine.pid = await until(`${first}: ${machine.outside.output}`, () => {
      if (machine.outside.exit !== undefined) throw new Error(machine.outside.output);
      const child = childOf(machine.outside.pid);
      return child !== undefined && nameOf(child) === first && child;
    });
    if (isBooted) {
      const state = (): string => machine.run('systemctl is-system-running').stdout.trim();
      await until('the start of systemd', () => ['running', 'degraded'].includes(state()));
    }
    return machine;
  }

  /** A program in it, until it ends. */
  run(...command: readonly string[]): Output {
    return run([...this.enter(), ...words(command)], 30_000);
  }

  /** The same, of which anything but success is a failure. Returns what it printed. */
  must(...command: readonly string[]): string {
    const { status, stdout, stderr } = this.run(...command);
    if (status === 0) return stdout;
    throw new Error(`"${words(command).join(' ')}" exited with ${status}: ${stderr}${stdout}`);
  }

  /** A program that runs on. */
  spawn(...command: readonly string[]): Daemon {
    return this.bed.spawn([...this.enter(), ...words(command)], {});
  }

  private enter(): readonly string[] {
    const spaces = ['--mount', '--pid', '--net', '--uts', '--ipc', '--cgroup', '--root', '--wd'];
    const environment = ['env', '-i', `PATH=${PATH}`, 'HOME=/home', 'LC_ALL=C.UTF-8'];
    return ['nsenter', '--target', String(this.pid), ...spaces, '--', ...environment];
  }

  /** Makes a file of it. */
  put(path: string, bytes: Uint8Array): void {
    writeFileSync(`/proc/${this.pid}/root${path}`, bytes);
  }

  /** From now on files as they are now do not count as changed. */
  settle(): void {
    for (const path of this.files()) this.before.add(path);
  }

  /** Files and links made, changed or deleted, and folders made, sorted. */
  changed(): readonly string[] {
    return this.files().filter((path) => !this.before.has(path));
  }

  private files(): readonly string[] {
    const upper = `/proc/${this.outside.pid}/root${this.folder}/upper`;
    const found: string[] = [];
    const look = (path: string): void => {
      const entries = readdirSync(join(upper, path));
      for (const name of entries) {
        const inside = `${path}/${name}`;
        const isFolder = lstatSync(join(upper, inside)).isDirectory();
        // One that is there below was only looked into.
        if (!isFolder || !existsSync(inside)) found.push(inside);
        if (isFolder) look(inside);
      }
    };
    look('');
    return found.sort();
  }

  /** Ends everything in it. */
  async close(): Promise<void> {
    const kill = (pid: number): unknown => pid > 0 && run(['kill', '-KILL', String(pid)]);
    kill(this.pid === 0 ? this.outside.pid : this.pid);
    await this.outside.ended();
    // A control group outlives its processes.
    const script = `mkdir "$1"; mount -t cgroup2 cgroup2 "$1"; find "$1/$2" -depth -type d -exec rmdir {} +`;
    const shell = ['sh', '-euc', script, 'sh', `${this.folder}-groups`, this.group];
    const { status, stderr } = run(['unshare', '--mount', '--propagation', 'private', ...shell]);
    if (status !== 0) throw new Error(`control group ${this.group} is left: ${stderr}`);
  }
}

function childOf(pid: number): number | undefined {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? undefined : Number(text.split(' ')[0]);
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}
