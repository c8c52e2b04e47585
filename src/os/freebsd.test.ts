/** Every template of freebsd, expanded. */
import { checkPlans } from '../../test/standins/plans.ts';

checkPlans('freebsd', {
  server: `
# set up
ifconfig tun0 inet 192.168.192.254 192.168.192.1 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::2 fd00::1 prefixlen 128
kldload pf
pfctl -a vpn/tun0 -f - << 'END'
table <vpn_own> const { self }
scrub on tun0 all max-mss 1360
nat on em0 inet from 192.168.192.1 to any -> (em0:0)
nat on em0 inet6 from fd00::1 to any -> (em0:0)
block drop in quick on em0 inet from any to 192.168.192.254
block drop in quick on em0 inet6 from any to fd00::2
pass in quick on tun0 inet from 192.168.192.1 to ! <vpn_own> tag vpn.tun0
pass in quick on tun0 inet6 from fd00::1 to ! <vpn_own> tag vpn.tun0
pass out quick on em0 inet tagged vpn.tun0
pass out quick on em0 inet6 tagged vpn.tun0
END
pfctl -m -O -N -R -f - # the running ruleset and scrub-anchor "vpn/*", nat-anchor "vpn/*", anchor "vpn/*"
pfctl -e
sysctl -w net.inet6.ip6.forwarding=1
sysctl -w net.inet.ip.forwarding=1
# undo
sysctl -w net.inet.ip.forwarding=0
sysctl -w net.inet6.ip6.forwarding=0
pfctl -d
pfctl -m -O -N -R -f - # the running ruleset without scrub-anchor "vpn/*", nat-anchor "vpn/*", anchor "vpn/*"
pfctl -a vpn/tun0 -F all
kldunload pf
ifconfig tun0 destroy
`,
  'server, networks': `
# set up
ifconfig tun0 inet 192.168.192.254 192.168.192.1 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::2 fd00::1 prefixlen 128
route -n add -inet -net 10.0.0.0/8 192.168.192.1
route -n add -inet6 -net fd50::/32 fd00::1
kldload pf
pfctl -a vpn/tun0 -f - << 'END'
table <vpn_own> const { self }
scrub on tun0 all max-mss 1360
nat on em0 inet from 192.168.192.1 to any -> (em0:0)
nat on em0 inet from 10.0.0.0/8 to any -> (em0:0)
nat on em0 inet6 from fd00::1 to any -> (em0:0)
nat on em0 inet6 from fd50::/32 to any -> (em0:0)
block drop in quick on em0 inet from any to 192.168.192.254
block drop in quick on em0 inet6 from any to fd00::2
pass in quick on tun0 inet from 192.168.192.1 to ! <vpn_own> tag vpn.tun0
pass in quick on tun0 inet from 10.0.0.0/8 to ! <vpn_own> tag vpn.tun0
pass in quick on tun0 inet6 from fd00::1 to ! <vpn_own> tag vpn.tun0
pass in quick on tun0 inet6 from fd50::/32 to ! <vpn_own> tag vpn.tun0
pass out quick on em0 inet tagged vpn.tun0
pass out quick on em0 inet6 tagged vpn.tun0
pass in quick on em0 inet from any to 10.0.0.0/8
pass out quick on tun0 inet from any to 10.0.0.0/8
pass in quick on em0 inet6 from any to fd50::/32
pass out quick on tun0 inet6 from any to fd50::/32
END
pfctl -m -O -N -R -f - # the running ruleset and scrub-anchor "vpn/*", nat-anchor "vpn/*", anchor "vpn/*"
pfctl -e
sysctl -w net.inet6.ip6.forwarding=1
sysctl -w net.inet.ip.forwarding=1
# undo
sysctl -w net.inet.ip.forwarding=0
sysctl -w net.inet6.ip6.forwarding=0
pfctl -d
pfctl -m -O -N -R -f - # the running ruleset without scrub-anchor "vpn/*", nat-anchor "vpn/*", anchor "vpn/*"
pfctl -a vpn/tun0 -F all
kldunload pf
route -n delete -inet6 -net fd50::/32 fd00::1
route -n delete -inet -net 10.0.0.0/8 192.168.192.1
ifconfig tun0 destroy
`,
  'server, external': `
# set up
ifconfig tun0 inet 192.168.192.254 192.168.192.1 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::2 fd00::1 prefixlen 128
kldload pf
pfctl -a vpn/tun0 -f - << 'END'
table <vpn_own> const { self }
scrub on tun0 all max-mss 1360
nat on em0 inet from 192.168.192.1 to any -> 203.0.113.2
nat on em0 inet from 192.168.192.1 to any -> (em0:0)
nat on em0 inet6 from fd00::1 to any -> (em0:0)
block drop in quick on em0 inet from any to 192.168.192.254
block drop in quick on em0 inet6 from any to fd00::2
pass in quick on tun0 inet from 192.168.192.1 to ! <vpn_own> tag vpn.tun0
pass in quick on tun0 inet6 from fd00::1 to ! <vpn_own> tag vpn.tun0
pass out quick on em0 inet tagged vpn.tun0
pass out quick on em0 inet6 tagged vpn.tun0
END
pfctl -m -O -N -R -f - # the running ruleset and scrub-anchor "vpn/*", nat-anchor "vpn/*", anchor "vpn/*"
pfctl -e
sysctl -w net.inet6.ip6.forwarding=1
sysctl -w net.inet.ip.forwarding=1
# undo
sysctl -w net.inet.ip.forwarding=0
sysctl -w net.inet6.ip6.forwarding=0
pfctl -d
pfctl -m -O -N -R -f - # the running ruleset without scrub-anchor "vpn/*", nat-anchor "vpn/*", anchor "vpn/*"
pfctl -a vpn/tun0 -F all
kldunload pf
ifconfig tun0 destroy
`,
  'server, no default routes': `
# set up
ifconfig tun0 inet 192.168.192.254 192.168.192.1 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::2 fd00::1 prefixlen 128
# undo
ifconfig tun0 destroy
`,
  client: `
# set up
ifconfig tun0 inet 192.168.192.1 192.168.192.254 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::1 fd00::2 prefixlen 128
route -n add -inet -host 198.51.100.7 203.0.113.1
route -n add -inet6 -host 2001:db8:7::7 fe80::1%em0
route -n add -inet6 -net ::/1 fd00::2
route -n add -inet6 -net 8000::/1 fd00::2
route -n add -inet -net 0.0.0.0/1 192.168.192.254
route -n add -inet -net 128.0.0.0/1 192.168.192.254
# undo
route -n delete -inet -net 128.0.0.0/1 192.168.192.254
route -n delete -inet -net 0.0.0.0/1 192.168.192.254
route -n delete -inet6 -net 8000::/1 fd00::2
route -n delete -inet6 -net ::/1 fd00::2
route -n delete -inet6 -host 2001:db8:7::7
route -n delete -inet -host 198.51.100.7
ifconfig tun0 destroy
`,
  'client, IPv4 only': `
# set up
ifconfig tun0 inet 192.168.192.1 192.168.192.254 netmask 255.255.255.255 mtu 1420 up
route -n add -inet -host 198.51.100.7 203.0.113.1
route -n add -inet6 -host 2001:db8:7::7 fe80::1%em0
route -n add -inet6 -net ::/2 ::1 -reject
route -n add -inet6 -net 4000::/2 ::1 -reject
route -n add -inet6 -net 8000::/2 ::1 -reject
route -n add -inet6 -net c000::/2 ::1 -reject
route -n add -inet -net 0.0.0.0/1 192.168.192.254
route -n add -inet -net 128.0.0.0/1 192.168.192.254
# undo
route -n delete -inet -net 128.0.0.0/1 192.168.192.254
route -n delete -inet -net 0.0.0.0/1 192.168.192.254
route -n delete -inet6 -net c000::/2 ::1 -reject
route -n delete -inet6 -net 8000::/2 ::1 -reject
route -n delete -inet6 -net 4000::/2 ::1 -reject
route -n delete -inet6 -net ::/2 ::1 -reject
route -n delete -inet6 -host 2001:db8:7::7
route -n delete -inet -host 198.51.100.7
ifconfig tun0 destroy
`,
  'client, networks': `
# set up
ifconfig tun0 inet 192.168.192.1 192.168.192.254 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::1 fd00::2 prefixlen 128
route -n add -inet -host 198.51.100.7 203.0.113.1
route -n add -inet6 -host 2001:db8:7::7 fe80::1%em0
route -n add -inet6 -net fd50::/32 fd00::2
route -n add -inet -net 10.0.0.0/8 192.168.192.254
# undo
route -n delete -inet -net 10.0.0.0/8 192.168.192.254
route -n delete -inet6 -net fd50::/32 fd00::2
route -n delete -inet6 -host 2001:db8:7::7
route -n delete -inet -host 198.51.100.7
ifconfig tun0 destroy
`,
  'client, gateway': `
# set up
ifconfig tun0 inet 192.168.192.1 192.168.192.254 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::1 fd00::2 prefixlen 128
route -n add -inet -host 198.51.100.7 203.0.113.9
route -n add -inet6 -host 2001:db8:7::7 fe80::1%em0
route -n add -inet6 -net ::/1 fd00::2
route -n add -inet6 -net 8000::/1 fd00::2
route -n add -inet -net 0.0.0.0/1 192.168.192.254
route -n add -inet -net 128.0.0.0/1 192.168.192.254
# undo
route -n delete -inet -net 128.0.0.0/1 192.168.192.254
route -n delete -inet -net 0.0.0.0/1 192.168.192.254
route -n delete -inet6 -net 8000::/1 fd00::2
route -n delete -inet6 -net ::/1 fd00::2
route -n delete -inet6 -host 2001:db8:7::7
route -n delete -inet -host 198.51.100.7
ifconfig tun0 destroy
`,
  'client, no default routes': `
# set up
ifconfig tun0 inet 192.168.192.1 192.168.192.254 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::1 fd00::2 prefixlen 128
# undo
ifconfig tun0 destroy
`,
});
