/** What the bound links of a client change on a pretended host, and what follows its routes. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PretendedHost, pretendedLocks } from '../test/pretended.ts';
import { PLATFORMS } from './os.ts';
import { plan, prepareHost } from './setup.ts';
import type { HostDeps, HostSettings, HostSetup } from './setup.ts';
import { scratchFolder } from '../test/scratch.ts';

const client: HostSettings = {
  role: 'client',
  tun: 'tun0',
  localIp: '192.168.192.1',
  peerIp: '192.168.192.254',
  localIp6: 'fd00::1',
  peerIp6: 'fd00::2',
  mtu: 1420,
  defaultRoutes: true,
  routes: [],
  mark: 0,
  table: 0,
  externalIp: '',
  gateway: '',
  port: 443,
};
const eth0 = { name: 'eth0', device: 'eth0', address: '', gateways: [] };
const links = [eth0, { ...eth0, name: 'b', device: '', address: '203.0.113.2' }];
const bonded: HostSettings = { ...client, links, mostLinks: links.length };

describe('the links of a host', () => {
  let journalDir: string;
  let host: PretendedHost;
  let deps: HostDeps;
  let warnings: string[];

  beforeEach(() => {
    journalDir = scratchFolder();
    host = new PretendedHost();
    warnings = [];
    deps = {
      native: { netnsCookie: () => '7', lockFile: pretendedLocks().lockFile },
      journalDir,
      path: '',
      log: () => undefined,
      warn: (line) => warnings.push(line),
      runner: host,
      platform: PLATFORMS.linux!,
    };
  });
  afterEach(() => rmSync(journalDir, { recursive: true }));

  async function bringUp(settings: HostSettings): Promise<HostSetup> {
    const setup = await prepareHost(settings, deps);
    await setup.up();
    await setup.connected({ ipv6: true });
    return setup;
  }

  it('have each a mark, a table and a rule, in front of those of every tunnel', async () => {
    const setup = await bringUp(bonded);
    const marks = [0, 1].map((index) => setup.linkMark(index));
    assert.deepEqual(marks, [setup.mark + 1, setup.mark + 2]);
    for (const mark of marks) {
      const [, preference, table] =
        new RegExp(`ip rule add preference (\\d+) fwmark ${mark} table (\\d+)`).exec(
          host.ran.join('\n'),
        ) ?? [];
      assert.ok(Number(preference) >= 27_000 && Number(preference) < 28_000, preference);
      const routes = [...host.entries].filter((one) => one.startsWith(`route 4 ${table} `));
      assert.ok(routes.some((one) => one.includes(' default via 203.0.113.1 dev eth0')));
      assert.ok(routes.some((one) => one.includes(' unreachable default')));
    }
    // A second instance shares nothing with the first.
    const second = { ...bonded, tun: 'tun1', localIp: '10.1.0.1', peerIp: '10.1.0.2' };
    const other = await bringUp({ ...second, localIp6: '', peerIp6: '' });
    const all = [setup, other].flatMap((one) => [one.mark, one.linkMark(0), one.linkMark(1)]);
    assert.equal(new Set(all).size, 6);
    await other.undo();
    await setup.undo();
  });

  it('takes the marks behind the one that was asked for, or says that they are in use', async () => {
    const setup = await bringUp({ ...bonded, mark: 7 });
    assert.deepEqual([setup.mark, setup.linkMark(0), setup.linkMark(1)], [7, 8, 9]);
    await setup.undo();
    host.answers = [[/rule show/, '[{"priority":9,"fwmark":"0x9","table":"77"}]']];
    await assert.rejects(
      prepareHost({ ...bonded, mark: 7 }, deps),
      /^Error: firewall mark 7: 9, for a link, is in use or too large; give another/,
    );
  });

  it('leaves an address alone for which the administrator has a rule', async () => {
    host.answers = [[/rule show/, '[{"priority":100,"src":"203.0.113.2","table":"77"}]']];
    const setup = await bringUp(bonded);
    assert.notEqual(setup.linkMark(0), setup.mark);
    assert.equal(setup.linkMark(1), setup.mark);
    await setup.undo();
  });

  it('refuses a link whose gateway only its user knows, and names the option', async () => {
    const two = [
      '{"dst":"default","gateway":"203.0.113.1","dev":"eth0"}',
      '{"dst":"203.0.113.0/24","dev":"eth0"}',
      '{"dst":"192.0.2.0/24","dev":"eth0"}',
    ];
    const held = '[{"ifname":"eth0","addr_info":[{"local":"192.0.2.7"},{"local":"203.0.113.2"}]}]';
    host.answers = [
      [/-4 route show/, `[${two.join(',')}]`],
      [/address show/, held],
    ];
    const link = { name: 'b', device: '', address: '192.0.2.7', gateways: [] };
    const before = host.state();
    const setup = await prepareHost({ ...client, links: [link], mostLinks: 1 }, deps);
    await assert.rejects(setup.up(), {
      message:
        'link "b": 203.0.113.1, the gateway on "eth0", is not on its network; write --link 192.0.2.7,gateway=ADDRESS',
    });
    assert.deepEqual(host.state(), before);
    const given = { ...link, gateways: ['192.0.2.1'] };
    const again = await prepareHost({ ...client, links: [given], mostLinks: 1 }, deps);
    await again.up();
    assert.ok(host.ran.some((line) => line.includes('default via 192.0.2.1 dev eth0')));
    await again.undo();
    assert.deepEqual(warnings, []);
  });

  it('warns of a link that leads nowhere, goes on, and follows the default route once it comes', async () => {
    const [pattern, routes] = [/-4 route show/, '[{"dst":"10.0.0.0/24","dev":"eth0"}]'] as const;
    host.answers = [
      [pattern, routes],
      [/-6 route show/, '[]'],
    ];
    const settings = { ...client, links: [eth0], mostLinks: 1 };
    const setup = await prepareHost(settings, deps);
    await setup.up();
    assert.deepEqual(warnings, [
      'link "eth0": no default route leads out by "eth0"; if none is to come, write --link eth0,gateway=ADDRESS',
    ]);
    host.answers = [[pattern, '[{"dst":"default","gateway":"10.0.0.9","dev":"eth0"}]']];
    assert.deepEqual(await setup.followLinks(), ['eth0']);
    assert.ok(host.ran.some((line) => line.includes('default via 10.0.0.9 dev eth0')));
    assert.equal(warnings.length, 1);
    await setup.undo();
  });

  it('takes the loose reverse path filter where no mark can be given back, and puts it back', async () => {
    host.absent = /tables|nft/;
    const before = host.state();
    const setup = await bringUp(bonded);
    assert.equal(host.sysctls.get('net/ipv4/conf/eth0/rp_filter'), '2');
    await setup.undo();
    assert.deepEqual(host.state(), before);
  });

  it('adds links up to the number that was set apart', async () => {
    const before = host.state();
    const setup = await prepareHost({ ...client, links: [], mostLinks: 1, isAuto: true }, deps);
    await setup.up();
    assert.equal(setup.addLink(eth0), 0);
    assert.equal(setup.linkMark(0), setup.mark, 'not set up yet');
    await setup.followLinks();
    assert.equal(setup.linkMark(0), setup.mark + 1);
    assert.equal(setup.addLink(eth0), undefined);
    await setup.undo();
    assert.deepEqual(host.state(), before);
    const planned = await plan({ ...client, links: [], mostLinks: 1, isAuto: true }, deps);
    assert.ok(planned.some((line) => line.includes('default via 203.0.113.1 dev eth0')));
  });

  it('move their rules in front of that of a tunnel that came later, and take those back', async () => {
    const before = host.state();
    const setup = await bringUp(bonded);
    const preferences = (): readonly number[] =>
      [...host.entries]
        .map((entry) => Number(/^rule 4 (\d+)$/.exec(entry)?.[1]))
        .filter((preference) => preference < 28_000);
    assert.ok(preferences().every((one) => one > 27_000));
    // The kernel takes the preference in front of the lowest there is.
    const front = Math.min(...preferences()) - 1;
    const wgQuick = { priority: front, not: null, fwmark: '0xca6c', table: '51820' };
    host.answers = [[/rule show/, JSON.stringify([wgQuick])]];
    await setup.followLinks();
    assert.deepEqual([...preferences()].sort(), [front - 2, front - 1]);
    const ran = host.ran.length;
    await setup.followLinks();
    assert.ok(!host.ran.slice(ran).some((line) => line.includes(' rule ')));
    await setup.undo();
    assert.deepEqual(host.state(), before);
    assert.deepEqual(warnings, []);
  });

  it('are refused where a system has no way to bind them', async () => {
    const { link: _, ...platform } = PLATFORMS.linux!;
    await assert.rejects(prepareHost(bonded, { ...deps, platform }), {
      message: '--link: not on this system yet; leave it out',
    });
  });
});
