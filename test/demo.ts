/**
 * `npm run demo` (with `-- --write` also its picture for the README): the whole of vpn in under a minute, on
 * hosts that exist for that long only.
 *
 * A tour: it shows every command and what it prints, and checks what it claims. Whatever happens, also
 * Ctrl-C, the hosts are removed; the machine it runs on is not touched.
 */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  End,
  EXECUTABLE,
  SERVER_IP,
  connected,
  startClient,
  startServer,
  tunDevices,
} from './ends.ts';
import { startMeter } from './helpers.ts';
import { countedBy, tenthNow, type Counted } from './meter.ts';
import { Bed, lacking, pass, type Host } from './netns.ts';
import { difference, hostState, type HostState } from './state.ts';
import { terminalPicture } from './terminal.ts';
import { timeChart } from './timechart.ts';
import { iperf, iperfServer, ping, reaches } from './traffic.ts';
import { wan, type WanLink } from './wan.ts';
import { INTERNET } from './world.ts';

const PICTURE = resolve(import.meta.dirname, '../doc/demo.svg');
const isTerminal = process.stdout.isTTY === true;
const bold = (text: string): string => (isTerminal ? `\u001b[1m${text}\u001b[0m` : text);
const dim = (text: string): string => (isTerminal ? `\u001b[2m${text}\u001b[0m` : text);

/** What was said so far, for the picture in the README. */
const said: string[] = [];

function say(text = ''): void {
  process.stdout.write(`${text}\n`);
  said.push(...text.replaceAll(/\u001b\[\d+m/g, '').split('\n'));
}

const chapter = (title: string): void => say(`\n${bold(title)}\n`);
const show = (text: string): void => {
  for (const line of text.trimEnd().split('\n')) say(`    ${line}`);
};

/** Shows a command as a user of that host would type it, runs it, and shows what it prints. */
function demonstrate(host: Host, command: string): string {
  say(`  ${dim(`${host.name}#`)} ${command}`);
  const { stdout, stderr, status } = host.try([command]);
  show(stdout + stderr);
  if (status !== 0) throw new Error(`"${command}" on the ${host.name} exited with ${status}`);
  return stdout;
}

function claim(what: string, isTrue: boolean): void {
  if (!isTrue) throw new Error(`not so: ${what}`);
  say(`  ✓ ${what}`);
}

function typed(end: End, command: string): void {
  say(`  ${dim(`${end.host.name}#`)} ${command}`);
}

/** What follows from something else in the list, or says the same in other words. */
const CONSEQUENCES = [
  // The device, as its addresses; the firewall, as iptables has it, by table.
  /^(links|nft): /,
  /^ip6?tables: . \*/,
  // What the kernel adds for each address, and for each device that comes.
  /routes: . (local|anycast|multicast|fe80)/,
  /^sysctls: . net\.ipv[46]\.(conf|neigh)\.tun\d+\./,
  // What net.ipv4.ip_forward and net.ipv6.conf.all.forwarding set for every device.
  /^sysctls: . net\.ipv4\.conf\..*\.forwarding /,
  /^sysctls: . net\.ipv6\.conf\.(?!all\.).*\.forwarding /,
  /^sysctls: . net\.ipv4\.conf\.all\.accept_redirects /,
  // What a value was before.
  /^sysctls: - /,
];

function changes(end: End, before: HostState): void {
  say(`  On the ${end.host.name}:`);
  const lines = difference(before, hostState(end.host)).filter(
    (line) => !CONSEQUENCES.some((one) => one.test(line)),
  );
  show(lines.map((line) => (line.length > 150 ? `${line.slice(0, 149)}…` : line)).join('\n'));
}

const LINKS = [
  { device: 'dsl0', figures: { rateMbit: 50, delayMs: 20, queueMs: 60 } },
  { device: 'lte0', figures: { rateMbit: 30, delayMs: 35, queueMs: 60 } },
] as const;
/** Of the server, which its links lead to. */
const SERVER = '198.51.100.1';

interface Stage {
  readonly client: Host;
  readonly server: Host;
  readonly internet: Host;
  readonly links: readonly WanLink[];
}

async function stage(bed: Bed): Promise<Stage> {
  const [client, server, internet] = ['client', 'server', 'internet'].map((name) =>
    bed.host(name),
  ) as [Host, Host, Host];
  const links: WanLink[] = [];
  for (const [i, { device, figures: both }] of LINKS.entries()) {
    const link = await wan(bed, client, server, { device, both });
    client.run(`ip route add default via ${link.ipB} dev ${device} metric ${100 + i}`);
    links.push(link);
  }
  server.run(`ip address add ${SERVER}/32 dev lo`);
  bed.cable(
    { host: server, device: 'eth0', addresses: ['10.3.0.2/24', '2001:db8:3::2/64'] },
    { host: internet, device: 'eth0', addresses: ['10.3.0.1/24', '2001:db8:3::1/64'] },
  );
  server.run('ip route add default via 10.3.0.1');
  server.run('ip -6 route add default via 2001:db8:3::1');
  internet.run(`ip address add ${INTERNET[4]}/32 dev lo`);
  internet.run(`ip -6 address add ${INTERNET[6]}/128 dev lo`);
  return { client, server, internet, links };
}

async function tour(bed: Bed): Promise<void> {
  chapter('1. Three hosts, and two links from the first to the second');
  show(
    [
      '         ┌─ dsl0  50 Mbit/s, 20 ms each way ─┐',
      `client ──┤                                   ├── ${SERVER} server ── ${INTERNET[4]} internet`,
      '         └─ lte0  30 Mbit/s, 35 ms each way ─┘',
    ].join('\n'),
  );
  say('\n  They are network namespaces. The internet has no route back to the client or into the');
  say('  tunnel: what comes back from there went through the NAT of the server.');
  const hosts = await stage(bed);
  const before = { client: hostState(hosts.client), server: hostState(hosts.server) };
  claim(
    'the client does not reach the internet yet',
    ping(hosts.client, INTERNET[4], '-c 1 -W 1').received === 0,
  );

  chapter('2. One key, two commands');
  const key = bed.file('vpn.key');
  hosts.client.run(EXECUTABLE, 'keygen', key);
  say(`  ${dim('client#')} vpn keygen vpn.key      ${dim('(then copied to the server)')}`);
  const server = startServer(bed, hosts.server, { key });
  typed(server, 'vpn server vpn.key');
  const bonds = LINKS.flatMap(({ device }) => ['--link', device]);
  const client = startClient(bed, hosts.client, { key, address: SERVER, options: bonds });
  typed(client, `vpn client vpn.key ${SERVER} ${bonds.join(' ')}`);
  await connected(client);
  await reaches(hosts.client, INTERNET[4]);
  show(client.daemon.output);
  claim('connected', true);

  chapter('3. Two links, one of them pulled out in mid-transfer');
  await pullOut(hosts);

  chapter('4. The same without a limit');
  await onFastCable(bed);

  chapter('5. Everything goes through it');
  const device = tunDevices(hosts.client).at(-1)!;
  demonstrate(hosts.client, `ip -br address show dev ${device}`);
  demonstrate(hosts.client, 'ip rule');
  const route = demonstrate(hosts.client, `ip route get ${INTERNET[4]}`);
  claim('the route to the internet leads into the tunnel', route.includes(device));
  demonstrate(hosts.client, `ping -n -c 3 -i 0.2 ${INTERNET[4]}`);
  await reaches(hosts.client, INTERNET[6]);
  demonstrate(hosts.client, `ping -n -c 2 -i 0.2 ${INTERNET[6]}`);

  chapter('6. What it changed');
  for (const end of [server, client]) changes(end, before[end === server ? 'server' : 'client']);

  chapter('7. And back again');
  for (const end of [client, server]) {
    const role = end === server ? 'server' : 'client';
    typed(end, '^C');
    const exit = await end.daemon.stop('SIGINT');
    claim(`the ${role} ended with status 0`, exit === 0);
    const left = difference(before[role], hostState(end.host));
    if (left.length > 0) show(left.join('\n'));
    claim(
      'addresses, rules, routes, firewall and sysctls are exactly as before',
      left.length === 0,
    );
  }
}

const COLUMN_MS = 200;
const COLUMNS = 70;
/** When the second link goes and comes. */
const OUT_COLUMN = 22;
const BACK_COLUMN = 42;
const CHART_ROWS = 9;
const MOST_MBIT = 90;
const STANDSTILL_TENTHS = 10;
/** Over what a throughput is measured: the end of each phase, when it has settled. */
const SETTLED_TENTHS = 20;

/** A transfer over both links to the internet: what each carried in every fifth of a second. */
async function pullOut({ client, internet, links }: Stage): Promise<void> {
  const receiver = await startMeter(internet, 'receive', 'tcp:9001');
  const sender = await startMeter(client, 'send', INTERNET[4], 'tcp:9001');
  say(
    '  One TCP connection from the client to the internet, as fast as it goes. Mbit/s by link:\n',
  );
  const rates = links.map((): number[] => []);
  const phases: number[] = [];
  let last = await Promise.all(links.map((link) => link.stats()));
  for (let column = 0; column < COLUMNS; column++) {
    if (column === OUT_COLUMN || column === BACK_COLUMN) phases.push(tenthNow());
    if (column === OUT_COLUMN) await links[0]!.set({ both: { isCut: true } });
    if (column === BACK_COLUMN) await links[0]!.set({ both: { isCut: false } });
    await pass(COLUMN_MS);
    const now = await Promise.all(links.map((link) => link.stats()));
    for (const [i, { nowMs, aToB }] of now.entries()) {
      const bytes = aToB.deliveredBytes - last[i]!.aToB.deliveredBytes;
      rates[i]!.push((bytes * 8) / ((nowMs - last[i]!.nowMs) * 1000));
    }
    last = now;
  }
  phases.push(tenthNow());
  const series = LINKS.map(({ device }, i) => ({ name: device, values: rates[i]! })).reverse();
  const marks = [
    {
      column: OUT_COLUMN,
      what: 'dsl0 is pulled out: nothing passes it, and nobody says so',
    },
    { column: BACK_COLUMN, what: 'and put back' },
  ];
  const sizes = { rows: CHART_ROWS, most: MOST_MBIT, unit: `${(COLUMNS * COLUMN_MS) / 1000} s` };
  show(timeChart(series, marks, sizes).join('\n'));
  await sender.stop('SIGTERM');
  await receiver.stop('SIGTERM');
  const { bytes } = countedBy(receiver)['tcp:9001']!;
  const [both, alone, again] = phases.map((end) => throughput(bytes, end));
  say(
    `\n  Throughput: ${both} Mbit/s over both links, ${alone} over lte0 alone, ${again} at the end.`,
  );
  const tenths = Object.keys(bytes).map(Number);
  const pauses = tenths.map((tenth, i) => tenth - (tenths[i - 1] ?? tenth));
  say();
  claim('the connection lives', countedBy(sender)['tcp:9001']!.ended === '');
  claim('it never stood still for a second', Math.max(...pauses) < STANDSTILL_TENTHS);
}

/** Mbit/s until `end`, rounded. */
function throughput(bytes: Counted['bytes'], end: number): number {
  let sum = 0;
  for (let tenth = end - SETTLED_TENTHS; tenth < end; tenth++) sum += bytes[tenth] ?? 0;
  return Math.round((sum * 8) / (SETTLED_TENTHS / 10) / 1e6);
}

/** Two more hosts, so that nothing of theirs shows on those of the tour. */
async function onFastCable(bed: Bed): Promise<void> {
  const [left, right] = [bed.host('left'), bed.host('right')];
  bed.cable(
    { host: left, device: 'eth0', addresses: ['10.5.0.1/24'] },
    { host: right, device: 'eth0', addresses: ['10.5.0.2/24'] },
  );
  say('  Two more hosts, left and right, on one cable: how fast the tunnel is by itself.\n');
  const key = bed.file('vpn.key');
  left.run(EXECUTABLE, 'keygen', key);
  const options = ['--no-default-routes'];
  const server = startServer(bed, right, { key, options });
  typed(server, `vpn server vpn.key ${options[0]}`);
  const client = startClient(bed, left, { key, address: '10.5.0.2', options });
  typed(client, `vpn client vpn.key 10.5.0.2 ${options[0]}`);
  await connected(client);
  const listener = await iperfServer(right);
  typed(client, `iperf3 -c ${SERVER_IP} -t 3`);
  const { bitsPerSecond } = await iperf(left, SERVER_IP, '-t 3 -O 1');
  show(`${Math.round(bitsPerSecond / 1e6)} Mbit/s, one TCP connection`);
  for (const daemon of [listener, client.daemon, server.daemon]) await daemon.stop('SIGTERM');
}

/** The first chapters, which show a tunnel from nothing to a link that is pulled out. */
function writePicture(): void {
  const end = said.findIndex((line) => line.startsWith('4.'));
  writeFileSync(PICTURE, terminalPicture(said.slice(1, end - 1)));
}

async function main(): Promise<number> {
  const reason = lacking(['mkfifo', 'iperf3']);
  if (reason !== false) {
    process.stderr.write(`demo: ${reason}\n`);
    return 1;
  }
  const bed = new Bed();
  try {
    await tour(bed);
    if (process.argv.includes('--write')) writePicture();
    say(
      '\nThat was all of it. The hosts are gone; README.md says how to do the same on two real ones.',
    );
    return 0;
  } catch (error) {
    process.stderr.write(`\ndemo: ${(error as Error).message}\n${bed.logs()}\n`);
    return 1;
  } finally {
    await bed.close();
  }
}

process.exitCode = await main();
