/**
 * A stand-in as a program: `node program.ts <state folder> <system> <name> <words>`. The state is a file
 * in the folder; a file `kill-at` with a number kills the parent behind that many changes.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StandIn, type SystemName } from './bsd.ts';

const [folder = '', system = '', ...argv] = process.argv.slice(2);
const stateFile = join(folder, 'state.json');
const state = JSON.parse(readFileSync(stateFile, 'utf8'));
const standIn = new StandIn(system as SystemName, state);
const readsInput = argv.includes('-f') || argv.includes('/dev/stdin');
const isInput = readsInput && !StandIn.isProbe(argv) && argv[0] !== 'netstat';
const { status, stdout, stderr } = standIn.run(argv, isInput ? readFileSync(0, 'utf8') : '');
process.stdout.write(stdout);
process.stderr.write(stderr);
if (!StandIn.isProbe(argv)) {
  writeFileSync(stateFile, JSON.stringify(standIn.state));
  const killFile = join(folder, 'kill-at');
  if (existsSync(killFile)) {
    const left = Number(readFileSync(killFile, 'utf8')) - 1;
    writeFileSync(killFile, String(left));
    if (left === 0) process.kill(process.ppid, 'SIGKILL');
  }
}
process.exitCode = status;
