import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clientSettings } from '../test/standins/host.ts';
import type { Facts, Route } from './facts.ts';
import { proxiedBy } from './proxies.ts';

const route = (destination: string, device: string, gateway = ''): Route => ({
  table: 254,
  destination,
  device,
  gateway,
  isOnlink: false,
  metric: 0,
  source: '',
});

const facts = {
  routes4: [
    route('default', 'eth0', '192.168.1.1'),
    route('192.168.1.0/24', 'eth0'),
    route('10.5.0.0/16', 'eth1'),
    route('10.6.0.0/16', 'eth1', '10.5.0.1'),
    route('192.168.192.0/24', 'tun0'),
    { ...route('172.16.0.0/12', 'eth2'), table: 100 },
  ],
  routes6: [route('2001:db8:1::/64', 'eth0'), route('fe80::/64', 'eth0')],
} as unknown as Facts;

const base = { ...clientSettings('tun0'), peerIp6: '' };
const nothing = { addresses4: [], addresses6: [], networks4: [], networks6: [] };

describe('what is answered for in local networks', () => {
  const rows: readonly (readonly [string, Parameters<typeof proxiedBy>[0], object[]])[] = [
    ['nothing that is in none of them', base, []],
    ['nothing that is behind a router', { ...base, peerIp: '10.6.0.9' }, []],
    ['nothing of a network of another table', { ...base, peerIp: '172.16.0.9' }, []],
    [
      'the peer, where its address is',
      { ...base, peerIp: '192.168.1.77', peerIp6: '2001:db8:1::77' },
      [
        {
          ...nothing,
          device: 'eth0',
          addresses4: ['192.168.1.77'],
          addresses6: ['2001:db8:1::77'],
        },
      ],
    ],
    ['nothing link-local', { ...base, peerIp6: 'fe80::9' }, []],
    [
      'networks and single addresses behind the peer, each where it is',
      {
        ...base,
        routes: [
          ...['192.168.1.64/28', '10.5.9.9/32', '2001:db8:1::8/128', '2001:db8:1:0:1::/80'],
          // The whole network, and one that it is part of: they are not behind the peer only.
          ...['10.5.0.0/16', '192.168.0.0/16'],
        ],
      },
      [
        {
          device: 'eth0',
          addresses4: [],
          addresses6: ['2001:db8:1::8'],
          networks4: ['192.168.1.64/28'],
          networks6: ['2001:db8:1:0:1::/80'],
        },
        { ...nothing, device: 'eth1', addresses4: ['10.5.9.9'] },
      ],
    ],
  ];
  for (const [what, settings, expected] of rows) {
    it(`is ${what}`, () => assert.deepEqual(proxiedBy(settings, facts), expected));
  }
});
