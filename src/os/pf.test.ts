/** pf of several instances, of an administrator, and of other programs. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Bed, bringUp } from '../../test/standins/host.ts';
import { TUN, casesOf } from '../../test/standins/plans.ts';
import { cleanUp } from '../setup.ts';

describe('several at once', () => {
  for (const system of ['darwin', 'openbsd', 'freebsd', 'dragonfly'] as const) {
    it(`${system}: the last of two servers restores what both share`, async () => {
      const bed = new Bed(system);
      const before = bed.snapshot();
      const server = casesOf(system).server;
      assert.ok(server !== undefined);
      const name = (n: number): string => TUN[system].replace(/\d+$/, String(n));
      const other = {
        localIp: '10.9.0.1',
        peerIp: '10.9.0.2',
        localIp6: 'fd09::1',
        peerIp6: 'fd09::2',
      };
      for (const order of [
        [0, 1],
        [1, 0],
      ]) {
        bed.standIn.createTun(name(1));
        bed.standIn.createTun(name(2));
        const both = [
          await bringUp({ ...server, tun: name(1) }, bed),
          await bringUp({ ...server, ...other, tun: name(2) }, bed),
        ];
        assert.equal(await both[order[0] ?? 0]?.undo(), true);
        const { pf, sysctls } = bed.standIn.state;
        assert.equal(Object.keys(pf.anchors).length, 1, 'the rules of the other stay');
        assert.ok(pf.isEnabled && pf.isLoaded);
        assert.equal(sysctls['net.inet.ip.forwarding'], '1');
        assert.equal(await both[order[1] ?? 0]?.undo(), true);
        bed.standIn.destroyTun(name(1));
        bed.standIn.destroyTun(name(2));
        assert.equal(bed.snapshot(), before);
      }
      assert.deepEqual(bed.warnings, []);
      bed.remove();
    });
  }
});

describe('pf', () => {
  /** An administrator's ruleset of each kind of line. */
  const RULES = [
    'scrub in all fragment reassemble',
    'block drop in log all',
    'anchor "relayd/*" all',
    'pass out quick on em0 inet from <trusted> to any flags S/SA keep state',
  ];
  const NAT = [
    'nat-anchor "ftp-proxy/*" all',
    'nat on em0 inet from 10.0.0.0/8 to any -> (em0) round-robin',
  ];

  it('FreeBSD: our lines lead the running ruleset of each kind, and go without a trace', async () => {
    const bed = new Bed('freebsd');
    const { pf } = bed.standIn.state;
    Object.assign(pf, { isLoaded: true, isEnabled: true, rules: [...RULES], nat: [...NAT] });
    Object.assign(pf, { skipped: ['lo0'] });
    const before = bed.snapshot();
    bed.standIn.createTun('tun0');
    const { server } = casesOf('freebsd');
    assert.ok(server !== undefined);
    const setup = await bringUp(server, bed);
    assert.deepEqual(pf.rules, [
      'scrub-anchor "vpn/*" all',
      RULES[0],
      'anchor "vpn/*" all',
      ...RULES.slice(1),
    ]);
    assert.deepEqual(pf.nat, ['nat-anchor "vpn/*" all', ...NAT]);
    assert.deepEqual(pf.skipped, ['lo0']);
    assert.ok(!bed.runner.ran.some((line) => /kldload|pfctl -e/.test(line)), 'pf runs already');
    assert.equal(await setup.undo(), true);
    bed.standIn.destroyTun('tun0');
    assert.equal(bed.snapshot(), before);
    bed.remove();
  });

  for (const system of ['darwin', 'openbsd', 'freebsd', 'dragonfly'] as const) {
    it(`${system}: while a server runs, its rules are in force and everything else is as it was`, async () => {
      const bed = new Bed(system);
      const { pf } = structuredClone(bed.standIn.state);
      bed.standIn.createTun(TUN[system]);
      const { server } = casesOf(system);
      assert.ok(server !== undefined);
      const setup = await bringUp(server, bed);
      const now = bed.standIn.state.pf;
      const isOurs = (line: string): boolean => line.includes('"vpn/*"');
      assert.ok(now.isEnabled && now.isLoaded);
      assert.deepEqual(
        [now.rules, now.nat].map((lines) => lines.filter((line) => !isOurs(line))),
        [pf.rules, pf.nat],
      );
      const leads = system === 'darwin' ? 'com.apple/' : 'vpn/';
      for (const lines of system === 'openbsd' ? [now.rules] : [now.rules, now.nat]) {
        const words = lines.filter((line) => line.includes(`anchor "${leads}*"`));
        assert.ok(words.length > 0, leads);
      }
      assert.ok(`${leads}${system === 'darwin' ? 'vpn.' : ''}${server.tun}` in now.anchors);
      assert.deepEqual([now.skipped, now.timeouts], [pf.skipped, pf.timeouts]);
      assert.equal(await setup.undo(), true);
      bed.remove();
    });
  }

  for (const system of ['openbsd', 'freebsd'] as const) {
    it(`${system}: what an administrator loads meanwhile stays`, async () => {
      const bed = new Bed(system);
      bed.standIn.createTun('tun0');
      const { server } = casesOf(system);
      assert.ok(server !== undefined);
      const setup = await bringUp(server, bed);
      const rules = ['block drop in all'];
      bed.standIn.state.pf.rules = [...rules];
      bed.standIn.state.pf.nat = [];
      assert.equal(await setup.undo(), true);
      assert.deepEqual(bed.standIn.state.pf.rules, rules);
      bed.remove();
    });
  }

  it('a ruleset that cannot be read is not replaced', async () => {
    const bed = new Bed('openbsd');
    bed.standIn.createTun('tun0');
    const before = bed.snapshot();
    const real = bed.standIn.run.bind(bed.standIn);
    bed.standIn.run = (argv, input) =>
      argv.join(' ') === 'pfctl -s rules'
        ? { status: 1, stdout: '', stderr: 'no luck' }
        : real(argv, input);
    const { server } = casesOf('openbsd');
    assert.ok(server !== undefined);
    await assert.rejects(bringUp(server, bed), /cannot set up the firewall: .*anchor "vpn/);
    bed.standIn.destroyTun('tun0');
    bed.standIn.createTun('tun0');
    assert.equal(bed.snapshot(), before);
    bed.remove();
  });

  it('macOS: a token is told apart from others’, and lost with none', async () => {
    const bed = new Bed('darwin');
    bed.standIn.createTun('utun5');
    bed.standIn.run(['pfctl', '-E']);
    const [theirs] = bed.standIn.state.pf.tokens;
    const { server } = casesOf('darwin');
    assert.ok(server !== undefined);
    const setup = await bringUp(server, bed);
    assert.equal(bed.standIn.state.pf.tokens.length, 2);
    bed.standIn.run(['pfctl', '-E']);
    assert.equal(await setup.undo(), true);
    assert.equal(bed.standIn.state.pf.tokens.length, 2);
    assert.equal(bed.standIn.state.pf.tokens[0], theirs);
    assert.ok(bed.standIn.state.pf.isEnabled);
    bed.remove();
  });

  it('macOS: a command that is cut off in its last line spoils no record behind it', async () => {
    const bed = new Bed('darwin');
    const before = bed.snapshot();
    bed.standIn.createTun('utun5');
    const real = bed.standIn.run.bind(bed.standIn);
    bed.standIn.run = (argv, input) => {
      const result = real(argv, input);
      return argv[1] === '-E' ? { ...result, stderr: result.stderr.trimEnd() } : result;
    };
    const { server } = casesOf('darwin');
    assert.ok(server !== undefined);
    await bringUp(server, bed);
    bed.kill('utun5');
    assert.equal((await cleanUp(bed.deps)).failed.length, 0);
    assert.equal(bed.snapshot(), before);
    bed.remove();
  });

  it('a server without a way to translate says so, and changes nothing', async () => {
    for (const [system, spoil, expected] of [
      [
        'darwin',
        (bed: Bed) => (bed.standIn.state.pf.nat = []),
        /does not say what it should; run pfctl -f \/etc\/pf\.conf/,
      ],
      [
        'netbsd',
        (bed: Bed) => (bed.standIn.state.npf.config = ['group default { pass final all }']),
        /npf has rules already/,
      ],
    ] as const) {
      const bed = new Bed(system);
      bed.standIn.createTun(TUN[system]);
      spoil(bed);
      const before = bed.snapshot();
      const { server } = casesOf(system);
      assert.ok(server !== undefined);
      await assert.rejects(bringUp(server, bed), expected);
      assert.equal(bed.snapshot(), before);
      assert.deepEqual(bed.runner.ran, []);
      bed.remove();
    }
  });
});
