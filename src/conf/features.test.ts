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
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['timeout = 30', undefined],
    ['kill_switch = no', undefined],
    ['default_routes = yes\nkill_switch = yes', undefined],
    [
      'kill_switch = yes',
      'error: home.conf:4: key "kill_switch": not everything goes through the tunnel; add default_routes = yes',
    ],
    [
      'kill_switch = yes\ndefault_routes = yes\nip4_routes = 10.0.0.0/8',
      'error: home.conf:4: key "kill_switch": beside ip4_routes other traffic is to go past the tunnel; take one of them out',
    ],
    [
      'kill_switch = yes\ndefault_routes = yes\ntuntap = tap\nip4 = 10.0.0.1/24\nip4_gateway = 10.0.0.2',
      undefined,
    ],
    [
      'kill_switch = yes\ndefault_routes = yes\nip4 = 10.0.0.1/24\nip4_gateway = 10.0.0.2',
      'error: home.conf:4: key "kill_switch": beside the network of ip4 other traffic is to go past the tunnel; narrow ip4',
    ],
    [
      'kill_switch = yes\nstatuscommand = /s',
      'error: home.conf:4: key "kill_switch": the addresses are those of the statuscommand; let the script set the firewall up',
    ],
    [
      'dns = 192.0.2.53\nstatuscommand = /s',
      'error: home.conf:4: key "dns": the addresses are those of the statuscommand; let the script set name servers up',
    ],
    ['cleartext_data = 1', undefined],
    ['dns = 192.0.2.53', undefined],
    ['allow = 10.0.0.0/8\nproxy_arp = yes', undefined],
    [
      'allow = 10.0.0.0/8\nstatuscommand = /s',
      'error: home.conf:4: key "allow": the addresses are those of the statuscommand; let the script set the firewall up',
    ],
    ['tuntap = tap', undefined],
    ['user = _vpn', undefined],
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
