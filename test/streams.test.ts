/** Streams through a tunnel: many at once, while the link shrinks, and while keys change. */
import assert from 'node:assert/strict';
import { tunnel } from './ends.ts';
import { checkArrived, receiveFile, sendFile } from './helpers.ts';
import { netTest, Spoiled, until, type Host } from './netns.ts';
import { iperf, iperfServer, reaches, readPing, untaken, type IperfResult } from './traffic.ts';
import { INTERNET, narrow, SERVER, world, type World } from './world.ts';

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
  if (udp.lost <= dropped) throw new Spoiled(text);
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

for (const way of ['up', 'down'] as const)
  netTest(
    `goes on when the link shrinks from 1500 to 1280 without ICMP, ${way}`,
    [],
    async (bed) => {
      const hosts = world(bed);
      const { client } = await tunnel(bed, hosts, SERVER[4]);
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

netTest('loses nothing while keys change every two seconds under load', [], async (bed) => {
  const hosts = world(bed);
  const { client } = await tunnel(bed, hosts, SERVER[4], { both: ['-v', '--rekey-after', '2'] });
  await reaches(hosts.client, INTERNET[4]);
  const from = client.daemon.output.length;
  const rekeys = (): number => client.daemon.output.slice(from).match(/new keys/g)?.length ?? 0;
  // A flood goes by its own answers: a busy machine slows it down, and drops nothing of it.
  const flood = async (): Promise<void> => {
    do {
      const { stdout } = await hosts.client.finish(
        `ping -n -q -f -l 3 -c 5000 ${INTERNET[4]}`.split(' '),
      );
      const { sent, received } = readPing(stdout);
      assert.deepEqual([sent, received], [5000, 5000], stdout);
    } while (rekeys() < 4);
  };
  await Promise.all([flood(), flood()]);
});
