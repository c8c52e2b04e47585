import { deepEqual, equal } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LinkWatch } from './linkwatch.ts';
import type { Bound, Snapshot } from './linkwatch.ts';

/** Interfaces with their numbers and addresses. */
type Host = Readonly<Record<string, readonly [index: string, ...addresses: readonly string[]]>>;

function snapshot(host: Host): Snapshot {
  const interfaces = Object.entries(host).map(([device, [, ...addresses]]) => [
    device,
    addresses.map((address) => ({ address })),
  ]);
  return {
    interfaces: Object.fromEntries(interfaces),
    indexOf: (device) => host[device]?.[0] ?? '',
  };
}

const ETH0: Bound = { device: 'eth0', address: '' };
const ADDRESS: Bound = { device: '', address: '10.0.0.2' };
const UP: Host = { eth0: ['2', '10.0.0.2', '2001:db8::2', 'fe80::2'] };

function watching(...links: readonly Bound[]): LinkWatch {
  const watch = new LinkWatch();
  for (const link of links) watch.add(link);
  return watch;
}

describe('a link', () => {
  const rows: readonly (readonly [string, Bound, Host, 'keeps' | 'loses' | 'changes'])[] = [
    ['keeps its socket while nothing changes', ETH0, UP, 'keeps'],
    [
      'keeps it when an address comes in addition',
      ETH0,
      { eth0: ['2', '10.0.0.2', '10.0.0.3', '2001:db8::2'] },
      'keeps',
    ],
    [
      'keeps it when only the link-local address goes',
      ETH0,
      { eth0: ['2', '10.0.0.2', '2001:db8::2'] },
      'keeps',
    ],
    ['keeps it when another interface goes', ETH0, { ...UP, wwan0: ['3', '10.8.0.2'] }, 'keeps'],
    ['loses it with its interface', ETH0, {}, 'loses'],
    ['loses it with the last usable address', ETH0, { eth0: ['2', 'fe80::2'] }, 'loses'],
    ['needs another when an address goes', ETH0, { eth0: ['2', '10.0.0.2'] }, 'changes'],
    [
      'needs another when its interface was made anew meanwhile',
      ETH0,
      { eth0: ['9', '10.0.0.2', '2001:db8::2'] },
      'changes',
    ],
    [
      'of an address keeps it when the address moves',
      ADDRESS,
      { eth1: ['3', '10.0.0.2'] },
      'keeps',
    ],
    ['of an address loses it with that', ADDRESS, { eth0: ['2', '10.0.0.3'] }, 'loses'],
    ['that is bound to nothing needs nothing', { device: '', address: '' }, {}, 'keeps'],
  ];
  for (const [name, link, after, then] of rows) {
    it(name, () => {
      const watch = watching(link);
      deepEqual(watch.observe(snapshot(UP)), { lost: [], found: [0] });
      watch.opened(0);
      deepEqual(watch.observe(snapshot(UP)), { lost: [], found: [] });
      const changes = watch.observe(snapshot(after));
      deepEqual(changes, {
        lost: then === 'keeps' ? [] : [0],
        found: then === 'changes' ? [0] : [],
      });
      equal(watch.isPresent(0), then !== 'loses');
    });
  }

  it('is offered again until its socket is open', () => {
    const watch = watching(ETH0, ADDRESS);
    deepEqual(watch.observe(snapshot({})), { lost: [], found: [] });
    deepEqual(watch.observe(snapshot(UP)), { lost: [], found: [0, 1] });
    watch.opened(1);
    deepEqual(watch.observe(snapshot(UP)), { lost: [], found: [0] });
    watch.opened(0);
    deepEqual(watch.observe(snapshot({})), { lost: [0, 1], found: [] });
    deepEqual(watch.observe(snapshot({})), { lost: [], found: [] });
    deepEqual(watch.observe(snapshot(UP)), { lost: [], found: [0, 1] });
  });
});
