/** Streams through a tunnel: many at once, while the link shrinks, and while keys change. */
import assert from 'node:assert/strict';
import { tunnel } from './ends.ts';
import { checkArrived, receiveFile, sendFile, settledMtu } from './helpers.ts';
import { netTest, Spoiled, until, type Host } from './netns.ts';
import { iperf, iperfServer, reaches, readPing, untaken, type IperfResult } from './traffic.ts';
import { INTERNET, narrow, SERVER, world, type World } from './world.ts';

/** Of IPv4 and UDP. */
const UDP_HEADERS = 28;

/** Datagrams that may be missing in an attempt without a counter that says why. */
const UNCOUNTED = 2;

/** UDP by iperf3 between the client and the internet, of which the tunnel loses nothing. */
async function losslessUdp(
  { client, server, internet, router }: World,
  options: string,
): Promise<IperfResult> {
  const count = (): number =>
    [client, server, internet, router].reduce((sum, host) => sum + untaken(host), 0);
  const before = count();
  const udp = await iperf(client, INTERNET[4], `-u ${options}`);
  if (udp.lost === 0) return udp;
  const dropped = count() - before;
  const text = `${options}: ${udp.lost} of ${udp.packets} lost, ${dropped} since nobody took them`;
  // Not all that a kernel drops on a busy machine is in these counters: once 2 of 3538 were not. More is not
  // excused, and what loses packets when keys change does so in every attempt.
  if (udp.lost <= dropped + UNCOUNTED) throw new Spoiled(text);
  assert.fail(text);
}

netTest(
  'carries iperf3 with 1, 5 and 50 streams, TCP both ways and UDP',
  ['iperf3'],
  async (bed) => {
    const hosts = world(bed);
    await tunnel(bed, hosts, SERVER[4]);
    await iperfServer(hosts.internet);
    await reaches(hosts.client, INTERNET[4]);
    for (const streams of [1, 5, 50]) {
      for (const way of ['', ' -R']) {
        const tcp = await iperf(hosts.client, INTERNET[4], `-t 1 -P ${streams}${way}`);
        assert.ok(tcp.bytes > 1e6, `${streams} TCP streams${way}: ${tcp.bytes} bytes`);
        const rate = Math.round(20_000 / streams);
        const options = `-t 1 -l 1200 -b ${rate}K -w 1M -P ${streams}${way}`;
        const udp = await losslessUdp(hosts, options);
        assert.ok(udp.packets > 500, `${streams} UDP streams${way}: ${udp.packets} packets`);
      }
    }
  },
);

for (const [way, outside] of [
  ['up', 4],
  ['down', 4],
  ['up', 6],
] as const)
  netTest(
    `goes on when the link shrinks from 1500 to 1280 without ICMP, ${way}, over IPv${outside}`,
    [],
    async (bed) => {
      const hosts = world(bed);
      const { client } = await tunnel(bed, hosts, SERVER[outside]);
      await reaches(hosts.client, INTERNET[4]);
      const arrived = (): number =>
        way === 'up' ? bytesInto(hosts.internet, 'eth0') : bytesInto(hosts.client, client.tun);
      const receiver = await receiveFile(hosts.internet, 9000);
      const sender = sendFile(hosts.client, INTERNET[4], 9000, 10_000, 200, way);
      const more = async (from: number): Promise<void> =>
        void (await until('5 MB', () => arrived() > from + 5e6, 60_000));
      await more(arrived());
      narrow(hosts, 1280, false);
      await more(arrived());
      (way === 'up' ? sender : receiver).kill('SIGTERM');
      await checkArrived(sender, receiver);
    },
  );

const bytesInto = (host: Host, device: string): number =>
  Number(host.run(`cat /sys/class/net/${device}/statistics/rx_bytes`));

for (const [how, options] of [
  ['with AES where the processor has it', []],
  ['with ChaCha20-Poly1305', ['--cipher', 'chacha20-poly1305']],
  ['without offloads', ['--no-offload']],
] as const)
  netTest(
    `loses nothing while keys change every two seconds under load, ${how}`,
    ['iperf3'],
    async (bed) => {
      const hosts = world(bed);
      const both = ['-v', '--rekey-after', '2', ...options];
      const { client } = await tunnel(bed, hosts, SERVER[4], { both });
      await reaches(hosts.client, INTERNET[4]);
      const from = client.daemon.output.length;
      const rekeys = (): number => client.daemon.output.slice(from).match(/new keys/g)?.length ?? 0;
      const isOver = (): boolean => rekeys() >= 4;
      // A flood goes by its own answers: a busy machine slows it down, and drops nothing of it.
      const flood = async (): Promise<void> => {
        do {
          const { stdout } = await hosts.client.finish(
            `ping -n -q -f -l 3 -c 5000 ${INTERNET[4]}`.split(' '),
          );
          const { sent, received } = readPing(stdout);
          assert.deepEqual([sent, received], [5000, 5000], stdout);
        } while (!isOver());
      };
      // Packets of the full size, of which the tunnel may not lose one either.
      const datagrams = async (port: number, way: string): Promise<void> => {
        await iperfServer(hosts.internet, port);
        const size = client.tunMtu - UDP_HEADERS;
        do {
          const options = `-p ${port} -t 2 -l ${size} -b 20M -w 1M${way}`;
          const { packets } = await losslessUdp(hosts, options);
          assert.ok(packets > 500, `${packets} datagrams${way}`);
        } while (!isOver());
      };
      // And of TCP, as much as goes beside them, checked byte by byte.
      const transfer = async (port: number, way: 'up' | 'down'): Promise<void> => {
        const receiver = await receiveFile(hosts.internet, port);
        const sender = sendFile(hosts.client, INTERNET[4], port, 10_000, 50, way);
        await until('new keys', isOver, 60_000);
        (way === 'up' ? sender : receiver).kill('SIGTERM');
        await checkArrived(sender, receiver);
      };
      await settledMtu(client);
      await Promise.all([
        flood(),
        datagrams(5201, ''),
        datagrams(5202, ' -R'),
        transfer(9000, 'up'),
        transfer(9001, 'down'),
      ]);
    },
  );
