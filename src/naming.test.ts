/** Name servers on pretended hosts, whoever rules them: set, kept, and put back. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { PretendedHost } from '../test/pretended.ts';
import { PretendedBed } from '../test/pretendedbed.ts';
import { clientSettings } from '../test/standins/host.ts';
import { NamesStandIn, OWN_SERVER, RULERS } from '../test/standins/names.ts';
import type { Ruler } from '../test/standins/names.ts';
import { plainFile } from './hostfiles.ts';
import { cleanUp, planCleanUp, prepareHost } from './setup.ts';
import type { HostDeps, HostSettings, HostSetup } from './setup.ts';

const NAMES = ['10.0.0.53', 'fd00::53'];
const client: HostSettings = { ...clientSettings('tun0'), dns: NAMES };
const FILE = '/etc/resolv.conf';

describe('name servers', () => {
  let bed: PretendedBed;
  let host: PretendedHost;
  let deps: HostDeps;
  let warnings: string[];

  beforeEach(() => {
    bed = new PretendedBed();
    ({ host, deps, warnings } = bed);
  });
  afterEach(() => bed.remove());

  const bringUp = (settings = client): Promise<HostSetup> => bed.bringUp(settings);
  const ruledBy = (ruler: Ruler): readonly string[] => {
    host.names = new NamesStandIn(ruler);
    return host.state();
  };

  for (const ruler of RULERS)
    describe(`where ${ruler} rules them`, () => {
      it('come first while the tunnel is up, and are as before when it ends', async () => {
        const before = ruledBy(ruler);
        const found = host.names.servers();
        const setup = await prepareHost(client, deps);
        await setup.up();
        assert.deepEqual(host.names.servers(), found, 'not before there are routes');
        await setup.connected({ ipv6: true });
        assert.deepEqual(host.names.servers().slice(0, 2), NAMES);
        assert.deepEqual(setup.nameServers, ruler === 'none' ? [] : [OWN_SERVER]);
        assert.equal(await setup.undo(), true);
        assert.deepEqual(host.state(), before);
        assert.deepEqual(warnings, []);
      });

      it('are as before when it was killed and cleaned up, or started again', async () => {
        const before = ruledBy(ruler);
        await bringUp();
        bed.kill();
        assert.deepEqual((await cleanUp(deps)).failed, []);
        assert.deepEqual(host.state(), before);
        await bringUp();
        bed.kill();
        await (await bringUp()).undo();
        assert.deepEqual(host.state(), before);
        assert.deepEqual(bed.journals(), []);
      });
    });

  it('of a system that keeps none of it over a reboot are put back where they are in a file', async () => {
    for (const way of ['cleanup', 'start'] as const) {
      const before = ruledBy('link');
      await bringUp();
      // Whatever is not on disk is gone with the boot.
      host.entries.clear();
      bed.kill();
      const [name = ''] = bed.journals();
      const path = join(bed.journalDir, name);
      const text = readFileSync(path, 'utf8');
      const [header = ''] = text.split('\n');
      const old = JSON.stringify({ ...JSON.parse(header), bootId: 'another', netns: '3' });
      writeFileSync(path, text.replace(header, old));
      assert.deepEqual(await planCleanUp(deps), [`ln -sfn ../run/dhcp/resolv.conf ${FILE}`]);
      const ran = host.ran.length;
      if (way === 'cleanup') assert.equal((await cleanUp(deps)).undone.length, 1);
      else await prepareHost({ ...client, dns: [] }, deps);
      assert.deepEqual(host.ran.slice(ran), [`tee ${FILE}`]);
      const names = host.names.state();
      assert.ok(before.includes(names[0] ?? ''), names.join('\n'));
      bed.kill();
      await cleanUp(deps);
      assert.deepEqual(bed.journals(), []);
    }
  });

  it('that another program has written are left to it', async () => {
    ruledBy('nobody');
    const setup = await bringUp();
    host.names.files.set(FILE, plainFile('nameserver 198.51.100.53\n'));
    assert.equal(await setup.undo(), true);
    assert.deepEqual(host.names.servers(), ['198.51.100.53']);
    assert.deepEqual(warnings, [`another program has changed "${FILE}": left as it is`]);
    assert.deepEqual(bed.journals(), []);
  });

  it('that another program writes are ours again soon, and the newest are put back', async () => {
    ruledBy('nobody');
    const setup = await bringUp();
    for (const lease of ['198.51.100.53', '198.51.100.54']) {
      host.names.files.set(FILE, plainFile(`nameserver ${lease}\n`));
      await setup.refresh();
      assert.deepEqual(host.names.servers(), NAMES);
    }
    const ran = host.ran.length;
    await setup.refresh();
    assert.equal(host.ran.length, ran);
    assert.equal(await setup.undo(), true);
    assert.deepEqual(host.names.servers(), ['198.51.100.54']);
    assert.deepEqual(warnings, []);
  });

  it('that another program insists on are left to it at last', async () => {
    ruledBy('nobody');
    const setup = await bringUp();
    for (let i = 0; i < 120; i += 1) {
      host.names.files.set(FILE, plainFile(`# ${i}\n`));
      await setup.refresh();
    }
    assert.deepEqual(host.names.servers(), []);
    assert.deepEqual(warnings, [`another program insists on "${FILE}": left to it`]);
    await setup.undo();
  });

  it('of two instances end in what was there before both, whichever ends first', async () => {
    for (const isFirst of [true, false]) {
      const before = ruledBy('nobody');
      const one = await bringUp();
      const other = { ...client, tun: 'tun1', localIp: '10.1.0.1', peerIp: '10.1.0.2' };
      const two = await bringUp({ ...other, localIp6: '', peerIp6: '', dns: ['10.9.9.9'] });
      const [first, last] = isFirst ? [one, two] : [two, one];
      await first.undo();
      await last.refresh();
      const left = isFirst ? ['10.9.9.9'] : NAMES;
      assert.deepEqual(host.names.servers(), left);
      await last.undo();
      assert.deepEqual(host.state(), before);
    }
  });

  it('outside the tunnel get a warning', async () => {
    ruledBy('nobody');
    const setup = await bringUp({ ...client, routes: ['10.0.0.0/8', 'fd50::/32'] });
    assert.deepEqual(warnings, ['name server fd00::53: not reached through the tunnel']);
    await setup.undo();
  });
});
