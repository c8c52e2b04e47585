/** A pretended host with what a set-up needs beside it, on Linux's tables. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { PLATFORMS } from '../src/os.ts';
import { prepareHost } from '../src/setup.ts';
import type { HostDeps, HostSettings, HostSetup } from '../src/setup.ts';
import { PretendedHost, pretendedLocks } from './pretended.ts';
import { scratchFolder } from './scratch.ts';

/** Every record is synced. */
const SCRATCH = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export class PretendedBed {
  readonly host = new PretendedHost();
  readonly warnings: string[] = [];
  readonly journalDir = scratchFolder(SCRATCH);
  readonly deps: HostDeps;
  private readonly locks = pretendedLocks();

  /** `absent`: commands that the host does not have. */
  constructor(absent = /never/) {
    this.host.absent = absent;
    this.deps = {
      native: { netnsCookie: () => '7', lockFile: this.locks.lockFile },
      journalDir: this.journalDir,
      path: '',
      log: () => undefined,
      warn: (line) => this.warnings.push(line),
      runner: this.host,
      platform: PLATFORMS['linux']!,
    };
  }

  /** An instance that is connected. */
  async bringUp(settings: HostSettings): Promise<HostSetup> {
    const setup = await prepareHost(settings, this.deps);
    await setup.up();
    await setup.connected({ ipv6: true });
    return setup;
  }

  /** All instances are dead from now on. */
  kill(): void {
    this.locks.kill(this.journalDir);
  }

  journals(): readonly string[] {
    return readdirSync(this.journalDir).filter((name) => name.endsWith('.journal'));
  }

  remove(): void {
    rmSync(this.journalDir, { recursive: true });
  }
}
