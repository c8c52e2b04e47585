/** A host of stand-ins within this process, which fails where and how a test wants. */
import { fstatSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { PLATFORMS } from '../../src/os.ts';
import type { InOut, Outcome, Runner } from '../../src/rules.ts';
import { prepareHost } from '../../src/setup.ts';
import type { HostDeps, HostSettings, HostSetup } from '../../src/setup.ts';
import { StandIn, type SystemName } from './bsd.ts';
import { scratchFolder } from '../scratch.ts';

/** How a command that changes something fails. */
export type Mode = 'refused' | 'missing' | 'killed before' | 'killed after';

export class StandInRunner implements Runner {
  readonly standIn: StandIn;
  /** What changed something, as typed. */
  readonly ran: string[] = [];
  /** Fails at the n-th of them; 0 never. */
  failAt = 0;
  mode: Mode = 'refused';
  onChange: (line: string) => void = () => undefined;

  constructor(standIn: StandIn) {
    this.standIn = standIn;
  }

  runSync(argv: readonly string[], io: InOut = {}): Outcome {
    const line = argv.join(' ');
    if (!StandIn.isProbe(argv)) {
      this.ran.push(line);
      this.onChange(line);
      if (this.ran.length === this.failAt) {
        if (this.mode === 'refused') return outcome(1, '', 'no luck\n');
        if (this.mode === 'missing') return { ...outcome(-1, '', ''), reason: 'was not found' };
        if (this.mode === 'killed after') this.#real(argv, io);
        return { ...outcome(-1, '', ''), reason: 'took longer than 5 s', refused: false };
      }
    }
    return this.#real(argv, io);
  }

  #real(argv: readonly string[], { input, fd }: InOut): Outcome {
    const { status, stdout, stderr } = this.standIn.run(argv, input);
    if (fd !== undefined) writeSync(fd, stdout + stderr);
    return outcome(status, stdout, stderr);
  }

  run(argv: readonly string[], io?: InOut): Promise<Outcome> {
    return Promise.resolve(this.runSync(argv, io));
  }
  readSysctl(): undefined {
    throw new Error('there is no /proc here');
  }
  writeSysctl(): void {
    throw new Error('there is no /proc here');
  }
  listSysctls(): readonly string[] {
    throw new Error('there is no /proc here');
  }
}

function outcome(status: number, stdout: string, stderr: string): Outcome {
  const [said = ''] = stderr.split('\n');
  const reason = `exited with ${status}${said === '' ? '' : `: ${said}`}`;
  return { status, stdout, stderr, reason, refused: status !== 0 };
}

/** flock(2) within one process. */
function pretendedLocks(): { lockFile(fd: number): boolean; kill(): void } {
  const holders = new Map<number, number>();
  return {
    lockFile(fd) {
      const { ino } = fstatSync(fd);
      const holder = holders.get(ino);
      if (holder !== undefined && holder !== fd) {
        try {
          if (fstatSync(holder).ino === ino) return false;
        } catch {
          // Closed, so unlocked.
        }
      }
      holders.set(ino, fd);
      return true;
    },
    kill: () => holders.clear(),
  };
}

/** Whether the kernel takes the device away together with the process that holds it. */
const GOES_WITH_PROCESS: readonly SystemName[] = ['darwin', 'openbsd'];

export class Bed {
  readonly system: SystemName;
  readonly standIn: StandIn;
  readonly runner: StandInRunner;
  readonly journalDir = scratchFolder();
  readonly warnings: string[] = [];
  readonly deps: HostDeps;
  readonly #locks = pretendedLocks();

  constructor(system: SystemName) {
    this.system = system;
    this.standIn = new StandIn(system);
    this.runner = new StandInRunner(this.standIn);
    const platform = PLATFORMS[system];
    if (platform === undefined) throw new Error(`no platform ${system}`);
    this.deps = {
      native: { netnsCookie: () => '', lockFile: this.#locks.lockFile },
      journalDir: this.journalDir,
      path: '',
      log: () => undefined,
      warn: (line) => this.warnings.push(line),
      runner: this.runner,
      platform,
    };
  }

  /** Everything, as text to compare; a token that was given back may have been counted. */
  snapshot(): string {
    const { pf, ...rest } = this.standIn.state;
    return JSON.stringify({ ...rest, pf: { ...pf, nextToken: 0 } }, sorted, 1);
  }

  journals(): readonly string[] {
    return readdirSync(this.journalDir).filter((name) => name.endsWith('.journal'));
  }

  /** The process is gone: its locks, and its device where that is the system's way. */
  kill(tun: string): void {
    this.#locks.kill();
    if (GOES_WITH_PROCESS.includes(this.system)) this.standIn.destroyTun(tun);
  }

  remove(): void {
    rmSync(this.journalDir, { recursive: true });
  }
}

function sorted(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

export const clientSettings = (tun: string): HostSettings => ({
  role: 'client',
  tun,
  localIp: '192.168.192.1',
  peerIp: '192.168.192.254',
  localIp6: 'fd00::1',
  peerIp6: 'fd00::2',
  mtu: 1420,
  defaultRoutes: true,
  routes: [],
  mark: 0,
  table: 0,
  externalIp: '',
  gateway: '',
  port: 443,
  servers: ['198.51.100.7', '2001:db8:7::7'],
});
export const serverSettings = (tun: string): HostSettings => ({
  ...clientSettings(tun),
  role: 'server',
  localIp: '192.168.192.254',
  peerIp: '192.168.192.1',
  localIp6: 'fd00::2',
  peerIp6: 'fd00::1',
  servers: [],
});

/** All that a session may bring: IPv6 not through the server, then through it, then not again. */
export async function bringUp(
  settings: HostSettings,
  bed: { readonly deps: HostDeps },
): Promise<HostSetup> {
  const setup = await prepareHost(settings, bed.deps);
  await setup.up();
  await setup.reach(settings.servers ?? []);
  for (const ipv6 of [false, true, false]) await setup.connected({ ipv6 });
  return setup;
}
