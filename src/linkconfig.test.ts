import { deepEqual, equal, ok, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MOST_LINKS } from './constants.ts';
import { parseLinks, parseListen, parseRealtime, UNBOUND } from './linkconfig.ts';
import type { LinkConfig } from './linkconfig.ts';
import { UsageFailure } from './report.ts';

const links = (...texts: readonly string[]): readonly LinkConfig[] => parseLinks(texts, 443);
const eth0 = { ...UNBOUND, name: 'eth0', device: 'eth0' };
const refused = (parse: () => unknown, message: string): void =>
  throws(parse, { constructor: UsageFailure, message });

describe('--link', () => {
  it('is one link that is bound to nothing when it is not given', () => {
    deepEqual(links(), [UNBOUND]);
  });

  const rows: readonly (readonly [string, Partial<LinkConfig>])[] = [
    ['eth0', {}],
    ['eth0.5', { name: 'eth0.5', device: 'eth0.5' }],
    ['192.0.2.1', { name: '192.0.2.1', device: '', address: '192.0.2.1' }],
    ['2001:DB8:0::1', { name: '2001:db8::1', device: '', address: '2001:db8::1' }],
    ['[2001:db8::1]', { name: '2001:db8::1', device: '', address: '2001:db8::1' }],
    ['auto', { name: 'auto', device: '', isAuto: true }],
    ['auto,backup', { name: 'auto', device: '', isAuto: true, isBackup: true }],
    ['eth0,name=lte', { name: 'lte' }],
    ['eth0,backup', { isBackup: true }],
    // 20e6 bits per second are 2500 bytes per millisecond.
    ['eth0,max=20mbit', { maxRate: 2500 }],
    ['eth0,max=1.5Gbit', { maxRate: 187_500 }],
    ['eth0,max=64kbit', { maxRate: 8 }],
    ['eth0,weight=0.5', { weight: 0.5 }],
    ['eth0,latency=300ms', { latencyLimitMs: 300 }],
    ['eth0,latency=1.5s', { latencyLimitMs: 1500 }],
    ['eth0,loss=20%', { lossLimit: 0.2 }],
    ['eth0,gateway=192.0.2.254', { gateways: ['192.0.2.254'] }],
    [
      'eth0,gateway=FE80::1,gateway=192.0.2.254,backup',
      { gateways: ['fe80::1', '192.0.2.254'], isBackup: true },
    ],
    ['eth0,remote=a.example:4433', { remote: { host: 'a.example', port: 4433 } }],
    ['eth0,remote=a.example', { remote: { host: 'a.example', port: 443 } }],
    ['eth0,remote=[2001:db8::2]:44', { remote: { host: '2001:db8::2', port: 44 } }],
    ['eth0,remote=2001:db8::2', { remote: { host: '2001:db8::2', port: 443 } }],
    ['eth0,mtu=1280', { mtu: 1280 }],
    [
      'wwan0,name=lte,backup,max=20mbit,weight=1,latency=300ms,loss=20%,gateway=192.0.2.254,remote=h:4,mtu=1400',
      {
        name: 'lte',
        device: 'wwan0',
        isBackup: true,
        maxRate: 2500,
        weight: 1,
        latencyLimitMs: 300,
        lossLimit: 0.2,
        gateways: ['192.0.2.254'],
        remote: { host: 'h', port: 4 },
        mtu: 1400,
      },
    ],
  ];
  for (const [text, expected] of rows) {
    it(`takes ${text}`, () => deepEqual(links(text), [{ ...eth0, ...expected }]));
  }

  it('repeats, also with one interface under several names', () => {
    deepEqual(
      links('eth0', 'eth0,name=b,gateway=192.0.2.9', 'auto', '192.0.2.1').map(({ name }) => name),
      ['eth0', 'b', 'auto', '192.0.2.1'],
    );
    ok(links('eth0', 'auto').every(Object.isFrozen));
  });

  const wrong: readonly (readonly [string, string])[] = [
    ['', 'no interface; give an interface, an address, or auto'],
    [',backup', 'no interface; give an interface, an address, or auto'],
    ['a/b', 'not an interface name; give one such as eth0, an address, or auto'],
    ['1234567890123456', 'longer than 15 bytes; give a shorter name'],
    ['fe80::1', 'a link-local address is no way out; give the interface instead'],
    ['eth0,bakup', 'unknown option "bakup"; did you mean backup?'],
    ['eth0,gatway=192.0.2.1', 'unknown option "gatway"; did you mean gateway?'],
    [
      'eth0,constructor',
      'unknown option "constructor"; the options of a link are name, backup, max, weight, latency, loss, gateway, remote, mtu',
    ],
    ['eth0,max', 'max: value missing; write max=20mbit'],
    ['eth0,max=', 'max: value missing; write max=20mbit'],
    ['eth0,backup=yes', 'backup takes no value; write backup'],
    ['eth0,mtu=1400,mtu=1400', 'mtu given twice; give it once'],
    ['eth0,max=20', 'max "20" is not a rate; give one such as 20mbit, 64kbit at least'],
    ['eth0,max=1kbit', 'max "1kbit" is not a rate; give one such as 20mbit, 64kbit at least'],
    ['eth0,weight=0', 'weight "0" is not a weight; give 0.01 to 100'],
    ['eth0,latency=300', 'latency "300" is not a time; give one such as 300ms, 1ms to 60s'],
    ['eth0,loss=0.2', 'loss "0.2" is not a share; give one such as 20%'],
    ['eth0,loss=101%', 'loss "101%" is not a share; give one such as 20%'],
    ['eth0,name=a b', 'name "a b" is not a name; give up to 32 letters, digits, dots and dashes'],
    ['auto,name=a', 'name "a" is for one link only; leave it out'],
    ['eth0,gateway=gw', 'gateway "gw" is not an IP address; give that of the router'],
    ['192.0.2.1,gateway=fe80::1', 'gateway "fe80::1" is of the other family; give one of IPv4'],
    [
      'eth0,gateway=192.0.2.1,gateway=192.0.2.2',
      'gateway "192.0.2.2" is the second of its family; give one, or make two links',
    ],
    [
      'auto,gateway=192.0.2.1',
      'gateway "192.0.2.1" is for one link only; give the interface instead of auto',
    ],
    [
      'auto,remote=h:443',
      'remote "h:443" is for one link only; give the interface instead of auto',
    ],
    ['eth0,remote=h:0', 'remote "h:0" has no UDP port "0"; give 1 to 65535'],
    ['eth0,mtu=1279', 'mtu "1279" is not within 1280 to 1580; correct it'],
  ];
  for (const [text, message] of wrong) {
    it(`refuses "${text}", and says what to do`, () =>
      refused(() => links(text), `--link "${text}": ${message}`));
  }

  it('refuses what is given twice, and more than there are marks for', () => {
    refused(
      () => links('eth0', 'eth0,gateway=192.0.2.1'),
      'link "eth0": given twice; give each a name: --link eth0,name=NAME',
    );
    refused(() => links('auto', 'auto'), 'link "auto": given twice; give it once');
    const many = Array.from({ length: MOST_LINKS + 1 }, (_, i) => `eth${i}`);
    equal(links(...many.slice(1)).length, MOST_LINKS);
    refused(() => links(...many), `${MOST_LINKS + 1} links: at most ${MOST_LINKS}; leave some out`);
  });
});

describe('--listen', () => {
  for (const [text, address, port] of [
    ['192.0.2.1:443', '192.0.2.1', 443],
    ['[2001:db8::1]:65535', '2001:db8::1', 65535],
    [':443', '', 443],
    ['*:443', '', 443],
  ] as const) {
    it(`takes ${text}`, () => deepEqual(parseListen([text]), [{ address, port }]));
  }

  const USAGE = 'write ADDRESS:PORT, [IPV6]:PORT or *:PORT';
  for (const [text, why] of [
    ['192.0.2.1', 'port missing'],
    ['2001:db8::1', 'port missing'],
    ['192.0.2.1:', 'port missing'],
    ['192.0.2.1:0', '"0" is not a UDP port'],
    ['localhost:443', 'not an IP address'],
  ] as const) {
    it(`refuses ${text}`, () =>
      refused(() => parseListen([text]), `--listen "${text}": ${why}; ${USAGE}`));
  }

  it('refuses what is given twice', () => {
    const twice = ['*:443', '192.0.2.1:443', ':443'];
    refused(() => parseListen(twice), '--listen "*:443": given twice; once does');
  });
});

describe('--realtime', () => {
  it('takes a protocol and a port, and whether it goes out twice', () => {
    deepEqual(parseRealtime(['udp:5004,duplicate', 'tcp:22']), [
      { protocol: 'udp', port: 5004, isDuplicated: true },
      { protocol: 'tcp', port: 22, isDuplicated: false },
    ]);
  });

  for (const [text, message] of [
    ['5004', 'not a protocol and a port; give one such as udp:5004'],
    ['sctp:5004', 'not a protocol and a port; give one such as udp:5004'],
    ['udp:0', '"0" is not a port; give 1 to 65535'],
    ['udp:', '"" is not a port; give 1 to 65535'],
    ['udp:1,twice', 'unknown option "twice"; the one option is duplicate'],
  ] as const) {
    it(`refuses ${text}`, () =>
      refused(() => parseRealtime([text]), `--realtime "${text}": ${message}`));
  }
});
