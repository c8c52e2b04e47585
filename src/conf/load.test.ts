import { deepEqual, equal, ok, throws } from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { Failure, UsageFailure } from '../report.ts';
import { loadSettings } from './load.ts';

const folder = mkdtempSync(join(tmpdir(), 'vpn-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const SERVER = '[general]\nmode = server\npassword = "hunter2 " # c\n[l]\nbindport = 1\n';

function file(name: string, content: string, mode = 0o600): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

describe('reading a configuration file', () => {
  it('gives settings, and the password as bytes that are wiped afterwards', () => {
    let seen: string | undefined;
    let kept: Uint8Array | undefined;
    const { settings, problems } = loadSettings(file('a.conf', SERVER), [], (password) => {
      seen = Buffer.from(password).toString();
      kept = password;
    });
    equal(seen, 'hunter2 ');
    ok(kept?.every((byte) => byte === 0));
    equal(settings?.mode, 'server');
    equal(settings?.passwordLine, 3);
    ok(!JSON.stringify([...problems]).includes('hunter2'));
  });

  it('does not hand out the password of a file that is wrong', () => {
    const path = file('b.conf', `${SERVER}nonsense = 1\n`);
    const { settings, problems } = loadSettings(path, [], () => {
      throw new Error('handed out');
    });
    equal(settings, undefined);
    deepEqual(
      problems.filter(({ severity }) => severity === 'error').map(({ text }) => text),
      [`${path}:6: unknown key "nonsense"; see vpn.conf(5)`],
    );
  });

  for (const mode of [0o640, 0o604, 0o620, 0o610, 0o644]) {
    it(`refuses a file of mode ${mode.toString(8)}`, () => {
      const path = file('c.conf', SERVER, mode);
      const why = `open to group or others (mode 0${mode.toString(8)})`;
      const message = `configuration file "${path}": ${why}; run chmod 600 ${path}`;
      throws(() => loadSettings(path, []), { constructor: Failure, message });
    });
  }

  for (const mode of [0o600, 0o400, 0o700]) {
    it(`takes a file of mode ${mode.toString(8)}`, () => {
      ok(loadSettings(file(`d${mode}.conf`, SERVER, mode), []).settings !== undefined);
    });
  }

  it('says what cannot be read', () => {
    const missing = join(folder, 'none.conf');
    throws(() => loadSettings(missing, []), {
      constructor: Failure,
      message: `cannot read configuration file "${missing}": no such file or directory; give the file with --config`,
    });
    throws(() => loadSettings(folder, []), /illegal operation on a directory; give a file$/);
    const large = file('e.conf', `${SERVER}${'#'.repeat(300_000)}\n`);
    throws(() => loadSettings(large, []), /larger than 256 KiB; give a configuration file$/);
  });

  it('blames the command line for its own values', () => {
    const override = { key: 'mtu', text: 'x', option: '--mtu' };
    throws(() => loadSettings(file('f.conf', SERVER), [override]), UsageFailure);
  });
});
