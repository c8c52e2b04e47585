import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  canonicalAddress,
  isIpv6Usable,
  parseAddresses,
  parseChains,
  parseRoutes,
  parseRules,
  readFacts,
} from './facts.ts';
import { PLATFORMS } from './os.ts';
import type { Runner } from './rules.ts';

// Captured from iproute2 6.1.
const RULES =
  '[{"priority":0,"src":"all","table":"255"},{"priority":28001,"src":"all","fwmark":"0x4000","fwmask":"0x4000","table":"100"},{"priority":28002,"not":null,"src":"all","fwmark":"0x1001","table":"4097"},{"priority":32766,"src":"all","table":"254","suppress_prefixlen":0}]';
const SOURCE_RULES =
  '[{"priority":100,"src":"192.0.2.1","table":"9"},{"priority":101,"src":"192.0.2.0","srclen":24,"table":"9"},{"priority":102,"src":"2001:db8::","srclen":32,"table":"9"},{"priority":103,"src":"192.0.2.1","oif":"v0","uid_start":0,"uid_end":5,"table":"9"},{"priority":104,"src":"192.0.2.1","dst":"198.51.100.0","dstlen":24,"table":"9"},{"priority":105,"src":"192.0.2.1","fwmark":"0x7","table":"9"}]';
const ROUTES4 =
  '[{"dst":"default","dev":"ppp0","scope":"253","metric":300,"flags":["linkdown"]},{"dst":"default","gateway":"10.0.0.1","dev":"eth0","protocol":"16","metric":100,"flags":[]},{"type":"7","dst":"default","dev":"lo","table":"777","metric":4096,"flags":[],"pref":"medium"},{"type":"2","dst":"127.0.0.0/8","dev":"lo","table":"255","protocol":"2","scope":"254","prefsrc":"127.0.0.1","flags":[]}]';
const ROUTES6 =
  '[{"type":"7","dst":"default","dev":"lo","metric":4294967295,"flags":[],"pref":"medium"},{"dst":"default","gateway":"fe80::1","dev":"eth0","protocol":"9","metric":1024,"flags":[],"expires":1790,"pref":"medium"}]';
const MULTIPATH =
  '[{"dst":"default","flags":[],"nexthops":[{"gateway":"10.0.0.1","dev":"eth0","weight":1,"flags":[]},{"gateway":"10.1.0.1","dev":"eth1","weight":1,"flags":[]}]}]';
const NETWORKS =
  '[{"dst":"10.0.0.0/24","dev":"eth0","protocol":"2","scope":"253","prefsrc":"10.0.0.2","flags":[]},{"dst":"10.9.0.1","gateway":"10.7.0.1","dev":"eth0","flags":["onlink"]},{"dst":"default","gateway":"10.1.0.1","dev":"eth1","table":"4608","flags":[]}]';
const OVER_IPV6 =
  '[{"dst":"default","via":{"family":"inet6","host":"fe80::1"},"dev":"eth0","flags":[]}]';
// Captured from nft 1.0.6.
const CHAINS = `table inet firewalld {
\tchain filter_FORWARD {
\t\ttype filter hook forward priority 10; policy accept;
\t}
\tchain filter_INPUT {
\t\ttype filter hook input priority 10; policy accept;
\t}
\tchain filter_FWD_public {
\t}
}
table ip filter {
\tchain FORWARD {
\t\ttype filter hook forward priority 0; policy drop;
\t}
}
table ip mangle {
\tchain FORWARD {
\t\ttype filter hook forward priority -150; policy accept;
\t}
}
table bridge filter {
\tchain forward {
\t\ttype filter hook forward priority 0; policy accept;
\t}
}
`;
const ADDRESSES =
  '[{"ifindex":1,"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},{"ifindex":2,"ifname":"tun9","addr_info":[{"family":"inet","local":"10.0.0.1","address":"10.0.0.2","prefixlen":32},{"family":"inet6","local":"fd00::1","prefixlen":128,"nodad":true}]},{"ifindex":3,"ifname":"bare"}]';

describe('facts', () => {
  it('parses rules with marks, masks and tables', () => {
    const plain = { isInverted: false, mask: 0xffffffff, source: '', isPlain: true };
    assert.deepEqual(parseRules(RULES), [
      { ...plain, preference: 0, mark: 0, table: 255 },
      { ...plain, preference: 28001, mark: 0x4000, mask: 0x4000, table: 100, isPlain: false },
      { ...plain, isInverted: true, preference: 28002, mark: 0x1001, table: 4097, isPlain: false },
      { ...plain, preference: 32766, mark: 0, table: 254, isPlain: false },
    ]);
  });

  it('parses rules with a source, and knows those that look at nothing else', () => {
    assert.deepEqual(
      parseRules(SOURCE_RULES).map(({ source, isPlain }) => [source, isPlain]),
      [
        ['192.0.2.1', true],
        ['192.0.2.0/24', true],
        ['2001:db8::/32', true],
        ['192.0.2.1', false],
        ['192.0.2.1', false],
        ['192.0.2.1', false],
      ],
    );
  });

  it('finds the default routes, best first, with and without a gateway', () => {
    const { tables, defaults } = parseRoutes(ROUTES4);
    assert.deepEqual([...tables], [254, 777, 255]);
    assert.deepEqual(
      defaults.map(({ device, gateway }) => [device, gateway]),
      [
        ['eth0', '10.0.0.1'],
        ['ppp0', ''],
      ],
    );
    assert.deepEqual(parseRoutes(MULTIPATH).defaults[0]?.gateway, '10.0.0.1');
    assert.deepEqual(parseRoutes(OVER_IPV6).defaults[0]?.gateway, 'fe80::1');
  });

  it('lists the routes of every table, one for each next hop', () => {
    const none = { isOnlink: false, gateway: '', source: '', metric: 0, table: 254 };
    assert.deepEqual(parseRoutes(ROUTES4).routes, [
      { ...none, destination: 'default', device: 'ppp0', metric: 300 },
      { ...none, destination: 'default', device: 'eth0', gateway: '10.0.0.1', metric: 100 },
    ]);
    assert.deepEqual(parseRoutes(NETWORKS).routes, [
      { ...none, destination: '10.0.0.0/24', device: 'eth0', source: '10.0.0.2' },
      { ...none, destination: '10.9.0.1', device: 'eth0', gateway: '10.7.0.1', isOnlink: true },
      { ...none, destination: 'default', device: 'eth1', gateway: '10.1.0.1', table: 4608 },
    ]);
    assert.deepEqual(
      parseRoutes(MULTIPATH).routes.map(({ device, gateway }) => [device, gateway]),
      [
        ['eth0', '10.0.0.1'],
        ['eth1', '10.1.0.1'],
      ],
    );
  });

  it('takes an unreachable default for none, and knows an advertised one', () => {
    assert.deepEqual(parseRoutes(ROUTES6).defaults, [
      { device: 'eth0', gateway: 'fe80::1', metric: 1024, advertised: true },
    ]);
  });

  it('finds the interface that holds an address', () => {
    const holders = parseAddresses(ADDRESSES);
    assert.equal(holders.get('10.0.0.1'), 'tun9');
    assert.equal(holders.get('fd00::1'), 'tun9');
    assert.equal(holders.get('10.0.0.2'), undefined);
  });

  it('finds the nft chains in which forwarded packets may be dropped', () => {
    assert.deepEqual(parseChains(CHAINS), [
      { family: 'inet', table: 'firewalld', chain: 'filter_FORWARD' },
      { family: 'ip', table: 'filter', chain: 'FORWARD' },
    ]);
    assert.deepEqual(parseChains(''), []);
  });

  it('takes nothing, and what is no JSON, for an empty list', () => {
    for (const text of ['', '[]', '[{}', '{}', 'null', '[null,3]']) {
      assert.deepEqual(parseRules(text), []);
      assert.deepEqual(parseRoutes(text).defaults, []);
      assert.equal(parseAddresses(text).size, 0);
    }
  });

  it('spells an address one way', () => {
    assert.equal(canonicalAddress('FD00:0:0::01'), 'fd00::1');
    assert.equal(canonicalAddress('fe80::1%eth0'), 'fe80::1');
    assert.equal(canonicalAddress('10.0.0.1'), '10.0.0.1');
  });

  it('are read with failing probes left out', async () => {
    const sysctls: Record<string, string> = {
      'net/ipv4/conf/all/rp_filter': '0',
      'net/ipv4/conf/eth0/rp_filter': '1',
      'net/ipv6/conf/all/disable_ipv6': '0',
      'net/ipv6/conf/default/disable_ipv6': '1',
      'net/ipv6/conf/tun0/disable_ipv6': '0',
      'net/ipv6/conf/eth0/accept_ra': '1',
    };
    const run = (argv: readonly string[]) => {
      const line = argv.join(' ');
      const status = line.startsWith('ip6tables') ? 3 : 0;
      const stdout = line.includes('-4 route')
        ? ROUTES4
        : line.includes('-6 route')
          ? ROUTES6
          : line.includes('rule')
            ? RULES
            : ADDRESSES;
      return { status, stdout, stderr: '', reason: `exited with ${status}`, refused: true };
    };
    const runner: Runner = {
      run: (argv) => Promise.resolve(run(argv)),
      runSync: run,
      readSysctl: (name) => sysctls[name],
      writeSysctl: () => undefined,
      listSysctls: () => Object.keys(sysctls).filter((name) => name.endsWith('rp_filter')),
    };
    const platform = PLATFORMS.linux;
    if (platform === undefined) throw new Error('no linux');
    const facts = await readFacts(platform, runner);
    assert.ok(facts.present.has('nat4'));
    assert.ok(!facts.present.has('nat6'));
    assert.match(facts.reasons.get('nat6') ?? '', /^"ip6tables .*" exited with 3$/);
    assert.deepEqual(facts.advertisedInterfaces, ['eth0']);
    assert.equal(isIpv6Usable(runner, 'tun0'), true);
    assert.equal(isIpv6Usable(runner, 'tun1'), false);
  });
});
