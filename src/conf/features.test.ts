import { deepEqual } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FILE, settingsOf } from '../../test/confbed.ts';
import { checkFeatures } from './features.ts';
import { Problems } from './problem.ts';

const GENERAL = '[general]\nmode = client\nkey_file = /k\n';
const LINK = '[l]\nremotehost = h\nremoteport = 1\n';

function told(text: string): readonly string[] {
  const problems = new Problems(FILE);
  checkFeatures(settingsOf(text), problems);
  return problems.all().map(({ severity, text: line }) => `${severity}: ${line}`);
}

describe('what this version cannot do', () => {
  const NOT_YET = 'not supported by this version; take it out';
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['timeout = 30', undefined],
    ['kill_switch = no', undefined],
    ['kill_switch = yes', `error: home.conf:4: key "kill_switch": ${NOT_YET}`],
    ['cleartext_data = 1', `error: home.conf:4: key "cleartext_data": ${NOT_YET}`],
    ['dns = 192.0.2.53', `error: home.conf:4: key "dns": ${NOT_YET}`],
    ['allow = 10.0.0.0/8', `error: home.conf:4: key "allow": ${NOT_YET}`],
    [
      'tuntap = tap',
      'error: home.conf:4: tuntap "tap": not supported by this version; write tuntap = "tun"',
    ],
    [
      'user = _vpn',
      'warning: home.conf:4: key "user": no privilege separation in this version; it is ignored',
    ],
  ];
  for (const [line, expected] of rows) {
    it(`says ${expected ?? 'nothing'}`, () => {
      deepEqual(told(`${GENERAL}${line}\n${LINK}`), expected === undefined ? [] : [expected]);
    });
  }

  it('is told of a link, too', () => {
    const expected =
      'error: home.conf:7: key "bindfib" of [l]: not supported by this version; write bindfib = 0';
    deepEqual(told(`${GENERAL}${LINK}bindfib = 1\n`), [expected]);
  });
});
