/** Sets a host of stand-ins up and waits to be killed: `node victim.ts <journals> <system> <case>`. */
import { PLATFORMS } from '../../src/os.ts';
import { bringUp } from './host.ts';
import { casesOf } from './plans.ts';
import type { SystemName } from './bsd.ts';

const [journalDir = '', system = '', name = ''] = process.argv.slice(2);
const platform = PLATFORMS[system];
const settings = casesOf(system as SystemName)[name];
if (platform === undefined || settings === undefined) throw new Error('no such case');
const setup = await bringUp(settings, {
  deps: {
    native: { netnsCookie: () => '', lockFile: () => true },
    journalDir,
    path: process.env.PATH ?? '',
    log: () => undefined,
    warn: (line) => process.stderr.write(`${line}\n`),
    platform,
  },
});
await setup.undo();
