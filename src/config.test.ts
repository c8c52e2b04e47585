import { deepEqual, equal, ok, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clientConfig, serverConfig } from './config.ts';
import type { ClientConfig, Config, ServerConfig } from './config.ts';
import { UNBOUND } from './linkconfig.ts';
import { parseArguments } from './options.ts';
import { UsageFailure } from './report.ts';

const words = (line: string): string[] => line.split(' ').filter((word) => word !== '');
const server = (line: string): ServerConfig => serverConfig(parseArguments(words(line)));
const client = (line: string): ClientConfig => clientConfig(parseArguments(words(line)));

const COMMON = {
  keyFile: 'key',
  port: 443,
  tun: '',
  routes: [],
  mtu: 0,
  mark: 0,
  table: 0,
  cipher: 'auto',
  offload: true,
  dryRun: false,
  rekeyAfterMs: 120_000,
  stateDir: '/var/lib/vpn',
  realtime: [],
  killSwitch: false,
  dns: [],
  proxyArp: false,
  allow: [],
  isCleartext: false,
  tuntap: 'tun',
  user: '',
  log: 'text',
  defaultRoutes: true,
};
const SERVER = {
  ...COMMON,
  role: 'server',
  listen: [{ address: '', port: 443 }],
  externalIp: '',
  localIp: '192.168.192.254',
  peerIp: '192.168.192.1',
};
/** The default of --timeout, as in a file. */
const LINK = { ...UNBOUND, timeoutMs: 60_000 };
const CLIENT = {
  ...COMMON,
  role: 'client',
  server: 'h',
  gateway: '',
  links: [LINK],
  localIp: '192.168.192.1',
  peerIp: '192.168.192.254',
};

describe('the words of a command line', () => {
  const rows: readonly (readonly [() => Config, object])[] = [
    [() => server('key'), SERVER],
    [() => server('key auto auto auto auto auto auto'), SERVER],
    [() => server('key auto 443'), SERVER],
    [
      () => server('key 192.0.2.1 1234'),
      { ...SERVER, listen: [{ address: '192.0.2.1', port: 1234 }], port: 1234 },
    ],
    [() => server('key ::'), { ...SERVER, listen: [{ address: '::', port: 443 }] }],
    [
      () => server('key --listen 192.0.2.1:444 auto --listen [2001:db8::1]:443'),
      {
        ...SERVER,
        listen: [
          { address: '192.0.2.1', port: 444 },
          { address: '2001:db8::1', port: 443 },
        ],
        port: 444,
      },
    ],
    [
      () => client('key h 444 --link eth0 --link 192.0.2.7,remote=other --realtime udp:5004'),
      {
        ...CLIENT,
        port: 444,
        links: [
          { ...LINK, name: 'eth0', device: 'eth0' },
          {
            ...LINK,
            name: '192.0.2.7',
            address: '192.0.2.7',
            remote: { host: 'other', port: 444 },
          },
        ],
        realtime: [{ protocol: 'udp', port: 5004, isDuplicated: false }],
      },
    ],
    [
      () => server('key :: 65535 tun7 10.0.0.1 10.0.0.2 192.0.2.9'),
      {
        ...SERVER,
        listen: [{ address: '::', port: 65535 }],
        port: 65535,
        tun: 'tun7',
        localIp: '10.0.0.1',
        peerIp: '10.0.0.2',
        externalIp: '192.0.2.9',
      },
    ],
    [() => client('key h'), CLIENT],
    [() => client('key h auto auto auto auto auto'), CLIENT],
    [() => client('key [2001:db8::1]'), { ...CLIENT, server: '2001:db8::1' }],
    [() => client('key fe80::1%eth0'), { ...CLIENT, server: 'fe80::1%eth0' }],
    [() => client('key a-b.example.com.'), { ...CLIENT, server: 'a-b.example.com.' }],
    [
      () => client('key h 1 auto auto 10.0.0.2 192.0.2.254'),
      { ...CLIENT, port: 1, peerIp: '10.0.0.2', gateway: '192.0.2.254' },
    ],
    [
      () => client('--mtu 1280 key --mark=0x10 h --table 7'),
      { ...CLIENT, mtu: 1280, mark: 16, table: 7 },
    ],
    [() => client('key h --mtu auto --mark auto'), CLIENT],
    [() => client('key h --no-default-routes'), { ...CLIENT, defaultRoutes: false }],
    [
      () => client('key h --route 10.0.0.0/8 --route fd00:0::/8 --route 10.0.0.0/08'),
      { ...CLIENT, routes: ['10.0.0.0/8', 'fd00::/8'], defaultRoutes: false },
    ],
    [() => server('key --route 10.1.2.3/32'), { ...SERVER, routes: ['10.1.2.3/32'] }],
    [
      () => server('key --no-offload --dry-run -v --cipher aes-256-gcm --rekey-after 2'),
      {
        ...SERVER,
        offload: false,
        dryRun: true,
        cipher: 'aes-256-gcm',
        rekeyAfterMs: 2000,
      },
    ],
    [() => server('--state-dir /x -- key'), { ...SERVER, stateDir: '/x' }],
    [
      () => client('key h --link eth0 --link auto --timeout 7'),
      {
        ...CLIENT,
        links: [
          { ...LINK, name: 'eth0', device: 'eth0', timeoutMs: 7_000 },
          { ...LINK, name: 'auto', isAuto: true, timeoutMs: 7_000 },
        ],
      },
    ],
    // A network behind the address is routed, as from a file; one of two ends has none.
    [
      () => client('key h --ip6 fd00::1/64 --ip6-gateway fd00::2 --route fd00:1::/32'),
      { ...CLIENT, routes: ['fd00::/64', 'fd00:1::/32'], defaultRoutes: false },
    ],
    [() => server('key --ip6 fd00::1/126'), SERVER],
  ];
  for (const [make, expected] of rows) {
    it(`give a complete configuration: ${make.toString().slice(6)}`, () =>
      deepEqual(make(), expected));
  }

  it('give a configuration that nobody can change', () => {
    const config = client('key h --route 10.0.0.0/8');
    ok(
      [config, config.routes, config.links, config.links[0], config.realtime].every(
        Object.isFrozen,
      ),
    );
    const { listen } = server('key');
    ok(Object.isFrozen(listen) && Object.isFrozen(listen[0]));
  });
});

describe('a command line that is wrong', () => {
  const rows: readonly (readonly [string, string])[] = [
    ['key h 0', 'port "0": not a UDP port; give 1 to 65535, or auto'],
    ['key h 65536', 'port "65536": not a UDP port; give 1 to 65535, or auto'],
    ['key h 1e2', 'port "1e2": not a UDP port; give 1 to 65535, or auto'],
    ['key h auto a/b', 'tun "a/b": not an interface name; give one such as tun0, or auto'],
    ['key h auto tun+', 'tun "tun+": not an interface name; give one such as tun0, or auto'],
    ['key h auto ..', 'tun "..": not an interface name; give one such as tun0, or auto'],
    ['key h auto all', 'tun "all": not an interface name; give one such as tun0, or auto'],
    [
      'key h auto 1234567890123456',
      'tun "1234567890123456": longer than 15 bytes; give a shorter name',
    ],
    [
      'key h auto auto ::1',
      'local tun ip "::1": not an IPv4 address; give one such as 192.168.192.1, or auto',
    ],
    [
      'key h auto auto auto 127.0.0.1',
      'remote tun ip "127.0.0.1": no host can have it; give one such as 192.168.192.1, or auto',
    ],
    [
      'key h auto auto 10.0.0.1 10.0.0.1',
      'local and remote tun ip "10.0.0.1": both ends have the same address; give each end its own',
    ],
    [
      'key h auto auto 192.168.192.254',
      'local and remote tun ip "192.168.192.254": both ends have the same address; give each end its own',
    ],
    ['key h auto auto auto auto gw', 'gateway ip "gw": not an IP address; give one, or auto'],
    ['key 300.1.1.1', 'server "300.1.1.1": neither a host name nor an IP address; give the server'],
    ['key auto', 'server "auto": neither a host name nor an IP address; give the server'],
    ['key a..b', 'server "a..b": neither a host name nor an IP address; give the server'],
    ['key h:443', 'server "h:443": the port is a word of its own; write h 443, in two words'],
    [
      'key [::1]:443',
      'server "[::1]:443": the port is a word of its own; write ::1 443, in two words',
    ],
    ['key h --mtu 1279', '--mtu "1279": not within 1280 to 1500; correct it, or give auto'],
    ['key h --mtu 1501', '--mtu "1501": not within 1280 to 1500; correct it, or give auto'],
    ['key h --mark 0', '--mark "0": not within 1 to 4294967295; correct it, or give auto'],
    ['key h --mark -1', '--mark "-1": not within 1 to 4294967295; correct it, or give auto'],
    ['key h --table 254', '--table "254": a table of the system; give another, or auto'],
    [
      'key h --cipher rot13',
      '--cipher "rot13": no such cipher; give auto, aes-256-gcm or chacha20-poly1305',
    ],
    ['key h --route x', '--route "x": not a network; give one such as 10.0.0.0/8 or fd00::/8'],
    [
      'key h --route 1.2.3.4/8/9',
      '--route "1.2.3.4/8/9": not a network; give one such as 10.0.0.0/8 or fd00::/8',
    ],
    [
      'key h --route 1.2.3.4',
      '--route "1.2.3.4": prefix length missing; write 1.2.3.4/32 for one host',
    ],
    [
      'key h --route 1.2.3.4/33',
      '--route "1.2.3.4/33": prefix length not within 0 to 32; correct it',
    ],
    [
      'key h --route fd00::/129',
      '--route "fd00::/129": prefix length not within 0 to 128; correct it',
    ],
    [
      'key h --route 10.1.2.3/9',
      '--route "10.1.2.3/9": bits set behind the prefix; write 10.0.0.0/9',
    ],
    [
      'key h --route fd00::1/64',
      '--route "fd00::1/64": bits set behind the prefix; write fd00::/64',
    ],
    ['key h --route ::/0', '--route "::/0": is the default route; leave --route away'],
    [
      'key h auto auto auto auto 192.0.2.1 --link eth0',
      'gateway ip "192.0.2.1": each link has its own; write --link eth0,gateway=192.0.2.1',
    ],
    [
      'key h --kill-switch --route 10.0.0.0/8',
      '--kill-switch: beside --route other traffic is to go past the tunnel; leave one of them out',
    ],
    [
      'key h --no-default-routes --kill-switch',
      '--kill-switch: beside --no-default-routes other traffic is to go past the tunnel; leave one of them out',
    ],
    ['key h --rekey-after 0', '--rekey-after "0": not a time; give 0.1 to 120 seconds'],
    ['key h --state-dir x', '--state-dir "x": not an absolute path; start it with /'],
  ];
  for (const [line, message] of rows) {
    it(`is refused with what to do: client ${line}`, () => {
      throws(() => client(line), { constructor: UsageFailure, message });
    });
  }

  it('is refused for an address that is given in two ways', () => {
    for (const [words, word] of [
      ['192.0.2.1', '192.0.2.1'],
      ['auto 444', '444'],
    ]) {
      const message = `"${word}": not beside --listen; write auto for address and port`;
      throws(() => server(`key ${words} --listen *:443`), { constructor: UsageFailure, message });
    }
  });

  it('is refused for a server address that is a name', () => {
    const message = 'address "localhost": not an IP address; give one, or auto';
    throws(() => server('key localhost'), { constructor: UsageFailure, message });
  });

  it('is refused for too few and too many words', () => {
    throws(() => server(''), /^Error: too few words; write vpn server KEYFILE/);
    throws(() => client('key'), /^Error: too few words; write vpn client KEYFILE SERVER/);
    throws(() => server('k auto auto auto auto auto auto x'), /unknown word "x": one too many/);
    equal(server('k auto auto auto auto auto auto').port, 443);
  });
});
