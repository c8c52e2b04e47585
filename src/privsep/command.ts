/** How the monitor starts its worker. */

/** A command that no help shows. */
export const WORKER_COMMAND = 'worker';
/** Where the worker finds its end of the channel: behind the standard three. */
export const CHANNEL_DESCRIPTOR = 3;
