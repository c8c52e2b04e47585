/** Command line in; stdout, stderr and exit status out. */
import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, describe, it } from 'node:test';
import { VERSION, help } from './cli.ts';
import { KEYS } from './conf/schema.ts';
import { OPTIONS } from './options.ts';

const ROOT = resolve(import.meta.dirname, '..');
const MAIN = join(ROOT, 'src', 'main.ts');
const EXECUTABLE = process.env['VPN_EXECUTABLE'] ?? join(ROOT, 'dist', 'vpn');
const LIMIT_MS = 20_000;
/** Of the source, which is compiled once and not for each of some hundred command lines. */
const COMPILED = { NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? '' };
const isRoot = process.getuid?.() === 0;

const folder = mkdtempSync(join(tmpdir(), 'vpn-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Result {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number | null;
}

/** Runs the source with `words`, in a folder of its own. */
function vpn(...words: readonly string[]): Result {
  return runProgram(process.execPath, [MAIN, ...words], COMPILED);
}

function runProgram(
  program: string,
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Result {
  const options = { cwd: folder, env, encoding: 'utf8', timeout: LIMIT_MS } as const;
  const { stdout, stderr, status } = spawnSync(program, words, options);
  return { stdout, stderr, status };
}

function keyFile(name: string, content: string | Uint8Array, mode = 0o600): string {
  writeFileSync(join(folder, name), content);
  chmodSync(join(folder, name), mode);
  return name;
}

const CLIENT_USAGE = 'write vpn client KEYFILE SERVER [PORT] [TUN] [LOCAL] [REMOTE] [GATEWAY]';

describe('a wrong command line', () => {
  const rows: readonly (readonly [string, string])[] = [
    ['', 'no command; write vpn server, vpn client or vpn --help'],
    ['srever', 'unknown command "srever"; did you mean server? see vpn --help'],
    ['frobnicate', 'unknown command "frobnicate"; see vpn --help'],
    ['constructor', 'unknown command "constructor"; see vpn --help'],
    [
      'client key host --rute 10.0.0.0/8',
      'unknown option "--rute"; did you mean --route? see vpn --help',
    ],
    ['client key host --frobnicate', 'unknown option "--frobnicate"; see vpn --help'],
    ['client key host -x', 'unknown option "-x"; see vpn --help'],
    ['client key host --mtu', 'option --mtu: value missing; write --mtu N'],
    ['client key host --mtu --dry-run', 'option --mtu: value missing; write --mtu N'],
    ['client key host --mtu 1400 --mtu 1400', 'option --mtu: given twice; give it once'],
    ['client key host --dry-run=yes', 'option --dry-run: takes no value; write --dry-run alone'],
    ['client key h --json', 'option --json: not for vpn client; see vpn --help'],
    ['status --mtu 1400', 'option --mtu: not for vpn status; see vpn --help'],
    ['status now', 'unknown word "now": one too many; write vpn status'],
    ['link', 'too few words; write vpn link NAME up, down, backup or max=20mbit'],
    [
      'client key h --filter x',
      `--filter "x": not a link and an expression; write one such as --filter 'eth0 udp port 5060'`,
    ],
    [
      'client key h -n a/b',
      '--name "a/b": not a name; give up to 32 letters, digits, dots and dashes',
    ],
    ['-c f client', 'word "client": not beside --config; leave it out, or leave --config out'],
    ['-c f --json', 'option --json: not beside --config; see vpn --help'],
    ['keygen --mtu 1400', 'option --mtu: not for vpn keygen; see vpn --help'],
    ['client', `too few words; ${CLIENT_USAGE}`],
    ['client key', `too few words; ${CLIENT_USAGE}`],
    ['client key h auto auto auto auto auto x', `unknown word "x": one too many; ${CLIENT_USAGE}`],
    ['keygen a b', 'unknown word "b": one too many; write vpn keygen [FILE]'],
    ['cleanup now', 'unknown word "now": one too many; write vpn cleanup'],
    ['selftest now', 'unknown word "now": one too many; write vpn selftest'],
    ['client key h 0', 'port "0": not a UDP port; give 1 to 65535, or auto'],
    ['server key nowhere', 'address "nowhere": not an IP address; give one, or auto'],
    ['client key h auto a/b', 'tun "a/b": not an interface name; give one such as tun0, or auto'],
    ['client key h --mtu 576', '--mtu "576": not within 1280 to 1500; correct it, or give auto'],
    [
      'client key h --route x',
      '--route "x": not a network; give one such as 10.0.0.0/8 or fd00::/8',
    ],
    [
      'client key h auto auto 10.0.0.1 10.0.0.1',
      'local and remote tun ip "10.0.0.1": both ends have the same address; give each end its own',
    ],
  ];
  for (const [line, message] of rows) {
    it(`ends with 2 and one line: vpn ${line}`, () => {
      const words = line.split(' ').filter((word) => word !== '');
      deepEqual(vpn(...words), { stdout: '', stderr: `vpn: ${message}\n`, status: 2 });
    });
  }

  it('shows a stack trace with -v only', () => {
    match(vpn('-v', 'client').stderr, /^vpn: too few words; .*\nError: .*\n +at /);
  });
});

describe('a bad key file', () => {
  const CREATE = 'create one with vpn keygen FILE';
  const rows: readonly (readonly [string, string | Uint8Array | undefined, string])[] = [
    ['missing', undefined, `cannot read key file "missing": no such file; ${CREATE}`],
    ['empty', '', `key file "empty": empty; ${CREATE}`],
    ['short', Buffer.alloc(31, 1), `key file "short": neither 32 bytes nor base64; ${CREATE}`],
    ['long', Buffer.alloc(33, 1), `key file "long": neither 32 bytes nor base64; ${CREATE}`],
    [
      'cut',
      'A'.repeat(43),
      'key file "cut": expected 44 base64 characters, got 43; copy the whole line',
    ],
    ['text', 'this is no key', `key file "text": neither 32 bytes nor base64; ${CREATE}`],
  ];
  for (const [name, content, message] of rows) {
    for (const words of [
      ['server', name],
      ['client', name, 'localhost'],
    ]) {
      it(`ends vpn ${words[0]} with 1 and one line: ${name}`, () => {
        if (content !== undefined) keyFile(name, content);
        deepEqual(vpn(...words), { stdout: '', stderr: `vpn: ${message}\n`, status: 1 });
      });
    }
  }

  const needsUser = isRoot ? 'root reads every file' : false;
  it('ends with 1 and one line: unreadable', { skip: needsUser }, () => {
    const name = keyFile('unreadable', 'x', 0);
    const stderr = `vpn: cannot read key file "${name}": permission denied; check its owner and mode\n`;
    deepEqual(vpn('server', name), { stdout: '', stderr, status: 1 });
  });

  it('costs a warning only when every user can read it', () => {
    const name = keyFile('open', 'x', 0o644);
    const warning = `vpn: warning: key file "${name}": readable by every user; run chmod 600 ${name}\n`;
    ok(vpn('server', name).stderr.startsWith(warning));
  });
});

describe('a configuration file', () => {
  const GENERAL = '[general]\nmode = client\n';
  const KEY = 'key_file = /k\n';
  const LINK = '[adsl]\nremotehost = h\nremoteport = 1\n';
  const rows: readonly (readonly [string, string, string])[] = [
    [
      'unknown',
      `${GENERAL}${KEY}timeuot = 1\n${LINK}`,
      ':4: unknown key "timeuot"; did you mean timeout?',
    ],
    ['keyless', GENERAL + LINK, ': neither key_file nor password; add one of them to [general]'],
  ];
  for (const [name, text, message] of rows) {
    it(`ends with 1 and the line of its error: ${name}`, () => {
      const file = keyFile(`${name}.conf`, text);
      deepEqual(vpn('-c', file), { stdout: '', stderr: `vpn: ${file}${message}\n`, status: 1 });
      deepEqual(vpn('-c', file, '--check'), {
        stdout: `${file}${message}\n`,
        stderr: '',
        status: 1,
      });
    });
  }

  it('is refused when others can read it', () => {
    const file = keyFile('shared.conf', GENERAL + KEY + LINK, 0o644);
    const why = 'open to group or others (mode 0644); run chmod 600 shared.conf';
    const stderr = `vpn: configuration file "shared.conf": ${why}\n`;
    for (const more of [[], ['--check'], ['--dump']]) {
      deepEqual(vpn('-c', file, ...more), { stdout: '', stderr, status: 1 });
    }
  });

  it('is right, or has what this version cannot do', () => {
    const file = keyFile('right.conf', GENERAL + KEY + LINK);
    deepEqual(vpn('-c', file, '--check'), { stdout: 'right.conf: ok\n', stderr: '', status: 0 });
    keyFile(file, `${GENERAL}${KEY}kill_switch = yes\n${LINK}`);
    const why = 'not everything goes through the tunnel; add default_routes = yes';
    const stderr = `vpn: right.conf:4: key "kill_switch": ${why}\n`;
    deepEqual(vpn('-c', file), { stdout: '', stderr, status: 1 });
  });

  it('shows what it comes to, with the origin of each value', () => {
    const file = keyFile('dump.conf', GENERAL + KEY + LINK);
    const { stdout, status } = vpn('-c', file, '--dump', '-n', 'home');
    equal(status, 0);
    match(stdout, /^mode = "client" +# dump\.conf:2$/m);
    match(stdout, /^name = "home" +# command line$/m);
    match(stdout, /^timeout = "60" +# default$/m);
  });
});

describe('the help', () => {
  it('begins with an example and fits 80 columns and 24 lines', () => {
    const { stdout, stderr, status } = vpn('--help');
    deepEqual([stdout, stderr, status], [help(), '', 0]);
    const lines = stdout.trimEnd().split('\n');
    match(lines[0], /^Example:/);
    ok(lines.length <= 24, `${lines.length} lines`);
    deepEqual(
      lines.filter((line) => line.length > 80),
      [],
    );
  });

  it('has every key of a file in the long one', () => {
    const { stdout, status } = vpn('--help', '-v');
    deepEqual([stdout, status], [help(true), 0]);
    for (const { name } of KEYS) ok(stdout.includes(` ${name} `), name);
  });

  it('stands at every place of the command line', () => {
    for (const words of [['-h'], ['client', '--help'], ['keygen', 'x', '-h']]) {
      equal(vpn(...words).stdout, help());
    }
    equal(existsSync(join(folder, 'x')), false);
  });

  for (const option of OPTIONS) {
    const page = readFileSync(join(ROOT, 'doc', 'vpn.8'), 'utf8');
    if ('hidden' in option) {
      it(`does not have --${option.long}, which is for tests`, () => {
        ok(!help().includes(`--${option.long}`) && !page.includes(option.long));
      });
    } else {
      it(`and the man page have --${option.long}`, () => {
        ok(help(true).includes(`--${option.long} `));
        equal(help().includes(`--${option.long} `), !('rare' in option));
        match(page, new RegExp(`^\\.It Fl .*-${option.long}( |$)`, 'm'));
      });
    }
  }

  it('and the man page have every command', () => {
    const page = readFileSync(join(ROOT, 'doc', 'vpn.8'), 'utf8');
    const asks = ['status', 'top', 'check', 'events', 'link', 'reload', 'reset', 'stop'];
    ok(help().includes(`  vpn ${asks.join('|')}\n`));
    for (const name of ['server', 'client', 'keygen', 'cleanup', 'selftest', ...asks]) {
      ok(help(true).includes(`  vpn ${name}`), name);
      match(page, new RegExp(`^\\.It Cm ${name}( |$)`, 'm'));
    }
  });
});

describe('the version', () => {
  it('is that of the package', () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
    equal(VERSION, version);
    deepEqual(vpn('--version'), { stdout: `vpn ${VERSION}\n`, stderr: '', status: 0 });
  });
});

describe('the notices', () => {
  const file = join(ROOT, 'dist', 'LICENSES');
  const skip = existsSync(file) ? false : `${file} is not built`;
  it('are those of the build, beside a file, too', { skip }, () => {
    const stdout = readFileSync(file, 'utf8');
    deepEqual(vpn('--license'), { stdout, stderr: '', status: 0 });
    deepEqual(vpn('--config', 'missing.conf', '--license'), { stdout, stderr: '', status: 0 });
  });
});

describe('vpn keygen', () => {
  it('prints 32 bytes in base64', () => {
    const { stdout, stderr, status } = vpn('keygen');
    deepEqual([stderr, status], ['', 0]);
    match(stdout, /^[A-Za-z0-9+/]{43}=\n$/);
  });

  it('writes a new file with mode 0600, and does not touch an old one', () => {
    deepEqual(vpn('keygen', 'made'), { stdout: '', stderr: '', status: 0 });
    const file = join(folder, 'made');
    const before = readFileSync(file, 'utf8');
    match(before, /^[A-Za-z0-9+/]{43}=\n$/);
    equal(statSync(file).mode & 0o777, 0o600);
    const stderr = 'vpn: cannot create key file "made": file already exists; give another name\n';
    deepEqual(vpn('keygen', 'made'), { stdout: '', stderr, status: 1 });
    equal(readFileSync(file, 'utf8'), before);
  });
});

const needsExecutable = existsSync(EXECUTABLE) ? false : `${EXECUTABLE} is not built`;
const needsProc = existsSync('/proc/self/task') ? false : 'there is no /proc';
describe('the executable', () => {
  const skip = needsExecutable;
  it('prints version and help', { skip }, () => {
    match(
      runProgram(EXECUTABLE, ['--version']).stdout,
      /^vpn \d+\.\d+\.\d+( \(no default routes\))?\n$/,
    );
    deepEqual(runProgram(EXECUTABLE, ['--help']), { stdout: help(), stderr: '', status: 0 });
  });

  it('makes keys, and leaves nothing of its native code behind', { skip }, () => {
    const TMPDIR = join(folder, 'unpacked');
    mkdirSync(TMPDIR);
    const { stdout, stderr, status } = runProgram(EXECUTABLE, ['keygen'], { TMPDIR });
    match(stdout, /^[A-Za-z0-9+/]{43}=\n$/);
    deepEqual([stderr, status, readdirSync(TMPDIR)], ['', 0, []]);
  });

  it('says where it cannot unpack its native code', { skip }, () => {
    const TMPDIR = join(folder, 'nowhere');
    const stderr = `vpn: cannot unpack native code into "${TMPDIR}": no such file or directory; set TMPDIR to a folder that allows writing\n`;
    deepEqual(runProgram(EXECUTABLE, ['keygen'], { TMPDIR }), { stdout: '', stderr, status: 1 });
  });

  it('ignores NODE_OPTIONS and flags of node', { skip }, () => {
    const trap = join(folder, 'trap.cjs');
    writeFileSync(
      trap,
      `require('fs').writeFileSync(${JSON.stringify(join(folder, 'trapped'))}, '')`,
    );
    for (const NODE_OPTIONS of [`--require ${trap}`, '--inspect=127.0.0.1:0', '--no-such-flag']) {
      const result = runProgram(EXECUTABLE, ['--help'], { NODE_OPTIONS });
      deepEqual(result, { stdout: help(), stderr: '', status: 0 }, NODE_OPTIONS);
    }
    equal(existsSync(join(folder, 'trapped')), false);
    const flag = runProgram(EXECUTABLE, ['--inspect-brk']);
    match(flag.stderr, /^vpn: unknown option "--inspect-brk"/);
    equal(flag.status, 2);
  });

  it('opens no inspector on SIGUSR1, and lives on', { skip: skip || needsProc }, async () => {
    // Waits for its key, with everything loaded, until something is written to the pipe.
    const pipe = join(folder, 'pipe');
    equal(spawnSync('mkfifo', ['-m', '600', pipe]).status, 0);
    const child = spawn(EXECUTABLE, ['server', pipe], { cwd: folder, env: {} });
    let output = '';
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const ended = new Promise((done) => child.on('close', done));
    const writer = await open(pipe, 'w');
    child.kill('SIGUSR1');
    const threads = `/proc/${child.pid}/task`;
    const names = readdirSync(threads).map((id) => readFileSync(join(threads, id, 'comm'), 'utf8'));
    deepEqual(
      names.filter((name) => /inspect/i.test(name)),
      [],
    );
    await writer.write('x');
    await writer.close();
    equal(await ended, 1);
    const why = 'expected 44 base64 characters, got 1; copy the whole line';
    equal(output, `vpn: key file "${pipe}": ${why}\n`);
  });

  it('runs alone: from another folder, without node and without a PATH', { skip }, () => {
    const copy = join(folder, 'alone');
    copyFileSync(EXECUTABLE, copy);
    match(runProgram(copy, ['keygen']).stdout, /^[A-Za-z0-9+/]{43}=\n$/);
  });
});
