/**
 * The journal: what an instance changed on this host, written and synced before each change, so that
 * a later instance or `vpn cleanup` can take it back when this one is killed.
 *
 * One file per instance, whose lines are in record.ts. It is locked (flock) as long as its instance
 * lives; the lock, not a pid, tells the living from the dead. What the records mean is not known here
 * (setup.ts).
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { parseJournal } from './record.ts';
import type { Header, JournalRecord, Numbered } from './record.ts';
import { Failure } from './report.ts';

export { JOURNAL_VERSION } from './record.ts';
export type { Header, JournalRecord } from './record.ts';

/** Longest wait for another instance that is choosing its numbers or undoing a dead one's changes. */
const LOCK_LIMIT_MS = 30_000;
const LOCK_RETRY_MS = 20;

/** flock(2) of the addon. */
export type LockFile = (fd: number) => boolean;

/** One open, locked journal file: this instance's own, or a dead one's that is being taken back. */
export class Journal {
  readonly path: string;
  readonly #remaining: Map<number, JournalRecord>;
  #fd: number;
  #next: number;

  constructor(path: string, fd: number, remaining: readonly Numbered[]) {
    this.path = path;
    this.#fd = fd;
    this.#remaining = new Map(remaining.map(({ number, record }) => [number, record]));
    this.#next = Math.max(0, ...this.#remaining.keys()) + 1;
  }

  /** Records not taken back yet, oldest first. */
  get remaining(): readonly Numbered[] {
    return [...this.#remaining].map(([number, record]) => ({ number, record }));
  }

  /** For the output of a command that says what its undo needs: nobody has to live to write it down. */
  get fd(): number {
    return this.#fd;
  }

  /** What the command of a record wrote into the journal. */
  said(number: number): string {
    const parsed = parseJournal(readFileSync(this.path, 'utf8'));
    return parsed?.remaining.find((one) => one.number === number)?.said ?? '';
  }

  /** Writes and syncs a record. Throws a `Failure` when the disk does not take it. */
  append(record: JournalRecord): number {
    const number = this.#next;
    this.#write({ number, record });
    this.#next += 1;
    this.#remaining.set(number, record);
    return number;
  }

  /** The record was taken back. A disk that does not take this note costs a second, harmless undo. */
  undone(number: number): void {
    if (!this.#remaining.delete(number)) return;
    try {
      this.#write({ undone: number });
    } catch {
      // See above.
    }
  }

  /** Removes the file if nothing remains to be taken back, and gives up the lock. */
  close(): void {
    if (this.#fd < 0) return;
    try {
      if (this.#remaining.size === 0) unlinkSync(this.path);
    } catch {
      // Somebody removed it: the same result.
    }
    closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Gives up the lock and leaves the file as it is. */
  release(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Removes the file with all that is in it, and gives up the lock. */
  discard(): void {
    this.#remaining.clear();
    this.close();
  }

  #write(line: object): void {
    if (this.#fd < 0) throw new Error('journal is closed');
    const before = fstatSync(this.#fd).size;
    const last = Buffer.alloc(1);
    // A command that was killed may have left half a line.
    const isCut = before > 0 && readSync(this.#fd, last, 0, 1, before - 1) === 1 && last[0] !== 10;
    const bytes = Buffer.from(`${isCut ? '\n' : ''}${JSON.stringify(line)}\n`);
    try {
      if (writeSync(this.#fd, bytes) !== bytes.length) throw new Error('no space left on device');
      fsyncSync(this.#fd);
    } catch (error) {
      // Half a line would swallow the next one.
      try {
        ftruncateSync(this.#fd, before);
      } catch {
        // The line stays cut short; parseJournal passes over it.
      }
      throw cannotWrite(this.path, error);
    }
  }
}

/** A journal of another instance. `journal` is set, open and locked, when that instance is dead. */
export interface Found {
  readonly path: string;
  /** Undefined: it died before its first change, or the file is not a journal. */
  readonly header: Header | undefined;
  readonly remaining: readonly Numbered[];
  readonly journal: Journal | undefined;
}

function cannotWrite(path: string, error: unknown): Failure {
  const why = error instanceof Error ? error.message : String(error);
  const denied = /EACCES|EPERM/.test(why);
  return new Failure(
    `cannot write the journal "${path}"`,
    why.replace(/^[A-Z]+: ([^,]*),.*$/, '$1'),
    denied ? 'run as root' : 'make room or make it writable: no change is made without it',
  );
}

export class JournalDirectory {
  readonly path: string;
  readonly #lockFile: LockFile;
  #lockFd = -1;

  /** Touches nothing: `locked` creates the directory. */
  constructor(path: string, lockFile: LockFile) {
    this.path = path;
    this.#lockFile = lockFile;
  }

  /** Makes sure of a directory that is private to its owner. Throws a `Failure`. */
  #create(): void {
    try {
      mkdirSync(this.path, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw cannotWrite(this.path, error);
    }
    const status = lstatSync(this.path);
    if (status.uid === 0 && process.geteuid?.() !== 0) {
      throw new Failure(`cannot write to "${this.path}"`, 'permission denied', 'run as root');
    }
    // Its lines are run as root.
    if (
      !status.isDirectory() ||
      status.uid !== process.geteuid?.() ||
      (status.mode & 0o022) !== 0
    ) {
      throw new Failure(
        `cannot trust the journal directory "${this.path}"`,
        'another user can write there',
        `run chown root "${this.path}" and chmod 700 "${this.path}"`,
      );
    }
  }

  /**
   * Runs `body` while no other instance on this host chooses numbers or counts sysctls. Not within
   * itself. Throws a `Failure`.
   */
  async locked<Result>(body: () => Promise<Result> | Result): Promise<Result> {
    this.#create();
    for (let waitedMs = 0; !this.#tryLock(); waitedMs += LOCK_RETRY_MS) {
      if (waitedMs >= LOCK_LIMIT_MS) {
        throw new Failure(
          `cannot lock "${this.path}/lock"`,
          `another vpn held it for ${LOCK_LIMIT_MS / 1000} s`,
          'stop that one and try again',
        );
      }
      await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
    }
    try {
      return await body();
    } finally {
      this.#unlock();
    }
  }

  /** The same for the last-resort path: gives up waiting after half a second and goes on. */
  lockedSync(body: () => void): void {
    const cell = new Int32Array(new SharedArrayBuffer(4));
    const own = this.#lockFd >= 0;
    for (let tries = 0; !own && tries < 25 && !this.#tryLock(); tries += 1) {
      Atomics.wait(cell, 0, 0, LOCK_RETRY_MS);
    }
    try {
      body();
    } finally {
      if (!own) this.#unlock();
    }
  }

  #tryLock(): boolean {
    if (this.#lockFd >= 0) return false;
    let fd: number;
    try {
      fd = openSync(
        join(this.path, 'lock'),
        constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW,
        0o600,
      );
    } catch (error) {
      throw cannotWrite(join(this.path, 'lock'), error);
    }
    if (!this.#lockFile(fd)) {
      closeSync(fd);
      return false;
    }
    this.#lockFd = fd;
    return true;
  }

  #unlock(): void {
    if (this.#lockFd >= 0) closeSync(this.#lockFd);
    this.#lockFd = -1;
  }

  /** Starts this instance's journal. Call within `locked`. Throws a `Failure`. */
  create(header: Header): Journal {
    // Namespaces of one machine share this directory, and pids.
    const name = `${header.netns}-${header.tun}-${randomBytes(4).toString('hex')}.journal`;
    const path = join(this.path, name);
    let fd: number;
    try {
      fd = openSync(
        path,
        constants.O_RDWR |
          constants.O_CREAT |
          constants.O_EXCL |
          constants.O_APPEND |
          constants.O_NOFOLLOW,
        0o600,
      );
    } catch (error) {
      throw cannotWrite(path, error);
    }
    try {
      this.#lockFile(fd);
      writeSync(fd, `${JSON.stringify(header)}\n`);
      fsyncSync(fd);
      const directory = openSync(this.path, constants.O_RDONLY);
      fsyncSync(directory);
      closeSync(directory);
    } catch (error) {
      closeSync(fd);
      unlinkSync(path);
      throw cannotWrite(path, error);
    }
    return new Journal(path, fd, []);
  }

  /**
   * All journals. Those of dead instances are locked by this: the caller closes each. Call within
   * `locked`, for a journal is not locked in the moment of its creation.
   */
  scan(): readonly Found[] {
    return this.#read((path, text) => {
      const fd = openSync(path, constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW);
      const parsed = parseJournal(text);
      const remaining = parsed?.remaining ?? [];
      let journal: Journal | undefined;
      if (this.#lockFile(fd)) journal = new Journal(path, fd, remaining);
      else closeSync(fd);
      return { path, header: parsed?.header, remaining, journal };
    });
  }

  /** All journals, of the living and the dead, without locking any. */
  peek(): readonly Found[] {
    return this.#read((path, text) => {
      const parsed = parseJournal(text);
      return {
        path,
        header: parsed?.header,
        remaining: parsed?.remaining ?? [],
        journal: undefined,
      };
    });
  }

  #read(one: (path: string, text: string) => Found): readonly Found[] {
    const found: Found[] = [];
    let names: readonly string[];
    try {
      names = readdirSync(this.path).sort();
    } catch {
      // Not there yet, or not ours to read (a dry run).
      return [];
    }
    for (const name of names) {
      if (!name.endsWith('.journal')) continue;
      const path = join(this.path, name);
      try {
        found.push(one(path, readFileSync(path, 'utf8')));
      } catch {
        // Its instance ended just now and removed it.
      }
    }
    return found;
  }
}
