/** The list of changes in doc/, and the build without default routes, against the tables in src/os. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { run } from './daemon.ts';
import { page, PAGE, rowsByMode } from './hosttables.ts';

describe('the tables of changes', () => {
  it('are what doc/changes.md says', () => {
    const advice = 'run node test/hosttables.ts --write';
    assert.equal(readFileSync(PAGE, 'utf8'), page(), advice);
  });

  it('of the build without default routes are those of the modes without them', () => {
    const program = join(import.meta.dirname, 'hosttables.ts');
    const { status, stdout, stderr } = run([
      'env',
      'NO_DEFAULT_ROUTES=1',
      process.execPath,
      program,
      '--json',
    ]);
    assert.equal(status, 0, stderr);
    const built = JSON.parse(stdout) as ReturnType<typeof rowsByMode>;
    const all = rowsByMode();
    for (const [mode, rows] of Object.entries(all)) {
      // In that build no row may need default routes, so a role has the rows of its mode without.
      const [system, title = ''] = mode.split(' ');
      const without = all[`${system} ${title.replace(/^[SC]$/, '$&n')}`];
      if (/ (Sn|Cn|Cr)$/.test(mode)) assert.deepEqual(built[mode], rows, mode);
      else assert.ok(rows.length > (without?.length ?? 0), mode);
    }
    const text = JSON.stringify(built);
    assert.doesNotMatch(
      text,
      /MASQUERADE|SNAT|masquerade|nat-to|"need":"[^"]*(default|everything)/,
    );
    const forwarding = Object.values(built)
      .flat()
      .filter((row) => /forward(ing"|$)|ip_forward/.test(row));
    // Only where it is asked for, which says what is let through.
    for (const row of forwarding) assert.match(row, /"need":"site\b/);
    assert.ok(forwarding.length > 0);
  });
});
