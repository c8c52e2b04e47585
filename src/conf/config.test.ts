import { deepEqual, equal } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { outcomeOf, settingsOf } from '../../test/confbed.ts';
import { clientConfig, serverConfig } from '../config.ts';
import type { Config } from '../config.ts';
import { parseArguments } from '../options.ts';
import { fileConfig } from './config.ts';
import type { DaemonConfig } from './config.ts';

const EXAMPLES = join(import.meta.dirname, '..', '..', 'test', 'conf');
const NO_OPTIONS = new Map();
const CLIENT = '[general]\nmode = client\nkey_file = /k\n';
const LINK = '[l]\nremotehost = h\nremoteport = 1\n';

const example = (name: string): string => readFileSync(join(EXAMPLES, name), 'utf8');
const configOf = (text: string) => fileConfig(settingsOf(text), NO_OPTIONS);
const warnings = (text: string): readonly string[] => outcomeOf(text).told;
const PASSWORD_HINT = 'can be guessed; better vpn keygen FILE and key_file = FILE, on both ends';

describe("MLVPN's example of two ADSL lines", () => {
  it('is, on the client, what two --link would be', () => {
    const text = example('adsl-client.conf');
    const { config } = configOf(text);
    const link = 'remote=128.128.128.128';
    const line = [
      ...['k', '128.128.128.128', '5080', 'mlvpn0', '--no-default-routes', '--timeout', '30'],
      ...['--link', `192.168.1.2,name=adsl1,latency=250ms,loss=50%,${link}:5080`],
      ...['--link', `192.168.2.2,name=adsl2,latency=250ms,loss=50%,${link}:5081`],
    ];
    deepEqual(config, { ...clientConfig(parseArguments(line)), keyFile: '' });
    deepEqual(warnings(text), [`warning: home.conf:8: key "password": ${PASSWORD_HINT}`]);
  });

  it('is, on the server, what two --listen would be', () => {
    const { config, daemon } = configOf(example('adsl-server.conf'));
    const line = [
      ...['k', 'auto', 'auto', 'mlvpn0', '--no-default-routes'],
      ...['--listen', '*:5080', '--listen', '*:5081'],
    ];
    deepEqual(config, { ...serverConfig(parseArguments(line)), keyFile: '' });
    deepEqual(
      daemon.links.map(({ name, lossLimit, latencyLimitMs }) => [name, lossLimit, latencyLimitMs]),
      [
        ['adsl1', 0.5, 250],
        ['adsl2', 0.5, 250],
      ],
    );
  });

  for (const name of ['adsl-client.conf', 'adsl-server.conf']) {
    it(`leaves addresses, routes and NAT to the script (${name})`, () => {
      const { config, daemon } = configOf(example(name));
      equal(daemon.statuscommand, '/etc/mlvpn/mlvpn0_updown.sh');
      equal(daemon.setsAddresses, false);
      equal(config.defaultRoutes, false);
      deepEqual(config.routes, []);
      equal(daemon.reorderPackets, 64);
      deepEqual(
        daemon.links.map(({ timeoutMs }) => timeoutMs),
        [30_000, 30_000],
      );
    });
  }
});

describe("MLVPN's example of ADSL, SDSL and telephony", () => {
  it('has two unbound links with a server each, and the filters in order', () => {
    const { config, daemon } = configOf(example('voip.conf'));
    const links = config.role === 'client' ? config.links : [];
    deepEqual(
      links.map(({ name, device, address, remote, lossLimit }) => [
        ...[name, device, address, remote?.host, remote?.port, lossLimit],
      ]),
      [
        ['sdsl', '', '', 'sdslgw.example.net', 5080, 0.5],
        ['adsl', '', '', 'adslgw.example.net', 5081, 0.5],
      ],
    );
    deepEqual(daemon.filters, [
      { target: 'sdsl', expression: 'udp port 5060' },
      { target: 'adsl', expression: 'udp port 5060' },
    ]);
    equal(daemon.setsAddresses, true);
  });

  it('is warned of the line without "="', () => {
    deepEqual(warnings(example('voip.conf')), [
      `warning: home.conf:4: key "password": ${PASSWORD_HINT}`,
      'warning: home.conf:5: key "reorder_buffer_size": no "=" before its value, taken as if; write it',
    ]);
  });
});

describe('the configuration from a file', () => {
  it('has no more than MLVPN does by itself', () => {
    const { config, daemon } = configOf(CLIENT + LINK);
    equal(config.defaultRoutes, false);
    deepEqual(config.routes, []);
    deepEqual([config.localIp, config.peerIp], ['192.168.192.1', '192.168.192.254']);
    deepEqual(
      [config.killSwitch, config.dns, config.allow, config.proxyArp],
      [false, [], [], false],
    );
    equal(daemon.controlPort, 0);
  });

  const addresses: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ['ip4 = 10.42.43.1/30\nip4_gateway = 10.42.43.2', ['10.42.43.1', '10.42.43.2'], []],
    ['ip4 = 10.42.43.2/30', ['10.42.43.2', '10.42.43.1'], []],
    ['ip4 = 10.42.43.4/31', ['10.42.43.4', '10.42.43.5'], []],
    ['ip4 = 10.0.0.1/24\nip4_gateway = 10.0.0.2', ['10.0.0.1', '10.0.0.2'], ['10.0.0.0/24']],
    [
      'ip4 = 10.0.0.1/32\nip4_gateway = 10.9.0.2\nip4_routes = "10.9.0.0/16"\nip6_routes = fd00::/8',
      ['10.0.0.1', '10.9.0.2'],
      ['10.9.0.0/16', 'fd00::/8'],
    ],
  ];
  for (const [lines, ends, routes] of addresses) {
    it(`has the ends ${ends.join(' and ')} from ${JSON.stringify(lines)}`, () => {
      const { config } = configOf(`${CLIENT}${lines}\n${LINK}`);
      deepEqual([config.localIp, config.peerIp], ends);
      deepEqual(config.routes, routes);
    });
  }

  it('hands addresses and routes to the script, when there is one', () => {
    const lines = [
      ...['statuscommand = /s', 'ip4 = 10.0.0.1/24', 'ip6 = fd00::1/64', 'ip4_gateway = 10.0.0.2'],
      ...['ip6_gateway = fd00::2', 'ip4_routes = 10.1.0.0/16 10.2.0.0/16', 'mtu = 1400'],
    ];
    const { config, daemon } = configOf(`${CLIENT}${lines.join('\n')}\n${LINK}`);
    deepEqual(config.routes, []);
    deepEqual([config.mtu, daemon.mostMtu], [0, 1400]);
    deepEqual(daemon.scriptEnvironment, {
      IP4: '10.0.0.1/24',
      IP6: 'fd00::1/64',
      IP4_GATEWAY: '10.0.0.2',
      IP6_GATEWAY: 'fd00::2',
      IP4_ROUTES: '10.1.0.0/16 10.2.0.0/16',
      IP6_ROUTES: '',
      MTU: '1400',
    });
    deepEqual(daemon.innerIpv6, { local: 'fd00::1', peer: 'fd00::2' });
  });

  it('has every option of a link', () => {
    const link = [
      ...['[lte]', 'device = wwan0', 'remotehost = a.example', 'remoteport = 4433'],
      ...['gateway = 192.0.2.254 fe80::1', 'bandwidth_upload = 2500000', 'weight = 0.5'],
      ...['timeout = 10', 'loss_tolerance = 20', 'latency_tolerance = 300', 'fallback_only = 1'],
      ...['mtu = 1400', 'bindport = 7000', 'bindfib = 2'],
    ];
    const { config, daemon } = configOf(`${CLIENT}${link.join('\n')}\n`);
    const spec = 'wwan0,name=lte,backup,weight=0.5,latency=300ms,loss=20%';
    const more = 'gateway=192.0.2.254,gateway=fe80::1,remote=a.example:4433,mtu=1400';
    const line = ['k', 'a.example', '4433', '--timeout', '10', '--link', `${spec},${more}`];
    const same = clientConfig(parseArguments(line));
    const own = { localPort: 7000, uploadRate: 2500 };
    deepEqual(config.role === 'client' && config.links, [{ ...same.links[0], ...own }]);
    const [{ timeoutMs, fib, uploadRate }] = daemon.links;
    deepEqual([timeoutMs, fib, uploadRate], [10_000, 2, 2500]);
  });

  it('takes a tolerance of 100 percent for none, as MLVPN does', () => {
    const { daemon } = configOf(CLIENT + LINK);
    deepEqual([daemon.links[0].lossLimit, daemon.links[0].latencyLimitMs], [0, 0]);
  });

  it('takes "any address" for no binding', () => {
    for (const address of ['0.0.0.0', '::']) {
      const { config } = configOf(`${CLIENT}${LINK}bindhost = ${address}\n`);
      equal(config.role === 'client' && config.links[0].address, '');
    }
  });

  const daemons: readonly (readonly [string, Partial<DaemonConfig>])[] = [
    ['quiet = yes', { verbosity: -1 }],
    ['verbose = 2', { verbosity: 2 }],
    ['control_unix_path = /run/x.sock', { controlPath: '/run/x.sock' }],
    ['control_bind_port = 1040', { controlPort: 1040, controlAddress: '127.0.0.1' }],
    ['natural_title = 1', { naturalTitle: true }],
  ];
  for (const [line, expected] of daemons) {
    it(`has ${JSON.stringify(expected)} from ${line}`, () => {
      const plain = configOf(CLIENT + LINK).daemon;
      const { daemon } = configOf(`${CLIENT}${line}\n${LINK}`);
      deepEqual(daemon, { ...plain, ...expected });
    });
  }

  const configs: readonly (readonly [string, Partial<Config>, readonly string[]])[] = [
    ['cleartext_data = 1', { isCleartext: true }, ['--cleartext-data']],
    ['tuntap = tap', { tuntap: 'tap' }, ['--tuntap', 'tap']],
    ['kill_switch = yes', { killSwitch: true }, ['--kill-switch']],
    ['dns = 192.0.2.53', { dns: ['192.0.2.53'] }, ['--dns', '192.0.2.53']],
    ['allow = 10.0.0.0/8', { allow: ['10.0.0.0/8'] }, ['--allow', '10.0.0.0/8']],
    ['proxy_arp = 1', { proxyArp: true }, ['--proxy-arp']],
    ['log = json', { log: 'json' }, ['--log', 'json']],
    ['user = _vpn', { user: '_vpn' }, ['--user', '_vpn']],
  ];
  for (const [line, expected, options] of configs) {
    it(`has ${JSON.stringify(expected)} from ${line} and from ${options.join(' ')}`, () => {
      const plain = configOf(CLIENT + LINK).config;
      const { config } = configOf(`${CLIENT}${line}\n${LINK}`);
      deepEqual(config, { ...plain, ...expected });
      const words = ['/k', 'h'];
      const bare = clientConfig(parseArguments(words));
      deepEqual(clientConfig(parseArguments([...words, ...options])), { ...bare, ...expected });
    });
  }

  it('has routes of all kinds when they are asked for', () => {
    const { config } = configOf(`${CLIENT}default_routes = yes\nip4_routes = 10.0.0.0/8\n${LINK}`);
    equal(config.defaultRoutes, true);
    deepEqual(config.routes, ['10.0.0.0/8']);
  });
});
