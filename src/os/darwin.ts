/**
 * macOS. Apple's main ruleset leads to `com.apple/*` (pf.conf(5)), so nothing of it is touched; pf is
 * enabled for each who holds a token.
 */
import { bsdPlatform, device } from './bsd.ts';
import { classicRules, pfRows } from './pf.ts';

export const darwin = bsdPlatform({
  tun: { file: 'a utun device', remedy: 'give a name like utun7, or auto' },
  bootId: 'kern/bootsessionuuid',
  byDevice: '-interface',
  device,
  firewall: [
    ...pfRows('com.apple/vpn.$TUN', classicRules),
    {
      need: 'default',
      up: 'pfctl -E',
      down: 'pfctl -X {found}',
      says: 'Token : ([0-9]+)',
    },
  ],
  nat: {
    probe: 'pfctl -s nat',
    shows: /^nat-anchor "com\.apple\/\*"/m,
    hasIpv6: true,
    remedy: 'run pfctl -f /etc/pf.conf, or pass --no-default-routes',
  },
  settings: {},
});
