/** Routes of a client on macOS and the BSDs: to the server past the tunnel, and IPv6. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SystemName } from '../../test/standins/bsd.ts';
import { Bed, bringUp } from '../../test/standins/host.ts';
import { TUN, casesOf } from '../../test/standins/plans.ts';
import { prepareHost } from '../setup.ts';
import type { HostSetup } from '../setup.ts';

const SYSTEMS: readonly SystemName[] = ['darwin', 'openbsd', 'freebsd', 'netbsd', 'dragonfly'];

describe('the way to the server', () => {
  async function connected(system: SystemName): Promise<{ bed: Bed; setup: HostSetup }> {
    const bed = new Bed(system);
    bed.standIn.createTun(TUN[system]);
    const { client } = casesOf(system);
    assert.ok(client !== undefined);
    return { bed, setup: await bringUp(client, bed) };
  }

  for (const system of SYSTEMS) {
    it(`${system}: follows the default route, while the tunnel's routes stay`, async () => {
      const { bed, setup } = await connected(system);
      const { standIn } = bed;
      const key = 'inet host 198.51.100.7';
      assert.equal(standIn.state.routes[key]?.gateway, '203.0.113.1');
      const count = bed.runner.ran.length;
      await setup.refresh();
      assert.equal(bed.runner.ran.length, count, 'nothing changed, nothing is run');
      const real = standIn.run.bind(standIn);
      standIn.run = (argv, input) => {
        const result = real(argv, input);
        if (argv[0] !== 'netstat') return result;
        return { ...result, stdout: result.stdout.replaceAll('203.0.113.1 ', '203.0.113.3 ') };
      };
      await setup.refresh();
      assert.equal(standIn.state.routes[key]?.gateway, '203.0.113.3');
      assert.deepEqual(bed.runner.ran.slice(count), [
        'route -n delete -inet -host 198.51.100.7',
        'route -n add -inet -host 198.51.100.7 203.0.113.3',
      ]);
      assert.equal(await setup.undo(), true);
      assert.deepEqual(standIn.state.routes, {});
      assert.deepEqual(bed.warnings, []);
      bed.remove();
    });
  }

  it('is made for an address that comes later, once, and not for one of this network', async () => {
    const { bed, setup } = await connected('freebsd');
    await setup.reach(['198.51.100.8', '203.0.113.77', '198.51.100.7']);
    await setup.reach(['198.51.100.8']);
    assert.deepEqual(
      Object.keys(bed.standIn.state.routes).filter((key) => key.includes('host')),
      ['inet host 198.51.100.7', 'inet6 host 2001:db8:7::7', 'inet host 198.51.100.8'],
    );
    assert.equal(await setup.undo(), true);
    bed.remove();
  });

  it('an administrator who deletes a route by hand gets one warning, and undo goes on', async () => {
    const { bed, setup } = await connected('darwin');
    bed.standIn.run(['route', '-n', 'delete', '-inet', '-net', '0.0.0.0/1']);
    assert.equal(await setup.undo(), true);
    assert.deepEqual(bed.standIn.state.routes, {});
    assert.equal(bed.warnings.length, 1);
    assert.match(bed.warnings[0] ?? '', /^somebody else removed/);
    bed.remove();
  });

  it('a route of another program is an error and stays', async () => {
    for (const system of SYSTEMS) {
      const bed = new Bed(system);
      bed.standIn.createTun(TUN[system]);
      bed.standIn.run(['route', '-n', 'add', '-inet', '-net', '0.0.0.0/1', '203.0.113.1']);
      const routes = { ...bed.standIn.state.routes };
      const { client } = casesOf(system);
      assert.ok(client !== undefined);
      await assert.rejects(bringUp(client, bed), /0\.0\.0\.0\/1.*File exists.*another program/);
      assert.deepEqual(bed.standIn.state.routes, routes);
      bed.remove();
    }
  });
});

describe('IPv6 of a client', () => {
  it('has a route of ours at every moment, whatever the server says', async () => {
    const bed = new Bed('freebsd');
    bed.standIn.createTun('tun0');
    const { client } = casesOf('freebsd');
    assert.ok(client !== undefined);
    const setup = await prepareHost(client, bed.deps);
    await setup.up();
    await setup.reach(client.servers ?? []);
    await setup.connected({ ipv6: false });
    const covers = (): boolean => {
      const has = (network: string): boolean => `inet6 net ${network}` in bed.standIn.state.routes;
      const halves = has('::/1') && has('8000::/1');
      return halves || ['::/2', '4000::/2', '8000::/2', 'c000::/2'].every(has);
    };
    for (const ipv6 of [true, false, true]) {
      bed.runner.onChange = () => assert.ok(covers());
      await setup.connected({ ipv6 });
      const isRefused = 'inet6 net ::/2' in bed.standIn.state.routes;
      assert.equal(isRefused, !ipv6);
    }
    bed.runner.onChange = () => undefined;
    assert.equal(await setup.undo(), true);
    bed.remove();
  });
});

describe('a network that is away for a while', () => {
  it('does not end the tunnel: the way is made again when it is back', async () => {
    const bed = new Bed('freebsd');
    bed.standIn.createTun('tun0');
    const { client } = casesOf('freebsd');
    assert.ok(client !== undefined);
    const setup = await bringUp(client, bed);
    const { routes } = bed.standIn.state;
    const tunnel = (): number => Object.values(routes).filter((r) => r.device === 'tun0').length;
    const before = tunnel();
    const real = bed.standIn.run.bind(bed.standIn);
    let gateway = '192.0.2.1';
    bed.standIn.run = (argv, input) => {
      const result = real(argv, input);
      if (argv[0] !== 'netstat') return result;
      return { ...result, stdout: result.stdout.replaceAll('203.0.113.1 ', `${gateway} `) };
    };
    // A gateway that cannot be reached yet.
    await setup.refresh();
    await setup.reach(['198.51.100.7']);
    assert.ok(!('inet host 198.51.100.7' in routes));
    gateway = '203.0.113.3';
    await setup.refresh();
    assert.equal(routes['inet host 198.51.100.7']?.gateway, '203.0.113.3');
    assert.equal(tunnel(), before);
    assert.equal(await setup.undo(), true);
    assert.deepEqual(routes, {});
    bed.remove();
  });
});
