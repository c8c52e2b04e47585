/**
 * `tuntap = tap`: two local networks become one Ethernet.
 *
 *   a ── lan0 ┐                 eth0                  ┌ lan0 ── b
 *             br0  client  ═══════════════  server  br0
 *   vm0 ──────┘                 eth1                  └────── vm0
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { EXECUTABLE, NODE } from './ends.ts';
import { BROADCAST, frame, framed, STATION, TAGS, TYPE } from './frames.ts';
import { netTest, until, type Bed, type Daemon, type Host } from './netns.ts';
import { craft } from './packets.ts';
import { difference, hostState } from './state.ts';
import { ping } from './traffic.ts';

const STATION_PROGRAM = join(import.meta.dirname, 'station.ts');
const TRANSFER = join(import.meta.dirname, 'transfer.ts');
const MEGABYTES = 30;
const MBIT = 120;
/** A script must be where nobody but root can have put it, which /tmp is not. */
const SCRIPTS = mkdtempSync('/run/vpnt-');
const SCRIPT = join(SCRIPTS, 'bridge.sh');
writeFileSync(
  SCRIPT,
  `#!/bin/sh
[ "$2" != tuntap_up ] || ip link set dev "$1" addrgenmode none master br0 up
`,
  { mode: 0o700 },
);
after(() => rmSync(SCRIPTS, { recursive: true, force: true }));

const CLIENT = `
[one]
bindhost = 10.1.0.1
remotehost = 10.1.0.2
remoteport = 5080
[two]
bindhost = 10.2.0.1
remotehost = 10.2.0.2
remoteport = 5081
`;
const SERVER = '\n[one]\nbindport = 5080\n[two]\nbindport = 5081\n';

/** One end with its file. */
class End {
  readonly daemon: Daemon;
  private readonly host: Host;
  private readonly stateDir: string;

  constructor(bed: Bed, host: Host, general: string, links: string) {
    this.host = host;
    this.stateDir = bed.file('state');
    const file = bed.file('tap.conf');
    const common = 'tuntap = tap\ninterface_name = tap7\npassword = of an Ethernet';
    bed.write(file, `[general]\n${common}\n${general}\n${links}`);
    this.daemon = host.start([EXECUTABLE, '-c', file, '--state-dir', this.stateDir], {});
  }

  get status(): { readonly tuntap: unknown; readonly tunnels: readonly { state: string }[] } {
    const text = this.host.run(EXECUTABLE, 'status', '--json', '--state-dir', this.stateDir);
    return JSON.parse(text) as End['status'];
  }

  async bothUp(): Promise<void> {
    await this.daemon.line(/connected/);
    await until('both links up', () => this.status.tunnels.every(({ state }) => state === 'up'));
  }
}

/** Client and server with a cable for each link. */
function twoCables(bed: Bed): { readonly client: Host; readonly server: Host } {
  const [client, server] = [bed.host('client'), bed.host('server')];
  for (const [device, net] of [
    ['eth0', 1],
    ['eth1', 2],
  ] as const) {
    bed.cable(
      { host: client, device, addresses: [`10.${net}.0.1/24`] },
      { host: server, device, addresses: [`10.${net}.0.2/24`] },
    );
  }
  return { client, server };
}

/** A host on a local network, behind a bridge of `router`. */
function neighbour(bed: Bed, router: Host, name: 'a' | 'b'): Host {
  const host = bed.host(name);
  const last = name === 'a' ? 1 : 2;
  const addresses = [`192.168.7.${last}/24`, `fd07::${last}/64`];
  bed.cable({ host, device: 'eth0', addresses }, { host: router, device: 'lan0', addresses: [] });
  // Netfilter, where it looks at bridged packets, cuts off padding.
  const netfilter = ['ip', 'ip6'].map((one) => `net.bridge.bridge-nf-call-${one}tables=0`);
  router.try(['sysctl', '-qw', ...netfilter]);
  // With an address of its own, for it would change with that of the tap.
  router.ip(
    `link add br0 address 02:00:00:00:07:0${last} type bridge mcast_snooping 0`,
    'link set br0 addrgenmode none up',
    'link set lan0 master br0',
  );
  return host;
}

const answers = (host: Host, to: string, options = '-s 56'): Promise<boolean> =>
  until(`an answer of ${to}, ${options}`, () => {
    return ping(host, to, `-c 1 -W 1 ${options}`).received > 0;
  });

/** A ping with a tag, full frames, and what is not IP. */
function unusualFrames(): readonly string[] {
  const to = STATION.b;
  const echo = Buffer.alloc(28 + 12);
  craft({ protocol: 17, payload: new Uint8Array(12), partial: false }).copy(echo);
  echo[9] = 1;
  echo.set([8, 0, 0xf7, 0xff, 0, 0, 0, 0], 20);
  const full = craft({ protocol: 17, payload: new Uint8Array(1472).fill(5), partial: false });
  return [
    framed(echo, { to, tags: TAGS.one }),
    framed(full, { to, tags: TAGS.one }),
    framed(full, { to }),
    framed(echo, { to, tags: TAGS.two }),
    frame({ to, type: 0x88b5, payload: Buffer.from('hello') }),
    frame({ to: BROADCAST, type: TYPE.arp, payload: new Uint8Array(46).fill(3) }),
  ].map((bytes) => bytes.toString('hex'));
}

async function transfer(
  a: Host,
  b: Host,
  meanwhile: (sender: Daemon) => Promise<void>,
): Promise<void> {
  const receiver = b.start([NODE, TRANSFER, 'receive', '5001']);
  await receiver.line(/^listening$/);
  const words = ['fd07::2', '5001', String(MEGABYTES), String(MBIT)];
  const sender = a.start([NODE, TRANSFER, 'send', ...words]);
  await meanwhile(sender);
  assert.equal(await sender.ended(), 0, sender.output);
  assert.equal(await receiver.ended(), 0);
  assert.equal(sender.output.trim(), receiver.output.trim().split('\n').at(-1));
}

netTest('two local networks are one Ethernet over two links', [], async (bed) => {
  const { client, server } = twoCables(bed);
  const [a, b] = [neighbour(bed, client, 'a'), neighbour(bed, server, 'b')];
  const before = [client, server].map(hostState);
  const script = `statuscommand = ${SCRIPT}\nmode =`;
  const ends = {
    server: new End(bed, server, `${script} server`, SERVER),
    client: new End(bed, client, `${script} client`, CLIENT),
  };
  await Promise.all([ends.client.bothUp(), ends.server.bothUp()]);
  assert.deepEqual(ends.client.status.tuntap, { type: 'tap', name: 'tap7' });
  await until('both taps in their bridges', () =>
    [client, server].every((host) => host.run('ip link show tap7').includes('master br0')),
  );

  for (const to of ['192.168.7.2', 'fd07::2']) await answers(a, to);
  assert.match(a.run('ip neigh show 192.168.7.2'), /lladdr/);
  // Full frames, and larger ones in fragments.
  await answers(a, '192.168.7.2', '-M do -s 1472');
  await answers(b, 'fd07::1', '-M do -s 1452');
  await answers(b, '192.168.7.1', '-s 4000');
  b.sysctl('net.ipv4.icmp_echo_ignore_broadcasts', '0');
  // Nobody but b answers such a ping.
  await answers(a, '192.168.7.255', '-b');

  const vm = server.start([NODE, STATION_PROGRAM, 'answer', '02:00:00:00:00:0b']);
  await vm.line(/^ready$/);
  const asked = await client.finish([NODE, STATION_PROGRAM, 'ask', ...unusualFrames()]);
  assert.equal(asked.status, 0, asked.stdout);
  await vm.stop();

  await transfer(a, b, async (sender) => {
    await until(
      'a quarter of the transfer',
      () => sentBytes(client, 'eth0') + sentBytes(client, 'eth1') > (MEGABYTES * 1e6) / 4,
    );
    client.run('ip link set eth1 down');
    assert.equal(sender.exit, undefined, 'the transfer was over before the link was');
    await until('one link down', () =>
      ends.client.status.tunnels.some(({ state }) => state !== 'up'),
    );
  });
  client.run('ip link set eth1 up');

  for (const end of Object.values(ends)) assert.equal(await end.daemon.stop(), 0);
  for (const [i, host] of [client, server].entries()) {
    const rest = (): readonly string[] => difference(before[i]!, hostState(host));
    // The cable has its carrier and its link-local address again a moment after it is up.
    await until(`${host.name} as before`, () => rest().length === 0).catch(() => undefined);
    assert.deepEqual(rest(), [], host.name);
  }
});

const sentBytes = (host: Host, device: string): number =>
  Number(host.run(`cat /sys/class/net/${device}/statistics/tx_bytes`));

netTest('a tap has an address with its network, and routes by way of the peer', [], async (bed) => {
  const { client, server } = twoCables(bed);
  server.ip('address add 203.0.113.7/32 dev lo');
  const before = hostState(client);
  const ends = {
    server: new End(
      bed,
      server,
      'mode = server\nip4 = 10.42.43.1/24\nip4_gateway = 10.42.43.2',
      SERVER,
    ),
    client: new End(
      bed,
      client,
      'mode = client\nip4 = 10.42.43.2/24\nip4_gateway = 10.42.43.1\ndefault_routes = yes',
      CLIENT,
    ),
  };
  await ends.client.bothUp();
  assert.match(client.run('ip -br -4 address show tap7'), / 10\.42\.43\.2\/24 /);
  for (const to of ['10.42.43.1', '203.0.113.7']) await answers(client, to);
  assert.match(client.run('ip route get 203.0.113.7'), /via 10\.42\.43\.1 dev tap7/);
  const address6 = /inet6 (fd\S+:)1\/64/.exec(server.run('ip -6 address show tap7'))?.[1];
  assert.ok(address6 !== undefined, 'the server has an IPv6 address in a network');
  await answers(client, `${address6}1`);
  for (const end of Object.values(ends)) assert.equal(await end.daemon.stop(), 0);
  assert.deepEqual(difference(before, hostState(client)), []);
});
