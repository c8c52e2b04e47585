/** The kill switch on a pretended host: first there, never half, and there until it is to go. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { PretendedHost } from '../test/pretended.ts';
import { PretendedBed } from '../test/pretendedbed.ts';
import { Random } from '../test/random.ts';
import { clientSettings, serverSettings } from '../test/standins/host.ts';
import { maskedRange } from './killswitch.ts';
import { PLATFORMS } from './os.ts';
import { cleanUp, plan, prepareHost, settleDead } from './setup.ts';
import type { HostDeps, HostSettings } from './setup.ts';

const plain = clientSettings('tun0');
const client: HostSettings = { ...plain, killSwitch: true };
const STAYS = 'the kill switch stays: nothing leaves this host until vpn cleanup';
const TAKEN_AWAY = 'the kill switch of an earlier run is taken away: this one has none';

/** Whether a switch of any name stands on the host, whole. */
function isClosed(host: PretendedHost): boolean {
  const entries = [...host.entries];
  const has = (...parts: readonly string[]): boolean =>
    entries.some((entry) => parts.every((part) => entry.includes(part)));
  const names = new Set(entries.flatMap((entry) => /vpn-switch-\d+/.exec(entry)?.[0] ?? []));
  return [...names].some((name) => {
    const isNft = ['out reject', 'forward drop', 'post meta skuid'].every((line) =>
      has(`inet ${name} ${line}`),
    );
    const isIptables = ['iptables -w', 'ip6tables -w'].every(
      (program) =>
        has(`${program} 4 -t filter -A ${name}`, '-j REJECT') &&
        has(`${program} 4 -t mangle -A ${name}`, '-j DROP') &&
        has(`${program} 4 -t filter OUTPUT`, `-j ${name}`) &&
        has(`${program} 4 -t mangle POSTROUTING`, `-j ${name}`) &&
        has(`${program} 4 -t mangle FORWARD ! -i tun0 ! -o tun0`, '-j DROP'),
    );
    return isNft || isIptables;
  });
}

describe('marks that pass', () => {
  it('are exactly those of the range', () => {
    const random = new Random(8_128);
    for (let i = 0; i < 200; i += 1) {
      const first = random.below(5_000);
      const last = first + random.below(300);
      const blocks = maskedRange(first, last).map((block) => block.split('/').map(Number));
      const passing = Array.from({ length: 5_600 }, (_, mark) => mark).filter((mark) =>
        blocks.some(([value, mask]) => (mark & mask) >>> 0 === value),
      );
      const wanted = Array.from({ length: last - first + 1 }, (_, j) => first + j);
      assert.deepEqual(passing, wanted, `seed 8128, ${first} to ${last}`);
    }
    assert.deepEqual(maskedRange(0x1000, 0x10ff), ['0x1000/0xffffff00']);
    assert.deepEqual(maskedRange(2 ** 32 - 1, 2 ** 32 - 1), ['0xffffffff/0xffffffff']);
  });
});

for (const [tool, absent] of [
  ['nft', /never/],
  ['iptables', /^nft /],
] as const)
  describe(`the kill switch by ${tool}`, () => {
    let bed: PretendedBed;
    let host: PretendedHost;
    let deps: HostDeps;
    let before: readonly string[];

    beforeEach(() => {
      bed = new PretendedBed(absent);
      ({ host, deps } = bed);
      before = host.state();
    });
    afterEach(() => bed.remove());

    const assertCleanedUp = async (): Promise<void> => {
      assert.deepEqual((await cleanUp(deps)).failed, []);
      assert.deepEqual(host.state(), before);
      assert.deepEqual(bed.journals(), []);
    };

    it('is there before anything else is changed, and after the end until cleanup', async () => {
      let others = 0;
      host.onChange = (line) => {
        assert.doesNotMatch(line, /\$/);
        if (line.includes('vpn-switch') || line.includes('-I FORWARD !')) return;
        others += 1;
        assert.ok(isClosed(host), line);
      };
      const setup = await bed.bringUp(client);
      assert.equal(await setup.undo(), true);
      host.onChange = () => undefined;
      assert.ok(others > 10);
      assert.deepEqual(bed.warnings, [STAYS]);
      assert.ok(isClosed(host));
      await assertCleanedUp();
    });

    it('is there after the last resort, too', async () => {
      const setup = await bed.bringUp(client);
      setup.undoSync();
      assert.ok(isClosed(host));
      assert.equal(await setup.undo(), true);
      setup.undoSync();
      assert.ok(isClosed(host));
      assert.deepEqual(bed.warnings, [STAYS]);
      await assertCleanedUp();
    });

    it('is in the plan, with what takes it away', async () => {
      const lines = await plan(client, deps);
      const [, first = ''] = lines;
      assert.match(first, /vpn-switch-1$/);
      const cleanup = lines.slice(lines.indexOf('# vpn cleanup') + 1);
      assert.equal(cleanup.length, tool === 'nft' ? 1 : 14);
      assert.deepEqual(host.state(), before);
    });

    it('is taken back where it cannot be made whole, and stays where the rest fails', async () => {
      await (await bed.bringUp(client)).undo();
      await cleanUp(deps);
      const all = host.ran.length;
      for (let n = 1; n <= all; n += 1) {
        host.ran.length = 0;
        host.failAt = n;
        const failure = await bed.bringUp(client).then(
          (setup) => setup.undo().then(() => ''),
          (error: unknown) => String(error),
        );
        const isOwn = /-switch|-I FORWARD !/.test(host.ran[n - 1] ?? '');
        const what = `call ${n}, ${host.ran[n - 1]}: ${failure}`;
        if (failure !== '') assert.equal(isClosed(host), !isOwn, what);
        if (failure !== '' && isOwn) assert.deepEqual(host.state(), before, what);
        host.failAt = 0;
        await assertCleanedUp();
      }
    });

    it('of an earlier run goes when the next has its own: there is no moment without', async () => {
      for (const end of ['stopped', 'killed'] as const) {
        const setup = await bed.bringUp(client);
        if (end === 'stopped') await setup.undo();
        else bed.kill();
        host.onChange = (line) => assert.ok(isClosed(host), `${end}: ${line}`);
        const next = await bed.bringUp(client);
        await next.undo();
        host.onChange = () => undefined;
        assert.equal(bed.journals().length, 1, end);
        await assertCleanedUp();
      }
    });

    it('of an earlier run stands until a client without one is connected', async () => {
      await (await bed.bringUp(client)).undo();
      bed.warnings.length = 0;
      const next = await prepareHost(plain, deps);
      await next.up();
      assert.ok(isClosed(host));
      assert.deepEqual(bed.warnings, []);
      await next.connected({ ipv6: true });
      assert.ok(!isClosed(host));
      assert.deepEqual(bed.warnings, [TAKEN_AWAY]);
      assert.equal(await next.undo(), true);
      assert.deepEqual(host.state(), before);
    });

    for (const [name, settings] of [
      ['a client of some networks', { ...plain, routes: ['10.0.0.0/8'] }],
      ['a server', serverSettings('tun1')],
    ] as const)
      it(`of an earlier run is nothing that ${name} takes away`, async () => {
        await (await bed.bringUp(client)).undo();
        bed.warnings.length = 0;
        const next = await bed.bringUp({ ...settings, tun: 'tun1' });
        assert.match(
          bed.warnings.join(),
          /^the kill switch of an earlier run is in force until vpn/,
        );
        await next.undo();
        assert.ok(isClosed(host));
        await assertCleanedUp();
      });

    it('of an earlier run keeps no table or mark from the next', async () => {
      const chosen = { ...client, table: 5_000, mark: 77 };
      await (await bed.bringUp(chosen)).undo();
      assert.ok((await plan(chosen, deps)).some((line) => line.includes('vpn-switch-2')));
      const next = await bed.bringUp(chosen);
      assert.equal(next.mark, 77);
      await next.undo();
      await assertCleanedUp();
    });

    it('is left by what a start does before it resolves names', async () => {
      await bed.bringUp(client);
      bed.kill();
      await settleDead(deps);
      assert.ok(isClosed(host));
      assert.ok(![...host.entries].some((entry) => entry.startsWith('rule')));
      await assertCleanedUp();
    });

    it('needs a tunnel that takes everything', async () => {
      for (const settings of [
        { ...client, routes: ['10.0.0.0/8'] },
        { ...client, defaultRoutes: false },
      ]) {
        const failure = /the tunnel does not take everything; leave --kill-switch out$/;
        await assert.rejects(prepareHost(settings, deps), failure);
      }
      assert.deepEqual(host.state(), before);
    });

    it('is refused where the system lacks what it takes', async () => {
      host.absent = /^nft |^ip6tables /;
      const failure =
        /^Error: cannot set up the kill switch: "nft .* was not found, and "ip6tables .*; install nftables or iptables, or/;
      await assert.rejects(prepareHost(client, deps), failure);
      const { openbsd } = PLATFORMS;
      await assert.rejects(
        prepareHost(client, { ...deps, platform: openbsd! }),
        /^Error: --kill-switch: not on this system yet; leave it out$/,
      );
      assert.deepEqual(host.state(), before);
    });

    it('does without IPv6 where the kernel has none', async () => {
      host.sysctls.delete('net/ipv6/conf/all/disable_ipv6');
      host.absent = tool === 'nft' ? /^ip6tables / : /^nft |^ip6tables /;
      before = host.state();
      const setup = await bed.bringUp({ ...client, localIp6: '', peerIp6: '' });
      assert.equal(isClosed(host), tool === 'nft');
      await setup.undo();
      await assertCleanedUp();
    });

    it('warns of name servers that it holds up', async () => {
      const network = '{"dst":"192.0.2.0/24","dev":"eth0"}';
      host.answers = [[/-4 route show/, `[${network}]`]];
      await (await bed.bringUp(client)).undo();
      assert.deepEqual(bed.warnings, [
        'the kill switch holds up the name server 192.0.2.53: give another with --dns',
        STAYS,
      ]);
      await assertCleanedUp();
    });
  });
