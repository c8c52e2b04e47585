/** What a host may lack: it works with one warning, or ends with one clear line and nothing changed. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connected, makeKey, startClient, startServer, type End } from './ends.ts';
import { preloaded } from './clock.ts';
import { netTest, type Bed } from './netns.ts';
import { difference, hostState } from './state.ts';
import { ping, reaches } from './traffic.ts';
import { INTERNET, SERVER, world, type World } from './world.ts';

type Role = 'server' | 'client';

interface Case {
  readonly name: string;
  readonly lack?: (hosts: World) => void;
  /** Programs in PATH; all if left out. */
  readonly programs?: readonly string[];
  /** iptables of the kind that knows nothing of nft. */
  readonly isLegacy?: true;
  /** Command lines that are refused, as patterns of sh(1). */
  readonly refuses?: readonly string[];
  readonly wrapper?: (bed: Bed) => readonly string[];
  readonly options?: Partial<Record<Role, readonly string[]>>;
  readonly last?: Partial<Record<Role, string>>;
  /** The one warning of an end; none if left out. */
  readonly warns?: Partial<Record<Role, RegExp>>;
  /** The server ends with this line. */
  readonly fails?: RegExp;
  /** What the client reaches through the tunnel: the internet by both families if left out. */
  readonly reaches?: readonly (4 | 6)[];
}

const EXPOSED = /no raw table for iptables: .*: neighbours can probe/;
const OFF =
  /IPv6 is off \(net\.ipv6\.conf\.tun0\.disable_ipv6 is 1\): the tunnel carries IPv4 only/;
const NO_IPV6 = /IPv6 is off \(this kernel has none\): the tunnel carries IPv4 only/;
/** With other files than the host has. */
const remounted = (mount: string): readonly string[] => [
  'unshare',
  '-m',
  'sh',
  '-c',
  `${mount} && exec "$@"`,
  'sh',
];
/** As a container has it. */
const READ_ONLY = (): readonly string[] =>
  remounted('mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys');
/** As with ipv6.disable=1 on the kernel's command line. */
function withoutIpv6(bed: Bed): readonly string[] {
  const preload = `LD_PRELOAD=${preloaded(bed, 'noipv6')}`;
  return [...remounted('mount -t tmpfs tmpfs /proc/sys/net/ipv6'), 'env', preload];
}
const TOOLS = ['nft', 'g++'];
const ALL = ['ip', 'iptables', 'ip6tables', 'nft'];

const CASES: readonly Case[] = [
  {
    name: 'IPv6 is disabled',
    lack: ({ client, server }) => {
      for (const host of [client, server])
        for (const which of ['all', 'default'])
          host.sysctl(`net.ipv6.conf.${which}.disable_ipv6`, '1');
    },
    warns: { server: OFF, client: OFF },
    reaches: [4],
  },
  {
    name: 'the kernel has no IPv6',
    wrapper: withoutIpv6,
    refuses: ['ip * -6 *', 'ip -6 *', 'ip6tables *'],
    warns: { server: NO_IPV6, client: NO_IPV6 },
    reaches: [4],
  },
  {
    name: 'no ip6tables NAT and no nft',
    programs: ['ip', 'iptables', 'ip6tables'],
    refuses: ['ip6tables * -t nat *'],
    warns: { server: /no IPv6 NAT: "ip6tables .*: IPv6 does not leave this server/ },
    reaches: [4],
  },
  {
    name: 'no raw tables and no nft',
    programs: ['ip', 'iptables', 'ip6tables'],
    refuses: ['ip*tables * -t raw *'],
    warns: { server: EXPOSED, client: EXPOSED },
  },
  ...[ALL, ['ip', 'iptables', 'ip6tables']].map((programs) => ({
    name: `no iptables but the old one, ${programs === ALL ? 'beside nft' : 'no nft'}`,
    programs,
    isLegacy: true as const,
  })),
  {
    name: 'no iptables, no nft, a server without NAT',
    programs: ['ip'],
    options: { server: ['--no-default-routes'], client: ['--no-default-routes'] },
    warns: { server: EXPOSED, client: EXPOSED },
    reaches: [],
  },
  {
    name: 'no iptables, no nft',
    programs: ['ip'],
    fails:
      /^vpn: cannot set up NAT: "iptables .*" was not found; install iptables or nftables, or pass --no-default-routes\n$/,
  },
  {
    name: 'no ip',
    programs: ['iptables', 'nft'],
    fails:
      /^vpn: cannot read the addresses of this host: "ip .*" was not found; install iproute2, or check PATH\n$/,
  },
  {
    name: 'a server without a default route',
    lack: ({ server }) => {
      server.run('ip route del default');
      server.run('ip -6 route del default');
    },
    warns: { server: /no default route: the client gets no further than networks of this host/ },
    reaches: [],
  },
  ...[[], ['--no-default-routes']].map((options) => ({
    name: `a client without a default route, but with one to the server${options.map((option) => `, ${option}`).join('')}`,
    lack: ({ client }: World) => {
      for (const [ip, server, gateway] of [
        ['ip', '10.2.0.0/24', '10.1.0.1'],
        ['ip -6', '2001:db8:2::/64', '2001:db8:1::1'],
      ]) {
        client.run(`${ip} route del default`);
        client.run(`${ip} route add ${server} via ${gateway}`);
      }
    },
    options: { client: options },
    ...(options.length === 0 ? {} : { reaches: [] }),
  })),
  {
    name: 'several default routes, one of them with two ways',
    lack: ({ client, server }) => {
      client.run('ip route add default via 10.77.0.2 metric 50');
      client.run('ip route del default via 10.77.0.2 metric 50');
      client.run('ip route add default via 10.77.0.2 metric 500');
      client.run('ip -6 route add default via 2001:db8:77::2 metric 2000');
      server.run('ip route add default via 10.2.0.1 metric 700');
      server.run('ip route del default via 10.3.0.1');
      server.run('ip route add default metric 5 nexthop via 10.3.0.1 nexthop via 10.3.0.1');
    },
  },
  {
    name: 'default dev ppp0',
    lack: ({ client, server, router, internet }) => {
      for (const [host, device] of [
        [client, 'eth0'],
        [server, 'wan0'],
      ] as const) {
        host.run(`ip link set ${device} down`);
        host.run(`ip link set ${device} name ppp0`);
        host.run('ip link set ppp0 up');
        host.run('ip route replace default dev ppp0');
      }
      // A neighbour that takes everything, as the other end of a line does.
      router.sysctl('net.ipv4.conf.eth0.proxy_arp', '1');
      internet.sysctl('net.ipv4.conf.eth0.proxy_arp', '1');
      internet.sysctl('net.ipv4.ip_forward', '1');
      server.run('ip route replace 10.1.0.0/24 via 10.2.0.1');
    },
    last: { server: '10.3.0.2' },
    reaches: [4],
  },
  {
    name: '/proc/sys is read-only, forwarding was on',
    wrapper: READ_ONLY,
    lack: ({ server }) => server.forward(),
    warns: { client: /cannot run "sysctl -w net\.ipv4\.conf\.all\.src_valid_mark=1": read-only/ },
  },
  {
    name: '/proc/sys is read-only, only IPv4 forwarding was on',
    wrapper: READ_ONLY,
    lack: ({ server }) => server.sysctl('net.ipv4.ip_forward', '1'),
    warns: {
      client: /cannot run "sysctl -w net\.ipv4\.conf\.all\.src_valid_mark=1": read-only/,
      server: /IPv6 forwarding cannot be set: IPv6 does not leave this server/,
    },
    reaches: [4],
  },
  {
    name: '/proc/sys is read-only',
    wrapper: READ_ONLY,
    fails:
      /^vpn: warning: IPv6 forwarding cannot be set: .*\nvpn: cannot set a sysctl: "sysctl -w net\.ipv4\.ip_forward=1": read-only file system; run "sysctl .*" where it is allowed\n$/,
  },
  ...(['iptables', 'nft'] as const).map((program) => ({
    name: `strict rp_filter on every link, ${program}`,
    programs: program === 'nft' ? ['ip', 'nft'] : ALL,
    lack: ({ client, server }: World) => {
      for (const host of [client, server])
        for (const which of ['all', 'default', 'eth0'])
          host.sysctl(`net.ipv4.conf.${which}.rp_filter`, '1');
    },
  })),
];

/** A folder for PATH with only those programs, of which some calls are refused. */
function pathOf(bed: Bed, { programs = ALL, refuses, isLegacy }: Case): string {
  const folder = bed.file('bin');
  mkdirSync(folder);
  for (const program of programs) {
    const file = join(folder, program);
    const kind = isLegacy && program.endsWith('tables') ? '-legacy' : '';
    const real = `/usr/sbin/${program}${kind}`;
    if (refuses === undefined) {
      symlinkSync(real, file);
      continue;
    }
    const patterns = refuses.map((pattern) => pattern.replaceAll(' ', '\\ ')).join('|');
    const script = [
      '#!/bin/sh',
      `case "${program} $*" in ${patterns}) echo "table does not exist" >&2; exit 3;; esac`,
      `exec ${real} "$@"`,
    ];
    writeFileSync(file, `${script.join('\n')}\n`);
    chmodSync(file, 0o755);
  }
  return folder;
}

function checkWarnings(end: End, pattern: RegExp | undefined): void {
  const warnings = end.daemon.output.match(/^vpn: warning: .*$/gm) ?? [];
  assert.equal(warnings.length, pattern === undefined ? 0 : 1, end.daemon.output);
  if (pattern !== undefined) assert.match(warnings[0] ?? '', pattern);
}

for (const one of CASES)
  netTest(
    `a host may lack things: ${one.name}`,
    [...TOOLS, ...(one.isLegacy ? ['iptables-legacy'] : [])],
    async (bed) => {
      const hosts = world(bed);
      one.lack?.(hosts);
      const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
      const key = makeKey(bed);
      const wrapper = [...(one.wrapper?.(bed) ?? []), 'env', `PATH=${pathOf(bed, one)}`];
      const options = (role: Role) => ({
        key,
        wrapper,
        options: one.options?.[role] ?? [],
        last: one.last?.[role] ?? 'auto',
      });
      const server = startServer(bed, hosts.server, options('server'));
      if (one.fails !== undefined) {
        assert.equal(await server.daemon.ended(), 1);
        assert.match(server.daemon.output, one.fails);
      } else {
        const client = startClient(bed, hosts.client, { ...options('client'), address: SERVER[4] });
        await connected(client);
        const wanted = one.reaches ?? [4, 6];
        for (const family of wanted) await reaches(hosts.client, INTERNET[family]);
        if (!wanted.includes(6))
          assert.equal(ping(hosts.client, INTERNET[6], '-c 1 -W 0.5').received, 0);
        for (const [role, end] of [
          ['client', client],
          ['server', server],
        ] as const) {
          checkWarnings(end, one.warns?.[role]);
          assert.equal(await end.daemon.stop(), 0, end.daemon.output);
          assert.deepEqual(difference(before[role], hostState(hosts[role])), []);
          assert.deepEqual(
            end.journals().filter((name) => name !== 'lock'),
            [],
          );
        }
      }
      assert.deepEqual(difference(before.server, hostState(hosts.server)), []);
    },
  );
