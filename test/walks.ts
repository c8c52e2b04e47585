/**
 * The documents that show vpn as a new user meets it, made by doing it: `node test/walks.ts [NAME]` prints the
 * walks, `--write` puts them into doc/.
 */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Bed, lacking } from './netns.ts';
import * as dsvpn from './walk-dsvpn.ts';
import * as mlvpn from './walk-mlvpn.ts';

/** Beside those of every host. */
export const TOOLS = ['unshare', 'nsenter', 'script', 'nft', 'tcpdump', 'diff', 'sha256sum'];

export interface Document {
  readonly file: string;
  /** Does all of it, on hosts of its own. */
  readonly text: (bed: Bed) => Promise<string>;
}

const INTRODUCTION =
  'Made by `node test/walks.ts --write`, which runs each command below on hosts in network namespaces; a test runs them again and compares. Ports, numbers that were free, times, rates and keys are others each time, and always the same here.';

const document = (
  name: string,
  title: string,
  picture: string,
  walk: Document['text'],
): Document => ({
  file: resolve(import.meta.dirname, '../doc', name),
  text: async (bed) => [`# ${title}`, INTRODUCTION, picture, await walk(bed)].join('\n\n'),
});

export const DOCUMENTS: readonly Document[] = [
  document('walk-dsvpn.md', dsvpn.TITLE, dsvpn.PICTURE, dsvpn.walkDsvpn),
  document('walk-mlvpn.md', mlvpn.TITLE, mlvpn.PICTURE, mlvpn.walkMlvpn),
];

async function main(words: readonly string[]): Promise<void> {
  const lack = lacking(TOOLS);
  if (lack !== false) throw new Error(lack);
  const names = words.filter((word) => word !== '--write');
  for (const { file, text } of DOCUMENTS) {
    if (names.length > 0 && !names.some((name) => file.includes(name))) continue;
    const bed = new Bed();
    try {
      const made = await text(bed);
      if (words.includes('--write')) writeFileSync(file, made);
      else process.stdout.write(made);
    } catch (error) {
      process.stderr.write(`${bed.logs()}\n`);
      throw error;
    } finally {
      await bed.close();
    }
  }
}

if (import.meta.main) await main(process.argv.slice(2));
