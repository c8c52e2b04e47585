/** The emulator itself: that its links are what they are said to be, before anything is measured on them. */
import assert from 'node:assert/strict';
import { capture, type Datagram } from './capture.ts';
import { netTest, pass, Spoiled, until, type Bed, type Host } from './netns.ts';
import { counter, iperf, iperfServer, ping, startIperf } from './traffic.ts';
import { wan, type WanLink, type WanOptions, type WayStats } from './wan.ts';

/** 3125 packets per second, of 228 bytes each. */
const SMALL = '-u -b 5M -l 200';
const SMALL_PER_SECOND = 3125;

async function joined(bed: Bed, options: WanOptions = {}): Promise<[Host, Host, WanLink]> {
  const [a, b] = [bed.host('a'), bed.host('b')];
  return [a, b, await wan(bed, a, b, options)];
}

function assertBetween(what: string, value: number, least: number, most: number): void {
  const range = `${least.toFixed(3)} and ${most.toFixed(3)}`;
  assert.ok(value >= least && value <= most, `${what}: ${value}, not between ${range}`);
}

/** The same for times and rates, which a busy machine spoils. */
function assertMeasured(what: string, value: number, least: number, most: number): void {
  try {
    assertBetween(what, value, least, most);
  } catch (error) {
    throw new Spoiled((error as Error).message);
  }
}

/** Four deviations of a binomial distribution: with a fixed seed this holds always or never. */
function assertRatio(what: string, count: number, of: number, ratio: number): void {
  const margin = 4 * Math.sqrt(of * ratio * (1 - ratio));
  assertBetween(`${what} of ${of}`, count, of * ratio - margin, of * ratio + margin);
}

function assertComplete(way: WayStats): void {
  const dropped = way.overflowed + way.lost + way.cut + way.tooLong + way.refused;
  assert.equal(
    way.entered + way.duplicated,
    way.delivered + dropped + way.queued + way.onWire,
    JSON.stringify(way),
  );
}

const deviceCounter = (host: Host, link: WanLink, name: string): number =>
  Number(host.run(`cat /sys/class/net/${link.device}/statistics/${name}`));

netTest('the round trip takes the delays of both ways, within 1 ms', [], async (bed) => {
  const [a, , link] = await joined(bed, { aToB: { delayMs: 15 }, bToA: { delayMs: 25 } });
  assertMeasured('RTT', ping(a, link.ipB, '-q -c 150 -i 0.01').averageMs, 40, 41);
  await link.set({ bToA: { delayMs: 105 } });
  assertMeasured('RTT, changed', ping(a, link.ipB, '-q -c 50 -i 0.01').averageMs, 120, 121);
});

netTest(
  'jitter is normal, with its deviation within 10 %, and lets packets overtake',
  ['iperf3', 'tcpdump'],
  async (bed) => {
    const [a, b, link] = await joined(bed, { aToB: { delayMs: 30, jitterMs: 5 } });
    await iperfServer(b);
    const [left, arrived] = await Promise.all(
      [a, b].map((host) => capture(bed, host, link.device, 'udp and greater 200')),
    );
    await iperf(a, link.ipB, `${SMALL} -t 2`);
    await until('the last packets', async () => (await link.stats()).aToB.onWire === 0);
    const sentMs = new Map(left!.datagrams().map((d) => [numberOf(d), d.timeMs]));
    // On a busy machine a capture may miss some.
    const seen = arrived!.datagrams().filter((d) => sentMs.has(numberOf(d)));
    const delays = seen.map((d) => d.timeMs - sentMs.get(numberOf(d))!);
    assert.ok(delays.length > SMALL_PER_SECOND);
    const mean = delays.reduce((sum, delay) => sum + delay, 0) / delays.length;
    const squares = delays.reduce((sum, delay) => sum + (delay - mean) ** 2, 0);
    const deviation = Math.sqrt(squares / delays.length);
    assertMeasured('mean delay', mean, 29.5, 30.8);
    assertMeasured('deviation', deviation, 4.5, 5.5);
    const within = (times: number): number =>
      delays.filter((d) => Math.abs(d - mean) < times * deviation).length / delays.length;
    assertMeasured('within one deviation', within(1), 0.65, 0.715);
    assertMeasured('within two deviations', within(2), 0.94, 0.97);
    // Five deviations of the difference are 35 ms, or 110 packets: nearly each is overtaken.
    const { aToB } = await link.stats();
    assert.ok(aToB.overtaken > delays.length / 2, `${aToB.overtaken} overtaken`);
  },
);

/** iperf3 numbers its datagrams, after a time stamp of eight bytes. */
function numberOf({ payload }: Datagram): number {
  return Buffer.from(payload).readUInt32BE(8);
}

netTest(
  'the rate is kept within 1 %, the queue holds its milliseconds, and both can change',
  ['iperf3'],
  async (bed) => {
    const queueMs = 60;
    const [a, b, link] = await joined(bed, {
      both: { rateMbit: 50, queueMs, delayMs: 20 },
      bToA: { rateMbit: 0 },
    });
    await iperfServer(b);
    const load = startIperf(a, link.ipB, '-u -b 100M -l 1472 -t 7');
    await until('a full queue', async () => (await link.stats()).aToB.longestQueueMs > 59, 5000);
    assertMeasured('Mbit/s', await rateOver(link, 2000), 49.5, 50.5);
    // A short packet still fits where a long one does not: the queue is full to within one of them.
    assertMeasured('RTT', ping(a, link.ipB, '-q -c 50 -i 0.02 -W 1').averageMs, 98, 101.5);

    await link.set({ aToB: { rateMbit: 10 } });
    // What is in the queue takes five times as long now.
    const { aToB: slowed } = await link.stats();
    assertMeasured('queue in ms', slowed.queueMs, 200, 300);
    // What left the queue before still arrives.
    await pass(50);
    assertMeasured('Mbit/s, changed', await rateOver(link, 2000), 9.8, 10.2);
    await load.ended();
    await until('an empty queue', async () => (await link.stats()).aToB.queued === 0);
    const { aToB } = await link.stats();
    assertBetween('longest queue in ms', aToB.longestQueueMs, 59, queueMs);
    assertComplete(aToB);
  },
);

/** Mbit/s from a to b as the emulator's clock has it. */
async function rateOver(link: WanLink, ms: number): Promise<number> {
  const before = await link.stats();
  await pass(ms);
  const after = await link.stats();
  const bytes = after.aToB.deliveredBytes - before.aToB.deliveredBytes;
  return (bytes * 8) / (after.nowMs - before.nowMs) / 1000;
}

netTest(
  'loss, corruption and duplication have their ratios, and the kernel counts what the emulator does',
  ['iperf3'],
  async (bed) => {
    const aToB = { delayMs: 1, lossRatio: 0.02, corruptRatio: 0.03, duplicateRatio: 0.01 };
    const [a, b, link] = await joined(bed);
    await iperfServer(b);
    await link.set({ aToB });
    const wrongAtB = (): number =>
      counter(b, 'IpExt', 'InCsumErrors') +
      counter(b, 'Udp', 'InErrors') -
      counter(b, 'Udp', 'RcvbufErrors') +
      counter(b, 'Tcp', 'InCsumErrors');
    const wrongBefore = wrongAtB();
    await iperf(a, link.ipB, `${SMALL} -t 4`);
    const way = (await link.stats()).aToB;
    const passed = way.entered - way.lost;
    assert.ok(way.entered > 3 * SMALL_PER_SECOND);
    assertRatio('lost', way.lost, way.entered, 0.02);
    assertRatio('corrupted', way.corrupted, passed, 0.03);
    assertRatio('duplicated', way.duplicated, passed, 0.01);
    assertComplete(way);
    assert.equal(deviceCounter(a, link, 'tx_packets'), way.entered);
    assert.equal(deviceCounter(b, link, 'rx_packets'), way.delivered);
    // A corrupted packet may be duplicated, or be of a protocol that is not counted.
    assertBetween(
      'checksum errors',
      wrongAtB() - wrongBefore,
      0.95 * way.corrupted,
      1.05 * way.corrupted,
    );
    assert.equal((await link.stats()).bToA.lost, 0);
  },
);

netTest('the same seed loses the same packets', [], async (bed) => {
  const [a, b] = [bed.host('a'), bed.host('b')];
  const lostOf = async (seed: number): Promise<string> => {
    // Cut until the devices are silent: only what is sent here shall be counted.
    const link = await wan(bed, a, b, { seed, both: { isCut: true } });
    for (const host of [a, b]) host.sysctl(`net.ipv6.conf.${link.device}.disable_ipv6`, '1');
    await link.set({ aToB: { lossRatio: 0.3, isCut: false }, bToA: { isCut: false } });
    const { text } = ping(a, link.ipB, '-c 200 -i 0.002 -W 0.2');
    return [...text.matchAll(/icmp_seq=(\d+)/g)].map((match) => match[1]).join(' ');
  };
  const first = await lostOf(7);
  assert.notEqual(first, '');
  assert.equal(await lostOf(7), first);
  assert.notEqual(await lostOf(8), first);
});

netTest('a cut takes one way or both, and what is on the wire', [], async (bed) => {
  const [a, , link] = await joined(bed, { both: { delayMs: 20 } });
  const reached = async (): Promise<[number, number]> => {
    const before = await link.stats();
    const { received } = ping(a, link.ipB, '-q -c 20 -i 0.005 -W 0.2');
    const after = await link.stats();
    return [after.aToB.delivered - before.aToB.delivered, received];
  };
  await link.set({ aToB: { isCut: true } });
  assert.deepEqual(await reached(), [0, 0]);
  await link.set({ aToB: { isCut: false }, bToA: { isCut: true } });
  const [requests, replies] = await reached();
  assert.ok(requests >= 20);
  assert.equal(replies, 0);
  await link.set({ both: { isCut: true } });
  assert.deepEqual(await reached(), [0, 0]);
  await link.set({ both: { isCut: false, delayMs: 1000 } });
  const late = a.start(`ping -n -c 5 -i 0.01 -W 3 ${link.ipB}`.split(' '));
  await until('packets on the wire', async () => (await link.stats()).aToB.onWire >= 5);
  await link.set({ both: { isCut: true } });
  await late.ended();
  assert.match(late.output, / 0 received/);
  await link.set({ both: { isCut: false, delayMs: 0 } });
  assert.equal((await reached())[1], 20);
});

netTest('packets longer than the MTU of a way vanish without a word', [], async (bed) => {
  const [a, b, link] = await joined(bed, { aToB: { mtu: 1280 } });
  assert.equal(ping(a, link.ipB, '-c 1 -W 1 -M do -s 1252').received, 1);
  const { received, text } = ping(a, link.ipB, '-c 1 -W 0.3 -M do -s 1253');
  assert.equal(received, 0);
  assert.doesNotMatch(text, /Frag needed|message too long/);
  assert.equal((await link.stats()).aToB.tooLong, 1);
  await link.set({ aToB: { mtu: 1500 } });
  assert.equal(ping(a, link.ipB, '-c 1 -W 1 -M do -s 1472').received, 1);
  // The devices' own is that of the interface.
  const wide = await wan(bed, a, b, { mtu: 9000 });
  assert.equal(ping(a, wide.ipB, '-c 1 -W 1 -M do -s 8972').received, 1);
  assert.match(ping(a, wide.ipB, '-c 1 -W 1 -M do -s 8973').text, /message too long|mtu=9000/);
});

netTest('devices may go down, be deleted and come back', [], async (bed) => {
  const [a, b, link] = await joined(bed);
  const reaches = (): boolean => ping(a, link.ipB, '-c 1 -W 0.5').received === 1;
  assert.ok(reaches());
  b.run(`ip link set ${link.device} down`);
  assert.ok(!reaches());
  assert.ok((await link.stats()).aToB.refused > 0);
  link.raise('b');
  assert.ok(reaches());
  b.run(`ip link delete ${link.device}`);
  assert.ok(!reaches());
  await link.reopen('b');
  assert.ok(reaches());
  await assert.rejects(link.reopen('a'), /still there/);
  link.close();
  await until('the end of the devices', () => !a.run('ip -br link').includes(link.device));
});

netTest('plain TCP gets 47 of 50 Mbit/s on the baseline', ['iperf3'], async (bed) => {
  const [a, b, link] = await joined(bed, { both: { rateMbit: 50, queueMs: 60, delayMs: 20 } });
  await iperfServer(b);
  const { bitsPerSecond } = await iperf(a, link.ipB, '-O 2 -t 5');
  // No more than its share of each packet: 1448 of 1500 bytes, and what the queue held at the start.
  assertMeasured('Mbit/s', bitsPerSecond / 1e6, 46, 49);
});

netTest('a link carries 300 Mbit/s', ['iperf3'], async (bed) => {
  const [a, b, link] = await joined(bed, { both: { rateMbit: 300, queueMs: 30, delayMs: 8 } });
  await iperfServer(b);
  const { bitsPerSecond } = await iperf(a, link.ipB, '-O 1 -t 3');
  assertMeasured('Mbit/s', bitsPerSecond / 1e6, 260, 295);
});
