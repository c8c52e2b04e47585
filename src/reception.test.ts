import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { SEND_TIME_UNITS_PER_MS } from './constants.ts';
import { decodeSection, difference16, encodeSection, REPORT_BYTES, section } from './feedback.ts';
import type { LinkSocket } from './host.ts';
import { Link } from './link.ts';
import { PLAIN_LINK } from './peering.ts';
import { Reception } from './reception.ts';
import { ReplayWindow } from './replay.ts';

const SOCKET: LinkSocket = {
  receive: () => 0,
  send: () => 0,
  errno: () => 0,
  watch: () => undefined,
  close: () => undefined,
};
const SIZE = 1_000;
const stampOf = (ms: number): number => Math.floor(ms * SEND_TIME_UNITS_PER_MS) & 0xffff;

/** The receiving end: windows of the keys in use, and the bytes of its reports. */
class Receiver {
  readonly reception = new Reception();
  private readonly windows = new Map<number, ReplayWindow>();

  /** False for what was received before. */
  receive(key: number, counter: number, stamp: number, nowMs: number): boolean {
    let window = this.windows.get(key);
    if (window === undefined) this.windows.set(key, (window = new ReplayWindow()));
    if (!window.accept(counter)) return false;
    this.reception.arrived(key % 4, window, counter, stamp, SIZE, true, false, nowMs);
    return true;
  }

  report(nowMs: number): Uint8Array {
    const body = new Uint8Array(2 * REPORT_BYTES);
    const part = section();
    let end = 0;
    if (this.reception.reportFormer(part, 3, nowMs)) end = encodeSection(body, end, part);
    if (this.reception.report(part, 3, nowMs)) end = encodeSection(body, end, part);
    return body.subarray(0, end);
  }
}

interface Datagram {
  readonly key: number;
  readonly counter: number;
  readonly ticket: number;
  readonly stamp: number;
  readonly atMs: number;
}

interface Path {
  readonly jitterMs: number;
  readonly loss: number;
  readonly duplicates: number;
  readonly reportLoss: number;
  readonly rekeyMs: number;
}

/** Sends for two seconds and then hears all reports; says what the sender and the receiver know. */
class Run {
  readonly link = new Link(3, SOCKET, PLAIN_LINK, (bytes) => bytes.fill(1));
  readonly receiver = new Receiver();
  readonly received = new Set<number>();
  /** How often each ticket was said to have arrived, and to be lost. */
  readonly arrived = new Map<number, number>();
  readonly lost = new Map<number, number>();
  tickets = 0;

  constructor(seed: number, path: Path) {
    const random = new Random(seed);
    const { flight } = this.link;
    let onWay: Datagram[] = [];
    let reports: { readonly body: Uint8Array; readonly atMs: number }[] = [];
    let key = 0;
    let counter = 0;
    let rekeyAtMs = path.rekeyMs;
    for (let nowMs = 1_000; nowMs < 4_000; nowMs++) {
      if (nowMs - 1_000 >= rekeyAtMs) {
        rekeyAtMs += path.rekeyMs;
        key++;
        counter = 0;
      }
      const count = nowMs < 3_000 ? random.below(4) : 0;
      for (let i = 0; i < count; i++) {
        const ticket = ++this.tickets;
        flight.add(key % 4, counter, ticket, SIZE, true, nowMs);
        const copies = random.next() < path.duplicates ? 2 : 1;
        for (let copy = 0; copy < copies; copy++) {
          const atMs = nowMs + 20 + random.next() * path.jitterMs;
          const datagram = { key, counter, ticket, stamp: stampOf(nowMs), atMs };
          if (random.next() >= path.loss) onWay.push(datagram);
        }
        counter++;
      }
      const now = onWay.filter(({ atMs }) => atMs <= nowMs).sort((a, b) => a.atMs - b.atMs);
      onWay = onWay.filter(({ atMs }) => atMs > nowMs);
      for (const one of now) {
        if (this.receiver.receive(one.key, one.counter, one.stamp, nowMs))
          this.received.add(one.ticket);
      }
      // The last ones get through: what is known at the end is what there is to know.
      const isHeard = nowMs > 2_990 || random.next() >= path.reportLoss;
      if (nowMs % 5 === 0 || now.length === 0) {
        const body = this.receiver.report(nowMs);
        if (isHeard && body.length > 0) reports.push({ body, atMs: nowMs + 20 });
      }
      for (const { body } of reports.filter(({ atMs }) => atMs <= nowMs)) this.hear(body, nowMs);
      reports = reports.filter(({ atMs }) => atMs > nowMs);
    }
    flight.abandon();
    this.settle();
  }

  private hear(body: Uint8Array, nowMs: number): void {
    const part = section();
    for (let at = 0; at < body.length;) {
      at = decodeSection(body, at, part);
      assert.notEqual(at, -1);
      this.link.reported(part, nowMs);
      this.settle();
    }
  }

  private settle(): void {
    const { flight } = this.link;
    const count = (map: Map<number, number>, ticket: number): void =>
      void map.set(ticket, (map.get(ticket) ?? 0) + 1);
    for (const ticket of flight.arrivedTickets.subarray(0, flight.arrivedCount)) {
      count(this.arrived, ticket);
    }
    for (const ticket of flight.lostTickets.subarray(0, flight.lostCount)) count(this.lost, ticket);
    flight.settled();
  }
}

const CLEAN: Path = { jitterMs: 0, loss: 0, duplicates: 0, reportLoss: 0, rekeyMs: Infinity };

describe('what the sender hears', () => {
  const paths: readonly (readonly [what: string, path: Path])[] = [
    ['over a clean link', CLEAN],
    ['with loss', { ...CLEAN, loss: 0.05 }],
    ['with jitter', { ...CLEAN, jitterMs: 30 }],
    ['with jitter, loss and duplicates', { ...CLEAN, jitterMs: 40, loss: 0.1, duplicates: 0.1 }],
    [
      'with a third of the reports lost',
      { ...CLEAN, loss: 0.02, reportLoss: 0.3, duplicates: 0.02 },
    ],
    ['across new keys', { ...CLEAN, rekeyMs: 300 }],
    ['across new keys, with loss', { ...CLEAN, loss: 0.05, rekeyMs: 300 }],
    [
      'across new keys, with jitter, loss, and reports lost',
      { jitterMs: 30, loss: 0.05, duplicates: 0.05, reportLoss: 0.2, rekeyMs: 300 },
    ],
  ];
  for (const [what, path] of paths) {
    it(`${what} is what arrived`, () => {
      let heard = 0;
      let received = 0;
      for (let seed = 1; seed <= 6; seed++) {
        const run = new Run(seed, path);
        const { flight } = run.link;
        for (const [ticket, times] of run.arrived) {
          assert.ok(run.received.has(ticket), `seed ${seed}: ${ticket} never arrived`);
          assert.equal(times, 1, `seed ${seed}: ${ticket}`);
        }
        assert.ok([...run.lost.values()].every((times) => times === 1));
        for (let ticket = 1; ticket <= run.tickets; ticket++) {
          assert.ok(run.arrived.has(ticket) || run.lost.has(ticket), `seed ${seed}: ${ticket}`);
        }
        assert.equal(flight.sent, run.arrived.size + flight.lost, `seed ${seed}`);
        assert.equal(run.receiver.reception.packets, run.received.size);
        heard += run.arrived.size;
        received += run.received.size;
      }
      const unheard = received - heard;
      // Four reports in a row lost leave a gap in what is known, and only that.
      const most = path.reportLoss === 0 ? 0 : received * 0.005;
      assert.ok(unheard <= most, `${unheard} of ${received} arrived and were not reported`);
      assert.ok(received > 10_000);
    });
  }

  it('without loss or disorder is never taken for lost, also across new keys', () => {
    for (const rekeyMs of [Infinity, 300, 47]) {
      const { link, lost } = new Run(1, { ...CLEAN, rekeyMs });
      assert.deepEqual(
        [link.flight.lost, link.flight.spurious, lost.size],
        [0, 0, 0],
        `${rekeyMs}`,
      );
    }
  });

  it('once the disorder of a link is learnt, is hardly ever taken for lost wrongly', () => {
    const { link, tickets } = new Run(2, { ...CLEAN, jitterMs: 30 });
    assert.equal(link.flight.lost, 0);
    assert.ok(link.flight.spurious < tickets * 0.02, `${link.flight.spurious} of ${tickets}`);
  });
});

describe('reception', () => {
  it('has nothing to say before anything came, nor twice the same', () => {
    const receiver = new Receiver();
    assert.equal(receiver.report(0).length, 0);
    receiver.receive(0, 0, 0, 10);
    assert.ok(receiver.report(12).length > 0);
    assert.equal(receiver.report(14).length, 0);
  });

  it('counts packets and bytes, and tells the age of the newest', () => {
    const receiver = new Receiver();
    const part = section();
    receiver.receive(0, 7, stampOf(0), 10);
    receiver.receive(0, 5, stampOf(0), 13);
    assert.ok(receiver.reception.report(part, 9, 15));
    const { link, epoch, highest, packets, bytes, age, arrival } = part;
    assert.deepEqual(
      { link, epoch, highest, packets, bytes, age, arrival },
      { link: 9, epoch: 0, highest: 7, packets: 2, bytes: 2 * SIZE, age: 20, arrival: 52 },
    );
    assert.deepEqual([...part.runs.subarray(0, part.runCount)], [1, 1, 1, 5]);
  });

  it('measures delays against the stamps, however their clocks differ', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      const offsetMs = random.below(30_000);
      const receiver = new Receiver();
      const delays = Array.from({ length: 50 }, () => 30 + random.below(40) / 4);
      delays.forEach((delay, i) => {
        const sentMs = 1_000 + 20 * i;
        receiver.receive(0, i, stampOf(sentMs + offsetMs), sentMs + delay);
      });
      const part = section();
      assert.ok(receiver.reception.report(part, 3, 3_000));
      const mean = delays.reduce((sum, delay) => sum + delay, 0) / delays.length;
      const ms = (units: number): number =>
        difference16(units, stampOf(-offsetMs)) / SEND_TIME_UNITS_PER_MS;
      assert.equal(ms(part.leastDelay), Math.min(...delays), `seed ${seed}`);
      assert.ok(Math.abs(ms(part.meanDelay) - mean) <= 0.25, `seed ${seed}`);
    }
  });

  it('knows how far datagrams are overtaken, and forgets it slowly', () => {
    const receiver = new Receiver();
    const { reception } = receiver;
    const part = section();
    [0, 1, 2].forEach((i) => receiver.receive(0, i, stampOf(10 * i), 50 + i));
    assert.equal(reception.reorderingMs, 0);
    receiver.receive(0, 9, stampOf(60), 70);
    receiver.receive(0, 5, stampOf(45), 71);
    assert.equal(reception.reorderingMs, 15);
    let lastMs = 15;
    for (let i = 10; i < 100; i++) {
      receiver.receive(0, i, stampOf(1_000 * i), 1_000 * i + 50);
      assert.ok(reception.report(part, 3, 1_000 * i + 60));
      assert.ok(reception.reorderingMs <= lastMs && reception.reorderingMs > 0);
      lastMs = reception.reorderingMs;
    }
    assert.ok(lastMs < 1.5, `${lastMs} ms are left after 90 s`);
  });

  it('asks for a report at once when a gap opens on a link that keeps the order', () => {
    const receiver = new Receiver();
    const { reception } = receiver;
    receiver.receive(0, 0, 0, 10);
    receiver.receive(0, 1, 0, 10);
    assert.deepEqual([reception.isDue, reception.isUrgent], [true, false]);
    receiver.receive(0, 3, 0, 11);
    assert.equal(reception.isUrgent, true);
    receiver.report(12);
    assert.deepEqual(
      [reception.isDue, reception.isUrgent, reception.hasNews],
      [false, false, false],
    );
  });

  it('goes on under keys whose epoch has the number of old ones', () => {
    const receiver = new Receiver();
    const part = section();
    receiver.receive(0, 500, 0, 10);
    receiver.report(11);
    // Four epochs later, and nothing came over this link between.
    receiver.receive(4, 0, 0, 400_000);
    assert.equal(receiver.reception.reportFormer(part, 3, 400_001), false);
    assert.ok(receiver.reception.report(part, 3, 400_001));
    assert.deepEqual([part.epoch, part.highest, part.runs[0]], [0, 0, 1]);
  });
});
