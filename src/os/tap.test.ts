/** What is different on each system when the device is a tap: addresses with their network, routes by way of the peer. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { describe, it } from 'node:test';
import { PretendedHost, pretendedLocks } from '../../test/pretended.ts';
import { Bed, clientSettings, serverSettings } from '../../test/standins/host.ts';
import { PLATFORMS } from '../os.ts';
import { plan } from '../setup.ts';
import type { HostDeps, HostSettings } from '../setup.ts';
import { scratchFolder } from '../../test/scratch.ts';

const TAP = 'tap0';
const onLink = (local: string, local6: string) => ({
  onLink: { ip4: `${local}/24`, ip6: `${local6}/64` },
});
const client = { ...clientSettings(TAP), table: 7, ...onLink('192.168.192.1', 'fd00::1') };
const server = { ...serverSettings(TAP), ...onLink('192.168.192.254', 'fd00::2') };
const script = { localIp: '', peerIp: '', localIp6: '', peerIp6: '', onLink: { ip4: '', ip6: '' } };
const routes = ['10.0.0.0/8', 'fd50::/32'];

/** Those that give it addresses, and lead into it. */
async function commands(settings: HostSettings, deps: HostDeps): Promise<readonly string[]> {
  const lines = await plan(settings, deps);
  const up = lines.slice(0, lines.indexOf('# undo'));
  return up.filter((line) =>
    /^(ip (-6 )?(address|link)|ifconfig) |\broute\b.* (192\.168\.192\.|fd00::)/.test(line),
  );
}

describe('a tap on Linux', () => {
  const run = async (settings: HostSettings): Promise<readonly string[]> => {
    const journalDir = scratchFolder();
    try {
      return await commands(settings, {
        native: { netnsCookie: () => '7', lockFile: pretendedLocks().lockFile },
        journalDir,
        path: '',
        log: () => undefined,
        warn: () => undefined,
        runner: new PretendedHost(),
        platform: PLATFORMS['linux']!,
      });
    } finally {
      rmSync(journalDir, { recursive: true });
    }
  };

  it('of a client', async () => {
    assert.deepEqual(await run(client), [
      'ip link set dev tap0 mtu 1420 up',
      'ip address add 192.168.192.1/24 brd + dev tap0',
      'ip -6 address add fd00::1/64 dev tap0 nodad',
      'ip route add default via 192.168.192.254 dev tap0 table 7',
      'ip -6 route replace default via fd00::2 dev tap0 table 7 metric 1024',
    ]);
  });

  it('of a server with networks behind the client', async () => {
    assert.deepEqual(await run({ ...server, routes }), [
      'ip link set dev tap0 mtu 1420 up',
      'ip address add 192.168.192.254/24 brd + dev tap0',
      'ip -6 address add fd00::2/64 dev tap0 nodad',
      'ip route add 10.0.0.0/8 via 192.168.192.1 dev tap0',
      'ip -6 route add fd50::/32 via fd00::1 dev tap0',
    ]);
  });

  it('that a script sets up', async () => {
    const byScript = { ...client, ...script, defaultRoutes: false };
    assert.deepEqual(await run(byScript), ['ip link set dev tap0 mtu 1420 up']);
  });
});

for (const system of ['freebsd', 'dragonfly', 'openbsd', 'netbsd'] as const) {
  describe(`a tap on ${system}`, () => {
    it('of a client with networks behind the server', async () => {
      const bed = new Bed(system);
      try {
        bed.standIn.createTun(TAP);
        assert.deepEqual(await commands({ ...client, defaultRoutes: false, routes }, bed.deps), [
          'ifconfig tap0 inet 192.168.192.1/24 mtu 1420 up',
          'ifconfig tap0 inet6 fd00::1/64',
          'route -n add -inet6 -net fd50::/32 fd00::2',
          'route -n add -inet -net 10.0.0.0/8 192.168.192.254',
        ]);
      } finally {
        bed.remove();
      }
    });
  });
}

describe('macOS', () => {
  it('has no tap', () => {
    assert.equal(PLATFORMS['darwin']!.tap, undefined);
  });
});
