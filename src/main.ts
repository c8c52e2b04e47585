/** The program. Everything is in cli.ts, which tests can import without running it. */
import { main } from './cli.ts';

// Ends even if a handle was forgotten: the host is undone by now, and nobody waits for a hanging exit.
// Nothing is cut off, since stderr is synchronous on every system we run on (node: process I/O).
void main(process.argv.slice(2)).then((status) => process.exit(status));
