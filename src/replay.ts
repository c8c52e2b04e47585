/**
 * The replay window of one link under one key (RFC 6479: a ring of blocks, cleared as it moves on, so
 * that nothing is ever shifted).
 */
import { REPLAY_WINDOW } from './constants.ts';

const BLOCK_BITS = 32;
/** One block more than the window, since the newest block is only partly filled. A power of two. */
const BLOCKS = (2 * REPLAY_WINDOW) / BLOCK_BITS;

export class ReplayWindow {
  /** The highest counter accepted; −1 before the first. */
  highest = -1;
  private readonly blocks = new Uint32Array(BLOCKS);

  /**
   * The 64-bit counter that `low`, its low 32 bits, stands for: the value nearest to the next expected
   * one (PROTOCOL §4). Only a guess until the datagram has opened under it.
   */
  expand(low: number): number {
    const expected = this.highest + 1;
    const base = expected - (expected % 2 ** 32);
    const candidate = base + low;
    if (candidate > expected + 2 ** 31 && candidate >= 2 ** 32) return candidate - 2 ** 32;
    if (candidate <= expected - 2 ** 31) return candidate + 2 ** 32;
    return candidate;
  }

  /** Whether `counter` is new; if so it is not new any more. Only for what has opened. */
  accept(counter: number): boolean {
    if (counter > this.highest) {
      this.advance(counter);
    } else if (counter <= this.highest - REPLAY_WINDOW) {
      return false;
    }
    const block = Math.floor(counter / BLOCK_BITS) & (BLOCKS - 1);
    const bit = 1 << (counter & (BLOCK_BITS - 1));
    if ((this.blocks[block] & bit) !== 0) return false;
    this.blocks[block] |= bit;
    return true;
  }

  /**
   * What was received, from `highest` down to `floor` or as far as the window goes: lengths of runs,
   * received and missing in turn. Returns how many, `limit` at most.
   */
  runs(floor: number, to: Uint16Array, limit: number): number {
    const lowest = Math.max(0, floor, this.highest - REPLAY_WINDOW + 1);
    let count = 0;
    let isReceived = 1;
    let length = 0;
    for (let counter = this.highest; counter >= lowest; counter--) {
      const block = this.blocks[Math.floor(counter / BLOCK_BITS) & (BLOCKS - 1)];
      const low = counter & (BLOCK_BITS - 1);
      const isWhole = low === BLOCK_BITS - 1 && counter - BLOCK_BITS + 1 >= lowest;
      if (isWhole && block === (isReceived === 1 ? 0xffffffff : 0)) {
        length += BLOCK_BITS;
        counter -= BLOCK_BITS - 1;
        continue;
      }
      if (((block >>> low) & 1) !== isReceived) {
        if (count === limit) return count;
        to[count++] = length;
        length = 0;
        isReceived ^= 1;
      }
      length++;
    }
    if (length > 0 && count < limit) to[count++] = length;
    return count;
  }

  private advance(counter: number): void {
    const from = Math.floor(this.highest / BLOCK_BITS);
    const to = Math.floor(counter / BLOCK_BITS);
    const cleared = Math.min(to - from, BLOCKS);
    for (let i = 1; i <= cleared; i++) this.blocks[(from + i) & (BLOCKS - 1)] = 0;
    this.highest = counter;
  }
}
