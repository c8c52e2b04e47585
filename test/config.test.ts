/**
 * `vpn --config`, with the files of MLVPN's manual: two ADSL lines, and ADSL with SDSL and a filter for calls.
 * The files are test/conf/*.conf with other addresses (those of twoways.ts) and a script of ours.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { EXECUTABLE, makeKey, NODE, startClient, startServer } from './ends.ts';
import { checkArrived, receiveFile, sendFile } from './helpers.ts';
import { netTest, until, type Bed, type Daemon, type Host } from './netns.ts';
import { difference, hostState } from './state.ts';
import { reaches } from './traffic.ts';
import { pair } from './world.ts';
import { ADDRESS, carried, SERVER, twoWays, type Device, type TwoWays } from './twoways.ts';

const CLIENT_IP = '10.42.42.1';
const SERVER_IP = '10.42.42.2';
/** More than is ever sent: the transfer ends when all is done that is to be done meanwhile. */
const MEGABYTES = 100_000;
const MBIT = 100;
/** Enough to tell a way that is used from one that is not. */
const USED_BYTES = 300_000;
/** A script must be where nobody but root can have put it, which /tmp is not. */
const SCRIPTS = mkdtempSync('/run/vpnt-');
let scriptCount = 0;
after(() => rmSync(SCRIPTS, { recursive: true, force: true }));

/** One end with its file, script and folder. */
class FileEnd {
  readonly host: Host;
  readonly file: string;
  readonly daemon: Daemon;
  readonly told: string;
  private readonly bed: Bed;
  private readonly stateDir: string;

  /** `script`: whether there is one, which gives `own` and `peer` to the device. */
  constructor(bed: Bed, host: Host, text: string, own: string, peer: string, script = true) {
    this.bed = bed;
    this.host = host;
    this.file = bed.file('home.conf');
    this.told = bed.file('told');
    this.stateDir = bed.file('state');
    bed.write(this.told, '');
    bed.write(this.file, script ? withScript(text, this.told, own, peer) : text);
    this.daemon = host.start(
      [EXECUTABLE, '-c', this.file, '-u', 'nobody', '-n', 'home', '--state-dir', this.stateDir],
      {},
    );
  }

  write(change: (text: string) => string): void {
    this.bed.write(this.file, change(readFileSync(this.file, 'utf8')));
  }

  ask(...words: string[]): string {
    return this.host.run(EXECUTABLE, ...words, '--state-dir', this.stateDir);
  }

  /** `vpn stop`, which waits for its end: the exit status of both. */
  async stop(): Promise<readonly (number | string | null)[]> {
    const stop = this.host.finish([EXECUTABLE, 'stop', '--state-dir', this.stateDir]);
    return [(await stop).status, await this.daemon.ended()];
  }

  /** What the script was told, a line for each call. */
  get calls(): readonly string[] {
    return readFileSync(this.told, 'utf8').trim().split('\n');
  }

  get links(): readonly { readonly name: string; readonly state: string }[] {
    return (JSON.parse(this.ask('status', '--json')) as { tunnels: [] }).tunnels;
  }
}

function scriptOf(lines: readonly string[]): string {
  const script = join(SCRIPTS, `${scriptCount++}.sh`);
  writeFileSync(script, `#!/bin/sh\n${lines.join('\n')}\n`, { mode: 0o700 });
  return script;
}

function withScript(text: string, told: string, own: string, peer: string): string {
  const script = scriptOf([
    `echo "$1 $2 $3" >> ${told}`,
    '[ "$2" = tuntap_up ] || exit 0',
    `ip address replace ${own} peer ${peer} dev "$1"`,
    'ip link set dev "$1" mtu 1400 up',
  ]);
  return text.replace('/etc/mlvpn/mlvpn0_updown.sh', script);
}

const example = (name: string): string =>
  readFileSync(join(import.meta.dirname, 'conf', name), 'utf8');

/** The client's file on the hosts of twoways.ts; of its addresses the script and the server know nothing. */
const adslClient = (): string =>
  example('adsl-client.conf')
    .replace('[general]', '[general]\nip4 = 10.99.0.1/30')
    .replace('192.168.1.2', ADDRESS.eth0[4])
    .replace('192.168.2.2', ADDRESS.eth1[4])
    .replaceAll('128.128.128.128', SERVER[4]);

function adslEnds(hosts: TwoWays): { readonly client: FileEnd; readonly server: FileEnd } {
  const { bed } = hosts;
  const server = new FileEnd(bed, hosts.server, example('adsl-server.conf'), SERVER_IP, CLIENT_IP);
  const client = new FileEnd(bed, hosts.client, adslClient(), CLIENT_IP, SERVER_IP);
  return { client, server };
}

async function bothUp(end: FileEnd): Promise<void> {
  await until('both links up', () => {
    const states = end.links.map(({ name, state }) => `${name} ${state}`);
    return states.includes('adsl1 up') && states.includes('adsl2 up');
  });
}

/** A transfer that goes on while `meanwhile` runs; both ends must have seen the same bytes. */
async function transferDuring(
  { client, server }: TwoWays,
  meanwhile: () => Promise<void>,
): Promise<void> {
  const receiver = await receiveFile(server, 5001);
  const sender = sendFile(client, SERVER_IP, 5001, MEGABYTES, MBIT);
  await meanwhile();
  assert.equal(sender.exit, undefined, sender.output);
  sender.kill('SIGTERM');
  await checkArrived(sender, receiver);
}

const usedBytes = (hosts: TwoWays, device: Device, from: number): number =>
  carried(hosts, device) - from;

netTest(
  "the files of MLVPN's manual connect, bond and are reloaded under a transfer",
  [],
  async (bed) => {
    const hosts = twoWays(bed);
    const before = hostState(hosts.client);
    const { client, server } = adslEnds(hosts);
    await reaches(hosts.client, SERVER_IP);
    await bothUp(client);
    await bothUp(server);
    assert.match(client.calls[0] ?? '', /^mlvpn0 rtun_up adsl[12]$/);
    assert.match(client.calls[1] ?? '', /^mlvpn0 tuntap_up/);
    // What the script sets is an upper bound: 1420 would fit these links.
    assert.match(hosts.client.run('ip link show dev mlvpn0'), / mtu 1400 /);

    assert.match(
      client.ask('status'),
      /^home: client on mlvpn0, connected,[^]*^adsl1 +198\.51\.100\.1:5080 +up /m,
    );
    assert.match(server.ask('status'), /^adsl2 +10\.4\.0\.2:\d+ +up /m);

    const [eth0, eth1] = [carried(hosts, 'eth0'), carried(hosts, 'eth1')];
    await transferDuring(hosts, async () => {
      await until('both ways used', () => {
        const used = [usedBytes(hosts, 'eth0', eth0), usedBytes(hosts, 'eth1', eth1)];
        return Math.min(...used) > USED_BYTES;
      });
      client.write((text) => text.replace('[adsl2]', '[adsl2]\nfallback_only = 1'));
      client.daemon.kill('SIGHUP');
      await client.daemon.line(/^vpn: reload: link adsl2: fallback_only: no -> yes$/);

      // Another address of ours, and the other port of the server.
      client.write((text) =>
        text.replace(`"${ADDRESS.eth1[4]}"`, '"192.168.2.2"\ngateway = "192.168.2.1"'),
      );
      assert.match(client.ask('reload'), /^link adsl2: bound anew: bindhost .* -> 192\.168\.2\.2/m);

      // Wrong: everything stays.
      const right = readFileSync(client.file, 'utf8');
      client.write((text) => text.replace('timeout = 30', 'timeuot = 30'));
      const from = client.daemon.output.length;
      client.daemon.kill('SIGHUP');
      await client.daemon.line(/unknown key "timeuot".*did you mean timeout\?/, 20_000, from);
      client.write(() => right);

      // One away, and one more.
      client.write((text) => text.replace('[adsl1]', '[third]'));
      assert.match(client.ask('reload'), /^link adsl1: removed\n(.*\n)*link third: added$/m);
      client.write((text) =>
        text.replace('interface_name = "mlvpn0"', 'interface_name = "mlvpn1"'),
      );
      assert.match(client.ask('reload'), /^interface_name: mlvpn0 -> mlvpn1; needs a restart$/m);
      await until('the links of the file', () => {
        const up = client.links.filter(({ state }) => state === 'up');
        return (
          up
            .map(({ name }) => name)
            .sort()
            .join() === 'adsl2,third'
        );
      });
    });
    assert.equal(await client.daemon.stop(), 0);
    assert.equal(client.calls.at(-1), 'mlvpn0 tuntap_down');
    assert.deepEqual(difference(before, hostState(hosts.client)), [], client.daemon.output);
    assert.deepEqual(await server.stop(), [0, 0]);
  },
);

netTest('a server is reloaded: links added, bound anew and removed', [], async (bed) => {
  const hosts = twoWays(bed);
  const { client, server } = adslEnds(hosts);
  await reaches(hosts.client, SERVER_IP);
  await bothUp(client);
  await transferDuring(hosts, async () => {
    server.write((text) => `${text}\n[third]\nbindport = 5082\n`);
    assert.match(server.ask('reload'), /^link third: added$/m);
    client.write((text) => text.replace('5081', '5082'));
    assert.match(client.ask('reload'), /^link adsl2: bound anew: remoteport 5081 -> 5082$/m);
    await bothUp(client);
    server.write((text) => text.replace('5081', '5091'));
    assert.match(server.ask('reload'), /^link adsl2: bound anew: bindport 5081 -> 5091$/m);
    server.ask('link', 'adsl1', 'down');
    await until('adsl1 down on the client', () =>
      client.links.some(({ name, state }) => name === 'adsl1' && state !== 'up'),
    );
    server.ask('link', 'adsl1', 'up');
    await bothUp(client);
  });
  client.ask('reset');
  await reaches(hosts.client, SERVER_IP);
});

netTest('what a file says, a command line may say too', [], async (bed) => {
  const { client, server } = pair(bed);
  const key = makeKey(bed);
  const told = bed.file('told');
  bed.write(told, '');
  const script = scriptOf([`echo "$1 $2 $3 $IP4 $IP4_GATEWAY $IP6" >> ${told}`]);
  const inner6 = (own: string, peer: string): string[] => ['--ip6', own, '--ip6-gateway', peer];
  startServer(bed, server, { key, options: inner6('fd07::1/64', 'fd07::2') });
  const socket = bed.file('socket');
  const end = startClient(bed, client, {
    key,
    address: '10.1.0.2',
    tun: 'away0',
    options: [
      ...['--no-default-routes', ...inner6('fd07::2/64', 'fd07::1'), '--statuscommand', script],
      ...['-n', 'away', '--control-unix-path', socket, '--control-bind-port', '8080'],
      ...['--timeout', '7', '-qDprotocol', '-D', 'config'],
    ],
  });
  // As vpn sets them, though there is a script.
  await reaches(client, 'fd07::1');
  await until('a call of the script', () => readFileSync(told, 'utf8').includes('tuntap_up'));
  const [call] = readFileSync(told, 'utf8').split('\n');
  assert.match(call, /^away0 rtun_up link#0 192\.168\.192\.1\/32 192\.168\.192\.254 fd07::2\/64$/);
  const ask = [EXECUTABLE, 'status', '-n', 'away', '--json', '--state-dir', end.stateDir];
  const status = JSON.parse(client.run(ask[0], ...ask.slice(1)));
  assert.deepEqual([status.name, status.tunnels[0].timeout], ['away', 7]);
  const get = `fetch('http://127.0.0.1:8080/status').then((r) => r.json()).then((s) => console.log(s.name))`;
  assert.equal(client.run(NODE, '-e', get).trim(), 'away');
  assert.equal(await end.daemon.stop(), 0);
  const subjects = end.daemon.output
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[1]);
  assert.deepEqual([...new Set(subjects)].sort(), ['config:', 'protocol:'], end.daemon.output);
});

netTest('calls go by SDSL, and by ADSL without it', ['tcpdump'], async (bed) => {
  const hosts = twoWays(bed);
  const text = (mode: string): string =>
    example('voip.conf').replace('mode = "client"', `mode = "${mode}"`);
  const client = text('client')
    .replace('[sdsl]', `[sdsl]\nbindhost = ${ADDRESS.eth1[4]}`)
    .replace('[adsl]', `[adsl]\nbindhost = ${ADDRESS.eth0[4]}`)
    .replace('sdslgw.example.net', SERVER[4])
    .replace('adslgw.example.net', SERVER[4]);
  const server = text('server')
    .replace('[sdsl]', '[sdsl]\nbindport = 5080')
    .replace('[adsl]', '[adsl]\nbindport = 5081');
  new FileEnd(bed, hosts.server, server, '', '', false);
  const end = new FileEnd(bed, hosts.client, client, '', '', false);
  const to = '192.168.192.254';
  await reaches(hosts.client, to);
  await until('both up', () => end.links.filter(({ state }) => state === 'up').length === 2);
  const calls = async (device: Device): Promise<void> => {
    const other = device === 'eth0' ? 'eth1' : 'eth0';
    const from = { eth0: carried(hosts, 'eth0'), eth1: carried(hosts, 'eth1') };
    // Nobody listens there; only the way matters.
    const line = `const s=require('dgram').createSocket('udp4');let n=0;setInterval(()=>{if(n++===300)process.exit();s.send(Buffer.alloc(1000),5060,'${to}')},3)`;
    assert.equal((await hosts.client.finish([NODE, '-e', line])).status, 0);
    await until(`calls by ${device}`, () => usedBytes(hosts, device, from[device]) > USED_BYTES);
    // Probes and reports: of a host that is slow today more than of a quick one.
    const used = usedBytes(hosts, device, from[device]);
    const rest = usedBytes(hosts, other, from[other]);
    assert.ok(rest * 2 < used, `${used} bytes by ${device}, ${rest} by ${other}`);
  };
  await calls('eth1');
  end.ask('link', 'sdsl', 'down');
  await calls('eth0');
  end.ask('link', 'sdsl', 'up');
  await until('sdsl up', () => end.links.filter(({ state }) => state === 'up').length === 2);
  await calls('eth1');
});
