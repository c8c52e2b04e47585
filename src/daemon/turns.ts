/**
 * Work that can wait for its turn: a few jobs in each turn of the event loop, so that between any two
 * handfuls the tunnel gets what has arrived meanwhile, however many ask for status.
 */

/** An answer of some kilobytes costs 20 µs; the socket's buffer holds the packets of a hundred times that. */
const JOBS_PER_TURN = 8;

export class Turns {
  private jobs: (() => void)[] = [];
  private immediate: NodeJS.Immediate | undefined = undefined;

  /** Runs `job` in one of the next turns, after all that were added before. */
  add(job: () => void): void {
    this.jobs.push(job);
    this.immediate ??= setImmediate(this.run);
  }

  /** What still waits is dropped. */
  close(): void {
    clearImmediate(this.immediate);
    this.immediate = undefined;
    this.jobs = [];
  }

  private readonly run = (): void => {
    this.immediate = undefined;
    for (const job of this.jobs.splice(0, JOBS_PER_TURN)) job();
    if (this.jobs.length > 0) this.immediate ??= setImmediate(this.run);
  };
}
