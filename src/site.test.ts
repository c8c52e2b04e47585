import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { afterEach, describe, it } from 'node:test';
import { PretendedHost } from '../test/pretended.ts';
import { Bed, clientSettings, serverSettings } from '../test/standins/host.ts';
import { PLATFORMS } from './os.ts';
import { plan, prepareHost } from './setup.ts';
import type { HostDeps, HostSettings } from './setup.ts';
import { siteOf } from './site.ts';
import { scratchFolder } from '../test/scratch.ts';

const base = { ...clientSettings('tun0'), peerIp6: '' };

describe('what is let through', () => {
  const client = { ...base, routes: ['10.50.0.0/16', 'fd50::/32'], defaultRoutes: false };
  const server = { ...base, role: 'server' as const, routes: ['10.50.0.0/16'] };

  it('is for the host to say where nothing is asked for', () => {
    const { isSite, isLimited } = siteOf(client, false, false);
    assert.deepEqual([isSite, isLimited], [false, false]);
  });

  it('is limited to what is allowed, from the peer and the networks behind it', () => {
    const { isSite, isLimited, variables } = siteOf(
      { ...client, allow: ['10.9.0.0/24', 'fd09::/64'] },
      false,
      false,
    );
    assert.deepEqual([isSite, isLimited], [true, true]);
    assert.deepEqual(variables, {
      FROM4: ['192.168.192.254', '10.50.0.0/16'],
      FROM6: ['fd50::/32'],
      TO4: ['192.168.192.254', '10.50.0.0/16'],
      TO6: ['fd50::/32'],
      ALLOW4: ['10.9.0.0/24'],
      ALLOW6: ['fd09::/64'],
    });
  });

  it('comes from everywhere where the tunnel is the default route', () => {
    const settings = { ...base, routes: [], allow: ['10.9.0.0/24'] };
    const { variables } = siteOf(settings, true, true);
    assert.deepEqual([variables.FROM4, variables.TO6], [['0.0.0.0/0'], ['::/0']]);
  });

  it('is no connection to the client of a server with NAT, unless it has an address here', () => {
    const allow = ['10.9.0.0/24'];
    const plain = siteOf({ ...server, allow }, true, false);
    assert.deepEqual(plain.variables.TO4, ['10.50.0.0/16']);
    const proxied = siteOf({ ...server, allow, proxyArp: true }, true, false);
    assert.deepEqual(proxied.variables.TO4, ['192.168.192.254', '10.50.0.0/16']);
    const unlimited = siteOf({ ...server, proxyArp: true }, true, false);
    assert.deepEqual([unlimited.isSite, unlimited.isLimited], [true, false]);
  });
});

describe('a host that is to forward', () => {
  const directories: string[] = [];
  afterEach(() => {
    for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
  });
  const server: HostSettings = { ...serverSettings('tun0'), defaultRoutes: false };

  /** What it says, besides an error. */
  async function prepared(settings: HostSettings, absent = /never/): Promise<readonly string[]> {
    const runner = new PretendedHost();
    runner.absent = absent;
    const journalDir = scratchFolder();
    directories.push(journalDir);
    const warnings: string[] = [];
    const deps: HostDeps = {
      native: { netnsCookie: () => '7', lockFile: () => true },
      journalDir,
      path: '',
      log: () => undefined,
      warn: (line) => warnings.push(line),
      runner,
      platform: PLATFORMS.linux!,
    };
    await (await prepareHost(settings, deps)).undo();
    return warnings;
  }

  for (const absent of [/tables|nft/, /^ip6tables|nft -c.* ip6 /, /-t mangle|priority -150/]) {
    it(`is refused where it could not be limited: without ${absent.source}`, async () => {
      const settings = { ...server, allow: ['10.9.0.0/24'] };
      const failure =
        /^Error: cannot limit what is forwarded: "ip6?tables .*; install iptables or nftables, or pass/;
      await assert.rejects(prepared(settings, absent), failure);
    });
  }

  it('says where nobody is there to be answered', async () => {
    assert.deepEqual(await prepared({ ...server, proxyArp: true }), [
      'proxy ARP: no network of this host has "192.168.192.1" or a --route in it',
    ]);
    assert.deepEqual(await prepared({ ...server, proxyArp: true, peerIp: '203.0.113.9' }), []);
  });

  for (const system of ['darwin', 'openbsd', 'freebsd', 'netbsd', 'dragonfly'] as const) {
    it(`is refused on ${system}`, async () => {
      const bed = new Bed(system);
      try {
        for (const [asked, option] of [
          [{ allow: ['10.9.0.0/24'] }, '--allow'],
          [{ proxyArp: true }, '--proxy-arp'],
        ] as const) {
          const expected = {
            message: new RegExp(`^${option}: not on this system yet; leave it out`),
          };
          await assert.rejects(plan({ ...server, ...asked }, bed.deps), expected);
          await assert.rejects(prepareHost({ ...server, ...asked }, bed.deps), expected);
        }
      } finally {
        bed.remove();
      }
    });
  }
});
