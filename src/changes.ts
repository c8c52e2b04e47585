/**
 * Changes to the host, made one by one, each journalled first, and taken back newest first.
 *
 * Sysctls are the one thing that instances share: each instance that needs one has a record of it,
 * with the value found by the first, and the last of them puts that back.
 */
import { FileChanges, fileLine, messageOf } from './filechanges.ts';
import type { Journal, JournalDirectory } from './journal.ts';
import { FOUND } from './os.ts';
import type { Header, JournalRecord } from './record.ts';
import { Failure } from './report.ts';
import { commandFailure, commandLine, sysctlLine, undoLine } from './rules.ts';
import type { Change, Outcome, Runner, Search } from './rules.ts';

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

type CommandRecord = Extract<JournalRecord, { readonly undo: readonly string[] }>;
type SysctlRecord = Extract<JournalRecord, { readonly sysctl: string }>;

/** Writing a sysctl, as one would type it. */
export function settingLine(runner: Runner, name: string, value: string): string {
  return runner.sysctlLine?.(name, value) ?? sysctlLine(name, value);
}

/** What takes a record back, as one would type it. */
export function recordLine(record: JournalRecord, runner: Runner): string {
  if ('file' in record) return fileLine(record.file, record.found);
  if ('sysctl' in record) return settingLine(runner, record.sysctl, record.found);
  return undoLine(record.undo, record.find);
}

/** The changes of one instance: this one's, or a dead one's. */
export class Changes {
  readonly #journal: Journal;
  readonly #header: Header;
  readonly #tools: Tools;
  readonly #isOwn: boolean;
  #hasWarnedOfAbsence = false;
  readonly #files: FileChanges;
  /** Of `Row.once`: by their undo, what was done. */
  readonly #made = new Map<string, string>();

  /** `isOwn`: nobody but us should have taken anything back, so what is gone gets a warning. */
  constructor(journal: Journal, header: Header, tools: Tools, isOwn: boolean) {
    this.#journal = journal;
    this.#header = header;
    this.#tools = tools;
    this.#isOwn = isOwn;
    this.#files = new FileChanges(journal, tools, isOwn);
  }

  /**
   * Makes the changes in order. Throws a `Failure` at the first that fails (the caller undoes), and
   * when `isStopped` says so between two.
   */
  async apply(changes: readonly Change[], isStopped: () => boolean): Promise<void> {
    for (const change of changes) {
      if (isStopped()) throw new Failure('cannot set up this host', 'interrupted', 'start again');
      if (change.kind === 'command' && change.revert) await this.#revert(change.down);
      else if (change.kind === 'command') await this.#run(change);
      else if (change.kind === 'file')
        await this.#tools.directory.locked(() => this.#files.write(change));
      else await this.#tools.directory.locked(() => this.#set(change));
    }
  }

  async #run(change: Extract<Change, { kind: 'command' }>): Promise<void> {
    const { up, down, find, says, ifDead, stays } = change;
    if (change.once) {
      const made = this.#made.get(commandLine(down));
      if (made === commandLine(up)) return;
      if (made !== undefined) await this.#revert(down);
    }
    const record = {
      undo: down,
      ...(find === undefined ? {} : { find }),
      ...(says === undefined ? {} : { says }),
      ...(ifDead ? { ifDead } : {}),
      ...(stays ? { stays } : {}),
    };
    const number = down.length > 0 ? this.#journal.append(record) : undefined;
    if (up.length === 0) return;
    const outcome = await this.#tools.runner.run(up, {
      ...(change.input === undefined ? {} : { input: change.input }),
      ...(says === undefined ? {} : { fd: this.#journal.fd }),
    });
    if (outcome.status === 0) {
      if (change.once) this.#made.set(commandLine(down), commandLine(up));
      return;
    }
    // Refused is not made: an undo could hit the same route or rule of somebody else.
    if (outcome.refused && number !== undefined) this.#journal.undone(number);
    throw commandFailure(change.up, outcome);
  }

  /** Takes back what was made with this undo, if it was. Throws a `Failure`. */
  async #revert(undo: readonly string[], find?: Search): Promise<void> {
    const line = commandLine(undo);
    this.#made.delete(line);
    for (const { number, record } of [...this.#journal.remaining].reverse()) {
      if (!('undo' in record) || commandLine(record.undo) !== line) continue;
      if (record.find?.holding !== find?.holding) continue;
      await this.#takeBackNow(number, record);
      this.#journal.undone(number);
      return;
    }
  }

  async #takeBackNow(number: number, record: CommandRecord): Promise<void> {
    const steps = this.#takeBack(number, record);
    let step = steps.next();
    while (step.done !== true) step = steps.next(await this.#tools.runner.run(step.value));
    if (step.value === undefined) return;
    const line = undoLine(record.undo, record.find);
    throw new Failure('cannot change the routes', `"${line}" ${step.value}`, 'see -v');
  }

  /** Takes one change of a running instance back, if it was made. Throws a `Failure`. */
  async remove(change: Change): Promise<void> {
    if (change.kind === 'sysctl') {
      await this.#tools.directory.locked(() => this.#reset(change.name));
      return;
    }
    if (change.kind !== 'command') return;
    const { down, remove, find } = change;
    if (down.length > 0) await this.#revert(down, find);
    if (down.length > 0 || remove === undefined) return;
    // It may have gone with something else that was just taken back.
    const hasWarned = this.#hasWarnedOfAbsence;
    this.#hasWarnedOfAbsence = true;
    try {
      await this.#takeBackNow(0, { undo: remove, ...(find === undefined ? {} : { find }) });
    } finally {
      this.#hasWarnedOfAbsence = hasWarned;
    }
  }

  #reset(name: string): void {
    for (const { number, record } of this.#journal.remaining) {
      if (!('sysctl' in record) || record.sysctl !== name) continue;
      const why = this.#restore(record);
      const line = settingLine(this.#tools.runner, name, record.found);
      if (why !== undefined) throw new Failure('cannot set a sysctl', `"${line}" ${why}`, 'see -v');
      this.#journal.undone(number);
    }
  }

  #set(change: Extract<Change, { kind: 'sysctl' }>): void {
    const { runner } = this.#tools;
    const { name, value } = change;
    const fail = (why: string): void => {
      const line = settingLine(runner, name, value);
      const what = line.startsWith('sysctl') ? 'cannot set a sysctl' : 'cannot set up the firewall';
      const remedy = `run "${line}" where it is allowed`;
      if (!change.optional) throw new Failure(what, `"${line}": ${why}`, remedy);
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
      // A command that was killed may have done its work.
      const isUnfinished = error instanceof Error && 'isUnfinished' in error && error.isUnfinished;
      if (isUnfinished !== true) this.#journal.undone(number);
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
   * warned of, and stays in the journal. `isLocked`: the caller holds the directory's lock. `isKept`:
   * but for what `stays`.
   */
  async undo(isLocked: boolean, isKept: boolean): Promise<UndoReport> {
    const undone: string[] = [];
    const failed: string[] = [];
    for (const { number, record } of [...this.#journal.remaining].reverse()) {
      let why: string | undefined;
      if ('file' in record) {
        why = this.#files.putBack(record);
      } else if ('undo' in record) {
        if (isKept && record.stays) continue;
        if (record.ifDead && this.#isOwn) {
          this.#journal.undone(number);
          continue;
        }
        const steps = this.#takeBack(number, record);
        let step = steps.next();
        while (step.done !== true) step = steps.next(await this.#tools.runner.run(step.value));
        why = step.value;
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
  undoSync(isKept: boolean): UndoReport {
    const undone: string[] = [];
    const failed: string[] = [];
    const { runner } = this.#tools;
    for (const { number, record } of [...this.#journal.remaining].reverse()) {
      let why: string | undefined;
      if ('file' in record) {
        why = this.#files.putBack(record);
      } else if ('undo' in record) {
        if (isKept && record.stays) continue;
        // What goes with the device is left to the next start: nobody closes it any more.
        if (record.ifDead) continue;
        const steps = this.#takeBack(number, record);
        let step = steps.next();
        while (step.done !== true) step = steps.next(runner.runSync(step.value));
        why = step.value;
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

  /** Of an instance from before a reboot: the rest is gone. */
  undoFiles(): UndoReport {
    const undone: string[] = [];
    const failed: string[] = [];
    for (const { number, record } of [...this.#journal.remaining].reverse()) {
      if ('file' in record) this.#note(number, record, this.#files.putBack(record), undone, failed);
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
    const line = recordLine(record, this.#tools.runner);
    if (why === undefined) {
      this.#journal.undone(number);
      undone.push(line);
    } else {
      failed.push(line);
      this.#tools.warn(`cannot undo: "${line}" ${why}; run vpn cleanup`);
    }
  }

  /**
   * Yields the commands that take a change back, and is told how each ended. Returns undefined when the
   * change is not there any more, else why not. What fails is tried once more.
   */
  *#takeBack(
    number: number,
    record: CommandRecord,
  ): Generator<readonly string[], string | undefined, Outcome> {
    const { find, says } = record;
    let { undo } = record;
    if (says !== undefined) {
      const [, word] = new RegExp(says).exec(this.#journal.said(number)) ?? [];
      // It never came to say it, so nothing was changed.
      if (word === undefined) return undefined;
      undo = undo.map((one) => (one === FOUND ? word : one));
    }
    let why: string | undefined;
    for (let tries = 0; tries < 2; tries += 1) {
      let argv = undo;
      if (find !== undefined) {
        const listed = yield find.list;
        const line = listed.stdout.split('\n').find((one) => one.includes(find.holding));
        why = listed.status === 0 ? undefined : this.#judge(find.list, listed);
        if (why !== undefined) continue;
        if (listed.status !== 0) return undefined;
        if (line === undefined) return this.#isGone(undo);
        const word = line.trim().split(/\s+/).at(-1) ?? '';
        argv = undo.map((one) => (one === FOUND ? word : one));
      }
      why = this.#judge(argv, yield argv);
      if (why === undefined) return undefined;
    }
    return why;
  }

  /** Undefined when the change is not there any more, else why not. */
  #judge(argv: readonly string[], outcome: Outcome): string | undefined {
    if (outcome.status === 0) return undefined;
    if (!outcome.refused || !this.#tools.absent.test(outcome.stderr)) return outcome.reason;
    // A table that never got a route is flushed in vain; a rule that is gone was ours.
    return argv.includes('flush') ? undefined : this.#isGone(argv);
  }

  /** Warns once that the change that `argv` takes back is gone already. */
  #isGone(argv: readonly string[]): undefined {
    if (!this.#isOwn || this.#hasWarnedOfAbsence) return;
    this.#hasWarnedOfAbsence = true;
    this.#tools.warn(`somebody else removed what "${commandLine(argv)}" was to remove`);
  }

  /** Like `#takeBack`; a failing write is tried once more. */
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
