/** Which word a user meant. Pure. */

/** Which of the `known` words was meant; undefined if it looks like none. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((candidate) => ({ candidate, distance: editDistance(word, candidate) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = ranked;
  // Beyond a third of the word it is no misspelling, and a guess would only mislead.
  const isNear = best !== undefined && best.distance <= Math.max(2, word.length / 3);
  return isNear ? best.candidate : undefined;
}

/** Levenshtein's distance; words are a few letters long. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}
