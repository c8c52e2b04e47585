import { deepEqual } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { Detail } from './detail.ts';
import { LinkHistory } from './history.ts';
import type { LinkStatus, TunnelStatus } from './status.ts';

/** One that looks as the daemon does, and gives its lines back as text. */
function looker(): (tunnel: TunnelStatus, nowMs: number) => readonly string[] {
  const detail = new Detail();
  const history = new LinkHistory();
  return (tunnel, nowMs) => {
    history.observe(tunnel, nowMs);
    return detail.observe(tunnel, history, nowMs).map(({ subject, line }) => `${subject} ${line}`);
  };
}

const two = (dsl: Partial<LinkStatus> = {}): TunnelStatus =>
  tunnelStatus([
    linkStatus({ lostPackets: 3, repairedPackets: 2, ...dsl }),
    linkStatus({ id: 1, name: 'lte', rttMs: 0, capacity: 0, state: 'suspect', lossRatio: 0 }),
  ]);

describe('detail of what links are doing', () => {
  it('is one line of each subject and link, at first and then every ten seconds', () => {
    const look = looker();
    deepEqual(look(two(), 0), [
      'net dsl: path MTU 1500',
      'net lte: path MTU 1500',
      'reorder 1 packets held; a gap is waited for 55.5 ms',
      'rtt dsl: 20.4 ms, jitter 1.2 ms, loss 1.23%',
      'reorder dsl: 3 packets lost, 2 sent again',
      'scheduler dsl: carries 10.0Mbit/s, given 0bit/s, 0% of all',
      'reorder lte: 3 packets lost, 2 sent again',
      'scheduler lte: capacity unknown, given 0bit/s, 0% of all',
    ]);
    for (let nowMs = 250; nowMs < 10_000; nowMs += 250) deepEqual(look(two(), nowMs), []);
    const later = two({
      lostPackets: 10,
      repairedPackets: 9,
      sentPackets: 900,
      sentBytes: 1_390_000,
    });
    deepEqual(
      look(later, 10_000).filter((line) => line.includes('dsl')),
      [
        'rtt dsl: 20.4 ms, jitter 1.2 ms, loss 1.23%',
        'reorder dsl: 7 packets lost, 7 sent again',
        'scheduler dsl: carries 10.0Mbit/s, given 10.0Mbit/s, 100% of all',
      ],
    );
  });

  it('has a path MTU once, and again when it changes or its link was away', () => {
    const look = looker();
    const mtus = (tunnel: TunnelStatus, nowMs: number): readonly string[] =>
      look(tunnel, nowMs).filter((line) => line.startsWith('net dsl'));
    deepEqual(mtus(two({ mtu: 1400 }), 0), ['net dsl: path MTU 1400']);
    deepEqual(mtus(two({ mtu: 1400 }), 250), []);
    deepEqual(mtus(two({ mtu: 1450 }), 500), ['net dsl: path MTU 1450']);
    deepEqual(mtus(tunnelStatus([]), 750), []);
    deepEqual(mtus(two({ mtu: 1450 }), 1_000), ['net dsl: path MTU 1450']);
  });

  it('says nothing of links that are down, or without a session', () => {
    const look = looker();
    const down = tunnelStatus([linkStatus({ state: 'down', mtu: 0 })], { hasSession: false });
    deepEqual(look(down, 0), []);
    deepEqual(look({ ...down, hasSession: true }, 250).length, 1);
  });
});
