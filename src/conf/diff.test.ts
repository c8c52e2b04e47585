import { deepEqual, equal } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { settingsOf } from '../../test/confbed.ts';
import { settingsDiff } from './diff.ts';
import type { Change } from './diff.ts';
import { KEYS, keysOf } from './schema.ts';

const GENERAL = '[general]\nmode = client\nkey_file = /k\n';
const A = '[a]\nremotehost = h\nremoteport = 1\n';
const B = '[b]\nremotehost = h\nremoteport = 2\n';

const diff = (old: string, now: string, isPasswordChanged = false): readonly Change[] =>
  settingsDiff(settingsOf(old), settingsOf(now), isPasswordChanged);

describe('a reload', () => {
  const rows: readonly (readonly [string, string, readonly string[]])[] = [
    [A, A, []],
    [A, `# moved\n\n${A}timeout = "60"\n`, []],
    [A, A + B, ['link b: added']],
    [A + B, B, ['link a: removed']],
    [A, B, ['link a: removed', 'link b: added']],
    [A + B, B + A, []],
    [A, `${A}bindhost = 192.0.2.1\n`, ['link a: bound anew: bindhost not set -> 192.0.2.1']],
    [
      `${A}bindhost = 192.0.2.1\n`,
      '[a]\nremotehost = i\nremoteport = 1\nbindhost = 192.0.2.2\nweight = 2\n',
      [
        'link a: bound anew: bindhost 192.0.2.1 -> 192.0.2.2, remotehost h -> i',
        'link a: weight: 1 -> 2',
      ],
    ],
    [A, `${A}bandwidth_upload = 8mbit\n`, ['link a: bandwidth_upload: 0 -> 1000000']],
    [A, `${A}fallback_only = 1\n`, ['link a: fallback_only: no -> yes']],
    [A, `${A}timeout = 10\n`, ['link a: timeout: 60 -> 10']],
    [A, `[filters]\na = udp\n${A}`, ['filters: 0 replaced by 1']],
    [
      `[filters]\na = udp\nb = tcp\n${A}${B}`,
      `[filters]\nb = tcp\na = udp\n${A}${B}`,
      ['filters: 2 replaced by 2'],
    ],
    [`[filters]\na = udp\n${A}`, `[filters]\n\na = "udp"\n${A}`, []],
  ];
  for (const [old, now, lines] of rows) {
    it(`says ${JSON.stringify(lines)}, and can do it at once`, () => {
      const changes = diff(GENERAL + old, GENERAL + now);
      deepEqual(
        changes.map(({ line }) => line),
        lines,
      );
      equal(
        changes.every(({ isLive }) => isLive),
        true,
      );
    });
  }

  it('says a change of [general] once, not for each link', () => {
    const changes = diff(GENERAL + A + B, `${GENERAL}timeout = 30\n${A}${B}`);
    deepEqual(
      changes.map(({ line }) => line),
      ['timeout: 60 -> 30'],
    );
  });

  it('says which link has an own value in place of a shared one', () => {
    const changes = diff(GENERAL + A + B, `${GENERAL}timeout = 30\n${A}timeout = 20\n${B}`);
    deepEqual(
      changes.map(({ line }) => line),
      ['timeout: 60 -> 30', 'link a: timeout: 60 -> 20'],
    );
  });

  it('cannot change the keys of the session', () => {
    const changes = diff(GENERAL + A, `${GENERAL}interface_name = tun9\n${A}`, true);
    deepEqual(
      changes.map(({ line, isLive }) => [line, isLive]),
      [
        ['interface_name: mlvpn0 -> tun9; needs a restart', false],
        ['password: changed; needs a restart', false],
      ],
    );
  });

  it('says that a key file has taken the place of the password', () => {
    const password = GENERAL.replace('key_file = /k', 'password = "secret words"');
    const lines = diff(password + A, GENERAL + A).map(({ line }) => line);
    deepEqual(lines, [
      'key_file: not set -> /k; needs a restart',
      'password: removed; needs a restart',
    ]);
  });

  it('can change the script for another, but neither add nor remove the only one', () => {
    const without = GENERAL + A;
    const one = `${GENERAL}statuscommand = /a\n${A}`;
    const other = `${GENERAL}statuscommand = /b\n${A}`;
    const rows = [
      [one, other, 'statuscommand: /a -> /b'],
      [without, one, 'statuscommand: not set -> /a; needs a restart'],
      [one, without, 'statuscommand: /a -> not set; needs a restart'],
      // It was told of the old ones, and has to take them down.
      [
        one,
        `${one.replace(A, '')}ip4_routes = 10.0.0.0/8\n${A}`,
        'ip4_routes: not set -> 10.0.0.0/8; needs a restart',
      ],
    ];
    for (const [old, now, expected] of rows) {
      deepEqual(
        diff(old, now).map(({ line }) => line),
        [expected],
      );
    }
  });

  it('can change at once what is asked for, and everything of a link', () => {
    const live = [
      'verbose',
      'quiet',
      'debug_tokens',
      'timeout',
      'allow',
      'ip4_routes',
      'ip6_routes',
    ];
    deepEqual(
      live.filter((name) => KEYS.find((key) => key.name === name)?.reload !== 'live'),
      [],
    );
    deepEqual(
      keysOf('link').filter(({ reload }) => reload !== 'live'),
      [],
    );
  });
});
