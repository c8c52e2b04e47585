/**
 * Data in the clear (PROTOCOL §5.6), with configuration files and real ends: two links over one cable. What the
 * cable shows, what comes of a packet that is altered on it, and of ends that were not told the same.
 */
import assert from 'node:assert/strict';
import { capture, type Datagram } from './capture.ts';
import { EXECUTABLE, makeKey } from './ends.ts';
import { netTest, until, type Bed, type Daemon, type Host } from './netns.ts';
import { ping, reaches } from './traffic.ts';
import { pair } from './world.ts';

const SERVER_IP = '192.168.192.254';
const LINK = 'in-the-attic';
/** As long as a pattern of ping(8) may be. */
const READ = 'read by everyone';
const ALTERED = 'alter this one!!';
const TYPES = { sealed: 8, clear: 9 } as const;
/** UDP, header, inner header, IPv4, ICMP, and the time in front of the pattern. */
const PATTERN_AT = 8 + 9 + 7 + 20 + 8 + 16;

const hex = (text: string): string => Buffer.from(text).toString('hex');

class FileEnd {
  private readonly bed: Bed;
  private readonly host: Host;
  private readonly text: string;
  private readonly stateDir: string;

  constructor(bed: Bed, host: Host, key: string, mode: string, links: string) {
    this.bed = bed;
    this.host = host;
    this.stateDir = bed.file('state');
    // Rules and captures see runs of datagrams (UDP_SEGMENT) as one, with the head of the first.
    this.text = `[general]\nmode = ${mode}\nkey_file = ${key}\noffload = no\n%\n${links}`;
  }

  start(isCleartext: boolean): Daemon {
    const file = this.bed.file('home.conf');
    this.bed.write(file, this.text.replace('%', isCleartext ? 'cleartext_data = 1' : ''));
    return this.host.start([EXECUTABLE, '-c', file, '-n', 'home', '--state-dir', this.stateDir]);
  }

  status(): { readonly cleartext: boolean; readonly dropped_packets: { readonly forged: number } } {
    return JSON.parse(this.ask('status', '--json')) as ReturnType<FileEnd['status']>;
  }

  ask(...words: string[]): string {
    return this.host.run(EXECUTABLE, ...words, '--state-dir', this.stateDir);
  }
}

/** The server's host gives every answer to a ping with the pattern `ALTERED` another byte before vpn has it. */
const MANGLER = `
table inet mangler {
  chain arriving {
    type filter hook prerouting priority raw;
    udp dport { 5080, 5081 } @th,64,4 ${TYPES.clear} @th,${8 * PATTERN_AT},64 0x${hex(ALTERED).slice(0, 16)} counter @th,${8 * PATTERN_AT + 8},8 set 0x58
  }
}`;

netTest(
  'data in the clear can be read on the way, and nothing else',
  ['tcpdump', 'nft'],
  async (bed) => {
    const hosts = pair(bed);
    const key = makeKey(bed);
    const ports = '[one]\nbindport = 5080\n[two]\nbindport = 5081\n';
    const remote = (port: number): string => `remotehost = 10.1.0.2\nremoteport = ${port}\n`;
    const links = `[${LINK}]\n${remote(5080)}[two]\n${remote(5081)}`;
    const server = new FileEnd(bed, hosts.server, key, 'server', ports);
    const client = new FileEnd(bed, hosts.client, key, 'client', links);

    const wire = await capture(bed, hosts.server, 'eth0', 'udp');
    hosts.server.nft(MANGLER);
    const serving = server.start(true);
    const daemon = client.start(true);
    await serving.line(/warning: data goes in the clear: /);
    await daemon.line(/warning: data goes in the clear: /);
    await reaches(hosts.client, SERVER_IP);
    for (const end of [client, server]) {
      assert.ok(end.status().cleartext);
      assert.match(end.ask('status'), /, data in the clear, /);
    }

    const echo = (pattern: string): number =>
      ping(hosts.client, SERVER_IP, `-c 4 -i 0.1 -W 0.5 -p ${hex(pattern)}`).received;
    assert.equal(echo(READ), 4);
    assert.equal(server.status().dropped_packets.forged, 0);
    assert.equal(echo(ALTERED), 0);
    // Four, and each again when it was missed.
    await until('everything altered to be found forged', () => {
      const table = hosts.server.run('nft list table inet mangler');
      const altered = Number(/counter packets (\d+)/.exec(table)?.[1]);
      return altered >= 4 && server.status().dropped_packets.forged === altered;
    });
    assert.equal(echo(READ), 4);

    const has = (text: string, ofType: number): Datagram[] =>
      wire
        .datagrams()
        .filter(
          ({ payload }) => payload[0]! >> 4 === ofType && Buffer.from(payload).includes(text),
        );
    await until('both ways of both runs', () => has(READ, TYPES.clear).length >= 16);
    assert.ok(has('', TYPES.sealed).length > 20);
    for (const secret of [READ, ALTERED, LINK]) assert.deepEqual(has(secret, TYPES.sealed), []);
    assert.deepEqual(has(LINK, TYPES.clear), []);

    // A server that was not told so.
    assert.equal(await serving.stop(), 0);
    const other = server.start(false);
    await daemon.line(/server refuses: it was told another tuntap or cleartext_data/);
    assert.doesNotMatch(other.output, /in the clear|connected/);
    assert.equal(await daemon.stop(), 0);
  },
);
