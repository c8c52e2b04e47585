/** The files by which systems start `vpn`: that they are right in themselves, and name what there is. */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, describe, it } from 'node:test';
import { inPath } from '../../test/netns.ts';
import { fileArguments } from '../conf/mlvpnargs.ts';
import { parseIni } from '../conf/ini.ts';
import { Problems } from '../conf/problem.ts';
import { checkOptions, parseArguments } from '../options.ts';

const HERE = import.meta.dirname;
const MAIN = resolve(HERE, '../main.ts');
const folder = mkdtempSync(join(tmpdir(), 'vpn-service-'));
after(() => rmSync(folder, { recursive: true }));

const read = (name: string): string => readFileSync(join(HERE, name), 'utf8');

/** What `sh` prints of `script`. */
function shell(...words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('sh', words, { encoding: 'utf8', timeout: 20_000 });
  equal(status, 0, stderr);
  equal(stderr, '');
  return stdout;
}

/** The words behind the program, as `vpn` takes them: throws if it would not. */
function check(words: readonly string[]): void {
  if (fileArguments(words) !== undefined) return;
  const { words: named, options } = parseArguments(words);
  const [command] = named;
  ok(command === 'reload' || command === 'status', words.join(' '));
  checkOptions(command, { words: [], options });
}

describe('the examples', () => {
  for (const name of ['client.conf', 'server.conf']) {
    it(`${name} is right, with nothing to warn of`, () => {
      const file = join(folder, name);
      copyFileSync(join(HERE, name), file);
      chmodSync(file, 0o600);
      const words = [MAIN, '--config', file, '--check'];
      const { stdout, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
      deepEqual([stdout, stderr], [`${file}: ok\n`, '']);
    });

    // Its filter is compiled.
    const skip = name === 'client.conf' && !inPath('tcpdump') && 'needs tcpdump';
    it(`${name} is right with everything that it shows as a comment`, { skip }, () => {
      const file = join(folder, `all-${name}`);
      const isShown = /^#(?=[[a-z]\w*\]|[a-z]\w* = )/gm;
      // With a script, it is the script that sets routes.
      const text = read(name)
        .replace(isShown, '')
        .replace(/^statuscommand/m, '#$&');
      const one = text.replace(/^ip4_routes/m, '#$&');
      ok(one !== read(name));
      writeFileSync(file, one, { mode: 0o600 });
      const words = [MAIN, '--config', file, '--check'];
      const { stdout, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
      deepEqual([stdout, stderr], [`${file}: ok\n`, '']);
    });
  }

  it('fit each other', () => {
    const ends = ['client.conf', 'server.conf'].map((name) => {
      const problems = new Problems(name);
      const sections = parseIni(new TextEncoder().encode(read(name)), () => true, problems);
      deepEqual(problems.all(), []);
      return new Map(
        sections.map((section) => [
          section.name,
          new Map(section.entries.map(({ key, value }) => [key, value])),
        ]),
      );
    });
    const [client, server] = ends;
    for (const link of ['dsl1', 'dsl2']) {
      const asked = client?.get(link)?.get('remoteport');
      ok(asked !== undefined);
      equal(server?.get(link)?.get('bindport'), asked);
    }
    equal(client?.get('general')?.get('ip4'), '10.42.43.1/30');
    equal(server?.get('general')?.get('ip4'), '10.42.43.2/30');
  });
});

describe('the unit of systemd', () => {
  const values = (key: string): readonly string[] =>
    [...read('vpn@.service').matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => value);

  it('starts and reloads what there is', () => {
    for (const key of ['ExecStart', 'ExecReload']) {
      const [[program, ...words]] = values(key).map((line) =>
        line.replaceAll('%i', 'home').split(' '),
      );
      equal(program, '/usr/sbin/vpn');
      check(words);
    }
  });

  it('keeps what vpn cannot do without', () => {
    deepEqual(values('Type'), ['notify']);
    deepEqual(values('KillMode'), ['mixed']);
    // The journal, and the state that a crash leaves.
    deepEqual(values('StateDirectory'), ['vpn']);
    // Writes sysctls, has machine code made at run time, and looks into other processes' namespaces.
    for (const key of ['ProtectKernelTunables', 'MemoryDenyWriteExecute', 'ProtectProc', 'User']) {
      deepEqual(values(key), [], key);
    }
    const [[...capabilities]] = values('CapabilityBoundingSet').map((line) => line.split(' '));
    ok(!capabilities.includes('CAP_SYS_ADMIN') && !capabilities.includes('CAP_SYS_MODULE'));
  });
});

describe('the scripts', () => {
  for (const name of ['rc.freebsd', 'rc.openbsd', 'postinst', 'prerm', 'postrm']) {
    it(`${name} can be read by sh`, () => {
      equal(shell('-n', join(HERE, name)), '');
    });
  }

  /** `action` of a script whose system is played by `frame`. */
  function played(name: string, frame: string, action: string): readonly string[] {
    const library = join(folder, `${name}.subr`);
    const script = join(folder, name);
    writeFileSync(library, frame);
    const text = read(name).replace(/\. \/etc\/rc(\.d\/rc)?\.subr/, `. ${library}`);
    writeFileSync(script, text.replaceAll('/usr/sbin/daemon', 'echo daemon'));
    return shell(script, action).trim().split('\n');
  }

  const FREEBSD = `
    load_rc_config() { vpn_instances="home work"; vpn_program="echo vpn"; }
    run_rc_command() { eval "\\$\${1}_cmd"; }`;
  for (const [action, words] of [
    ['start', (name: string) => `--config /usr/local/etc/vpn/${name}.conf --name ${name}`],
    ['reload', (name: string) => `reload --name ${name}`],
    ['status', (name: string) => `status --name ${name}`],
    ['configtest', (name: string) => `--config /usr/local/etc/vpn/${name}.conf --check`],
  ] as const) {
    it(`FreeBSD's does "${action}" for each instance`, () => {
      const lines = played('rc.freebsd', FREEBSD, action);
      const isStart = action === 'start';
      const daemon = (name: string): string =>
        `daemon -R 2 -S -T vpn@${name} -P /var/run/vpn-${name}.pid echo `;
      deepEqual(
        lines,
        ['home', 'work'].map((name) => `${isStart ? daemon(name) : ''}vpn ${words(name)}`),
      );
      for (const name of ['home', 'work']) check(words(name).split(' '));
    });
  }

  it("OpenBSD's gives rc.subr(8) a command line that it will find again", () => {
    const frame = 'rc_cmd() { echo "$daemon|$daemon_flags|$rc_bg"; }';
    const [line = ''] = played('rc.openbsd', frame, 'start');
    const [daemon, flags = '', background] = line.split('|');
    equal(daemon, '/usr/local/bin/node --disable-sigusr1 /usr/local/lib/vpn/build/vpn.cjs');
    equal(background, 'YES');
    ok(flags.includes('--natural-title'));
    check(flags.split(' '));
  });

  it('launchd gets a property list that is whole', () => {
    const text = read('vpn.home.plist').replaceAll(/<!--[^]*?-->|<\?.*\?>|<!DOCTYPE.*>/g, '');
    const open: string[] = [];
    for (const [, end, name, single] of text.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)) {
      if (single === '/') continue;
      if (end === '') open.push(name ?? '');
      else equal(open.pop(), name);
    }
    deepEqual(open, []);
    const list = /<key>ProgramArguments<\/key>\s*<array>([^]*?)<\/array>/.exec(text)?.[1] ?? '';
    const words = [...list.matchAll(/<string>(.*)<\/string>/g)].map(([, word]) => word);
    equal(words[0], '/usr/local/sbin/vpn');
    check(words.slice(1));
  });
});
