import { deepEqual, equal } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TunMtu } from './tunmtu.ts';

describe('the MTU of the tunnel', () => {
  const rows: readonly (readonly [most: number, room: number, mtu: number])[] = [
    [1400, 1420, 1400],
    [1400, 1350, 1350],
    [1500, 1420, 1420],
    [9000, 9000, 1500],
    [576, 1420, 1280],
  ];
  for (const [most, room, mtu] of rows) {
    it(`is ${mtu} where ${room} fits and ${most} is the bound`, () => {
      const tun = new TunMtu(0);
      tun.bound(most);
      tun.offer(room, 0);
      equal(tun.current, mtu);
    });
  }

  it('falls at once when a bound comes below it', () => {
    const tun = new TunMtu(0);
    equal(tun.offer(1420, 0), true);
    tun.bound(1380);
    deepEqual([tun.offer(1420, 1), tun.current], [true, 1380]);
  });

  it('is fixed where it is configured, up to the bound', () => {
    const tun = new TunMtu(1450);
    deepEqual([tun.offer(1420, 0), tun.current], [false, 1450]);
    tun.bound(1300);
    deepEqual([tun.offer(1420, 0), tun.current], [false, 1300]);
    tun.bound(1500);
    deepEqual([tun.offer(1420, 0), tun.current], [false, 1450]);
  });
});
