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

  private advance(counter: number): void {
    const from = Math.floor(this.highest / BLOCK_BITS);
    const to = Math.floor(counter / BLOCK_BITS);
    const cleared = Math.min(to - from, BLOCKS);
    for (let i = 1; i <= cleared; i++) this.blocks[(from + i) & (BLOCKS - 1)] = 0;
    this.highest = counter;
  }
}
