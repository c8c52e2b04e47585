/**
 * One way of an emulated link under a virtual clock: the same events in the same order as in wan_way.h,
 * so that what is simulated and what is emulated can be compared. Corruption is loss here: a damaged
 * packet does not pass a checksum.
 */
import { Random } from './random.ts';
import type { Clock } from './sim.ts';
import type { Figures } from './wan.ts';

export class SimLink<Packet> {
  private readonly clock: Clock;
  private readonly deliver: (packet: Packet) => void;
  private readonly losses: Random;
  private readonly duplicates: Random;
  private readonly jitters: Random;
  private figures: Required<Figures> = {
    rateMbit: 0,
    queueMs: 0,
    delayMs: 0,
    jitterMs: 0,
    lossRatio: 0,
    corruptRatio: 0,
    duplicateRatio: 0,
    isCut: false,
    mtu: 65535,
  };
  /** When the last of the queue will have left it. */
  private busyUntilMs = 0;
  entered = 0;
  overflowed = 0;
  lost = 0;
  deliveredBytes = 0;

  constructor(clock: Clock, seed: number, figures: Figures, deliver: (packet: Packet) => void) {
    this.clock = clock;
    this.deliver = deliver;
    this.losses = new Random(seed * 3);
    this.duplicates = new Random(seed * 3 + 1);
    this.jitters = new Random(seed * 3 + 2);
    this.set(figures);
  }

  /** What a packet that enters now waits before it leaves the queue. */
  get queueMs(): number {
    return Math.max(0, this.busyUntilMs - this.clock.nowMs);
  }

  /** Unlike the emulator, what is in the queue leaves it at the times it was given when it entered. */
  set(figures: Figures): void {
    this.figures = { ...this.figures, ...figures };
  }

  send(packet: Packet, bytes: number): void {
    const { rateMbit, queueMs, lossRatio, corruptRatio, duplicateRatio, isCut, mtu } = this.figures;
    this.entered++;
    if (isCut || bytes > mtu) return;
    const transmitMs = rateMbit > 0 ? (bytes * 8) / (rateMbit * 1000) : 0;
    const waitMs = this.queueMs;
    if (rateMbit > 0 && waitMs > 0 && waitMs + transmitMs > queueMs) {
      this.overflowed++;
      return;
    }
    this.busyUntilMs = this.clock.nowMs + waitMs + transmitMs;
    if (this.losses.next() < lossRatio + corruptRatio) {
      this.lost++;
      return;
    }
    if (this.duplicates.next() < duplicateRatio) this.launch(packet, bytes);
    this.launch(packet, bytes);
  }

  private launch(packet: Packet, bytes: number): void {
    const { delayMs, jitterMs } = this.figures;
    const delay = jitterMs > 0 ? Math.max(0, delayMs + jitterMs * this.normal()) : delayMs;
    this.clock.at(this.busyUntilMs + delay, () => {
      if (this.figures.isCut) return;
      this.deliveredBytes += bytes;
      this.deliver(packet);
    });
  }

  /** Box and Muller 1958. */
  private normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.jitters.next()));
    return radius * Math.cos(2 * Math.PI * this.jitters.next());
  }
}
