/**
 * Linux: the name servers of a client while its tunnel is up, with whoever rules resolv.conf(5)
 * (naming.ts finds out). Last of all, when the routes are there; first to go.
 */
import type { Row } from './platform.ts';

/** A link of resolved's own, which goes with the device too; `~.` sends every name there (resolvectl(1)). */
export const linuxNames: readonly Row[] = [
  { need: 'dns-resolved', up: 'resolvectl dns $TUN $DNS*', down: 'resolvectl revert $TUN' },
  { need: 'dns-resolved', up: 'resolvectl domain $TUN ~.' },
  {
    // Exclusive and first with openresolv; Debian's resolvconf passes over both, and goes by the name.
    need: 'dns-resolvconf',
    up: 'resolvconf -a $DNS_NAME -m 0 -x',
    input: [{ text: 'nameserver $DNS' }],
    down: 'resolvconf -d $DNS_NAME -f',
  },
  {
    need: 'dns-file',
    file: '/etc/resolv.conf',
    lines: [
      { text: '# by vpn:$TAG ; "vpn cleanup" puts back what was here' },
      { text: 'nameserver $DNS' },
    ],
  },
];
