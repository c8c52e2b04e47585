/** What `--dry-run` prints on the stand-in of a system, against what a test expects of it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { plan } from '../../src/setup.ts';
import type { HostSettings } from '../../src/setup.ts';
import type { SystemName } from './bsd.ts';
import { Bed, clientSettings, serverSettings } from './host.ts';

export const TUN: Readonly<Record<SystemName, string>> = {
  darwin: 'utun5',
  openbsd: 'tun0',
  freebsd: 'tun0',
  netbsd: 'tun0',
  dragonfly: 'tun0',
};
const ROUTES = ['10.0.0.0/8', 'fd50::/32'];

/** Each role with and without default routes, and what else has rows of its own. */
export function casesOf(system: SystemName): Readonly<Record<string, HostSettings>> {
  const client = clientSettings(TUN[system]);
  const server = serverSettings(TUN[system]);
  return {
    server,
    'server, networks': { ...server, routes: ROUTES },
    'server, external': { ...server, externalIp: '203.0.113.2' },
    'server, no default routes': { ...server, defaultRoutes: false },
    client,
    'client, IPv4 only': { ...client, localIp6: '', peerIp6: '' },
    'client, networks': { ...client, routes: ROUTES },
    'client, gateway': { ...client, gateway: '203.0.113.9' },
    'client, no default routes': { ...client, defaultRoutes: false },
  };
}

/** Each of `expected` is what the plan of that case says. */
export function checkPlans(system: SystemName, expected: Readonly<Record<string, string>>): void {
  describe(`the commands of ${system}`, () => {
    for (const [name, settings] of Object.entries(casesOf(system))) {
      it(name, async () => {
        const bed = new Bed(system);
        try {
          bed.standIn.createTun(settings.tun);
          const lines = await plan(settings, bed.deps);
          assert.equal(`\n${lines.join('\n')}\n`, expected[name]);
          assert.deepEqual(bed.runner.ran, []);
        } finally {
          bed.remove();
        }
      });
    }
  });
}
