/** DragonFly BSD. pf is a kernel module. */
import { bsdPlatform, ownDevice } from './bsd.ts';
import { BSD_ANCHOR, classic, classicRules, pfRows, pfSettings } from './pf.ts';

export const dragonfly = bsdPlatform({
  tun: { file: '/dev/tun', remedy: 'run kldload if_tun' },
  tap: { file: '/dev/tap', remedy: 'run kldload if_tap' },
  bootId: 'kern/boottime',
  byDevice: '-interface',
  device: ownDevice,
  firewall: [
    { need: 'default', sysctl: 'pf/loaded', value: '1' },
    // The rules first: what leads to them is the moment at which they count.
    ...pfRows(BSD_ANCHOR, classicRules),
    { need: 'default', sysctl: 'pf/anchor', value: '1' },
    { need: 'default', sysctl: 'pf/enabled', value: '1' },
  ],
  nat: {
    // The module need not be loaded yet.
    probe: 'which pfctl',
    shows: /pfctl/,
    hasIpv6: true,
    remedy: 'check PATH, or pass --no-default-routes',
  },
  settings: pfSettings(classic, true),
});
