/** Routing tables of one and the same host as each system's netstat(1) prints them. */
import type { SystemName } from './bsd.ts';

/** The table of each system as its netstat(1) prints it: header, default, local network. */
export const TABLES: Readonly<Record<SystemName, { readonly four: string; readonly six: string }>> =
  {
    darwin: {
      four: `Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            203.0.113.1        UGScg                 en0
default            link#9             UCSIg             bridge1
127                127.0.0.1          UCS                   lo0
127.0.0.1          127.0.0.1          UH                    lo0
203.0.113          link#4             UCS                   en0      !
203.0.113.1/32     link#4             UCS                   en0      !
203.0.113.1        52:54:0:12:35:2    UHLWIir               en0   1187
224.0.0/4          link#4             UmCS                  en0      !
`,
      six: `Routing tables

Internet6:
Destination                             Gateway                         Flags               Netif Expire
default                                 fe80::1%en0                     UGcg                  en0
default                                 fe80::%utun0                    UGcIg               utun0
::1                                     ::1                             UHL                   lo0
2001:db8::/64                           link#4                          UC                    en0
fe80::%en0/64                           link#4                          UCI                   en0
`,
    },
    freebsd: {
      four: `Routing tables

Internet:
Destination        Gateway            Flags     Netif Expire
default            203.0.113.1        UGS         em0
127.0.0.1          link#2             UH          lo0
203.0.113.0/24     link#1             U           em0
203.0.113.2        link#2             UHS         lo0
`,
      six: `Routing tables

Internet6:
Destination                       Gateway                       Flags     Netif Expire
::/96                             link#2                        URS         lo0
default                           fe80::1%em0                   UG          em0
::1                               link#2                        UHS         lo0
::ffff:0.0.0.0/96                 link#2                        URS         lo0
2001:db8::/64                     link#1                        U           em0
fe80::%em0/64                     link#1                        U           em0
`,
    },
    dragonfly: {
      four: `Routing tables

Internet:
Destination        Gateway            Flags    Refs      Use  Netif Expire
default            203.0.113.1        UGSc        2       12    em0
127.0.0.1          127.0.0.1          UH          0       64    lo0
203.0.113/24       link#1             UC          0        0    em0
203.0.113.1        52:54:00:12:35:02  UHLW        1        0    em0    901
`,
      six: `Routing tables

Internet6:
Destination                       Gateway                       Flags      Netif Expire
default                           fe80::1%em0                   UGc         em0
::1                               ::1                           UH          lo0
2001:db8::/64                     link#1                        UC          em0
`,
    },
    openbsd: {
      four: `Routing tables

Internet:
Destination        Gateway            Flags   Refs      Use   Mtu  Prio Iface
default            203.0.113.1        UGS        4      120     -     8 em0
224/4              127.0.0.1          URS        0        0 32768     8 lo0
127/8              127.0.0.1          UGRS       0        0 32768     8 lo0
127.0.0.1          127.0.0.1          UHhl       1        2 32768     1 lo0
203.0.113/24       203.0.113.2        UCn        1        0     -     4 em0
203.0.113.1        52:54:00:12:35:02  UHLch      1        6     -     3 em0
203.0.113.2        52:54:00:12:34:56  UHLl       0        4     -     1 em0
`,
      six: `Routing tables

Internet6:
Destination                        Gateway                        Flags   Refs      Use   Mtu  Prio Iface
default                            fe80::1%em0                    UGS        0        3     -     8 em0
::/96                              ::1                            UGRS       0        0 32768     8 lo0
::1                                ::1                            UHhl      10       20 32768     1 lo0
2001:db8::/64                      2001:db8::2                    UCn        0        0     -     4 em0
`,
    },
    netbsd: {
      four: `Routing tables

Internet:
Destination        Gateway            Flags    Refs      Use    Mtu Interface
default            203.0.113.1        UG          -        -      -  wm0
127/8              127.0.0.1          UGRS        -        -  33624  lo0
127.0.0.1          lo0                UHl         -        -  33624  lo0
203.0.113/24       link#1             U           -        -      -  wm0
203.0.113.2        link#1             UHl         -        -      -  lo0
`,
      six: `Routing tables

Internet6:
Destination                             Gateway                        Flags    Refs      Use    Mtu Interface
::/96                                   ::1                            UGRS        -        -  33624  lo0
default                                 fe80::1%wm0                    UG          -        -      -  wm0
::1                                     lo0                            UHl         -        -  33624  lo0
2001:db8::/64                           link#1                         U           -        -      -  wm0
`,
    },
  };
