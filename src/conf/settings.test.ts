import { deepEqual, equal, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { outcomeOf, settingsOf } from '../../test/confbed.ts';
import { UsageFailure } from '../report.ts';

const GENERAL = '[general]\nmode = client\nkey_file = /k\n';
const LINK = '[l]\nremotehost = h\nremoteport = 1\n';
const SERVER = '[general]\nmode = server\nkey_file = /k\n[l]\nbindport = 1\n';

/** What is told of a file with `lines` in [general] and `more` in its link, whose lines start at 4. */
function told(lines: string, more = ''): readonly string[] {
  return outcomeOf(`${GENERAL}${lines}\n${LINK}${more}\n`).told;
}

describe('the settings of a file', () => {
  it('have defaults, and say where each value is from', () => {
    const { general, links, mode } = settingsOf(`${GENERAL}timeout = 30\n${LINK}`);
    equal(mode, 'client');
    deepEqual(general.get('timeout'), { value: 30, origin: { kind: 'file', line: 4 } });
    deepEqual(general.get('tuntap'), { value: 'tun', origin: { kind: 'default' } });
    equal(general.get('ip4'), undefined);
    deepEqual(general.get('name'), { value: 'home', origin: { kind: 'default' } });
    const [{ values }] = links;
    deepEqual(values.get('remoteport'), { value: 1, origin: { kind: 'file', line: 7 } });
    const inherited = { value: 30, origin: { kind: 'file', line: 4 }, inherited: true };
    deepEqual(values.get('timeout'), inherited);
  });

  it('take both spellings of the tolerances, in both kinds of section', () => {
    const text = `${GENERAL}loss_tolerence = 50\nlatency_tolerance = 250\n${LINK}`;
    const { links, general } = settingsOf(
      `${text}loss_tolerance = 30%\nlatency_tolerence = 80ms\n`,
    );
    const keys = ['loss_tolerance', 'latency_tolerance'];
    deepEqual(
      [general, links[0].values].map((values) => keys.map((key) => values.number(key))),
      [
        [50, 250],
        [30, 80],
      ],
    );
  });

  it('take an empty value for none, as MLVPN does', () => {
    equal(settingsOf(`${GENERAL}ip6_routes = ""\n${LINK}`).general.has('ip6_routes'), false);
  });

  it('are overridden by the command line', () => {
    const override = { key: 'mtu', text: '1400', option: '--mtu' };
    const { general } = settingsOf(`${GENERAL}mtu = 1300\n${LINK}`, [override]);
    deepEqual(general.get('mtu'), { value: 1400, origin: { kind: 'command line' } });
    const wrong = { ...override, text: '1' };
    const message = '--mtu "1": not within 1280 to 1500; correct it';
    throws(() => outcomeOf(`${GENERAL}${LINK}`, [wrong]), { constructor: UsageFailure, message });
  });

  const values: readonly (readonly [string, string, unknown])[] = [
    ['cleartext_data', '1', true],
    ['cleartext_data', 'no', false],
    ['ip4_routes', '192.168.0.0/24 192.168.1.0/24', ['192.168.0.0/24', '192.168.1.0/24']],
    ['ip6_routes', 'FD00:0::/8,fd01::/16', ['fd00::/8', 'fd01::/16']],
    ['mark', '0x10', 16],
    ['dns', '192.0.2.1, 2001:DB8::1', ['192.0.2.1', '2001:db8::1']],
    ['realtime', 'udp:5004,duplicate tcp:22', ['udp:5004,duplicate', 'tcp:22']],
    ['debug_tokens', 'rtt net', ['rtt', 'net']],
  ];
  for (const [key, text, value] of values) {
    it(`have ${key} from "${text}"`, () => {
      const { general } = settingsOf(`${GENERAL}${key} = ${text}\n${LINK}`);
      deepEqual(general.get(key)?.value, value);
    });
  }

  const rates: readonly (readonly [string, number])[] = [
    ['61440', 61_440],
    ['20mbit', 2_500_000],
    ['1.5Gbit', 187_500_000],
    ['0', 0],
  ];
  for (const [text, rate] of rates) {
    it(`have ${rate} bytes per second from "${text}"`, () => {
      const [{ values: link }] = settingsOf(`${GENERAL}${LINK}bandwidth_upload = ${text}\n`).links;
      equal(link.number('bandwidth_upload'), rate);
    });
  }
});

describe('a wrong value', () => {
  const rows: readonly (readonly [string, string])[] = [
    ['mtu = 1600', 'mtu "1600": not within 1280 to 1500; correct it'],
    ['tuntap = tip', 'tuntap "tip": "tip" is none of its words; they are tun, tap'],
    ['cleartext_data = 2', 'cleartext_data "2": neither yes nor no; write 1 or 0'],
    ['statuscommand = x', 'statuscommand "x": not an absolute path; start it with /'],
    ['ip4 = 10.0.0.1', 'ip4 "10.0.0.1": prefix length missing; write 10.0.0.1/32 for one host'],
    ['ip4 = 10.0.0.1/33', 'ip4 "10.0.0.1/33": prefix length not within 0 to 32; correct it'],
    [
      'ip4 = fd00::1/8',
      'ip4 "fd00::1/8": not an IPv4 address of a host; give one such as 10.42.43.2',
    ],
    [
      'ip4 = 127.0.0.1/8',
      'ip4 "127.0.0.1/8": not an IPv4 address of a host; give one such as 10.42.43.2',
    ],
    [
      'ip4_routes = 10.0.0.1/8',
      'ip4_routes "10.0.0.1/8": network "10.0.0.1/8": bits set behind the prefix; write 10.0.0.0/8',
    ],
    [
      'ip4_routes = fd00::/8',
      'ip4_routes "fd00::/8": network "fd00::/8": not a network; give one such as 10.0.0.0/8',
    ],
    [
      'ip4_routes = 0.0.0.0/0',
      'ip4_routes "0.0.0.0/0": network "0.0.0.0/0": is the default route; write default_routes = yes',
    ],
    ['table = 254', 'table "254": a table of the system; give another'],
    ['loss_tolerance = much', 'loss_tolerance "much": not a percentage; give 0 to 100'],
    ['latency_tolerance = 0', 'latency_tolerance "0": not within 1 to 60000 ms; correct it'],
    ['control_bind_port = 0', 'control_bind_port "0": not a port; give 1 to 65535'],
    ['dns = ns', 'dns "ns": "ns" is no IP address; give one such as 192.0.2.1'],
    [
      'realtime = udp:0',
      'realtime "udp:0": "udp:0" is no class; give one such as udp:5004 or udp:5004,duplicate',
    ],
    ['name = a/b', 'name "a/b": not a name; give up to 32 letters, digits, dots and dashes'],
    ['interface_name = a+', 'interface_name "a+": not an interface name; give one such as tun0'],
  ];
  for (const [line, message] of rows) {
    it(`is told with file and line: ${line}`, () => {
      deepEqual(told(line), [`error: home.conf:4: ${message}`]);
    });
  }

  const links: readonly (readonly [string, string])[] = [
    ['bandwidth_upload = fast', 'not a rate; give bytes per second, or a rate such as 20mbit'],
    ['bindhost = here', '"here" is no IP address; give one such as 192.0.2.1'],
    ['weight = 0', 'not within 0.01 to 100; correct it'],
    ['mtu = 1279', 'not within 1280 to 1580; correct it'],
    ['bindport = 65536', 'not a port; give 1 to 65535'],
  ];
  for (const [line, message] of links) {
    it(`of a link is told with file and line: ${line}`, () => {
      const [key, value] = line.split(' = ');
      deepEqual(told('', line), [`error: home.conf:8: ${key} "${value}": ${message}`]);
    });
  }

  const adjusted: readonly (readonly [string, string])[] = [
    ['timeout = 2', 'timeout "2": shorter than 5 s; 5 is taken'],
    ['loss_tolerence = 120', 'loss_tolerence "120": more than 100; 100 is taken'],
  ];
  for (const [line, message] of adjusted) {
    it(`is changed with a warning where MLVPN does so: ${line}`, () => {
      deepEqual(told(line), [`warning: home.conf:4: ${message}`]);
    });
  }

  it('is told of every line at once, in order, and none is lost', () => {
    const { told: all, settings } = outcomeOf(
      '[general]\nmtu = 1\nmode = x\nfrobnicate = 1\n[l]\nremotehost = 1.2\nremoteport = 0\n',
    );
    equal(settings, undefined);
    deepEqual(all, [
      'error: home.conf:2: mtu "1": not within 1280 to 1500; correct it',
      'error: home.conf:3: mode "x": "x" is none of its words; they are client, server',
      'error: home.conf:4: unknown key "frobnicate"; see vpn.conf(5)',
      'error: home.conf:6: remotehost "1.2": neither a host name nor an IP address; give the server',
      'error: home.conf:7: remoteport "0": not a port; give 1 to 65535',
    ]);
  });
});

describe('a file that does not hold together', () => {
  const rows: readonly (readonly [string, string])[] = [
    [`${LINK}`, 'home.conf: no section [general]; add it, with mode and key_file'],
    [
      `[general]\nkey_file = /k\n${LINK}`,
      'home.conf: key "mode" missing; add mode = "client" or "server" to [general]',
    ],
    [
      `[general]\nmode = client\n${LINK}`,
      'home.conf: neither key_file nor password; add one of them to [general]',
    ],
    [GENERAL, 'home.conf: no link; add a section such as [adsl1] with remotehost and remoteport'],
    [
      `${GENERAL}[l]\nremotehost = h\n`,
      'home.conf:4: section [l]: has no remoteport, which a client needs; add it: port',
    ],
    [
      `${GENERAL}[l]\nremotehost = ""\nremoteport = 1\n`,
      'home.conf:4: section [l]: has no remotehost, which a client needs; add it: host name or IP address',
    ],
    [
      '[general]\nmode = server\nkey_file = /k\n[l]\n',
      'home.conf:4: section [l]: has no bindport, which a server needs; add it: port',
    ],
    [`${GENERAL}${LINK}[l]\n`, 'home.conf:7: section [l]: already at line 4; put them into one'],
    [
      `${GENERAL}key_file = /l\n${LINK}`,
      'home.conf:4: key "key_file": already at line 3; take one of them out',
    ],
    [
      `${GENERAL}loss_tolerence = 1\nloss_tolerance = 2\n${LINK}`,
      'home.conf:5: key "loss_tolerance": already at line 4 as loss_tolerence; take one of them out',
    ],
    [
      `${GENERAL}${LINK}remotehst = x\n`,
      'home.conf:7: unknown key "remotehst"; did you mean remotehost?',
    ],
    [
      `${GENERAL}pasword = hunter2\n${LINK}`,
      'home.conf:4: unknown key "pasword"; did you mean password?',
    ],
    [
      `${GENERAL}remotehost = x\n${LINK}`,
      'home.conf:4: unknown key "remotehost"; it belongs into the section of a link',
    ],
    [
      `${GENERAL}${LINK}password = x\n`,
      'home.conf:7: unknown key "password"; it belongs into [general]',
    ],
    [
      `${GENERAL}${LINK}[filtres]\nl = udp\n`,
      'home.conf:7: section [filtres]: not a link; did you mean [filters]?',
    ],
    [
      `${GENERAL}${LINK}[realtime]\nremotehost = h\nremoteport = 2\n`,
      'home.conf:7: section [realtime]: means a class in [filters]; give the link another name',
    ],
    [
      `${GENERAL}${LINK}[a b]\nremotehost = h\nremoteport = 2\n`,
      'home.conf:7: section [a b]: not a name; give the link up to 32 letters, digits, dots and dashes',
    ],
    [
      `${GENERAL}[filters]\nm = udp\n${LINK}`,
      'home.conf:5: filter for "m": no such link; did you mean l?',
    ],
    [
      `${GENERAL}ip4 = 10.0.0.1/24\n${LINK}`,
      'home.conf:4: key "ip4": without ip4_gateway; add ip4_gateway, the address of the other end',
    ],
    [
      `${GENERAL}ip4_gateway = 10.0.0.1\n${LINK}`,
      'home.conf:4: key "ip4_gateway": without ip4; add ip4 to [general]',
    ],
    [
      `${GENERAL}ip4 = 10.0.0.1/24\nip4_gateway = 10.0.0.1\n${LINK}`,
      'home.conf:5: key "ip4_gateway": the same address as ip4; give each end its own',
    ],
    [
      `${GENERAL}${LINK}[m]\nremoteport = 1\nremotehost = h\n`,
      'home.conf:7: section [m]: the same addresses and ports as [l]; change or remove it',
    ],
    [
      `${SERVER}[m]\nbindport = 1\nbindhost = 0.0.0.0\n`,
      'home.conf:6: section [m]: the same addresses and ports as [l]; change or remove it',
    ],
    [
      `${GENERAL}${LINK}device = eth0\nbindhost = 192.0.2.1\n`,
      'home.conf:7: key "device": beside bindhost; take one of them out',
    ],
    [
      `${GENERAL}[l]\nremotehost = 2001:db8::1\nremoteport = 1\nbindhost = 192.0.2.1\n`,
      'home.conf:7: key "bindhost": IPv4, but remotehost is IPv6; give both the same',
    ],
    [
      `${GENERAL}${LINK}gateway = 192.0.2.1 192.0.2.2\n`,
      'home.conf:7: key "gateway": two of one family; give one, or make two links',
    ],
  ];
  for (const [text, message] of rows) {
    it(`is refused: ${message}`, () => {
      const { settings, told: all } = outcomeOf(text);
      equal(settings, undefined);
      equal(
        all
          .filter((line) => line.startsWith('error: '))
          .join('\n')
          .includes(message),
        true,
      );
      equal(all.length, 1, all.join('\n'));
    });
  }

  it('is refused with a password beside a key file, and does not show it', () => {
    deepEqual(told('password = hunter2'), [
      'error: home.conf:3: key "key_file": beside a password at line 4; take one of them out',
    ]);
  });

  it('is refused with more links than there are marks for', () => {
    const links = Array.from(
      { length: 33 },
      (_, i) => `[l${i}]\nremotehost = h\nremoteport = ${i + 1}\n`,
    );
    const { told: all } = outcomeOf(GENERAL + links.join(''));
    deepEqual(all, ['error: home.conf: 33 links: at most 32; leave some out']);
  });

  it('is warned of keys that mean nothing in its mode', () => {
    const { told: all, settings } = outcomeOf(`${SERVER}remotehost = h\n`);
    const message = 'home.conf:6: key "remotehost": means nothing on a server; it is ignored';
    deepEqual(all, [`warning: ${message}`]);
    equal(settings?.links[0].values.has('remotehost'), false);
  });
});
