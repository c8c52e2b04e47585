import { deepEqual, equal, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { settingsOf } from '../../test/confbed.ts';
import { UsageFailure } from '../report.ts';
import { fileArguments } from './mlvpnargs.ts';

const split = (line: string): readonly string[] => line.split(' ').filter((word) => word !== '');

/** What the command line says of keys, as `key=text`. */
function overrides(line: string): readonly string[] {
  return (fileArguments(split(line))?.overrides ?? []).map(({ key, text }) => `${key}=${text}`);
}

describe("MLVPN's command line", () => {
  const rows: readonly (readonly [string, readonly string[]])[] = [
    ['--config f', []],
    ['-c f', []],
    ['-cf', []],
    ['--config=f', []],
    ['--conf f', []],
    ['-c f -n home -u _vpn', ['name=home', 'user=_vpn']],
    ['--user mlvpn -c f', ['user=mlvpn']],
    ['--name=a --name b -c f', ['name=b']],
    ['-c f --debug', ['debug=yes']],
    ['-c f -D rtt', ['debug_tokens=rtt', 'debug=yes']],
    ['-c f -Drtt -D net', ['debug_tokens=rtt net', 'debug=yes']],
    ['-c f -v', ['verbose=1', 'quiet=no']],
    ['-vvc f --verbose', ['verbose=3', 'quiet=no']],
    ['-c f -q', ['quiet=yes']],
    ['-c f --quiet -v', []],
    ['-c f -vv -q', ['verbose=1', 'quiet=no']],
    ['-c f --natural-title', ['natural_title=yes']],
    ['-c f --mtu 1400', ['mtu=1400']],
    ['-c f --no-offload', ['offload=no']],
    ['-c f --no-default-routes', ['default_routes=no']],
    ['-c f --route 10.0.0.0/8 --route fd00::/8', ['ip4_routes=10.0.0.0/8', 'ip6_routes=fd00::/8']],
    ['-c f --realtime udp:1,duplicate --realtime udp:2', ['realtime=udp:1,duplicate udp:2']],
  ];
  for (const [line, expected] of rows) {
    it(`is understood: vpn ${line}`, () => {
      equal(fileArguments(split(line))?.config, 'f');
      deepEqual(overrides(line), expected);
    });
  }

  it('has overrides that all are values of their keys', () => {
    const line =
      '-c f -n home -u _vpn --debug -D rtt -D scheduler -vv --natural-title --mark 7 --table 8 ' +
      '--cipher chacha20-poly1305 --route 10.0.0.0/8 --mtu 1400 --no-offload --realtime udp:1';
    const text = '[general]\nmode=client\nkey_file=/k\n[l]\nremotehost=h\nremoteport=1\n';
    const { general } = settingsOf(text, fileArguments(split(line))?.overrides);
    deepEqual(general.list('debug_tokens'), ['rtt', 'scheduler']);
    equal(general.flag('offload'), false);
    equal(general.text('name'), 'home');
    equal(general.number('verbose'), 2);
  });

  it('has what ends at once', () => {
    const args = fileArguments(split('-c f --check --dump -h -V'));
    deepEqual([args?.check, args?.dump, args?.help, args?.version], [true, true, true, true]);
    const plain = fileArguments(split('-c f'));
    deepEqual(
      [plain?.check, plain?.dump, plain?.help, plain?.version],
      [false, false, false, false],
    );
  });

  it('hands on what no file has', () => {
    const args = fileArguments(split('-c f --dry-run --state-dir /x -v'));
    deepEqual(
      [...(args?.options ?? [])],
      [
        ['dry-run', ['']],
        ['state-dir', ['/x']],
      ],
    );
  });

  const others = [
    '',
    'server key',
    'client key host -v',
    'cleanup -v',
    'status -n',
    '-- -c f',
    '-h',
  ];
  for (const line of others) {
    it(`is not meant by "vpn ${line}"`, () => {
      equal(fileArguments(split(line)), undefined);
    });
  }

  const wrong: readonly (readonly [string, string])[] = [
    ['-c', 'option -c: value missing; write -c VALUE'],
    ['-c f -n', 'option -n: value missing; write -n VALUE'],
    ['--config', 'option --config: value missing; write --config VALUE'],
    ['-c f -c g', 'option --config: given twice; start vpn once for each file'],
    ['-c f --check=1', 'option --check: takes no value; write --check alone'],
    ['client key -c f', 'word "client": not beside --config; leave it out, or leave --config out'],
    [
      '-c f --link eth0',
      'option --link: not beside --config; give it a section of its own in the file',
    ],
    ['-c f --frobnicate', 'unknown option "--frobnicate"; see vpn --help'],
    ['-c f -x', 'unknown option "-x"; see vpn --help'],
    ['-c f --mtu', 'option --mtu: value missing; write --mtu N'],
  ];
  for (const [line, message] of wrong) {
    it(`is refused: vpn ${line}`, () => {
      throws(() => fileArguments(split(line)), { constructor: UsageFailure, message });
    });
  }
});
