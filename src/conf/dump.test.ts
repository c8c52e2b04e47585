import { deepEqual, equal, ok } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { outcomeOf, settingsOf } from '../../test/confbed.ts';
import { fileConfig } from './config.ts';
import { checkText, dumpText } from './dump.ts';
import { Problems } from './problem.ts';

const EXAMPLES = join(import.meta.dirname, '..', '..', 'test', 'conf');
const NO_OPTIONS = new Map();

const FULL = `[general]
mode = client
key_file = "/etc/vpn/a b.key"
ip4 = 10.0.0.1/24
ip4_gateway = 10.0.0.2
ip4_routes = 10.1.0.0/16,10.2.0.0/16
realtime = udp:1,duplicate udp:2
dns = 192.0.2.53
default_routes = on
timeout = 2
[filters]
l = "tcp[13] & 2 != 0"
realtime,duplicate = udp port 1
[l]
device = eth0
remotehost = "2001:db8::1"
remoteport = 1
bandwidth_upload = 20mbit
loss_tolerance = 12.5%
fallback_only = 1
`;

describe('--dump', () => {
  it('shows each value with its origin', () => {
    const override = { key: 'mtu', text: '1400', option: '--mtu' };
    const lines = dumpText(settingsOf(FULL, [override])).split('\n');
    const expected = [
      'mode = "client"                          # home.conf:2',
      'tuntap = "tun"                           # default',
      'mtu = "1400"                             # command line',
      'timeout = "5"                            # home.conf:10',
      'timeout = "5"                            # home.conf:10, [general]',
      'bandwidth_upload = "2500000"             # home.conf:18',
      'l = "tcp[13] & 2 != 0"                   # home.conf:12',
    ];
    deepEqual(
      expected.filter((line) => !lines.includes(line)),
      [],
    );
  });

  const examples = ['adsl-client.conf', 'adsl-server.conf', 'voip.conf'];
  const files: readonly (readonly [string, string])[] = [
    ['a file with everything', FULL],
    ...examples.map((name) => [name, readFileSync(join(EXAMPLES, name), 'utf8')] as const),
  ];
  for (const [name, text] of files) {
    it(`is a file that comes to the same: ${name}`, () => {
      const settings = settingsOf(text);
      // A dump has no password.
      const dump = dumpText(settings).replace(/^# password.*/m, 'password = "another"');
      deepEqual(fileConfig(settingsOf(dump), NO_OPTIONS), fileConfig(settings, NO_OPTIONS));
    });
  }

  it('has its origins in one column, whatever the values', () => {
    const text = FULL.replace('/etc/vpn/a b.key', '/a/folder/with/a/long/name/and/a.key');
    const lines = dumpText(settingsOf(text)).split('\n');
    const columns = lines.filter((line) => line.includes(' # ')).map((line) => line.indexOf(' # '));
    deepEqual([...new Set(columns)], ['key_file = "/a/folder/with/a/long/name/and/a.key"'.length]);
  });

  it('never shows the password', () => {
    const text = '[general]\nmode = server\npassword = "hunter2"\n[l]\nbindport = 1\n';
    const dump = dumpText(settingsOf(text));
    ok(!dump.includes('hunter2'));
    ok(dump.includes('# password (not shown)                   # home.conf:3\n'), dump);
  });
});

describe('--check', () => {
  const checked = (text: string): string => {
    const { settings } = outcomeOf(text);
    const problems = new Problems('home.conf');
    problems.warn(3, 'a', 'b', 'c');
    if (settings === undefined) problems.error(1, 'd', 'e', 'f');
    return checkText('home.conf', { settings, problems: problems.all() });
  };

  it('says that a file is right', () => {
    equal(checked(FULL), 'warning: home.conf:3: a: b; c\nhome.conf: ok\n');
  });

  it('says everything that is wrong', () => {
    equal(checked(''), 'home.conf:1: d: e; f\nwarning: home.conf:3: a: b; c\n');
  });
});
