/** OpenBSD. pf is part of the kernel, and enabled unless an administrator says otherwise. */
import { bsdPlatform, device } from './bsd.ts';
import { BSD_ANCHOR, openbsd as dialect, openbsdRules, pfRows, pfSettings } from './pf.ts';

export const openbsd = bsdPlatform({
  tun: { file: '/dev/tunN', remedy: 'make one more: cd /dev && sh MAKEDEV tun4' },
  tap: { file: '/dev/tapN', remedy: 'make one more: cd /dev && sh MAKEDEV tap4' },
  bootId: 'kern/boottime',
  byDevice: '-iface',
  device,
  firewall: [
    // The rules first: what leads to them is the moment at which they count.
    ...pfRows(BSD_ANCHOR, openbsdRules),
    { need: 'default', sysctl: 'pf/anchor', value: '1' },
    { need: 'default', sysctl: 'pf/enabled', value: '1' },
  ],
  nat: {
    probe: 'pfctl -s info',
    shows: /^Status: /m,
    hasIpv6: true,
    remedy: 'run as root, or pass --no-default-routes',
  },
  settings: pfSettings(dialect, false),
});
