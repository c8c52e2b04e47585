import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { BASE_PATH_MTU } from './constants.ts';
import { PathMtu } from './pathmtu.ts';

/** What PROTOCOL §6 promises: the gap to the truth is under this. */
const RESOLUTION = 8;
/** Nothing above is searched for: a 1500-byte packet fits whole. */
const LARGEST = 1_588;
/** How often the owner looks at its links; finer than any wait of the search. */
const STEP_MS = 5;

interface Path {
  mtu: number;
  /** Share of probes or answers that are lost. */
  loss: number;
  rttMs: number;
  /** What the own interface sends at most; larger probes are refused at once. */
  interfaceMtu?: number;
  /** Nothing at all passes. */
  isOut?: boolean;
}

/** A link under a virtual clock. */
class Simulation {
  readonly pathMtu = new PathMtu();
  readonly path: Path;
  nowMs = 0;
  probes = 0;
  private heardMs = 0;
  private readonly random: Random;
  private readonly answers: { readonly size: number; readonly atMs: number }[] = [];

  constructor(path: Path, seed: number) {
    this.path = path;
    this.random = new Random(seed);
  }

  run(forMs: number, hasTraffic: boolean, seen: (current: number) => void = () => undefined): void {
    for (const endMs = this.nowMs + forMs; this.nowMs < endMs; this.nowMs += STEP_MS) {
      // The small probes of every second, and what else the peer sends.
      if (this.nowMs % 200 === 0 && this.path.isOut !== true) this.heardMs = this.nowMs;
      this.answer();
      this.probe(hasTraffic);
      seen(this.pathMtu.current);
    }
  }

  private answer(): void {
    while (this.answers.length > 0 && this.answers[0].atMs <= this.nowMs) {
      this.pathMtu.answered(this.answers.shift()!.size, this.nowMs);
    }
  }

  private probe(hasTraffic: boolean): void {
    const { path, pathMtu } = this;
    for (let asked = 0; ; asked++) {
      assert.ok(asked < 64, 'the owner is not kept busy without end');
      const size = pathMtu.due(this.nowMs, path.rttMs, hasTraffic, this.heardMs);
      if (size === 0) break;
      this.probes++;
      assert.ok(size >= BASE_PATH_MTU && size < LARGEST, `probe of ${size}`);
      if (size > (path.interfaceMtu ?? size)) {
        pathMtu.refused(size, this.nowMs);
      } else if (size <= path.mtu && path.isOut !== true && this.random.next() >= path.loss) {
        this.answers.push({ size, atMs: this.nowMs + path.rttMs });
      }
    }
    const deadlineMs = pathMtu.deadlineMs(hasTraffic);
    assert.ok(deadlineMs > this.nowMs, `a deadline in the past: ${deadlineMs} at ${this.nowMs}`);
  }
}

function assertFound(current: number, mtu: number, message: string): void {
  const truth = Math.min(mtu, LARGEST);
  assert.ok(current <= mtu && current > truth - RESOLUTION, `${message}: ${current} of ${mtu}`);
}

describe('the path MTU', () => {
  it('is found within 8 bytes, and never overrated, for every size from 1280 to 1600', () => {
    for (let mtu = BASE_PATH_MTU; mtu <= 1_600; mtu++) {
      const simulation = new Simulation({ mtu, loss: 0, rttMs: 40 }, mtu);
      simulation.run(10_000, true, (current) => assert.ok(current <= mtu, `${current} of ${mtu}`));
      assertFound(simulation.pathMtu.current, mtu, 'found');
      assert.equal(simulation.pathMtu.isKnown, true);
    }
  });

  it('is found after one round trip where it is a usual size', () => {
    for (const mtu of [1_500, 1_492, 1_420]) {
      const simulation = new Simulation({ mtu, loss: 0, rttMs: 30 }, 1);
      simulation.run(250, false);
      assert.equal(simulation.pathMtu.current, mtu);
    }
  });

  it('is found on slow links too', () => {
    for (const rttMs of [1, 100, 300, 600, 1_200]) {
      for (const mtu of [1_280, 1_301, 1_404, 1_499, 1_500, 1_577]) {
        const simulation = new Simulation({ mtu, loss: 0, rttMs }, 1);
        simulation.run(120_000, false);
        assertFound(simulation.pathMtu.current, mtu, `RTT ${rttMs} ms`);
      }
    }
  });

  it('is never overrated, and nearly always found, where one probe in ten is lost', () => {
    let found = 0;
    const runs = 300;
    for (let seed = 1; seed <= runs; seed++) {
      const mtu = BASE_PATH_MTU + new Random(seed).below(310);
      const simulation = new Simulation({ mtu, loss: 0.1, rttMs: 50 }, seed);
      simulation.run(30_000, false, (current) => {
        assert.ok(current <= mtu && current >= BASE_PATH_MTU, `seed ${seed}: ${current} of ${mtu}`);
      });
      if (simulation.pathMtu.current > Math.min(mtu, LARGEST) - RESOLUTION) found++;
    }
    assert.ok(found >= 0.95 * runs, `${found} of ${runs}`);
  });

  it('costs a bounded number of probes', () => {
    for (let mtu = BASE_PATH_MTU; mtu <= 1_600; mtu += 7) {
      const simulation = new Simulation({ mtu, loss: 0, rttMs: 40 }, mtu);
      simulation.run(300_000, false);
      // 15 of the ladder, 2 repeated twice, and at most 4 halvings with three tries.
      assert.ok(simulation.probes <= 15 + 4 + 4 * 3, `${mtu}: ${simulation.probes} probes`);
      const searched = simulation.probes;
      simulation.run(60_000, true);
      const perSecond = (simulation.probes - searched) / 60;
      assert.ok(perSecond > 1.5 && perSecond <= 2.1, `${mtu}: ${perSecond} probes per second`);
    }
  });

  it('stays at 1280 where nothing is answered, without ever going quiet or wild', () => {
    const simulation = new Simulation({ mtu: 0, loss: 0, rttMs: 40 }, 1);
    simulation.run(1_500_000, false, (current) => assert.equal(current, BASE_PATH_MTU));
    assert.ok(simulation.probes > 60 && simulation.probes < 100, `${simulation.probes} probes`);
  });

  it('is raised when the path has become larger, within ten minutes', () => {
    const simulation = new Simulation({ mtu: 1_400, loss: 0, rttMs: 40 }, 1);
    simulation.run(10_000, false);
    simulation.path.mtu = 1_500;
    simulation.run(605_000, false, (current) => assert.ok(current >= 1_393));
    assertFound(simulation.pathMtu.current, 1_500, 'raised');
  });
});

describe('a path that has become smaller', () => {
  it('is noticed under traffic, whatever it was and is', () => {
    for (let seed = 1; seed <= 100; seed++) {
      const random = new Random(seed);
      const before = 1_300 + random.below(289);
      const simulation = new Simulation(
        { mtu: before, loss: 0, rttMs: 10 + random.below(150) },
        seed,
      );
      simulation.run(15_000, true);
      assertFound(simulation.pathMtu.current, before, `seed ${seed}, before`);
      simulation.path.mtu = BASE_PATH_MTU + random.below(before - 8 - BASE_PATH_MTU);
      // Three lost probes of the full size, half a second apart, and the fourth that would be due.
      simulation.run(3_500, true);
      const { mtu } = simulation.path;
      assert.ok(simulation.pathMtu.current <= mtu, `seed ${seed}: ${before} to ${mtu}`);
      simulation.run(15_000, true);
      assertFound(simulation.pathMtu.current, mtu, `seed ${seed}, after`);
    }
  });

  it('falls from 1500 to 1280 within two and a half seconds', () => {
    const simulation = new Simulation({ mtu: 1_500, loss: 0, rttMs: 40 }, 1);
    simulation.run(10_000, true);
    assert.equal(simulation.pathMtu.current, 1_500);
    simulation.path.mtu = 1_280;
    simulation.run(2_500, true);
    assert.equal(simulation.pathMtu.current, 1_280);
  });

  it('is not looked for without traffic', () => {
    const simulation = new Simulation({ mtu: 1_500, loss: 0, rttMs: 40 }, 1);
    simulation.run(10_000, false);
    const { probes } = simulation;
    simulation.path.mtu = 1_280;
    simulation.run(60_000, false);
    assert.deepEqual([simulation.probes, simulation.pathMtu.current], [probes, 1_500]);
  });

  it('is not concluded from an outage', () => {
    for (let outageMs = 1_000; outageMs <= 60_000; outageMs += 3_700) {
      const simulation = new Simulation({ mtu: 1_500, loss: 0, rttMs: 40 }, 1);
      simulation.run(10_000, true);
      simulation.path.isOut = true;
      simulation.run(outageMs, true);
      simulation.path.isOut = false;
      const same = (current: number): void => assert.equal(current, 1_500, `${outageMs} ms`);
      simulation.run(5_000, true, same);
    }
  });

  it('is rarely concluded from loss alone', () => {
    const simulation = new Simulation({ mtu: 1_500, loss: 0.05, rttMs: 40 }, 1);
    simulation.run(20_000, true);
    let low = 0;
    simulation.run(600_000, true, (current) => {
      if (current < 1_500 - RESOLUTION) low += STEP_MS;
    });
    // Three lost in a row of 1200: expected less than once, for a second or so.
    assert.ok(low < 10_000, `${low} ms of 600 s below the truth`);
  });
});

describe('a refusal of our own interface', () => {
  it('ends the search below what it refuses, at once', () => {
    for (const interfaceMtu of [1_280, 1_300, 1_420, 1_433, 1_500]) {
      const path = { mtu: 1_600, loss: 0, rttMs: 40, interfaceMtu };
      const simulation = new Simulation(path, 1);
      simulation.run(5_000, true, (current) => assert.ok(current <= interfaceMtu));
      assertFound(simulation.pathMtu.current, interfaceMtu, 'found');
    }
  });

  it('of what was in use starts the search again from 1280', () => {
    const simulation = new Simulation({ mtu: 1_500, loss: 0, rttMs: 40 }, 1);
    simulation.run(10_000, true);
    simulation.path.interfaceMtu = 1_400;
    simulation.pathMtu.refused(1_500, simulation.nowMs);
    assert.equal(simulation.pathMtu.current, BASE_PATH_MTU);
    simulation.run(3_000, true, (current) => assert.ok(current <= 1_400, `${current}`));
    assert.equal(simulation.pathMtu.current, 1_400);
  });

  it('lowers what is in use during a new search as well', () => {
    const pathMtu = new PathMtu();
    pathMtu.current = 1_500;
    pathMtu.search(BASE_PATH_MTU, 0);
    pathMtu.refused(1_500, 0);
    assert.equal(pathMtu.current, BASE_PATH_MTU);
  });

  it('of a larger size than is in use changes nothing once the search is over', () => {
    const simulation = new Simulation({ mtu: 1_400, loss: 0, rttMs: 40 }, 1);
    simulation.run(10_000, false);
    const { probes } = simulation;
    for (let i = 0; i < 10; i++) {
      simulation.pathMtu.refused(1_500, simulation.nowMs);
      simulation.run(1_000, false);
    }
    assert.equal(simulation.probes, probes);
  });
});

it('takes an answer that comes later than any patience', () => {
  const pathMtu = new PathMtu();
  let nowMs = 0;
  const run = (untilMs: number): void => {
    for (; nowMs < untilMs; nowMs += STEP_MS) while (pathMtu.due(nowMs, 0, false) !== 0);
  };
  // An answer after 4 s, from a queue on the way: by then the search has given up.
  run(4_000);
  assert.equal(pathMtu.current, BASE_PATH_MTU);
  pathMtu.answered(1_500, nowMs);
  run(20_000);
  assert.equal(pathMtu.current, 1_500);
});
