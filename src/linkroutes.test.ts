import { deepEqual, equal } from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PolicyRule, Route } from './facts.ts';
import { difference, exits, leadsTo, wayOf } from './linkroutes.ts';
import type { HostLink, LinkFacts } from './linkroutes.ts';

/** `10.0.0.0/24 dev eth0 src 10.0.0.2`, as ip-route(8) writes it. */
function route(text: string): Route {
  const [destination, ...words] = text.split(' ');
  const after = (word: string): string => {
    const at = words.indexOf(word);
    return at < 0 ? '' : words[at + 1];
  };
  return {
    table: Number(after('table') || 254),
    destination,
    device: after('dev'),
    gateway: after('via'),
    isOnlink: words.includes('onlink'),
    metric: Number(after('metric') || 0),
    source: after('src'),
  };
}

function facts(
  routes4: readonly string[],
  addresses: readonly (readonly [string, string])[] = [],
  rest: { readonly routes6?: readonly string[]; readonly rules?: readonly PolicyRule[] } = {},
): LinkFacts {
  return {
    addresses: new Map(addresses),
    rules: rest.rules ?? [],
    routes4: routes4.map(route),
    routes6: (rest.routes6 ?? []).map(route),
  };
}

const NONE: HostLink = { name: '', device: '', address: '', gateways: [] };
const device = (name: string, ...gateways: readonly string[]): HostLink => ({
  ...NONE,
  device: name,
  gateways,
});
const address = (text: string, ...gateways: readonly string[]): HostLink => ({
  ...NONE,
  address: text,
  gateways,
});

/** The hops of a link, as ip-route(8) would write them. */
function hops(link: HostLink, of: LinkFacts): readonly string[] {
  return wayOf(link, of).hops.map(({ to, kind, gateway, device: by }) =>
    kind === 'direct' ? `${to} dev ${by}` : `${to} ${kind} ${gateway} dev ${by}`,
  );
}

const rule = (source: string, more: Partial<PolicyRule> = {}): PolicyRule => ({
  isInverted: false,
  preference: 100,
  mark: 0,
  mask: 0xffffffff,
  table: 102,
  source,
  isPlain: true,
  ...more,
});

const TWO_PORTS = facts(
  [
    'default dev eth0 via 10.0.0.1 metric 100',
    'default dev wwan0 via 10.8.0.1 metric 700',
    '10.0.0.0/24 dev eth0 src 10.0.0.2',
    '10.8.0.0/30 dev wwan0 src 10.8.0.2',
    '10.50.0.0/16 dev eth0 via 10.0.0.9',
    'default dev tun0 table 4097',
  ],
  [
    ['10.0.0.2', 'eth0'],
    ['10.8.0.2', 'wwan0'],
    ['192.0.2.7', 'lo'],
  ],
  {
    routes6: [
      'default dev eth0 via fe80::1 metric 1024',
      'fe80::/64 dev eth0',
      'fe80::/64 dev wwan0',
    ],
  },
);
/** MLVPN's: two routers in front of one interface. */
const TWO_ADSL = facts(
  [
    'default dev eth0 via 192.168.1.1',
    '192.168.1.0/24 dev eth0 src 192.168.1.2',
    '192.168.2.0/24 dev eth0 src 192.168.2.2',
    '198.51.100.0/24 dev eth0 via 192.168.1.1',
  ],
  [
    ['192.168.1.2', 'eth0'],
    ['192.168.2.2', 'eth0'],
  ],
);

describe('the way of a link', () => {
  const rows: readonly (readonly [string, HostLink, LinkFacts, readonly string[]])[] = [
    [
      'bound to an interface goes by its default route and its networks, in both families',
      device('eth0'),
      TWO_PORTS,
      [
        '10.0.0.0/24 dev eth0',
        '10.50.0.0/16 via 10.0.0.9 dev eth0',
        'default via 10.0.0.1 dev eth0',
        'fe80::/64 dev eth0',
        'default via fe80::1 dev eth0',
      ],
    ],
    [
      'is the second default route, if that is its interface',
      device('wwan0'),
      TWO_PORTS,
      ['10.8.0.0/30 dev wwan0', 'default via 10.8.0.1 dev wwan0', 'fe80::/64 dev wwan0'],
    ],
    ['is nowhere without its interface', device('eth9'), TWO_PORTS, []],
    [
      'bound to an address is of one family',
      address('10.0.0.2'),
      TWO_PORTS,
      [
        '10.0.0.0/24 dev eth0',
        '10.50.0.0/16 via 10.0.0.9 dev eth0',
        'default via 10.0.0.1 dev eth0',
      ],
    ],
    [
      'is by the best of several default routes',
      device('eth0'),
      facts([
        'default dev eth0 via 10.0.0.9 metric 200',
        'default dev eth0 via 10.0.0.1 metric 50',
      ]),
      ['default via 10.0.0.1 dev eth0'],
    ],
    [
      'bound to the first of two addresses goes by the gateway on its network',
      address('192.168.1.2'),
      TWO_ADSL,
      [
        '192.168.1.0/24 dev eth0',
        '192.168.2.0/24 dev eth0',
        '198.51.100.0/24 via 192.168.1.1 dev eth0',
        'default via 192.168.1.1 dev eth0',
      ],
    ],
    [
      'bound to the second takes neither the gateway of the first nor what lies behind it',
      address('192.168.2.2'),
      TWO_ADSL,
      ['192.168.1.0/24 dev eth0', '192.168.2.0/24 dev eth0'],
    ],
    [
      'is by the gateway that is given, and by no other',
      address('192.168.2.2', '192.168.2.1'),
      TWO_ADSL,
      ['192.168.1.0/24 dev eth0', '192.168.2.0/24 dev eth0', 'default via 192.168.2.1 dev eth0'],
    ],
    [
      'bound to the second takes its own gateway, whatever its metric',
      address('192.168.2.2'),
      facts(
        [
          'default dev eth0 via 192.168.1.1',
          'default dev eth0 via 192.168.2.1 metric 500',
          '192.168.1.0/24 dev eth0',
          '192.168.2.0/24 dev eth0',
        ],
        [['192.168.2.2', 'eth0']],
      ),
      ['192.168.1.0/24 dev eth0', '192.168.2.0/24 dev eth0', 'default via 192.168.2.1 dev eth0'],
    ],
    [
      'needs no gateway on a point-to-point interface',
      device('ppp0'),
      facts(['default dev ppp0', '10.64.64.64 dev ppp0 src 10.1.2.3']),
      ['10.64.64.64 dev ppp0', 'default dev ppp0'],
    ],
    [
      'may be by a gateway that is on no network',
      address('203.0.113.5'),
      facts(['default dev eth0 via 172.31.1.1 onlink'], [['203.0.113.5', 'eth0']]),
      ['default onlink 172.31.1.1 dev eth0'],
    ],
    [
      'may be by a gateway of IPv6',
      device('eth0'),
      facts(['default dev eth0 via fe80::1']),
      ['default across fe80::1 dev eth0'],
    ],
    [
      'of an address of IPv6 is by the link-local router',
      address('2001:db8::2'),
      facts([], [['2001:db8::2', 'eth0']], {
        routes6: ['default dev eth0 via fe80::1', '2001:db8::/64 dev eth0', 'fe80::/64 dev eth0'],
      }),
      ['2001:db8::/64 dev eth0', 'fe80::/64 dev eth0', 'default via fe80::1 dev eth0'],
    ],
  ];
  for (const [name, link, of, expected] of rows) {
    it(name, () => {
      deepEqual([...hops(link, of)].sort(), [...expected].sort());
    });
  }

  it('asks for the gateway where the default route is another address’s', () => {
    equal(wayOf(address('192.168.2.2'), TWO_ADSL).otherGateway, '192.168.1.1');
    equal(wayOf(address('192.168.1.2'), TWO_ADSL).otherGateway, '');
    equal(wayOf(address('192.168.2.2', '192.168.2.1'), TWO_ADSL).otherGateway, '');
  });

  it('is left to the host where nothing has to be done', () => {
    const isRouted = (link: HostLink, rules: readonly PolicyRule[] = []): boolean =>
      wayOf(link, { ...TWO_PORTS, rules }).isRouted;
    equal(isRouted(NONE), false);
    equal(isRouted(address('192.0.2.7')), false, 'on the loopback interface');
    equal(isRouted(address('10.0.0.2')), true);
    equal(isRouted(address('10.0.0.2'), [rule('10.0.0.2')]), false);
    equal(isRouted(address('10.0.0.2'), [rule('10.0.0.0/8')]), false);
    equal(isRouted(address('10.9.9.9'), [rule('10.0.0.0/8')]), false, 'not there now');
    equal(isRouted(address('10.0.0.2'), [rule('10.0.0.3')]), true);
    equal(isRouted(address('10.0.0.2'), [rule('10.0.0.2', { isPlain: false })]), true);
    equal(isRouted(address('10.0.0.2'), [rule('10.0.0.2', { preference: 32766 })]), true);
    equal(isRouted(device('eth0'), [rule('10.0.0.2')]), true);
  });

  it('has one route to each place: the best', () => {
    const twice = facts(['10.0.0.0/24 dev eth0 metric 9', '10.0.0.0/24 dev eth0 via 10.0.0.9']);
    deepEqual(hops(device('eth0'), twice), ['10.0.0.0/24 via 10.0.0.9 dev eth0']);
  });

  it('does without the networks of a router of the Internet', () => {
    const many = Array.from({ length: 70 }, (_, i) => `10.${i}.0.0/16 dev eth0 via 10.255.0.1`);
    const of = facts(['10.255.0.0/24 dev eth0', 'default dev eth0 via 10.255.0.1', ...many]);
    deepEqual(hops(device('eth0'), of), [
      '10.255.0.0/24 dev eth0',
      'default via 10.255.0.1 dev eth0',
    ]);
  });
});

describe('the table of a link', () => {
  const wanted = wayOf(device('eth0'), TWO_PORTS).hops;
  const inTable = (...texts: readonly string[]): LinkFacts =>
    facts(texts.map((text) => `${text} table 4608`));
  const lines = (list: readonly { readonly to: string; readonly gateway: string }[]): string =>
    list.map(({ to, gateway }) => `${to} ${gateway}`.trim()).join(', ');

  for (const [name, there, missing, gone] of [
    [
      'is filled when it is empty',
      inTable(),
      '10.0.0.0/24, 10.50.0.0/16 10.0.0.9, default 10.0.0.1',
      '',
    ],
    [
      'has the new gateway put in the place of the old',
      inTable(
        '10.0.0.0/24 dev eth0',
        '10.50.0.0/16 dev eth0 via 10.0.0.9',
        'default dev eth0 via 10.0.0.7',
      ),
      'default 10.0.0.1',
      '',
    ],
    [
      'loses the network that the interface left',
      inTable(
        '10.0.0.0/24 dev eth0',
        '10.50.0.0/16 dev eth0 via 10.0.0.9',
        'default dev eth0 via 10.0.0.1',
        '10.7.0.0/24 dev eth0',
      ),
      '',
      '10.7.0.0/24',
    ],
  ] as const) {
    it(name, () => {
      const four = wanted.filter((hop) => hop.family === 4);
      const found = difference(four, 4608, there);
      deepEqual([lines(found.missing), lines(found.gone)], [missing, gone]);
    });
  }

  it('leads to what it has a route to', () => {
    equal(leadsTo(wanted, '203.0.113.9'), true);
    equal(leadsTo(wanted, '2001:db8::9'), true);
    const networks = wanted.filter((hop) => hop.to !== 'default');
    equal(leadsTo(networks, '203.0.113.9'), false);
    equal(leadsTo(networks, '10.50.3.4'), true);
  });
});

describe('the ways out of a host', () => {
  it('are the interfaces with a default route of the main table, best first', () => {
    deepEqual(exits(TWO_PORTS), ['eth0', 'wwan0']);
    const six = facts(['default dev eth1 via 10.0.0.1 metric 100'], [], {
      routes6: ['default dev eth0 via fe80::1 metric 50'],
    });
    deepEqual(exits(six), ['eth0', 'eth1']);
  });
});
