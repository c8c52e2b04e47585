/**
 * Changes to the host, made one by one, each journalled first, and taken back newest first.
 *
 * Sysctls are the one thing that instances share: each instance that needs one has a record of it,
 * with the value found by the first, and the last of them puts that back.
 */
import type { Header, Journal, JournalDirectory, JournalRecord } from './journal.ts';
import { Failure } from './report.ts';
import { commandFailure, commandLine, sysctlLine } from './rules.ts';
import type { Change, Outcome, Runner } from './rules.ts';

export interface Tools {
  readonly runner: Runner;
  readonly directory: JournalDirectory;
  /** stderr of an undo whose change is gone already. */
  readonly absent: RegExp;
  warn(line: string): void;
}

/** What an undo did, a line each, as one would type it. */
export interface UndoReport {
  readonly undone: readonly string[];
  readonly failed: readonly string[];
}

type SysctlRecord = Extract<JournalRecord, { readonly sysctl: string }>;

function undoLine(record: JournalRecord): string {
  return 'undo' in record ? commandLine(record.undo) : sysctlLine(record.sysctl, record.found);
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message.replace(/^[A-Z]+: ([^,]*),.*$/, '$1') : String(error);

/** The changes of one instance: this one's, or a dead one's. */
export class Changes {
  readonly #journal: Journal;
  readonly #header: Header;
  readonly #tools: Tools;
  readonly #isOwn: boolean;
  #hasWarnedOfAbsence = false;

  /** `isOwn`: nobody but us should have taken anything back, so what is gone gets a warning. */
  constructor(journal: Journal, header: Header, tools: Tools, isOwn: boolean) {
    this.#journal = journal;
    this.#header = header;
    this.#tools = tools;
    this.#isOwn = isOwn;
  }

  /**
   * Makes the changes in order. Throws a `Failure` at the first that fails (the caller undoes), and
   * when `isStopped` says so between two.
   */
  async apply(changes: readonly Change[], isStopped: () => boolean): Promise<void> {
    for (const change of changes) {
      if (isStopped()) throw new Failure('cannot set up this host', 'interrupted', 'start again');
      if (change.kind === 'command') await this.#run(change);
      else await this.#tools.directory.locked(() => this.#set(change));
    }
  }

  async #run(change: Extract<Change, { kind: 'command' }>): Promise<void> {
    const number = change.down.length > 0 ? this.#journal.append({ undo: change.down }) : undefined;
    if (change.up.length === 0) return;
    const outcome = await this.#tools.runner.run(change.up);
    if (outcome.status === 0) return;
    // Refused is not made: an undo could hit the same route or rule of somebody else.
    if (outcome.refused && number !== undefined) this.#journal.undone(number);
    throw commandFailure(change.up, outcome);
  }

  #set(change: Extract<Change, { kind: 'sysctl' }>): void {
    const { runner } = this.#tools;
    const { name, value } = change;
    const fail = (why: string): void => {
      const line = sysctlLine(name, value);
      const remedy = `run "${line}" where it is allowed`;
      if (!change.optional) throw new Failure(`cannot set a sysctl`, `"${line}": ${why}`, remedy);
      this.#tools.warn(`cannot run "${line}": ${why}`);
    };
    const current = runner.readSysctl(name);
    if (current === undefined) return fail('this kernel does not have it');
    const shared = this.#sharedWith(name);
    if (current === value && shared === undefined) return;
    const beside: Record<string, string> = {};
    for (const other of change.beside.flatMap((pattern) => runner.listSysctls(pattern))) {
      const found = other === name ? undefined : runner.readSysctl(other);
      if (found !== undefined) beside[other] = found;
    }
    const number = this.#journal.append({
      sysctl: name,
      found: shared?.found ?? current,
      beside: shared?.beside ?? beside,
    });
    if (current === value) return;
    try {
      runner.writeSysctl(name, value);
    } catch (error) {
      this.#journal.undone(number);
      fail(messageOf(error));
    }
  }

  /** The record of another instance, alive or dead, in this namespace that needs the same sysctl. */
  #sharedWith(name: string): SysctlRecord | undefined {
    for (const { path, header, remaining } of this.#tools.directory.peek()) {
      if (path === this.#journal.path || header?.netns !== this.#header.netns) continue;
      if (header.bootId !== this.#header.bootId) continue;
      for (const { record } of remaining) {
        if ('sysctl' in record && record.sysctl === name) return record;
      }
    }
    return undefined;
  }

  /**
   * Takes back what is in the journal, newest first. Never throws. What fails is tried once more,
   * warned of, and stays in the journal. `isLocked`: the caller holds the directory's lock.
   */
  async undo(isLocked: boolean): Promise<UndoReport> {
    const undone: string[] = [];
    const failed: string[] = [];
    for (const { number, record } of [...this.#journal.remaining].reverse()) {
      let why: string | undefined;
      if ('undo' in record) {
        why = this.#judge(record.undo, await this.#tools.runner.run(record.undo));
        if (why !== undefined) {
          why = this.#judge(record.undo, await this.#tools.runner.run(record.undo));
        }
      } else if (isLocked) {
        why = this.#restore(record);
      } else {
        try {
          why = await this.#tools.directory.locked(() => {
            const result = this.#restore(record);
            // Within the lock: who counts next must not count us any more.
            if (result === undefined) this.#journal.undone(number);
            return result;
          });
        } catch (error) {
          why = messageOf(error);
        }
      }
      this.#note(number, record, why, undone, failed);
    }
    return { undone, failed };
  }

  /** The same in one go, for the last moment of a process. */
  undoSync(): UndoReport {
    const undone: string[] = [];
    const failed: string[] = [];
    const { runner } = this.#tools;
    for (const { number, record } of [...this.#journal.remaining].reverse()) {
      let why: string | undefined;
      if ('undo' in record) {
        why = this.#judge(record.undo, runner.runSync(record.undo));
      } else {
        try {
          this.#tools.directory.lockedSync(() => {
            why = this.#restore(record);
            if (why === undefined) this.#journal.undone(number);
          });
        } catch (error) {
          why = messageOf(error);
        }
      }
      this.#note(number, record, why, undone, failed);
    }
    return { undone, failed };
  }

  #note(
    number: number,
    record: JournalRecord,
    why: string | undefined,
    undone: string[],
    failed: string[],
  ): void {
    const line = undoLine(record);
    if (why === undefined) {
      this.#journal.undone(number);
      undone.push(line);
    } else {
      failed.push(line);
      this.#tools.warn(`cannot undo: "${line}" ${why}; run vpn cleanup`);
    }
  }

  /** Undefined when the change is not there any more, else why not. */
  #judge(argv: readonly string[], outcome: Outcome): string | undefined {
    if (outcome.status === 0) return undefined;
    if (!outcome.refused || !this.#tools.absent.test(outcome.stderr)) return outcome.reason;
    // A table that never got a route is flushed in vain; a rule that is gone was ours.
    if (this.#isOwn && !this.#hasWarnedOfAbsence && !argv.includes('flush')) {
      this.#hasWarnedOfAbsence = true;
      this.#tools.warn(`somebody else removed what "${commandLine(argv)}" was to remove`);
    }
    return undefined;
  }

  /** Like `#judge`; a failing write is tried once more. */
  #restore(record: SysctlRecord): string | undefined {
    if (this.#sharedWith(record.sysctl) !== undefined) return undefined;
    const { runner } = this.#tools;
    let why: string | undefined;
    for (let tries = 0; tries < 2; tries += 1) {
      why = undefined;
      // The kernel sets the others along with the first, so they come after it.
      for (const [name = '', found = ''] of [
        [record.sysctl, record.found],
        ...Object.entries(record.beside),
      ]) {
        const current = runner.readSysctl(name);
        if (current === undefined || current === found) continue;
        try {
          runner.writeSysctl(name, found);
        } catch (error) {
          why = `failed: ${messageOf(error)}`;
        }
      }
      if (why === undefined) return undefined;
    }
    return why;
  }
}
