/**
 * --kill-switch and --dns, with the real executable: programs of the client and a host behind it send all
 * the time, and what leaves is captured on every interface but the tunnel.
 */
import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { capture, type Captured, type Capture } from './capture.ts';
import { PORT } from './chatter.ts';
import { connected, EXECUTABLE, makeKey, startClient, startServer, type End } from './ends.ts';
import { startChatter, startNameServer } from './helpers.ts';
import { inPath, netTest, pass, until, type Bed, type Host } from './netns.ts';
import { difference, hostState, type HostState } from './state.ts';
import { answers, reaches } from './traffic.ts';
import { CLIENT, INTERNET, LAN, SERVER, world, type World } from './world.ts';

const UNDERLAY = ['eth0', 'lan0'] as const;
/** A host on the internet that somebody's own rules lead past any tunnel. */
const EXEMPT = '198.51.100.7';
/** Long enough for each of the programs to send some packets. */
const SPELL_MS = 300;
const INSIDE_NAMES = '203.0.113.53';

/**
 * What a packet that left is: 'own' of the tunnel, 'inside' from the tunnel to a host behind the client,
 * 'neighbours' of the client's being there, or what leaked.
 */
function kindOf({ bytes }: Captured): string {
  const isSix = bytes[0]! >> 4 === 6;
  // Multicast reports have a hop-by-hop header of eight bytes (RFC 3810 §5).
  const hasOptions = isSix && bytes[6] === 0;
  const at = isSix ? (hasOptions ? 48 : 40) : (bytes[0]! & 15) * 4;
  const protocol = isSix ? bytes[hasOptions ? 40 : 6]! : bytes[9]!;
  const target = isSix ? 'IPv6' : bytes.subarray(16, 20).join('.');
  const port = (bytes[at + 2]! << 8) | bytes[at + 3]!;
  if (protocol === 17 && target === SERVER[4] && port === 443) return 'own';
  if (target === LAN[4] && bytes.subarray(12, 16).join('.') === INTERNET[4]) return 'inside';
  if (isSix && protocol === 58 && [131, 132, 133, 135, 136, 143].includes(bytes[at]!)) {
    return 'neighbours';
  }
  return `protocol ${protocol} to ${target}${protocol === 17 || protocol === 6 ? `:${port}` : ''}`;
}

/** By each interface, among others. */
const WANTED = ['protocol 58 to IPv6', `protocol 17 to IPv6:${PORT}`, `protocol 6 to IPv6:${PORT}`];

const kinds = (captures: readonly Capture[]): string[][] =>
  captures.map((one) => [...new Set(one.packets().map(kindOf))].sort());

/** Captures what leaves by each interface. */
function captures(bed: Bed, host: Host): Promise<Capture[]> {
  return Promise.all(
    UNDERLAY.map((device) => capture(bed, host, device, 'outbound and ( ip or ip6 )')),
  );
}

/** Programs of the client, and a host behind it, that send from now on. */
async function everybodyTalks({ bed, client, lan, router }: World): Promise<void> {
  for (const [host, address] of [
    [lan, '::'],
    [router, '::'],
  ] as const) {
    await startChatter(host, address);
  }
  const plan = bed.file('talk.json');
  const all = [INTERNET[4], INTERNET[6], LAN[4], LAN[6]].map((address) => ({ address }));
  const bound = [
    { address: INTERNET[4], from: CLIENT[4] },
    { address: INTERNET[6], from: CLIENT[6] },
  ];
  const held = [LAN[4], LAN[6], '10.1.0.1'];
  bed.write(plan, JSON.stringify({ to: [...all, ...bound], held }));
  const chatter = await startChatter(client, plan);
  for (const host of held) await chatter.line(new RegExp(`connected to ${host}$`));
  for (const words of [
    INTERNET[4],
    INTERNET[6],
    `-I eth0 ${INTERNET[4]}`,
    `-I eth0 ${INTERNET[6]}`,
    `-I lan0 ${LAN[4]}`,
    '-I eth0 ff02::1',
    '-I lan0 ff02::1',
    EXEMPT,
  ]) {
    client.start(`ping -nq -i 0.1 -W 1 ${words}`.split(' '));
  }
  for (const to of [INTERNET[4], INTERNET[6]]) lan.start(`ping -nq -i 0.1 -W 1 ${to}`.split(' '));
}

/** Somebody's own rules, which reroute what has got a route into the tunnel. */
function exempt(client: Host): void {
  client.run(`iptables -t mangle -A OUTPUT -d ${EXEMPT} -j MARK --set-mark 9`);
  client.run('ip rule add preference 100 fwmark 9 table main');
}

/** A folder for PATH with all that vpn needs but nft. */
function withoutNft(bed: Bed): string {
  const folder = bed.file('bin');
  mkdirSync(folder);
  const folders = (process.env['PATH'] ?? '').split(':');
  for (const tool of ['ip', 'iptables', 'ip6tables']) {
    const from = folders.find((one) => inPath(join(one, tool))) ?? '/usr/sbin';
    symlinkSync(join(from, tool), join(folder, tool));
  }
  return folder;
}

const hasNames = (host: Host): boolean => host.run('cat /etc/resolv.conf').includes(INSIDE_NAMES);

async function assertCleanedUp(
  host: Host,
  before: HostState,
  stateDir: string,
  env: Readonly<Record<string, string>>,
): Promise<void> {
  const words = Object.entries(env).map((pair) => pair.join('='));
  const command = ['env', ...words, EXECUTABLE, 'cleanup', '--state-dir', stateDir];
  const { status, stdout, stderr } = host.try(command);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^undone: .*vpn-switch-\d/m);
  // It is written in place here, so that its time is another.
  const isTime = /^resolv\.conf: [+-] \d+ \d+ /;
  const lines = difference(before, hostState(host)).filter((line) => !isTime.test(line));
  assert.deepEqual(lines, []);
  await until('programs that get out again', () => answers(host, LAN[4]));
}

for (const tool of ['nft', 'iptables'] as const)
  netTest(`with the kill switch by ${tool} nothing leaks`, ['tcpdump', 'nft'], async (bed) => {
    const hosts = world(bed);
    const { client: host, server: serverHost } = hosts;
    host.resolver('nameserver 192.0.2.53');
    host.forward();
    exempt(host);
    const before = hostState(host);
    await everybodyTalks(hosts);
    const calm = await captures(bed, host);
    const leaking = [
      [...WANTED, `protocol 1 to ${EXEMPT}`, `protocol 17 to ${INTERNET[4]}:${PORT}`],
      [...WANTED, `protocol 1 to ${LAN[4]}`, `protocol 6 to ${LAN[4]}:${PORT}`],
    ];
    await until('what there is to leak', () => {
      const found = kinds(calm);
      return leaking.every((wanted, i) => wanted.every((kind) => found[i]!.includes(kind)));
    }).catch((error: unknown) => {
      throw new Error(`only ${JSON.stringify(kinds(calm))}`, { cause: error });
    });
    for (const one of calm) await one.stop();

    const key = makeKey(bed);
    const stateDir = bed.file('state');
    const env: Readonly<Record<string, string>> = tool === 'nft' ? {} : { PATH: withoutNft(bed) };
    const options = ['--kill-switch', '--dns', INSIDE_NAMES];
    const start = (): End =>
      startClient(bed, host, { key, address: SERVER[4], stateDir, env, options });
    // The server knows the network behind the client.
    const serve = (): End =>
      startServer(bed, serverHost, { key, options: ['--route', '10.77.0.0/24'] });

    // The server is not there yet.
    let client = start();
    await until('the kill switch, whole', () =>
      tool === 'nft'
        ? /skuid != 4294967295 drop/.test(host.run('nft list ruleset'))
        : /FORWARD ! -i tun\d+ ! -o tun\d+/.test(host.run('ip6tables -t mangle -S FORWARD')),
    );
    const leaks = await captures(bed, host);
    await until('attempts to connect', () => kinds(leaks)[0]!.includes('own'));
    let server = serve();
    await connected(client);
    for (const to of [INTERNET[4], INTERNET[6]]) await reaches(host, to);
    await reaches(hosts.lan, INTERNET[4]);
    await until('an answer behind it', () => kinds(leaks)[1]!.includes('inside'));
    await until('name servers', () => hasNames(host));
    // Both ways have the same rows; what follows, but for the last, need not be seen twice.
    if (tool === 'nft') {
      await server.daemon.stop('SIGKILL');
      await pass(SPELL_MS);
      // With the device its routes and addresses go.
      host.run(`ip link delete ${client.tun}`);
      assert.equal(await client.daemon.ended(), 1);
      await pass(SPELL_MS);

      // The next takes over, and is told to stop.
      server = serve();
      client = start();
      await connected(client);
      assert.equal(await client.daemon.stop(), 0, client.daemon.output);
      assert.match(client.daemon.output, /the kill switch stays: nothing leaves this host until/);
      await pass(SPELL_MS);
      assert.ok(!hasNames(host));

      client = start();
      await connected(client);
      await until('name servers', () => hasNames(host));
    }
    await client.daemon.stop('SIGKILL');
    await pass(SPELL_MS);
    for (const one of leaks) await one.stop();
    const left = kinds(leaks).map((found) => found.filter((kind) => kind !== 'neighbours'));
    assert.deepEqual(left, [['own'], ['inside']]);
    await assertCleanedUp(host, before, stateDir, env);
  });

netTest('a name is resolved behind the kill switch of an earlier run', ['nft'], async (bed) => {
  const hosts = world(bed);
  const { client: host, router } = hosts;
  await startNameServer(bed, router, '10.1.0.1', { 'server.test': SERVER[4] });
  host.resolver('nameserver 10.1.0.1');
  const before = hostState(host);
  const key = makeKey(bed);
  const stateDir = bed.file('state');
  const options = ['--kill-switch', '--dns', INSIDE_NAMES];
  // What is killed leaves its name servers, too, which nobody answers for.
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    // A new one each time: to that of before the client that was killed lives on for some seconds.
    const server = startServer(bed, hosts.server, { key });
    const client = startClient(bed, host, { key, address: 'server.test', stateDir, options });
    await connected(client);
    await until('name servers', () => hasNames(host));
    await client.daemon.stop(signal);
    await server.daemon.stop();
  }
  await assertCleanedUp(host, before, stateDir, {});
});
