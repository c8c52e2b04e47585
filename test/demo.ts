/**
 * `npm run demo` (with `-- --write` also its picture for the README): the whole of vpn in under a minute, on hosts that exist for that long only.
 *
 * A tour: it shows every command and what it prints, and checks what it claims. Whatever happens, also
 * Ctrl-C, the hosts are removed; the machine it runs on is not touched.
 */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  End,
  EXECUTABLE,
  connected,
  startClient,
  startServer,
  CLIENT_IP,
  SERVER_IP,
} from './ends.ts';
import { Bed, inPath, lacking, type Host } from './netns.ts';
import { difference, hostState, type HostState } from './state.ts';
import { terminalPicture } from './terminal.ts';
import { iperf, iperfServer, ping, reaches } from './traffic.ts';
import { CLIENT, INTERNET, SERVER, world, type World } from './world.ts';

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
const CONSEQUENCE =
  /^(nft|links|iptables: . ?\*|ip6tables: . ?\*)|lines became|: [-+] ?$|routes: . (local|anycast|multicast|fe80)|sysctls: -|conf\.(?!all)|neigh\.|ipv4\.conf\.all/;

function changes(end: End, before: HostState): void {
  say(`  On the ${end.host.name}:`);
  const lines = difference(before, hostState(end.host)).filter((line) => !CONSEQUENCE.test(line));
  show(lines.map((line) => (line.length > 150 ? `${line.slice(0, 149)}…` : line)).join('\n'));
}

async function tour(bed: Bed): Promise<void> {
  chapter('1. Three hosts and a cable between each');
  show(`client ${CLIENT[4]} ── router ── ${SERVER[4]} server ── ${INTERNET[4]} internet`);
  say('\n  They are network namespaces. The internet has no route back to the client or into the');
  say('  tunnel: what comes back from there went through the NAT of the server.');
  const hosts = world(bed);
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
  const client = startClient(bed, hosts.client, { key, address: SERVER[4] });
  typed(client, `vpn client vpn.key ${SERVER[4]}`);
  await connected(client);
  show(client.daemon.output);
  claim('connected', true);

  chapter('3. Everything goes through it');
  demonstrate(hosts.client, `ip -br address show dev ${client.tun}`);
  demonstrate(hosts.client, 'ip rule');
  const route = demonstrate(hosts.client, `ip route get ${INTERNET[4]}`);
  claim('the route to the internet leads into the tunnel', route.includes(client.tun));
  await reaches(hosts.client, INTERNET[4]);
  demonstrate(hosts.client, `ping -n -c 3 -i 0.2 ${INTERNET[4]}`);
  await reaches(hosts.client, INTERNET[6]);
  demonstrate(hosts.client, `ping -n -c 2 -i 0.2 ${INTERNET[6]}`);
  await throughput(hosts, client);

  chapter('4. What it changed');
  for (const end of [server, client]) changes(end, before[end === server ? 'server' : 'client']);

  chapter('5. And back again');
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

async function throughput(hosts: World, client: End): Promise<void> {
  if (!inPath('iperf3')) return say('  (iperf3 is not installed: no throughput)');
  say(`\n  One TCP stream from the client (${CLIENT_IP}) to the server (${SERVER_IP}), and back:`);
  await iperfServer(hosts.server);
  for (const [way, options] of [
    ['up', '-t 3'],
    ['down', '-t 3 -R'],
  ] as const) {
    const { bitsPerSecond } = await iperf(client.host, SERVER_IP, options);
    show(`${way.padEnd(5)}${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`);
  }
}

/** The first chapters, which show a tunnel from nothing to throughput. */
function writePicture(): void {
  const end = said.findIndex((line) => line.startsWith('4.'));
  writeFileSync(PICTURE, terminalPicture(said.slice(1, end - 1)));
}

async function main(): Promise<number> {
  const reason = lacking();
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
