import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TABLES } from '../../test/standins/tables.ts';
import { defaultsOf, parseIfconfig, parseNetstat, routeTo } from './netstat.ts';

/** macOS before 11.3 (other columns), as people post it. */
const OLD_MACOS = `Routing tables

Internet:
Destination        Gateway            Flags        Refs      Use   Netif Expire
default            10.10.10.1         UGSc           20       16     en0
10.10.10/24        link#4             UCS             1        0     en0
10.10.10.1/32      link#4             UCS             1        0     en0
10.10.10.1         bc:67:1c:40:3:f6   UHLWIir        21       14     en0   1193
127                127.0.0.1          UCS             0        0     lo0
169.254            link#4             UCS             0        0     en0
172.16.111/24      link#11            UC              1        0  vmnet1
192.168.220        link#12            UC              1        0  vmnet8
224.0.0/4          link#4             UmCS            2        0     en0
`;
/** FreeBSD behind a modem: no gateway. */
const PPP = `Routing tables

Internet:
Destination        Gateway            Flags     Netif Expire
default            link#4             US          tun1
127.0.0.1          link#2             UH           lo0
`;
const IFCONFIG = {
  darwin: `lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
\toptions=1203<RXCSUM,TXCSUM,TXSTATUS,SW_TIMESTAMP>
\tinet 127.0.0.1 netmask 0xff000000
\tinet6 ::1 prefixlen 128
\tinet6 fe80::1%lo0 prefixlen 64 scopeid 0x1
en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tether a8:66:7f:11:22:33
\tinet6 fe80::18f5:2b4:87a2:1c1e%en0 prefixlen 64 secured scopeid 0x4
\tinet 192.168.1.10 netmask 0xffffff00 broadcast 192.168.1.255
utun3: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1380
\tinet 10.8.0.2 --> 10.8.0.1 netmask 0xffffffff
`,
  netbsd: `wm0: flags=0x8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tec_capabilities=0x17<VLAN_MTU,VLAN_HWTAGGING,JUMBO_MTU,EEE>
\taddress: 52:54:00:12:34:56
\tinet 192.168.1.10/24 broadcast 192.168.1.255 flags 0
\tinet6 fe80::5054:ff:fe12:3456%wm0/64 flags 0 scopeid 0x1
lo0: flags=0x8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 33624
\tinet 127.0.0.1/8 flags 0
`,
  openbsd: `vio0: flags=808843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST,AUTOCONF4> mtu 1500
\tlladdr fe:e1:bb:d1:aa:bb
\tindex 1 priority 0 llprio 3
\tgroups: egress
\tinet 192.168.1.10 netmask 0xffffff00 broadcast 192.168.1.255
`,
};

describe('netstat', () => {
  for (const [system, { four, six }] of Object.entries(TABLES)) {
    it(`of ${system}: the default route of each family, and none of those that lead nowhere`, () => {
      const device = { darwin: 'en0', netbsd: 'wm0' }[system] ?? 'em0';
      const via = (gateway: string) => [{ device, gateway, metric: 0, advertised: false }];
      assert.deepEqual(defaultsOf(parseNetstat(four, 4)), via('203.0.113.1'));
      assert.deepEqual(defaultsOf(parseNetstat(six, 6)), via(`fe80::1%${device}`));
    });

    it(`of ${system}: the way to an address`, () => {
      const routes = parseNetstat(four, 4);
      assert.equal(routeTo(routes, '198.51.100.7', 'tun0')?.gateway, '203.0.113.1');
      assert.equal(routeTo(routes, '203.0.113.9', 'tun0')?.gateway, '');
      assert.equal(routeTo(routes, '203.0.113.1', 'tun0')?.bits, 24);
      assert.equal(routeTo(parseNetstat(six, 6), '2001:db8::9', 'tun0')?.bits, 64);
      assert.equal(routeTo(parseNetstat(six, 6), '2001:db8:1::9', 'tun0')?.bits, 0);
    });
  }

  it('leaves out what is spelled as usual', () => {
    const of = parseNetstat(OLD_MACOS, 4).map(({ network, bits, device }) => [
      network,
      bits,
      device,
    ]);
    assert.deepEqual(of, [
      ['0.0.0.0', 0, 'en0'],
      ['10.10.10.0', 24, 'en0'],
      ['10.10.10.1', 32, 'en0'],
      ['10.10.10.1', 32, 'en0'],
      ['127.0.0.0', 8, 'lo0'],
      ['169.254.0.0', 16, 'en0'],
      ['172.16.111.0', 24, 'vmnet1'],
      ['192.168.220.0', 24, 'vmnet8'],
      ['224.0.0.0', 4, 'en0'],
    ]);
  });

  it('has a default route without a gateway, and none at all', () => {
    const [route] = defaultsOf(parseNetstat(PPP, 4));
    assert.deepEqual([route?.device, route?.gateway], ['tun1', '']);
    assert.deepEqual(defaultsOf(parseNetstat('', 4)), []);
    assert.equal(routeTo([], '198.51.100.7', 'tun0'), undefined);
  });

  it('does not take the tunnel for the way to the server', () => {
    const halves = '0/1  10.0.0.1  UGS  tun0\n128/1  10.0.0.1  UGS  tun0\n';
    const routes = parseNetstat(`${TABLES.freebsd.four}${halves}`, 4);
    assert.equal(routeTo(routes, '198.51.100.7', 'tun0')?.device, 'em0');
    assert.equal(routeTo(routes, '198.51.100.7', 'tun1')?.device, 'tun0');
  });
});

describe('ifconfig', () => {
  it('of macOS: addresses without their zones, point to point included', () => {
    const holders = parseIfconfig(IFCONFIG.darwin);
    assert.deepEqual(
      [...holders],
      [
        ['127.0.0.1', 'lo0'],
        ['::1', 'lo0'],
        ['fe80::1', 'lo0'],
        ['fe80::18f5:2b4:87a2:1c1e', 'en0'],
        ['192.168.1.10', 'en0'],
        ['10.8.0.2', 'utun3'],
      ],
    );
  });

  it('of NetBSD with lengths, of OpenBSD without', () => {
    assert.equal(parseIfconfig(IFCONFIG.netbsd).get('192.168.1.10'), 'wm0');
    assert.equal(parseIfconfig(IFCONFIG.netbsd).get('fe80::5054:ff:fe12:3456'), 'wm0');
    assert.equal(parseIfconfig(IFCONFIG.openbsd).get('192.168.1.10'), 'vio0');
  });
});
