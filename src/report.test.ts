/** What a program reads of another that writes lines: to a terminal, to systemd's journal, as JSON. */
import { deepEqual, equal, match } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, describe, it } from 'node:test';
import { logLines } from './logline.ts';
import type { LogRecord } from './logline.ts';
import { Failure, reason } from './report.ts';

const folder = mkdtempSync(join(tmpdir(), 'vpn-report-'));
after(() => rmSync(folder, { recursive: true }));
const MODULE = JSON.stringify(resolve(import.meta.dirname, 'report.ts'));
/** Within which a time that is told must lie. */
const STARTED_MS = Date.now();

const EVERY_KIND = `
  log('connected to 192.0.2.1:443');
  log('link eth1: no such interface', 'warning');
  warn('host', 'no IPv6', 'switch it on');
  log('home.conf:3: unknown key "prot"', 'error');
  verbose('net', 'path MTU of eth0: 1500');
  verbose('privsep', '[#] ip link set up dev tun0');
  fail(new Failure('cannot open /dev/net/tun', 'permission denied', 'run as root'));
`;

let logs = 0;

/** What `body` writes to a standard error whose device and inode are in JOURNAL_STREAM, or are not. */
function written(body: string, journal: 'none' | 'this' | 'another'): string {
  const file = join(folder, `log${++logs}`);
  const log = openSync(file, 'w');
  const { dev, ino } = fstatSync(log, { bigint: true });
  const stream = { none: undefined, this: `${dev}:${ino}`, another: `${dev}:${ino + 1n}` }[journal];
  const script = `import * as report from ${MODULE};
    const { fail, Failure, log, setLogFormat, setQuiet, setVerbose, verbose, warn } = report;
    ${body}`;
  const { status, error } = spawnSync(
    process.execPath,
    ['--input-type=module', '--disable-warning=ExperimentalWarning', '-e', script],
    {
      env: stream === undefined ? {} : { JOURNAL_STREAM: stream },
      stdio: ['ignore', 'ignore', log],
      timeout: 20_000,
    },
  );
  closeSync(log);
  const text = readFileSync(file, 'utf8');
  equal(status, 0, `${error?.message} ${text}`);
  return text;
}

describe('lines for people', () => {
  const PLAIN = [
    'vpn: connected to 192.0.2.1:443',
    'vpn: warning: link eth1: no such interface',
    'vpn: warning: host: no IPv6; switch it on',
    'vpn: home.conf:3: unknown key "prot"',
    'vpn: cannot open /dev/net/tun: permission denied; run as root',
  ];
  it('begin with the name of the program', () => {
    deepEqual(written(EVERY_KIND, 'none').trimEnd().split('\n'), PLAIN);
  });

  it('are those also where the journal is another file', () => {
    deepEqual(written(EVERY_KIND, 'another').trimEnd().split('\n'), PLAIN);
  });

  it('are those in the journal with debug', () => {
    const text = written(`setLogFormat('text', 'home', true); ${EVERY_KIND}`, 'this');
    deepEqual(text.trimEnd().split('\n'), PLAIN);
  });

  it('are only errors with -q', () => {
    const text = written(`setQuiet(true); ${EVERY_KIND}`, 'none');
    deepEqual(text.trimEnd().split('\n'), PLAIN.slice(3));
  });

  it('have the detail of the subjects that are asked for, and with -v of all', () => {
    const [of, all] = [`setSubjects(['net', 'rtt'])`, 'setVerbose(true)'].map((shown) => {
      const text = written(`report.${shown}; setQuiet(true); ${EVERY_KIND}`, 'none');
      return text.split('\n').filter((line) => /path MTU|^\[#\]/.test(line));
    });
    const net = 'vpn: net: path MTU of eth0: 1500';
    deepEqual([of, all], [[net], [net, '[#] ip link set up dev tun0']]);
  });

  it('may lose their reader: the program goes on', () => {
    const script = `import { log } from ${MODULE};
      for (let i = 0; i < 3; i++) { log('line'); await new Promise((done) => setTimeout(done, 20)); }
      console.log('still here');`;
    // The only reader of the pipe ends before the first line.
    const shell = `(sleep 0.1; "$0" --input-type=module -e "$1") 2>&1 >"$2" | true; wait`;
    const file = join(folder, 'survivor');
    const words = ['-c', `${shell}`, process.execPath, script, file];
    const { status } = spawnSync('sh', words, { timeout: 20_000 });
    equal(status, 0);
    match(readFileSync(file, 'utf8'), /^still here$/m);
  });
});

describe('lines in the journal', () => {
  it('begin with their priority, each of several, too', () => {
    const lines = written(`setVerbose(true); ${EVERY_KIND}`, 'this').trimEnd().split('\n');
    deepEqual(lines.slice(0, 7), [
      '<5>connected to 192.0.2.1:443',
      '<4>warning: link eth1: no such interface',
      '<4>warning: host: no IPv6; switch it on',
      '<3>home.conf:3: unknown key "prot"',
      '<7>net: path MTU of eth0: 1500',
      '<7>[#] ip link set up dev tun0',
      '<3>cannot open /dev/net/tun: permission denied; run as root',
    ]);
    match(lines[7] ?? '', /^<3>Error: cannot open/);
    for (const line of lines.slice(8)) match(line, /^<3> +at /);
  });
});

describe('lines for programs', () => {
  for (const [journal, prefix] of [
    ['none', ''],
    ['this', '<N>'],
  ] as const) {
    it(`are an object each${prefix === '' ? '' : ', behind the priority in the journal'}`, () => {
      const body = `setLogFormat('json', 'home', false); setVerbose(true); ${EVERY_KIND}`;
      const found = written(body, journal)
        .trimEnd()
        .split('\n')
        .map((line) => {
          const [, mark = '', text = ''] = /^(<\d>)?(.*)$/.exec(line) ?? [];
          const { time, stack, ...object } = JSON.parse(text) as Record<string, unknown>;
          equal(mark, prefix === '' ? '' : `<${object.priority}>`);
          match(String(time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
          const ms = Date.parse(String(time));
          equal(STARTED_MS - 1 <= ms && ms <= Date.now() + 1, true, String(time));
          return { ...object, ...(stack === undefined ? {} : { hasStack: true }) };
        });
      const instance = 'home';
      const warning = { priority: 4, level: 'warning', instance };
      const debug = { priority: 7, level: 'debug', instance };
      const error = { priority: 3, level: 'error', instance };
      deepEqual(found, [
        { priority: 5, level: 'notice', instance, message: 'connected to 192.0.2.1:443' },
        { ...warning, message: 'link eth1: no such interface' },
        {
          ...warning,
          message: 'host: no IPv6; switch it on',
          ...{ what: 'host', why: 'no IPv6', remedy: 'switch it on' },
        },
        { ...error, message: 'home.conf:3: unknown key "prot"' },
        { ...debug, subject: 'net', message: 'path MTU of eth0: 1500' },
        { ...debug, subject: 'privsep', message: '[#] ip link set up dev tun0' },
        {
          ...error,
          message: 'cannot open /dev/net/tun: permission denied; run as root',
          what: 'cannot open /dev/net/tun',
          why: 'permission denied',
          remedy: 'run as root',
          hasStack: true,
        },
      ]);
    });
  }

  it('hold whatever is in a message on one line', () => {
    const record: LogRecord = { level: 'error', message: 'a "b"\n\\c\u2028', stack: 'x\n  at y' };
    const line = logLines(record, { kind: 'json', isJournal: false, instance: '' }, 0);
    equal(line.indexOf('\n'), line.length - 1);
    deepEqual(JSON.parse(line), {
      time: '1970-01-01T00:00:00.000Z',
      priority: 3,
      ...record,
    });
  });
});

describe('a failure', () => {
  for (const [what, why, remedy, message] of [
    ['a', 'b', 'c', 'a: b; c'],
    ['a', '', 'c', 'a; c'],
    ['a', 'b', '', 'a: b'],
    ['a', '', '', 'a'],
  ] as const) {
    it(`"${message}" is made of what, why and remedy, and keeps them`, () => {
      const failure = new Failure(what, why, remedy);
      equal(failure.message, message);
      deepEqual([failure.what, failure.why, failure.remedy], [what, why, remedy]);
      equal(reason(failure), message);
    });
  }
});
