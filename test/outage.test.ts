/**
 * A link that is down for a while, with TCP connections both ways through the tunnel: the same connections go on.
 * In a file of its own, since most of it is waiting: TCP asks again after 51 s and then after 102 s (RFC 6298 §5.5).
 */
import assert from 'node:assert/strict';
import { suite } from 'node:test';
import { connected, tunnel } from './ends.ts';
import { checkArrived, receiveFile, sendFile } from './helpers.ts';
import { netTest, pass, until, type Daemon, type Host } from './netns.ts';
import { ping, reaches } from './traffic.ts';
import { INTERNET, SERVER, world, type World } from './world.ts';

const MEGABYTES = 16;
/** Enough at first to be sure that it was under way, and not all. */
const UNDER_WAY_BYTES = 2e6;
const MBIT = 16;
/** Until TCP asks again; then there is little left to send, as it is not paced any more. */
const TCP_RETRY_LIMIT_MS = 100_000;

interface Transfer {
  readonly sender: Daemon;
  readonly receiver: Daemon;
}

async function startTransfer(
  { client, internet }: World,
  way: 'up' | 'down',
  port: number,
): Promise<Transfer> {
  const receiver = await receiveFile(internet, port);
  return { receiver, sender: sendFile(client, INTERNET[4], port, MEGABYTES, MBIT, way) };
}

/** Bytes of TCP from `port`, or to it, that arrived at a host: what its connection says of itself (ss(8)). */
function arrived(host: Host, port: number): number {
  const text = host.run('ss', '-Htni', `( sport = :${port} or dport = :${port} )`);
  return Number(/bytes_received:(\d+)/.exec(text)?.[1] ?? 0);
}

suite('outages', { concurrency: true }, () => {
  for (const seconds of [25, 60])
    netTest(
      `TCP connections both ways outlive a link that is down for ${seconds} s`,
      [],
      async (bed) => {
        const hosts = world(bed);
        const { client, server } = await tunnel(bed, hosts, SERVER[4]);
        await reaches(hosts.client, INTERNET[4]);
        const up = await startTransfer(hosts, 'up', 9000);
        const down = await startTransfer(hosts, 'down', 9001);
        await until('both under way', () =>
          [arrived(hosts.internet, 9000), arrived(hosts.client, 9001)].every(
            (bytes) => bytes > UNDER_WAY_BYTES,
          ),
        );
        hosts.router.run('ip link set eth0 down');
        const ends = [client, server].map(({ daemon }) => daemon);
        await pass(seconds * 1000);
        // None of them has given up, and none was ready before.
        for (const one of [...ends, up.sender, up.receiver, down.sender, down.receiver])
          assert.equal(one.exit, undefined, one.output);
        assert.equal(ping(hosts.client, INTERNET[4], '-c 1 -W 0.2').received, 0);
        hosts.router.run('ip link set eth0 up');
        await connected(client);
        assert.equal(ping(hosts.client, INTERNET[4], '-q -c 20 -i 0.05 -W 2').received, 20);
        for (const { sender, receiver } of [up, down])
          await checkArrived(sender, receiver, TCP_RETRY_LIMIT_MS);
        assert.equal(ping(hosts.client, INTERNET[4], '-q -c 20 -i 0.05 -W 2').received, 20);
      },
    );
});
