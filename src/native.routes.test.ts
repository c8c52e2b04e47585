/** That the addon tells of changes to the network: addresses, routes, rules and interfaces. */
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { inNamespace, ip, it, native, until } from '../test/nativebed.ts';
import { PollEvent } from './native.ts';

const CHANGES = [
  'addr add 10.3.0.1/32 dev lo',
  'route add 10.4.0.0/24 dev lo',
  'rule add from 10.5.0.1 lookup 99',
  '-6 route add fd04::/64 dev lo',
  '-6 rule add from fd05::1 lookup 99',
  'link set lo down',
];

inNamespace('changes of the network', import.meta.url, () => {
  describe('routes', () => {
    for (const change of CHANGES) {
      it(`are readable after "ip ${change}" until they are drained`, async () => {
        const handle = native.routesOpen();
        let calls = 0;
        native.poll(handle, PollEvent.readable, (events) => {
          assert.equal(events, PollEvent.readable);
          calls++;
          if (calls === 3) native.routesDrain(handle);
        });
        await new Promise((resolve) => setTimeout(resolve, 20));
        assert.equal(calls, 0, 'nothing changed yet');
        ip(...change.split(' '));
        await until('three calls', () => (calls >= 3 ? true : undefined));
        await new Promise((resolve) => setTimeout(resolve, 20));
        assert.equal(calls, 3, 'quiet once drained');
        native.routesDrain(handle);
        native.close(handle);
      });
    }
  });
});
