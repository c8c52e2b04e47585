/**
 * What cannot work is said in one line, `vpn: what: why; what to do`, with the right exit status, and
 * nothing is changed. Wrong command lines and key files are in src/cli.test.ts and src/key.test.ts.
 */
import assert from 'node:assert/strict';
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { EXECUTABLE, makeKey, startServer } from './ends.ts';
import { netTest, type Bed, type Host, type Output } from './netns.ts';
import { difference, hostState } from './state.ts';
import { pair } from './world.ts';

/** nobody(7) of Debian. */
const NOBODY = 65534;
const LINE = /^vpn: [^A-Z\n][^\n]*: [^\n]*; [^\n]*[^\n.]\n$/;

interface Attempt {
  readonly words: readonly string[];
  readonly says: RegExp;
  /** Before the executable. */
  readonly wrapper?: readonly string[];
  readonly executable?: string;
}

/** Starts vpn, which must end by itself with one line and leave everything as it was. */
function attempt(
  host: Host,
  stateDir: string,
  { words, says, wrapper = [], executable = EXECUTABLE }: Attempt,
): void {
  const before = hostState(host);
  const command = [...wrapper, executable, ...words, '--state-dir', stateDir];
  const done: Output = host.try(command);
  assert.match(done.stderr, LINE, words.join(' '));
  assert.match(done.stderr, says);
  assert.equal(done.status, 1, done.stderr);
  assert.deepEqual(difference(before, hostState(host)), []);
  assert.deepEqual(
    existsSync(stateDir) ? readdirSync(stateDir).filter((name) => name !== 'lock') : [],
    [],
  );
}

function oneHost(bed: Bed): { readonly host: Host; readonly key: string; readonly state: string } {
  const { client } = pair(bed);
  client.run('ip route add default via 10.1.0.2');
  return { host: client, key: makeKey(bed), state: bed.file('state') };
}

netTest('a port that is taken, an address of another host', [], async (bed) => {
  const { host, key, state } = oneHost(bed);
  const other = startServer(bed, host, { key, port: 4443 });
  await other.daemon.line(/waiting/);
  const ips = ['auto', '192.168.193.254', '192.168.193.1'];
  attempt(host, state, {
    words: ['server', key, 'auto', '4443', ...ips],
    says: /^vpn: cannot listen on UDP port 4443: address in use; stop the other program or/,
  });
  attempt(host, state, {
    words: ['server', key, '203.0.113.77', '443', ...ips],
    says: /^vpn: cannot listen on UDP port 443: "203\.0\.113\.77" is not an address of this host; /,
  });
  attempt(host, state, {
    words: ['server', key, 'auto', '443', ...ips, '203.0.113.77'],
    says: /^vpn: external address "203\.0\.113\.77": no interface of this host has it; give auto, or/,
  });
  // Of the other instance.
  for (const role of [['server'], ['client']] as const)
    attempt(host, state, {
      words: [
        ...role,
        key,
        ...(role[0] === 'client' ? ['10.1.0.2'] : ['auto']),
        '443',
        'auto',
        '10.1.0.1',
        '10.1.0.9',
      ],
      says: /^vpn: tunnel address "10\.1\.0\.1": interface "eth0" has it already; give another pair/,
    });
  attempt(host, state, {
    words: ['server', key, 'auto', '444', 'tun0'],
    says: /^vpn: tun device "tun0": in use; give another name, or auto/,
  });
});

netTest('no tun device to be had, no rights, a key of somebody else', [], async (bed) => {
  const { host, key, state } = oneHost(bed);
  attempt(host, state, {
    words: ['server', key],
    wrapper: ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs tmpfs /dev/net && exec "$@"', 'sh'],
    says: /^vpn: cannot open \/dev\/net\/tun: no such device; run modprobe tun/,
  });
  // Where another user can read.
  chmodSync(bed.directory, 0o755);
  const folder = bed.file('open');
  mkdirSync(folder, { mode: 0o777 });
  chmodSync(folder, 0o777);
  const executable = `${folder}/vpn`;
  copyFileSync(EXECUTABLE, executable);
  for (const name of ['key', 'foreign']) copyFileSync(key, `${folder}/${name}`);
  chownSync(`${folder}/key`, NOBODY, NOBODY);
  const refused =
    /^vpn: cannot open \/dev\/net\/tun: (permission denied|operation not permitted); run as root or grant CAP_NET_ADMIN/;
  const anybody = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
  for (const [rights, name, says] of [
    [anybody, 'key', refused],
    [['--bounding-set=-net_admin', '--inh-caps=-net_admin'], 'key', refused],
    [anybody, 'foreign', /^vpn: cannot read key file ".*": permission denied; check its owner and/],
  ] as const)
    for (const words of [
      ['server', `${folder}/${name}`],
      ['client', `${folder}/${name}`, '10.1.0.2'],
    ])
      attempt(host, `${folder}/state`, {
        words,
        wrapper: ['setpriv', ...rights],
        executable,
        says,
      });
});

netTest('a name without an address, and no way to the server', [], async (bed) => {
  const { host, key, state } = oneHost(bed);
  host.names('127.0.0.1 localhost');
  attempt(host, state, {
    words: ['client', key, 'nowhere.invalid'],
    says: /^vpn: cannot resolve "nowhere\.invalid": no address found; check the name and the network/,
  });
  host.run('ip route del default');
  attempt(host, state, {
    words: ['client', key, '203.0.113.7', '443', 'auto', 'auto', 'auto', '203.0.113.1'],
    says: /^vpn: cannot find the gateway: "ip route get 203\.0\.113\.1" exited with 2: Network is un/,
  });
  for (const options of [[], ['--no-default-routes'], ['--route', '10.50.0.0/16']])
    for (const server of ['203.0.113.7', '2001:db8:99::1'])
      attempt(host, state, {
        words: ['client', key, server, ...options],
        says: /^vpn: cannot reach "[0-9a-f:.]+": no route leads there; connect this host to a network/,
      });
});

netTest('a key file that every user can read: a warning, and it works', [], async (bed) => {
  const { host, key } = oneHost(bed);
  chmodSync(key, 0o644);
  const before = hostState(host);
  const end = startServer(bed, host, { key });
  await end.daemon.line(/waiting/);
  const lines = end.daemon.output.trim().split('\n');
  assert.equal(lines.length, 2, end.daemon.output);
  assert.match(
    lines[0] ?? '',
    /^vpn: warning: key file ".*": readable by every user; run chmod 600 /,
  );
  assert.equal(await end.daemon.stop(), 0, end.daemon.output);
  assert.deepEqual(difference(before, hostState(host)), []);
});
