/** The walk of a user who has the two files of MLVPN's manual, on the hosts of twoways.ts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Desk, HOME } from './desk.ts';
import type { Bed } from './netns.ts';
import { difference, hostState } from './state.ts';
import { readPing } from './traffic.ts';
import { ADDRESS, SERVER, twoWays } from './twoways.ts';
import { STATE, Walk } from './walk.ts';

const FILE = '/etc/mlvpn/mlvpn0.conf';
const SCRIPT = '/etc/mlvpn/mlvpn0_updown.sh';
const KEY = '/etc/mlvpn/home.key';
const START = `vpn -c ${FILE} -u nobody -n home`;
const CONNECTED = [/^vpn: client on/, /^vpn: connected to/];
const BOTH_UP = /adsl1 .* up .* 1500\n.*adsl2 .* up .* 1500\n/;
const ADSL2_DOWN = /adsl1 .* up .*\n.*adsl2 .* down .* 0 +0 +- +0%/;
const [OWN, OTHER] = ['10.42.42.1', '10.42.42.2'];
/** More would be a link that was missed. */
const MAY_BE_LOST = 2;

export const TITLE = 'A walk for users of MLVPN';
export const PICTURE = `               ┌── router ──┐
    client ────┤            ├──── server
    10.1.0.2   └── router ──┘     198.51.100.1
    10.4.0.2`;

const updown = (own: string, other: string): string => `#!/bin/sh
# The interface, what has happened, and the link that it has happened to.
echo "$@" >> /var/log/updown
case "$2" in
tuntap_up)
    ip address add ${own} peer ${other} dev "$1"
    ip link set dev "$1" mtu 1400 up
    ;;
esac
`;

/** What curl(1) would be for. */
const GET = `#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/8080
printf 'GET %s HTTP/1.0\\r\\nHost: 127.0.0.1:8080\\r\\n\\r\\n' "$1" >&3
cat <&3
`;

const example = (name: string): string =>
  readFileSync(join(import.meta.dirname, 'conf', name), 'utf8');

/** The document below its introduction. Throws when something is not as it should be. */
export async function walkMlvpn(bed: Bed): Promise<string> {
  const hosts = twoWays(bed);
  const [client, server] = await Promise.all([Desk.at(hosts.client), Desk.at(hosts.server)]);
  const clientFile = example('adsl-client.conf')
    .replace('192.168.1.2', ADDRESS.eth0[4])
    .replace('192.168.2.2', ADDRESS.eth1[4])
    .replaceAll('128.128.128.128', SERVER[4]);
  client.put(FILE, clientFile);
  client.put(SCRIPT, updown(OWN, OTHER), true);
  client.put(`${HOME}/state`, STATE, true);
  client.put(`${HOME}/get`, GET, true);
  server.put(FILE, example('adsl-server.conf'));
  server.put(SCRIPT, updown(OTHER, OWN), true);
  const before = [hostState(hosts.client), hostState(hosts.server)] as const;
  const walk = new Walk();

  walk.heading('The files that are there');
  walk.say("Those of MLVPN's manual, for two ADSL lines. The client has");
  await walk.type(client, `cat ${FILE}`);
  await walk.type(client, `cat ${SCRIPT}`);
  walk.say('and the server, which has a port for each line,');
  await walk.type(server, `tail -5 ${FILE}`);
  walk.say(
    "vpn takes them as they are. It does so on both ends, since it does not speak MLVPN's protocol. `--check` says what is wrong with a file, or could be better, and `--dump` what it comes to, with the line that each value is from:",
  );
  await walk.type(client, `vpn -c ${FILE} --check`);
  await walk.type(client, `vpn -c ${FILE} --dump 2>/dev/null`);
  await walk.type(client, './state > before');

  walk.heading('Start');
  walk.say("With MLVPN's own options:");
  const serving = await walk.open(server, START, [/waiting/]);
  let running = await walk.open(client, START, CONNECTED, connected);
  walk.say('In another terminal:');
  await walk.type(client, 'vpn status', { until: BOTH_UP });
  await walk.type(client, "ps -eo user,args | grep '[v]pn: home'", {
    until: /^root +vpn: home \[priv\]\nnobody +vpn: home @adsl1 @adsl2\n$/,
  });
  walk.say('The script was called as by MLVPN, and has set the addresses:');
  await walk.type(client, 'cat /var/log/updown', { until: /(.*\n){3}/, as: adsl1First });
  await walk.type(client, 'ip -br -4 address show mlvpn0');
  await walk.type(client, `ping -c 1 -q ${OTHER} | tail -2`);
  walk.say('`vpn top` draws this once a second:');
  await walk.screen(client, 'vpn top', topRates);
  walk.say(
    '`vpn check` is for monitors: its exit status is 0 if both steps succeed. Here it cannot know whom to ask inside, and says what to do ([below](#from-the-password-to-a-key-file)):',
  );
  await walk.type(client, 'vpn check', { status: 1 });

  walk.heading('A line is cut');
  walk.say('`vpn events` has what happened, and goes on with what happens. In two more terminals:');
  const events = await walk.open(client, 'vpn events | grep --line-buffered link-down', []);
  walk.apart();
  const pings = await walk.open(client, `ping -i 0.2 -c 20 -q ${OTHER}`, [/PING/]);
  walk.say(
    'The router of the second line is switched off. `vpn events` has a line, and so has vpn in its own terminal:',
  );
  hosts.b.run('ip link set eth0 down');
  await walk.more(events, [/adsl2/], (text) => text.replace(/(?<="number":)\d+/, '7'));
  walk.apart();
  await walk.more(running, [/link adsl2/]);
  walk.say('The status, the title of the process and the script say the same:');
  await walk.type(client, 'vpn status', { until: ADSL2_DOWN });
  await walk.type(client, "ps -eo args | grep '[v]pn: home .adsl'", {
    until: /^vpn: home @adsl1 !adsl2\n$/,
  });
  await walk.type(client, 'tail -1 /var/log/updown', { until: /down adsl2/ });
  walk.say('The router is on again, and the pings have missed nothing:');
  hosts.b.run('ip link set eth0 up');
  hosts.b.run(`ip route replace ${SERVER[4]} via 10.14.0.2`);
  await walk.more(running, [/adsl2: there/]);
  walk.apart();
  await walk.more(pings, [/^rtt/], fewLost);
  walk.say('A line can also be taken out of use, until the next start or until it is up again:');
  await walk.type(client, 'vpn link adsl2 down');
  await walk.type(client, 'vpn status', { until: ADSL2_DOWN });
  await walk.type(client, 'vpn link adsl2 up');
  await walk.type(client, 'vpn status', { until: BOTH_UP });

  walk.heading('The file is edited');
  walk.say('A filter, and an upper bound for the second line, in bytes per second:');
  walk.edit(client, FILE, [
    ['[filters]', '[filters]\nadsl1 = "udp port 5060"'],
    ['remoteport = 5081', 'remoteport = 5081\nbandwidth_upload = 250000'],
  ]);
  await walk.type(client, 'vpn reload');
  walk.say('SIGHUP, to either of the two processes, does the same:');
  walk.edit(client, FILE, [['timeout = 30', 'timeout = 20']]);
  await walk.type(client, 'kill -HUP $(pgrep -o vpn)');
  walk.say("What has changed stands in vpn's own terminal, or its journal:");
  await walk.more(running, [/timeout/], onlyReloads);
  walk.say('If the file is wrong, all stays as it was:');
  walk.edit(client, FILE, [['bandwidth_upload = 250000', 'bandwidth_uplaod = 500000']]);
  await walk.type(client, 'vpn reload', { status: 1 });
  walk.edit(client, FILE, [['bandwidth_uplaod = 500000', 'bandwidth_upload = 500000']]);
  await walk.type(client, 'vpn reload');

  walk.heading('From the password to a key file');
  walk.say(
    'A password can be guessed by whoever has recorded a handshake. This change, with what `vpn check` has asked for and a port for HTTP, needs a restart, as `vpn reload` says:',
  );
  await walk.type(client, `vpn keygen ${KEY}`);
  client.copy(KEY, server);
  const password = 'password = "two routers and one key"';
  walk.edit(client, FILE, [
    [password, `key_file = "${KEY}"\nip4_gateway = "${OTHER}"\ncontrol_bind_port = 8080`],
  ]);
  await walk.type(client, 'vpn reload');
  walk.say('The server gets the key file and its line, too, and both are started again:');
  server.put(FILE, server.get(FILE).replace(password, `key_file = "${KEY}"`));
  await walk.type(client, 'vpn stop');
  await walk.type(server, 'vpn stop');
  assert.equal(await running.program.ended(), 0);
  assert.equal(await serving.program.ended(), 0);
  const servingAgain = await walk.open(server, START, [/waiting/]);
  running = await walk.open(client, START, CONNECTED, connected);
  walk.say('Now `vpn check` knows whom to ask:');
  await walk.type(client, 'vpn check', { until: /adsl1.*adsl2.*\ninside: reachable/ });
  walk.say(
    'And there is HTTP for programs, which only reads. What curl does, in a few words of bash:',
  );
  await walk.type(client, 'cat get');
  await walk.type(client, `./get /status | grep -o '"name":"adsl[^}]*"status":"[a-z ]*"'`);
  await walk.type(client, `./get /metrics | grep '^vpn_link_state.*up'`);

  walk.heading('The end');
  await walk.type(client, 'vpn stop');
  await walk.type(server, 'vpn stop');
  await walk.type(client, 'tail -3 /var/log/updown');
  await walk.type(client, './state | diff before - && echo as before');
  assert.equal(await running.program.ended(), 0);
  assert.equal(await servingAgain.program.ended(), 0);
  for (const [i, host] of [hosts.client, hosts.server].entries())
    assert.deepEqual(difference(before[i]!, hostState(host)), []);
  return walk.text();
}

/** Both lines come up at once, and one of them is the first. */
const adsl1First = (text: string): string =>
  /^\S+ rtun_up adsl2/.test(text)
    ? text.replaceAll(/adsl[12]/g, (name) => (name === 'adsl1' ? 'adsl2' : 'adsl1'))
    : text;

const connected = (text: string): string => text.replace(/(?<=connected to \S+:508)[01]/, '0');

/** Not what a change of the links before has brought. */
const onlyReloads = (text: string): string =>
  text
    .split('\n')
    .filter((line) => line.startsWith('vpn: reload'))
    .join('\n');

/** Of both links, in their first second. */
const topRates = (text: string): string =>
  text
    .replaceAll(/(?<=^adsl\d) +[\d.]+k? +[\d.]+k? +\d+%/gm, '  20.0k  20.0k   50%')
    .replaceAll(/[▁▂▃▄▅▆▇█]/g, '▅');

/** Of the ping through the tunnel. What was under way over the line that was cut is sent again by the other. */
function fewLost(text: string): string {
  const { sent, received } = readPing(text);
  assert.ok(received >= sent - MAY_BE_LOST, text);
  return text.trimStart().replace(/\d+ received.*/, `${sent} received, 0% packet loss, time 1.0ms`);
}
