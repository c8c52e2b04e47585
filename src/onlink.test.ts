import { equal, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { onLink } from './onlink.ts';

describe('the network of a tap', () => {
  const rows: readonly (readonly [local: string, peer: string, given: string, cidr: string])[] = [
    ['10.42.43.1', '10.42.43.2', '10.42.43.1/24', '10.42.43.1/24'],
    ['10.42.43.1', '10.42.43.2', '10.42.43.1/32', '10.42.43.1/30'],
    ['10.42.43.1', '10.42.43.2', '', '10.42.43.1/30'],
    ['10.42.43.2', '10.42.43.3', '', '10.42.43.2/31'],
    ['10.42.43.1', '10.42.43.3', '', '10.42.43.1/29'],
    ['10.42.43.4', '10.42.43.5', '', '10.42.43.4/31'],
    ['10.42.43.3', '10.42.43.4', '', '10.42.43.3/29'],
    ['192.168.192.254', '192.168.192.1', '', '192.168.192.254/24'],
    ['10.42.43.1', '10.42.44.2', '10.42.43.1/24', '10.42.43.1/21'],
    ['10.42.0.1', '10.42.255.254', '', '10.42.0.1/16'],
    ['fd00::1', 'fd00::2', '', 'fd00::1/64'],
    ['fd00::1', 'fd00::2', 'fd00::1/48', 'fd00::1/48'],
    ['fd00::1', 'fd00::2', 'fd00::1/128', 'fd00::1/64'],
    ['', '', '', ''],
    ['', '', '10.42.43.1/24', ''],
  ];
  for (const [local, peer, given, cidr] of rows) {
    it(`of ${local} and ${peer}, given "${given}", is "${cidr}"`, () => {
      equal(onLink(local, peer, given), cidr);
    });
  }

  for (const [local, peer] of [
    ['10.42.0.1', '10.43.0.2'],
    ['fd00::1', 'fd01::1'],
  ] as const) {
    it(`is none of ${local} and ${peer}`, () => {
      throws(() => onLink(local, peer, ''), /in no network together, as a tap needs; give both/);
    });
  }
});
