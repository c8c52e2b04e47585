/**
 * Files that an instance writes while it runs (`Row.file`): journalled first, kept ours, and put back only
 * where nobody else has written them meanwhile.
 */
import type { Tools } from './changes.ts';
import { isSameFile, plainFile, textOf } from './hostfiles.ts';
import type { HostFile, HostFiles } from './hostfiles.ts';
import type { Journal } from './journal.ts';
import type { JournalRecord } from './record.ts';
import { Failure } from './report.ts';
import { commandLine, typed } from './rules.ts';
import type { Change } from './rules.ts';

type FileRecord = Extract<JournalRecord, { readonly file: string }>;

/** How often a file is written again that another program insists on. */
const MOST_REWRITES = 100;

/** What the system says, without its name for it. */
export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message.replace(/^[A-Z]+: ([^,]*),.*$/, '$1') : String(error);

/** Putting a file back, as one would type it, in one line. */
export function fileLine(path: string, file: HostFile): string {
  switch (file.kind) {
    case 'none':
      return commandLine(['rm', path]);
    case 'link':
      return commandLine(['ln', '-sfn', file.target, path]);
    case 'file':
      return `${commandLine(['tee', path])} # what was there`;
  }
}

/** Writing a file, as one would type it. */
export const textLines = (path: string, text: string): readonly string[] =>
  typed(['tee', path], text);

export class FileChanges {
  readonly #journal: Journal;
  readonly #tools: Tools;
  readonly #isOwn: boolean;
  #rewrites = 0;

  /** `isOwn` as for `Changes`. */
  constructor(journal: Journal, tools: Tools, isOwn: boolean) {
    this.#journal = journal;
    this.#tools = tools;
    this.#isOwn = isOwn;
  }

  /**
   * Within the directory's lock. Also again and again: what another program has put there meanwhile is what
   * is put back then. Throws a `Failure`.
   */
  write({ file, text }: Extract<Change, { kind: 'file' }>): void {
    const { files } = this.#tools.runner;
    if (files === undefined) throw cannotSet(file, 'not on this system');
    const mine = plainFile(text);
    const found = readOrFail(files, file);
    if (isSameFile(found, mine)) return;
    const older = this.#journal.remaining.filter(
      ({ record }) => 'file' in record && record.file === file,
    );
    if (older.length > 0 && !this.#mayRewrite(file)) return;
    const number = this.#journal.append({ file, wrote: text, found: this.#behind(file, found) });
    try {
      files.write(file, mine);
    } catch (error) {
      if (isUntouched(files, file, found)) this.#journal.undone(number);
      throw cannotSet(file, messageOf(error));
    }
    for (const one of older) this.#journal.undone(one.number);
  }

  #mayRewrite(file: string): boolean {
    this.#rewrites += 1;
    if (this.#rewrites === MOST_REWRITES) {
      this.#tools.warn(`another program insists on "${file}": left to it`);
    }
    return this.#rewrites < MOST_REWRITES;
  }

  /** What was there before all of us: another instance, which may end first, has written what we find. */
  #behind(file: string, found: HostFile): HostFile {
    for (const { path, remaining } of this.#tools.directory.peek()) {
      if (path === this.#journal.path) continue;
      for (const { record } of remaining) {
        if (!('file' in record) || record.file !== file) continue;
        if (isSameFile(plainFile(record.wrote), found)) return record.found;
      }
    }
    return found;
  }

  /**
   * Undefined when the file is no longer ours, else why not; what fails is tried once more. Never throws.
   */
  putBack({ file, wrote, found }: FileRecord): string | undefined {
    const { files } = this.#tools.runner;
    let why: string | undefined = 'failed: not on this system';
    for (let tries = 0; files !== undefined && tries < 2; tries += 1) {
      try {
        files.tidy(file);
        const now = files.read(file);
        const text = textOf(now);
        // One that is written in place may have been cut short.
        const isOurs = text !== undefined && wrote.startsWith(text);
        if (isOurs) files.write(file, found);
        else if (this.#isOwn && !isSameFile(now, found)) {
          this.#tools.warn(`another program has changed "${file}": left as it is`);
        }
        return undefined;
      } catch (error) {
        why = `failed: ${messageOf(error)}`;
      }
    }
    return why;
  }
}

const cannotSet = (file: string, why: string): Failure =>
  new Failure('cannot set the name servers', `"${file}": ${why}`, 'leave --dns out');

function readOrFail(files: HostFiles, file: string): HostFile {
  try {
    return files.read(file);
  } catch (error) {
    throw cannotSet(file, messageOf(error));
  }
}

/** Whether a write that failed has changed nothing. */
function isUntouched(files: HostFiles, path: string, found: HostFile): boolean {
  try {
    return isSameFile(files.read(path), found);
  } catch {
    return false;
  }
}
