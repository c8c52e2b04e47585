/** What a command line says under the names of keys, held against the same words in a file. */
import { deepEqual, equal, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { settingsOf } from '../../test/confbed.ts';
import { clientConfig, serverConfig } from '../config.ts';
import type { ClientConfig, Config } from '../config.ts';
import { PLAIN_LINK } from '../peering.ts';
import { parseArguments } from '../options.ts';
import { UsageFailure } from '../report.ts';
import { daemonOf } from './commandline.ts';
import { fileConfig } from './config.ts';
import type { DaemonConfig } from './config.ts';

const split = (line: string): readonly string[] => line.split(' ').filter((word) => word !== '');

interface Both<C extends Config = Config> {
  readonly config: C;
  readonly daemon: DaemonConfig;
}

function client(line: string): Both<ClientConfig> {
  const args = parseArguments(['/k', 'h', ...split(line)]);
  const config = clientConfig(args);
  return { config, daemon: daemonOf(config, args.options) };
}

function server(line: string): Both {
  const args = parseArguments(['/k', ...split(line)]);
  const config = serverConfig(args);
  return { config, daemon: daemonOf(config, args.options) };
}

function file(lines: string): Both {
  const text = `[general]\nmode = client\nkey_file = /k\n${lines}\n[l]\nremotehost = h\nremoteport = 443\n`;
  return fileConfig(settingsOf(text), new Map());
}

describe('options that are keys of a file', () => {
  const rows: readonly (readonly [string, string, Partial<DaemonConfig>])[] = [
    ['--name home', 'name = home', { name: 'home' }],
    ['--natural-title', 'natural_title = 1', { naturalTitle: true }],
    ['-v', 'verbose = 1', { verbosity: 1 }],
    ['-vv --verbose', 'verbose = 3', { verbosity: 3 }],
    ['-q', 'quiet = yes', { verbosity: -1 }],
    ['--debug', 'debug = yes', { debug: true }],
    ['-D rtt -Dnet', 'debug_tokens = rtt net', { debugTokens: ['rtt', 'net'] }],
    ['--statuscommand /s', 'statuscommand = /s', { statuscommand: '/s' }],
    ['--reorder-buffer-size 64', 'reorder_buffer_size = 64', { reorderPackets: 64 }],
    ['--control-unix-path /run/x', 'control_unix_path = /run/x', { controlPath: '/run/x' }],
    ['--control-bind-host ::1', 'control_bind_host = ::1', { controlAddress: '::1' }],
    ['--control-bind-port 1040', 'control_bind_port = 1040', { controlPort: 1040 }],
    [
      '--ip6 fd00::1/64 --ip6-gateway fd00::2',
      'ip6 = fd00::1/64\nip6_gateway = fd00::2',
      { innerIpv6: { local: 'fd00::1', peer: 'fd00::2' } },
    ],
  ];
  for (const [line, lines, expected] of rows) {
    it(`mean the same: ${line}`, () => {
      const changed = Object.fromEntries(
        Object.keys(expected).map((key) => [
          key,
          [client(line), file(lines)].map(({ daemon }) => daemon[key as keyof DaemonConfig]),
        ]),
      );
      const twice = Object.entries(expected).map(([key, value]) => [key, [value, value]]);
      deepEqual(changed, Object.fromEntries(twice));
    });
  }

  it('have the same defaults', () => {
    const plain = client('').daemon;
    const { daemon } = file('');
    const names = [
      ...(['verbosity', 'debug', 'debugTokens', 'statuscommand', 'innerIpv6', 'mostMtu'] as const),
      ...(['reorderPackets', 'controlPath', 'controlAddress', 'controlPort', 'filters'] as const),
    ];
    for (const name of names) deepEqual(plain[name], daemon[name], name);
    deepEqual(plain.links, [{ ...client('').config.links[0], fib: 0 }]);
    equal(plain.links[0].timeoutMs, daemon.links[0].timeoutMs);
    // Of a file, that of the file; else that of the device, which is not there yet.
    deepEqual([plain.name, daemon.name], ['', 'home']);
  });

  it('lead -v and -q against each other, as MLVPN has it', () => {
    equal(client('-vvq').daemon.verbosity, 1);
    equal(client('-q -q').daemon.verbosity, -1);
  });

  it('have the timeout at every link of a client, and at every port of a server', () => {
    const ours = client('--link eth0 --link eth1,backup --timeout 2').daemon.links;
    deepEqual(
      ours.map(({ name, isBackup, timeoutMs }) => [name, isBackup, timeoutMs]),
      [
        ['eth0', false, 5_000],
        ['eth1', true, 5_000],
      ],
    );
    const theirs = server('--listen *:1 --listen *:2 --timeout 9').daemon.links;
    deepEqual(theirs, Array(2).fill({ ...PLAIN_LINK, timeoutMs: 9_000, fib: 0 }));
  });

  it('leave addresses to vpn, and tell the script of them', () => {
    const line = 'auto auto 10.0.0.1 10.0.0.2 --statuscommand /s --route 10.9.0.0/16 --mtu 1400';
    const { config, daemon } = client(`${line} --route fd09::/32`);
    equal(daemon.setsAddresses, true);
    deepEqual(config.routes, ['10.9.0.0/16', 'fd09::/32']);
    deepEqual(daemon.scriptEnvironment, {
      IP4: '10.0.0.1/32',
      IP6: '',
      IP4_GATEWAY: '10.0.0.2',
      IP6_GATEWAY: '',
      IP4_ROUTES: '10.9.0.0/16',
      IP6_ROUTES: 'fd09::/32',
      MTU: '1400',
    });
    equal(daemon.mostMtu, 1400);
  });

  it('have filters in order', () => {
    const args = parseArguments(['/k', '--filter', 'a udp port 1', '--filter=realtime  tcp']);
    deepEqual(daemonOf(serverConfig(args), args.options).filters, [
      { target: 'a', expression: 'udp port 1' },
      { target: 'realtime', expression: 'tcp' },
    ]);
  });

  const wrong: readonly (readonly [string, string])[] = [
    ['--statuscommand s', '--statuscommand "s": not an absolute path; start it with /'],
    ['--timeout x', '--timeout "x": not within 0 to 3600; correct it'],
    ['--control-bind-port 0', '--control-bind-port "0": not a port; give 1 to 65535'],
    [
      '-D rt',
      '--debug-token "rt": "rt" is none of its words; they are config, control, dns, net, privsep, protocol, reorder, rtt, scheduler, tuntap, wrr',
    ],
    ['--ip6 fd00::1', '--ip6 "fd00::1": prefix length missing; write fd00::1/128 for one host'],
    [
      '--ip6 fd00::1/64',
      '--ip6 "fd00::1": without --ip6-gateway; add --ip6-gateway, the address of the other end',
    ],
    ['--ip6-gateway fd00::2', '--ip6-gateway "fd00::2": without --ip6; add --ip6 ADDRESS/PREFIX'],
    [
      '--ip6 fd00::1/64 --ip6-gateway fd00::1',
      '--ip6-gateway "fd00::1": the same address as --ip6; give each end its own',
    ],
  ];
  for (const [line, message] of wrong) {
    it(`are refused when they are wrong: ${line}`, () => {
      throws(() => client(line), { constructor: UsageFailure, message });
    });
  }
});
