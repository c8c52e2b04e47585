/**
 * NetBSD. Its packet filter is npf, whose configuration is one file, loaded whole, which the kernel
 * does not give back as it was (npfctl(8) show). So a server translates only where npf is not in use:
 * then there is nothing to put back. IPv6 does not leave it, for npf translates IPv4 only.
 */
import { bsdPlatform, ownDevice } from './bsd.ts';
import { pointToPoint } from './platform.ts';

export const netbsd = bsdPlatform({
  tun: { file: '/dev/tunN', remedy: 'make one more: cd /dev && sh MAKEDEV tun4' },
  tap: { file: '/dev/tap', remedy: 'make it: cd /dev && sh MAKEDEV tap' },
  bootId: 'kern/boottime',
  byDevice: '-interface',
  device: ownDevice,
  firewall: pointToPoint
    ? []
    : [
        {
          need: 'default',
          up: 'npfctl reload /dev/stdin',
          input: [
            { text: 'map $EXT_IF dynamic $PEER -> $EXT4' },
            { text: 'map $EXT_IF dynamic $NET4 -> $EXT4' },
            { text: 'map $OUT_IF4 dynamic $PEER -> inet4($OUT_IF4)' },
            { text: 'map $OUT_IF4 dynamic $NET4 -> inet4($OUT_IF4)' },
            { text: 'group default { pass final all }' },
          ],
          down: 'npfctl flush',
        },
        { need: 'default', up: 'npfctl start', down: 'npfctl stop' },
      ],
  nat: {
    probe: 'npfctl show',
    shows: /^# config:\s+empty/m,
    remedy:
      'npf has rules already: translate for the client there, and pass --no-default-routes here',
    hasIpv6: false,
  },
  settings: {},
});
