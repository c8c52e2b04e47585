/** Every template of netbsd, expanded. */
import { checkPlans } from '../../test/standins/plans.ts';

checkPlans('netbsd', {
  server: `
# set up
ifconfig tun0 inet 192.168.192.254 192.168.192.1 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::2 fd00::1 prefixlen 128
npfctl reload /dev/stdin << 'END'
map wm0 dynamic 192.168.192.1 -> inet4(wm0)
group default { pass final all }
END
npfctl start
sysctl -w net.inet.ip.forwarding=1
# undo
sysctl -w net.inet.ip.forwarding=0
npfctl stop
npfctl flush
ifconfig tun0 destroy
`,
  'server, networks': `
# set up
ifconfig tun0 inet 192.168.192.254 192.168.192.1 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::2 fd00::1 prefixlen 128
route -n add -inet -net 10.0.0.0/8 192.168.192.1
route -n add -inet6 -net fd50::/32 fd00::1
npfctl reload /dev/stdin << 'END'
map wm0 dynamic 192.168.192.1 -> inet4(wm0)
map wm0 dynamic 10.0.0.0/8 -> inet4(wm0)
group default { pass final all }
END
npfctl start
sysctl -w net.inet6.ip6.forwarding=1
sysctl -w net.inet.ip.forwarding=1
# undo
sysctl -w net.inet.ip.forwarding=0
sysctl -w net.inet6.ip6.forwarding=0
npfctl stop
npfctl flush
route -n delete -inet6 -net fd50::/32 fd00::1
route -n delete -inet -net 10.0.0.0/8 192.168.192.1
ifconfig tun0 destroy
`,
  'server, external': `
# set up
ifconfig tun0 inet 192.168.192.254 192.168.192.1 netmask 255.255.255.255 mtu 1420 up
ifconfig tun0 inet6 fd00::2 fd00::1 prefixlen 128
npfctl reload /dev/stdin << 'END'
map wm0 dynamic 192.168.192.1 -> 203.0.113.2
map wm0 dynamic 192.168.192.1 -> inet4(wm0)
group default { pass final all }
END
npfctl start
sysctl -w net.inet.ip.forwarding=1
# undo
sysctl -w net.inet.ip.forwarding=0
npfctl stop
npfctl flush
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
route -n add -inet6 -host 2001:db8:7::7 fe80::1%wm0
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
route -n add -inet6 -host 2001:db8:7::7 fe80::1%wm0
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
route -n add -inet6 -host 2001:db8:7::7 fe80::1%wm0
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
route -n add -inet6 -host 2001:db8:7::7 fe80::1%wm0
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
