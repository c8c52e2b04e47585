/**
 * The numbers that an instance has for itself in its network namespace: firewall marks, routing tables,
 * rule preferences. Decides; changes nothing.
 */
import type { Facts } from './facts.ts';
import type { Header } from './journal.ts';
import { Failure } from './report.ts';
import type { HostSettings } from './situation.ts';

/** What one instance has for itself in its network namespace. */
export interface Numbers {
  readonly mark: number;
  readonly table: number;
  readonly tableOut: number;
  /** First of PREFERENCES preferences. */
  readonly preference: number;
  readonly links: readonly LinkNumbers[];
}

/** What one link has for itself. */
export interface LinkNumbers {
  readonly mark: number;
  readonly table: number;
  readonly preference: number;
}

/** What the journal of another instance says that it has. */
export type TakenNumbers = Pick<Header, 'mark' | 'linkMarks' | 'tables' | 'preferences'>;

/**
 * Marks and tables are 0x1000 + k: clear of the bits that Kubernetes (0x4000, 0x8000), Tailscale
 * (0xff0000) and Cilium (0xf00) match by mask. Rules stand in front of table main (32766), behind
 * what an administrator put at small numbers.
 */
export const FIRST_NUMBER = 0x1000;
export const MARKS_MASK = 0xffffff00;
const FIRST_TABLE_OUT = 0x1100;
const FIRST_TABLE_OF_LINKS = 0x1200;
const FIRST_PREFERENCE = 28_000;
/** In front of the rules of every instance: a link's packets are none of their business. */
const FIRST_PREFERENCE_OF_LINKS = 27_000;
const CANDIDATES = 256;
export const PREFERENCES = 4;
const MOST_MARK = 2 ** 32 - 1;

/** Numbers that neither the host nor another instance of this namespace (`others`) uses. Throws a `Failure`. */
export function chooseNumbers(
  settings: Pick<HostSettings, 'tun' | 'mark' | 'table' | 'mostLinks'>,
  facts: Pick<Facts, 'tables' | 'rules'>,
  others: readonly TakenNumbers[],
): Numbers {
  const tables = new Set([
    ...facts.tables,
    ...facts.rules.map((rule) => rule.table),
    ...others.flatMap((other) => other.tables),
  ]);
  const preferences = new Set([
    ...facts.rules.map((rule) => rule.preference),
    ...others.flatMap((other) => other.preferences),
  ]);
  const isMarkTaken = (mark: number): boolean =>
    others.some((other) => other.mark === mark || other.linkMarks?.includes(mark)) ||
    facts.rules
      // The rules of our own kind exempt the marks of all of us.
      .filter((rule) => rule.mark !== FIRST_NUMBER || rule.mask !== MARKS_MASK)
      .some((rule) => rule.mark !== 0 && ((mark ^ rule.mark) & rule.mask) === 0);
  if (settings.table !== 0 && tables.has(settings.table)) {
    throw new Failure(
      `routing table ${settings.table}`,
      'it is in use',
      'give another, or leave --table out',
    );
  }
  const index = Number(/\d+$/.exec(settings.tun)?.[0] ?? 0);
  const count = settings.mostLinks ?? 0;
  if (settings.mark !== 0) checkLinkMarks(settings.mark, count, isMarkTaken);
  for (const k of candidates(process.pid * 7 + index, count + 1)) {
    const table = settings.table === 0 ? FIRST_NUMBER + k : settings.table;
    const mark = settings.mark === 0 ? FIRST_NUMBER + k : settings.mark;
    const tableOut = FIRST_TABLE_OUT + k;
    const preference = FIRST_PREFERENCE + PREFERENCES * k;
    // Behind the instance's own mark and within the same 256, so that one mask fits all.
    const links = Array.from({ length: count }, (_, j) => ({
      mark: mark + 1 + j,
      table: FIRST_TABLE_OF_LINKS + k + 1 + j,
      preference: FIRST_PREFERENCE_OF_LINKS + k + 1 + j,
    }));
    const isFree =
      k + count < CANDIDATES &&
      !tables.has(table) &&
      !tables.has(tableOut) &&
      (settings.mark !== 0 || ![mark, ...links.map((one) => one.mark)].some(isMarkTaken)) &&
      [0, 1, 2, 3].every((offset) => !preferences.has(preference + offset)) &&
      links.every((one) => !tables.has(one.table) && !preferences.has(one.preference));
    if (isFree) return { mark, table, tableOut, preference, links };
  }
  throw new Failure('cannot choose a routing table', 'all of ours are in use', 'run vpn cleanup');
}

/**
 * Places to try for an instance that takes `stride` of them in a row: first those in step with others of
 * its size, so that as many as possible find room beside each other.
 */
function* candidates(from: number, stride: number): Generator<number> {
  const slots = Math.max(1, Math.floor(CANDIDATES / stride));
  for (let i = 0; i < slots; i += 1) yield ((from + i) % slots) * stride;
  for (let i = 0; i < CANDIDATES; i += 1) yield (from + i) % CANDIDATES;
}

/** A mark that was asked for is taken as it is; those behind it, which the links get, must be free. */
function checkLinkMarks(mark: number, count: number, isTaken: (mark: number) => boolean): void {
  for (let i = 1; i <= count; i += 1) {
    if (mark + i <= MOST_MARK && !isTaken(mark + i)) continue;
    throw new Failure(
      `firewall mark ${mark}`,
      `${mark + i}, for a link, is in use or too large`,
      'give another, or leave --mark out',
    );
  }
}
