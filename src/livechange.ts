/**
 * From what a running instance has changed on its host to what it is to have changed, without a moment
 * in which neither is there: what is new is made first, then what is no more is taken back, newest first.
 */
import type { Changes } from './changes.ts';
import { reason } from './report.ts';
import type { Change } from './rules.ts';

/** Runs of `everySession` and the like that take back at once stand for nothing that stays. */
const isLasting = (change: Change): boolean => change.kind !== 'command' || change.revert !== true;

const textOf = (change: Change): string => JSON.stringify(change);

/** What both would be taken back by: one of them is left for the other. */
function undoOf(change: Change): string {
  if (change.kind === 'sysctl') return change.name;
  if (change.kind === 'file') return change.file;
  const { down, remove = [], find } = change;
  return JSON.stringify([...(down.length > 0 ? down : remove), find?.holding]);
}

/** What leads from one to the other, in the order in which it is to be done. */
export function differenceOf(
  before: readonly Change[],
  after: readonly Change[],
): { readonly added: readonly Change[]; readonly removed: readonly Change[] } {
  const [old, now] = [before.filter(isLasting), after.filter(isLasting)];
  const known = new Set(old.map(textOf));
  const kept = new Set(now.map(undoOf));
  return {
    added: now.filter((change) => !known.has(textOf(change))),
    removed: old.filter((change) => !kept.has(undoOf(change))).reverse(),
  };
}

/**
 * Makes and takes back what differs. Throws a `Failure` when something new cannot be made: then what was
 * there is there as before. What cannot be taken back is handed to `warn`.
 */
export async function changeLive(
  changes: Changes,
  before: readonly Change[],
  after: readonly Change[],
  isStopped: () => boolean,
  warn: (line: string) => void,
): Promise<void> {
  const { added, removed } = differenceOf(before, after);
  const takeBack = async (change: Change): Promise<void> => {
    await changes.remove(change).catch((error: unknown) => warn(reason(error)));
  };
  const made: Change[] = [];
  for (const change of added) {
    try {
      await changes.apply([change], isStopped);
    } catch (error) {
      // One that was killed may have done its work; then it is in the journal.
      const isJournalled = change.kind !== 'command' || change.down.length > 0;
      for (const one of isJournalled ? [change, ...made] : made) await takeBack(one);
      throw error;
    }
    made.unshift(change);
  }
  for (const change of removed) await takeBack(change);
}
