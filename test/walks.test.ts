/** The walks of doc/: each command is run again, and must print what stands there. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { describe } from 'node:test';
import { netTest } from './netns.ts';
import { DOCUMENTS, TOOLS } from './walks.ts';

const AROUND = 6;

// They have nothing in common, and wait most of the time.
void describe('what happens is what stands in doc/', { concurrency: true }, () => {
  for (const { file, text } of DOCUMENTS) {
    netTest(basename(file), TOOLS, async (bed) => {
      const [happens, stands] = [await text(bed), readFileSync(file, 'utf8')];
      assert.ok(happens === stands, difference(happens.split('\n'), stands.split('\n')));
    });
  }
});

/** Of either, the first lines that differ, and some before. */
function difference(happens: readonly string[], stands: readonly string[]): string {
  const first = happens.findIndex((line, i) => line !== stands[i]);
  const part = (lines: readonly string[]): string =>
    lines.slice(Math.max(0, first - AROUND), first + AROUND).join('\n');
  return [
    'to write it anew: node test/walks.ts --write',
    `── what happens, around line ${first + 1}`,
    part(happens),
    '── what stands in doc/',
    part(stands),
  ].join('\n');
}
