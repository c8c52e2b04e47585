/** The walk of a user who knows dsvpn, on the hosts of world.ts. */
import assert from 'node:assert/strict';
import { Desk, HOME } from './desk.ts';
import type { Bed } from './netns.ts';
import { difference, hostState } from './state.ts';
import { STATE, Walk } from './walk.ts';
import { INTERNET, LAN, world } from './world.ts';

/** Of the server, as its client knows it. */
const SERVER = '198.51.100.34';
const OTHER_END = '192.168.192.254';
const ROUTER = '10.1.0.1';
const SAME = './state | diff before - && echo as before';
const STARTED = [/^vpn: client on/, /^vpn: connected to/];

export const TITLE = 'A walk for users of dsvpn';
export const PICTURE = `    client ────── router ────── server ────── Internet
    10.1.0.2                 198.51.100.34    203.0.113.9`;

/** The document below its introduction. Throws when something is not as it should be. */
export async function walkDsvpn(bed: Bed): Promise<string> {
  const hosts = world(bed);
  hosts.server.ip(`address add ${SERVER}/32 dev lo`);
  hosts.router.ip(`route add ${SERVER} via 10.2.0.2`);
  const [client, server, stranger] = await Promise.all([
    Desk.at(hosts.client),
    Desk.at(hosts.server),
    Desk.at(hosts.attacker, 'stranger'),
  ]);
  client.put('/etc/resolv.conf', `nameserver ${LAN[4]}\n`);
  const before = [hostState(hosts.client), hostState(hosts.server)] as const;
  const walk = new Walk();

  walk.heading('A key');
  walk.say(
    'On the server, where dsvpn has `dd if=/dev/urandom of=vpn.key count=1 bs=32` (such a key will do as well, see [the end](#point-to-point)):',
  );
  await walk.type(server, 'vpn keygen vpn.key');
  await walk.type(server, 'ls -l vpn.key');
  walk.say(
    'It is one line of text. Copy it to the client over a channel you trust, such as `scp -p`, and see that it is the same:',
  );
  server.copy(`${HOME}/vpn.key`, client);
  await walk.type(server, 'sha256sum vpn.key');
  await walk.type(client, 'sha256sum vpn.key');

  walk.heading('Two commands');
  walk.say(
    'With the words of dsvpn, in its order. The port is one of UDP: a firewall that was opened for dsvpn lets TCP pass.',
  );
  const serving = await walk.open(server, 'vpn server vpn.key auto 443 auto auto auto auto', [
    /waiting/,
  ]);
  walk.say(
    'Words at the end that are `auto` may be left out. How the client is before that is kept, to be compared later:',
  );
  client.put(`${HOME}/state`, STATE, true);
  await walk.type(client, 'cat state');
  await walk.type(client, './state > before');
  let connecting = await walk.open(client, `vpn client vpn.key ${SERVER}`, STARTED);

  walk.heading('Another key');
  walk.say(
    'A third host, with a key of its own, tries the same. Nobody answers, as if nobody were there; what it says of that comes after ten seconds, [at the end](#nobody-there) here:',
  );
  await walk.type(stranger, 'vpn keygen vpn.key');
  const trying = await walk.open(stranger, `vpn client vpn.key ${SERVER}`, [/connecting/]);

  walk.heading('What is there now');
  walk.say(
    'In another terminal of the client: an interface, and what is not for the local network goes through it.',
  );
  await walk.type(client, 'ip -br -4 address show tun0');
  await walk.type(client, `ip route get ${INTERNET[4]} | head -1`, { until: /dev tun0/ });
  walk.say(
    'The routes of the host stay as they are, for the tunnel itself. The new default route is in a table of its own, which a rule leads to:',
  );
  await walk.type(client, 'ip route');
  await walk.type(client, 'ip rule');
  walk.say('The other end of the tunnel, and a host on the Internet:');
  await walk.type(client, quietPing(OTHER_END));
  await walk.type(client, quietPing(INTERNET[4]));
  await walk.type(client, 'vpn status', { until: /MTU 1440[^]* up .* 1500\n/ });
  await walk.type(client, 'vpn check');
  walk.say('The server forwards, and what comes from the client leaves with its address:');
  await walk.type(server, 'sysctl net.ipv4.ip_forward');
  await walk.type(server, 'iptables -t nat -S POSTROUTING');
  walk.say(
    'With `--dry-run` at the end either command shows all that it would run, and how it is undone.',
  );

  walk.heading('The end');
  walk.say('Ctrl-C in the terminal of the client, and it is as it was:');
  await walk.interrupt(connecting);
  await walk.type(client, SAME);
  walk.say('The server has noticed, and waits for the next one:');
  await walk.more(serving, [/has closed/]);

  walk.heading('Nothing past the tunnel');
  walk.say(
    '`--kill-switch` lets nothing out but through the tunnel, also after the end; `--dns` is the name server meanwhile:',
  );
  await walk.type(client, 'cat /etc/resolv.conf');
  const guarded = `vpn client vpn.key ${SERVER} --kill-switch --dns ${INTERNET[4]}`;
  connecting = await walk.open(client, guarded, STARTED);
  await walk.type(client, 'cat /etc/resolv.conf', { until: new RegExp(INTERNET[4]) });
  await walk.type(client, quietPing(INTERNET[4]));
  walk.say('Not even the local network can be reached:');
  await walk.type(client, `ping -c 1 ${LAN[4]} 2>&1 | grep From`);
  walk.say('Ctrl-C again. The name server is back, and still nothing leaves, until `vpn cleanup`:');
  await walk.interrupt(connecting);
  await walk.type(client, 'cat /etc/resolv.conf');
  await walk.type(client, `ping -c 1 ${ROUTER} 2>&1 | grep From`);
  await walk.type(client, 'vpn cleanup');
  await walk.type(client, quietPing(ROUTER));
  await walk.type(client, SAME);

  walk.heading('Only some networks');
  walk.say('Each `--route` is a network that goes through the tunnel, and nothing else does:');
  connecting = await walk.open(
    client,
    `vpn client vpn.key ${SERVER} --route 203.0.113.0/24`,
    STARTED,
  );
  await walk.type(client, `ip route get ${INTERNET[4]} | head -1`, { until: /dev tun0/ });
  await walk.type(client, 'ip route get 192.0.2.1 | head -1');
  await walk.type(client, quietPing(INTERNET[4]));

  walk.heading('Killed');
  walk.say(
    '`kill -9` leaves no time to put anything back. The next start does it, or `vpn cleanup` (`vpn cleanup --dry-run` shows what it would do):',
  );
  await walk.type(client, 'kill -9 $(pgrep -o vpn)');
  await walk.gone(connecting);
  await walk.type(client, 'vpn cleanup');
  await walk.type(client, SAME);
  await walk.type(client, 'vpn status', { status: 1 });
  walk.say(
    'In the terminal of the server there are the last two clients. One that was killed has not taken its leave: if the next comes within three seconds, it is told that the server is busy, and waits:',
  );
  await walk.more(serving, [/has closed/]);

  walk.heading('Point to point');
  walk.say(
    'Two addresses and no routes is `--no-default-routes`, for which dsvpn has to be compiled. The server ends and starts again, with a key as dsvpn has it, 32 bytes:',
  );
  await walk.interrupt(serving);
  await walk.type(server, 'dd if=/dev/urandom of=dsvpn.key count=1 bs=32 status=none');
  await walk.type(server, 'ls -l dsvpn.key');
  const [own, other] = ['10.8.0.1', '10.8.0.2'];
  const pointed = await walk.open(
    server,
    `vpn server dsvpn.key auto 443 tun7 ${own} ${other} --no-default-routes`,
    [/waiting/],
  );
  walk.say('It is copied as before, and kept from others this time:');
  server.copy(`${HOME}/dsvpn.key`, client);
  connecting = await walk.open(
    client,
    `vpn client dsvpn.key ${SERVER} 443 tun7 ${other} ${own} --no-default-routes`,
    STARTED,
  );
  await walk.type(client, quietPing(own));
  await walk.type(client, 'ip -br -4 address show tun7');
  await walk.type(client, `ip route get ${INTERNET[4]} | head -1`);
  walk.say('`vpn stop` in another terminal does what Ctrl-C does, and waits for the end:');
  await walk.type(client, 'vpn stop && ip link show tun7', { status: 1 });
  await walk.type(server, 'vpn stop');
  assert.equal(await connecting.program.ended(), 0);
  assert.equal(await pointed.program.ended(), 0);

  walk.heading('Nobody there');
  walk.say('And the third host, ten seconds after its start:');
  await walk.more(trying, [/no reply/]);
  await walk.interrupt(trying);
  for (const [i, host] of [hosts.client, hosts.server].entries())
    assert.deepEqual(difference(before[i]!, hostState(host)), []);
  return walk.text();
}

const quietPing = (address: string): string => `ping -c 1 -q ${address} | tail -2`;
