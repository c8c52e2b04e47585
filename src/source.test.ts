/** Rules about the source that a search can check (doc: which module owns what). */
import { deepEqual, ok } from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const FOLDER = import.meta.dirname;
const modules = readdirSync(FOLDER, { recursive: true, encoding: 'utf8' })
  .filter((name) => /(?<!\.test|\.d)\.ts$/.test(name))
  .map((name) => ({ name, code: withoutComments(readFileSync(join(FOLDER, name), 'utf8')) }));

/** What is searched for, and the modules that may have it. */
const OWNERS: readonly (readonly [string, RegExp, readonly string[]])[] = [
  ['the system is told apart', /process\.platform/, ['os.ts']],
  [
    // rules.ts limits how long a command may run; journal.ts waits for another instance's lock;
    // selftest.ts is a host of its own; page.ts runs in a browser.
    'the clock is read and timers are made',
    /\b(Date\.now|performance\.now|setTimeout|setInterval|process\.hrtime)\b/,
    [
      ...['runtime.ts', 'resolve.ts', 'rules.ts', 'journal.ts', 'selftest.ts'],
      ...['daemon/clock.ts', 'daemon/page.ts'],
    ],
  ],
  ['stderr is written', /\bconsole\.|process\.stderr/, ['report.ts']],
  ['stdout is written', /process\.stdout/, ['daemon/terminal.ts']],
  ['programs are run', /child_process/, ['rules.ts', 'daemon/programs.ts', 'privsep/process.ts']],
  ['native code is loaded', /process\.dlopen/, ['native.ts', 'assets.ts']],
  ['the process is ended', /process\.exit\b/, ['main.ts', 'guard.ts']],
  ['libsodium is called', /from 'sodium-native'/, ['crypto.ts']],
];

function withoutComments(code: string): string {
  return code.replaceAll(/\/\*[^]*?\*\/|(?<=^|\s)\/\/.*$/gm, '');
}

describe('the source', () => {
  for (const [what, pattern, owners] of OWNERS) {
    it(`has one place where ${what}: ${owners.join(', ') || 'none'}`, () => {
      const found = modules.filter(({ code }) => pattern.test(code)).map(({ name }) => name);
      deepEqual(
        found.filter((name) => !owners.includes(name)),
        [],
      );
    });
  }

  it('has no default exports, no "any" and no modules for odds and ends', () => {
    for (const { name, code } of modules) {
      ok(!/export default/.test(code), `${name}: default export`);
      ok(!/(:|as|<) ?any\b/.test(code), `${name}: any`);
      ok(!/^(utils?|helpers?|misc)\.ts$/.test(name), name);
    }
  });
});
