/**
 * Which of the last sequences of each flow bucket were delivered: a bit per sequence, in a ring. Who
 * moves a bucket on sets or clears the bit of every sequence it passes, so that nothing stays behind
 * from `WINDOW` sequences earlier.
 */

/** Sequences per bucket that are known. A power of two that divides 2²⁴. */
export const WINDOW = 8_192;
const WORD_BITS = 32;
const WORDS = WINDOW / WORD_BITS;

export class Delivered {
  private readonly words: Uint32Array;

  constructor(buckets: number) {
    this.words = new Uint32Array(buckets * WORDS);
  }

  has(bucket: number, sequence: number): boolean {
    return (this.words[this.wordOf(bucket, sequence)] & (1 << sequence)) !== 0;
  }

  set(bucket: number, sequence: number): void {
    this.words[this.wordOf(bucket, sequence)] |= 1 << sequence;
  }

  /** Clears `count` sequences from `first` on; of more than `WINDOW` nothing is left to clear. */
  unset(bucket: number, first: number, count: number): void {
    const end = first + Math.min(count, WINDOW);
    let sequence = first;
    while (sequence < end) {
      const inWord = Math.min(WORD_BITS - (sequence % WORD_BITS), end - sequence);
      // A shift by 32 would be one by none.
      const ones = inWord === WORD_BITS ? -1 : (1 << inWord) - 1;
      this.words[this.wordOf(bucket, sequence)] &= ~(ones << sequence);
      sequence += inWord;
    }
  }

  clear(): void {
    this.words.fill(0);
  }

  /** Shifts take their count modulo 32, so the bit in the word is the sequence itself. */
  private wordOf(bucket: number, sequence: number): number {
    return bucket * WORDS + ((sequence & (WINDOW - 1)) >>> 5);
  }
}
