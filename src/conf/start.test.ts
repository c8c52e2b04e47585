import { equal, ok, throws } from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { EXIT_FAILURE } from '../report.ts';
import { fileArguments } from './mlvpnargs.ts';
import { prepare } from './start.ts';
import type { Ready } from './start.ts';

const folder = mkdtempSync(join(tmpdir(), 'vpn-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

async function prepared(content: string, ...more: readonly string[]): Promise<Ready | number> {
  const path = join(folder, 'home.conf');
  writeFileSync(path, content, { mode: 0o600 });
  const args = fileArguments(['-c', path, ...more]);
  ok(args !== undefined);
  return await prepare(args);
}

async function ready(content: string, ...more: readonly string[]): Promise<Ready> {
  const result = await prepared(content, ...more);
  ok(typeof result !== 'number');
  return result;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const server = (key: string): string => `[general]\nmode = server\n${key}\n[l]\nbindport = 1\n`;

describe('starting with a file', () => {
  it('has the key of the password', async () => {
    // The vector of PROTOCOL §2.1.
    const expected = '73d7ab9fca7a1840c1b482a486f86dd71a83082e823d698370eb2aca44a3764a';
    equal(hex((await ready(server('password = "pleasechangeme!"'))).key), expected);
  });

  it('has the key of the key file', async () => {
    const path = join(folder, 'key');
    const key = new Uint8Array(32).fill(0xa5);
    writeFileSync(path, key, { mode: 0o600 });
    equal(hex((await ready(server(`key_file = ${path}`))).key), hex(key));
  });

  it('has what the command line says in place of the file', async () => {
    const { config, daemon } = await ready(
      server('password = x\nname = a'),
      '-n',
      'b',
      '-v',
      '--dry-run',
    );
    equal(daemon.name, 'b');
    equal(daemon.verbosity, 1);
    ok(config.dryRun);
  });

  it('reads the file again', async () => {
    const { file } = await ready(server('password = x'));
    const rewrite = (content: string) => {
      writeFileSync(join(folder, 'home.conf'), content, { mode: 0o600 });
      return file.reread();
    };
    const same = rewrite(server('password = x\ntimeout = 20'));
    equal(same.isPasswordChanged, false);
    equal(same.settings.general.number('timeout'), 20);
    equal(rewrite(server('password = y')).isPasswordChanged, true);
    throws(() => rewrite(server('password = x\nkill_switch = 1\nx = 1')), {
      message: `nothing was changed: ${join(folder, 'home.conf')}:5: unknown key "x"; see vpn.conf(5)`,
    });
  });

  it('ends when the file is wrong', async () => {
    equal(await prepared(server('password = x\nmtu = 1')), EXIT_FAILURE);
  });
});
