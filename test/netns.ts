/**
 * Hosts for tests: network namespaces, the cables between them, and programs inside.
 *
 * Whatever a `Bed` makes, its `close` takes back, and so does the end of this process for any reason
 * but SIGKILL. Only namespaces and processes made here are touched, by name and by pid. Nothing in
 * the namespace of the caller is changed.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Daemon, mustRun, pass, run, waitFor, words, type Output } from './daemon.ts';

export { Daemon, pass, run, until, type Output } from './daemon.ts';

export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Put in front of the command, inside the namespace: ['unshare', '--time', …]. */
  readonly wrapper?: readonly string[];
}

const POLL_MS = 50;
const STOP_GRACE_MS = 5_000;
/** Of each program, in the report of a failure. */
const LOG_LINES = 30;
/** Of a test that the machine may have spoilt. */
const ATTEMPTS = 3;

/** One host: a network namespace. */
export class Host {
  readonly name: string;
  readonly namespace: string;
  private readonly bed: Bed;

  constructor(bed: Bed, name: string, namespace: string) {
    this.bed = bed;
    this.name = name;
    this.namespace = namespace;
  }

  private inside(command: readonly string[]): string[] {
    const [program, ...rest] = words(command);
    // ip(8) goes there by itself: one program fewer.
    if (program === 'ip') return ['ip', '-n', this.namespace, ...rest];
    return ['ip', 'netns', 'exec', this.namespace, program!, ...rest];
  }

  /** Runs a command to its end and returns stdout; throws when it fails. */
  run(...command: string[]): string {
    return mustRun(this.inside(command));
  }

  /** Runs commands of ip(8), written without their first word, in one go; throws when one fails. */
  ip(...commands: readonly string[]): void {
    const file = this.bed.file('ip');
    this.bed.write(file, `${commands.join('\n')}\n`);
    this.run('ip', '-batch', file);
  }

  /** The same, for commands that may fail or take longer. */
  try(command: readonly string[], timeoutMs?: number): Output {
    return run(this.inside(command), timeoutMs);
  }

  start(command: readonly string[], options: StartOptions = {}): Daemon {
    const argv = [...(options.wrapper ?? []), ...words(command)];
    return this.bed.spawn(this.inside(argv), options.env ?? {});
  }

  /** Runs a command to its end without holding up the event loop. */
  async finish(command: readonly string[], withinMs = 60_000): Promise<Output> {
    const daemon = this.start(command);
    const exit = await daemon.ended(withinMs);
    return { status: typeof exit === 'number' ? exit : null, stdout: daemon.output, stderr: '' };
  }

  sysctl(name: string, value: string): void {
    this.run('sysctl', '-qw', `${name}=${value}`);
  }

  /** Lets packets through between its interfaces, as a router does. */
  forward(): void {
    this.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  }

  /** Gives names to addresses, as lines of hosts(5). Programs started before the first call don't see it. */
  names(lines: string): void {
    // ip-netns(8) puts this file in the place of /etc/hosts for what it starts.
    const directory = join('/etc/netns', this.namespace);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'hosts'), `${lines}\n`);
  }

  /**
   * Gives it a resolv.conf(5) of its own, a mount as in a container; so before the first program is started.
   * Without one it has the machine's, which must not be changed.
   */
  resolver(lines: string): void {
    const directory = join('/etc/netns', this.namespace);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'resolv.conf'), `${lines}\n`);
  }

  /** Loads nft rules. */
  nft(rules: string): void {
    const file = this.bed.file('rules.nft');
    this.bed.write(file, `${rules}\n`);
    this.run('nft', '-f', file);
  }
}

export interface CableEnd {
  readonly host: Host;
  readonly device: string;
  readonly addresses: readonly string[];
}

let bedCount = 0;

/** A set of hosts that are made and removed together. */
export class Bed {
  readonly directory: string;
  private readonly prefix = `vpnt${process.pid}x${++bedCount}`;
  private readonly hosts: Host[] = [];
  private readonly daemons: Daemon[] = [];
  private fileCount = 0;

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), 'vpnt-'));
    open.add(this);
    closeAtExit();
  }

  host(name: string): Host {
    const namespace = `${this.prefix}-${name}`;
    mustRun(['ip', 'netns', 'add', namespace]);
    const host = new Host(this, name, namespace);
    this.hosts.push(host);
    host.run('ip link set lo up');
    // Link-local addresses are usable at once, not after two seconds (RFC 4862 §5.4).
    const quiet = ['accept_dad', 'dad_transmits', 'router_solicitations'].flatMap((one) =>
      ['all', 'default'].map((which) => `net.ipv6.conf.${which}.${one}=0`),
    );
    // What the machine has by default would pace what accepted sockets send (tcp_bbr.c), also after another
    // choice (-C of iperf3).
    const congestion = 'net.ipv4.tcp_congestion_control=cubic';
    host.try(['sysctl', '-qw', ...quiet, congestion]);
    return host;
  }

  cable(a: CableEnd, b: CableEnd, mtu = 1500): void {
    // Made in place: in the caller's namespace the names could clash with real devices.
    mustRun([
      `ip -n ${a.host.namespace} link add ${a.device} mtu ${mtu} type veth peer name ${b.device} mtu ${mtu} netns ${b.host.namespace}`,
    ]);
    for (const { host, device, addresses } of [a, b])
      host.ip(
        ...addresses.map((address) => {
          const detection = address.includes(':') ? ' nodad' : '';
          return `address add ${address} dev ${device}${detection}`;
        }),
        `link set ${device} up`,
      );
    // A state that is compared later must not still be settling.
    for (const { host, device } of [a, b])
      waitFor(`${device} of ${host.name} up`, () =>
        / UP .*fe80:/.test(host.run(`ip -6 -br address show dev ${device}`)),
      );
  }

  /** The name of a new file in the bed's own directory. */
  file(name: string): string {
    return join(this.directory, `${++this.fileCount}-${name}`);
  }

  write(file: string, text: string | Uint8Array): void {
    writeFileSync(file, text, { mode: 0o600 });
  }

  spawn(command: readonly string[], env: Readonly<Record<string, string>>): Daemon {
    const daemon = new Daemon(command, this.file('log'), env);
    this.daemons.push(daemon);
    return daemon;
  }

  /** What every program printed, for the report of a failure. */
  logs(): string {
    return this.daemons
      .map((daemon) => {
        const lines = daemon.output.trim().split('\n');
        const cut = lines.length > LOG_LINES ? ['…', ...lines.slice(-LOG_LINES)] : lines;
        return [`── ${describe(daemon)}`, ...cut].join('\n');
      })
      .join('\n');
  }

  async close(): Promise<void> {
    if (!open.has(this)) return;
    for (const daemon of this.daemons) daemon.kill('SIGTERM');
    const deadline = performance.now() + STOP_GRACE_MS;
    while (this.daemons.some((daemon) => daemon.exit === undefined)) {
      if (performance.now() > deadline) break;
      await pass(POLL_MS);
    }
    this.remove();
  }

  /** The part of `close` that a process on its way out can still do. */
  closeNow(): void {
    if (!open.has(this)) return;
    const running = this.daemons.filter((daemon) => daemon.exit === undefined);
    for (const daemon of running) daemon.kill('SIGTERM');
    const deadline = performance.now() + STOP_GRACE_MS;
    while (running.some(isAlive) && performance.now() < deadline)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
    this.remove();
  }

  private remove(): void {
    for (const daemon of this.daemons) daemon.kill('SIGKILL');
    for (const { namespace } of this.hosts) {
      run(['ip', 'netns', 'delete', namespace]);
      rmSync(join('/etc/netns', namespace), { recursive: true, force: true });
    }
    rmSync(this.directory, { recursive: true, force: true });
    open.delete(this);
  }
}

function describe(daemon: Daemon): string {
  return `${daemon.command} (${daemon.exit === undefined ? 'running' : `exit ${daemon.exit}`})`;
}

function isAlive(daemon: Daemon): boolean {
  try {
    // A child that ended stays a zombie until the event loop runs again.
    const stat = readFileSync(`/proc/${daemon.pid}/stat`, 'utf8');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
}

const open = new Set<Bed>();
let isRegistered = false;

function closeAtExit(): void {
  if (isRegistered) return;
  isRegistered = true;
  process.on('exit', () => {
    for (const bed of open) bed.closeNow();
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => process.exit(128 + constants.signals[signal]));
}

/** Why this machine cannot run a test that needs namespaces and `tools`; false when it can. */
export function lacking(tools: readonly string[] = []): string | false {
  if (process.platform !== 'linux') return 'network namespaces are Linux';
  if (process.getuid?.() !== 0) return 'needs root, for network namespaces';
  if (!existsSync('/dev/net/tun')) return 'needs /dev/net/tun';
  const missing = ['ip', 'iptables', 'sysctl', 'ping', ...tools].filter((tool) => !inPath(tool));
  return missing.length === 0 ? false : `needs ${missing.join(', ')}`;
}

export function inPath(tool: string): boolean {
  return (process.env['PATH'] ?? '')
    .split(':')
    .some((directory) => existsSync(join(directory, tool)));
}

/**
 * Thrown for what may be the machine's doing and not the program's, as a time that is too long: a test
 * that ends with it is tried again, twice at most. A defect is there every time.
 */
export class Spoiled extends Error {}

/** A test on a bed of its own, skipped by name where the machine cannot run it. */
export function netTest(
  name: string,
  tools: readonly string[],
  body: (bed: Bed) => Promise<void>,
  timeoutMs = 180_000,
): void {
  void test(name, { skip: lacking(tools), timeout: timeoutMs }, async (t) => {
    for (let attempt = 1; ; attempt++) {
      const bed = new Bed();
      try {
        return await body(bed);
      } catch (error) {
        if (!(error instanceof Spoiled) || attempt === ATTEMPTS) {
          t.diagnostic(bed.logs());
          throw error;
        }
        t.diagnostic(`once more: ${error.message}`);
      } finally {
        await bed.close();
      }
    }
  });
}
