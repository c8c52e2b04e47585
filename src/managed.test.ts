import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { profileNamed } from '../test/profiles.ts';
import { SimBond } from '../test/simbond.ts';
import { Flows, Steady } from '../test/simflows.ts';

/** More than one link carries, less than both. */
const LOAD = { mbit: 80, bytes: 1_000, isExpedited: false, port: 9_000 };
/** One way of the profile, and as long as the server may take to act on what it hears. */
const HEARD_MS = 20 + 2;

describe('a link that the client closes', () => {
  for (const seed of [1, 2, 3]) {
    it(`is left by the server as soon as it hears of it, and used again once it is open (seed ${seed})`, async () => {
      const { a, b } = profileNamed('baseline');
      const net = new SimBond({ figures: [a, b], seed, isSealed: false });
      await net.connect();
      const steady = new Steady(new Flows(net), 'down', LOAD);
      const [, link] = net.links;
      const entered = async (ms: number): Promise<number> => {
        const before = link.down.entered;
        await net.clock.run(ms);
        return link.down.entered - before;
      };
      await net.clock.run(3_000);
      const used = await entered(100);
      assert.ok(used > 200, `${used} datagrams by a link in use`);
      net.client.tunnel?.linkDown(1);
      await net.clock.run(HEARD_MS);
      // Probes.
      const unused = await entered(100);
      assert.ok(unused < 10, `${unused} datagrams by a closed link`);
      net.client.tunnel?.linkUp(1);
      await net.clock.run(3_000);
      const again = await entered(100);
      assert.ok(again > used / 2, `${again} datagrams by the link that is open again`);
      steady.isStopped = true;
    });
  }
});
