/**
 * The lines of a journal: a header, a line per record, a line per record taken back, each of JSON, and
 * what commands said that their undo needs. Only reading; journal.ts keeps the files.
 */
import type { HostFile } from './hostfiles.ts';

export const JOURNAL_VERSION = 1;

export interface Header {
  readonly version: number;
  /** /proc/sys/kernel/random/boot_id: no change we make survives a reboot, but for files. */
  readonly bootId: string;
  /** SO_NETNS_COOKIE, or the inode below where the kernel has none. */
  readonly netns: string;
  readonly netnsInode: number;
  readonly role: string;
  readonly tun: string;
  /** In the comment of each firewall line. */
  readonly tag: string;
  /** Routing tables and rule preferences of this instance, so that no two choose the same. */
  /** What the rules of its kill switch are called. */
  readonly switchName?: string;
  readonly mark: number;
  readonly linkMarks?: readonly number[];
  readonly tables: readonly number[];
  readonly preferences: readonly number[];
}

export type JournalRecord =
  | {
      readonly undo: readonly string[];
      /** Gives the word `FOUND` of `undo`: the last of the first line of `list` with `holding` in it. */
      readonly find?: { readonly list: readonly string[]; readonly holding: string };
      /** Gives it instead: what a regular expression finds in what the change itself said. */
      readonly says?: string;
      /** Only where the instance that made the change has died. */
      readonly ifDead?: true;
      /** Not at the end of its instance (`Row.stays`). */
      readonly stays?: true;
    }
  | {
      readonly sysctl: string;
      /** Before the first of the instances that share it. */
      readonly found: string;
      /** What the kernel changes along with it, as found. */
      readonly beside: Readonly<Record<string, string>>;
    }
  /** The one kind that outlives a reboot. */
  | {
      readonly file: string;
      /** What we write there: whatever else it holds later is somebody else's. */
      readonly wrote: string;
      readonly found: HostFile;
    };

/** A record and its number in the file. */
export interface Numbered {
  readonly number: number;
  readonly record: JournalRecord;
  /** What its command wrote into the journal. */
  readonly said?: string;
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;
const isWords = (value: unknown): boolean =>
  Array.isArray(value) && value.length > 0 && value.every((word) => typeof word === 'string');

function isRecord(value: unknown): value is JournalRecord {
  if (!isObject(value)) return false;
  if ('undo' in value) {
    if (!isWords(value.undo)) return false;
    const find = 'find' in value ? value.find : { list: ['-'], holding: '' };
    return isObject(find) && 'list' in find && isWords(find.list) && 'holding' in find;
  }
  if ('file' in value) {
    const { file } = value;
    return (
      typeof file === 'string' && 'wrote' in value && 'found' in value && isObject(value.found)
    );
  }
  return (
    'sysctl' in value &&
    typeof value.sysctl === 'string' &&
    'found' in value &&
    typeof value.found === 'string' &&
    'beside' in value &&
    isObject(value.beside)
  );
}

function isHeader(value: unknown): value is Header {
  return (
    typeof value === 'object' &&
    value !== null &&
    'version' in value &&
    'bootId' in value &&
    'netns' in value &&
    'tag' in value
  );
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/**
 * Reads a journal. A header that is missing or cut short gives undefined: nothing was changed yet. A
 * line cut short is a record whose change was not made, for it is synced first.
 */
export function parseJournal(
  text: string,
): { readonly header: Header; readonly remaining: readonly Numbered[] } | undefined {
  const [first = '', ...lines] = text.split('\n');
  const header = parseLine(first);
  if (!isHeader(header)) return undefined;
  const remaining = new Map<number, Numbered>();
  let last: Numbered | undefined;
  for (const text of lines) {
    const line = parseLine(text);
    if (!isObject(line)) {
      // Commands whose words are needed for their undo say them right behind its record.
      if (last !== undefined) last = { ...last, said: `${last.said ?? ''}${text}\n` };
      if (last !== undefined && remaining.has(last.number)) remaining.set(last.number, last);
    } else if ('undone' in line && typeof line.undone === 'number') {
      remaining.delete(line.undone);
    } else if ('number' in line && typeof line.number === 'number' && 'record' in line) {
      last = isRecord(line.record) ? { number: line.number, record: line.record } : undefined;
      if (last !== undefined) remaining.set(line.number, last);
    }
  }
  return { header, remaining: [...remaining.values()] };
}
