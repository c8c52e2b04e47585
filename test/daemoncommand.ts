/** Runs one of the commands that ask an instance: `COMMAND STATE_DIR [--json] [-n NAME] WORDS…`. */
import * as commands from '../src/daemon/commands.ts';
import { fail } from '../src/report.ts';

const RUN: Readonly<Record<string, (args: commands.CommandArguments) => Promise<number>>> = {
  status: commands.statusCommand,
  top: commands.topCommand,
  check: commands.checkCommand,
  events: commands.eventsCommand,
  reset: commands.resetCommand,
  reload: commands.reloadCommand,
  stop: commands.stopCommand,
  link: commands.linkCommand,
};

const [name, stateDir, ...rest] = process.argv.slice(2);
const options = new Map<string, readonly string[]>([['state-dir', [stateDir]]]);
const words: string[] = [];
while (rest.length > 0) {
  const word = rest.shift() ?? '';
  if (word === '--json') options.set('json', ['']);
  else if (word === '-n') options.set('name', [rest.shift() ?? '']);
  else words.push(word);
}
process.exit(await RUN[name]({ words, options }).catch(fail));
