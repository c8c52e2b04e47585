/**
 * Every way out leads to undo: signals by way of `onStop`, a bug or a forgotten exit by the last resort.
 * Further signals while undoing change nothing, so that impatience leaves no rule behind.
 */
import { fail } from './report.ts';
import type { HostSetup } from './setup.ts';

export interface Guard {
  /** From now on there is something to undo. */
  protect(setup: HostSetup): void;
  /** Calls `stop` at the first stop signal, also one that came before. */
  onStop(stop: () => void): void;
  /** As a stop signal does. */
  stop(): void;
  /** Whether it has come. */
  readonly isStopped: boolean;
  release(): void;
}

/** `signals` are those that stop. */
export function guardHost(signals: readonly NodeJS.Signals[]): Guard {
  let setup: HostSetup | undefined;
  let isStopped = false;
  let stop = (): void => {};
  const onSignal = (): void => {
    isStopped = true;
    stop();
  };
  const onExit = (): void => setup?.undoSync();
  const onBug = (error: unknown): void => {
    const status = fail(error);
    setup?.undoSync();
    process.exit(status);
  };
  for (const signal of signals) process.on(signal, onSignal);
  process.on('exit', onExit);
  process.on('uncaughtException', onBug);
  return {
    protect: (made) => {
      setup = made;
    },
    onStop: (callback) => {
      stop = callback;
      if (isStopped) callback();
    },
    stop: onSignal,
    get isStopped() {
      return isStopped;
    },
    release: () => {
      process.off('exit', onExit);
      process.off('uncaughtException', onBug);
    },
  };
}
