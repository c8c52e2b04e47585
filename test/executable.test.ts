/** What the executable is by itself: what it carries, how it unpacks that, and what it does without a change. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, watch } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { it } from 'node:test';
import { EXECUTABLE, makeKey, NODE, startServer, type End } from './ends.ts';
import { inPath, netTest, run, until, type Bed } from './netns.ts';
import { difference, hostState } from './state.ts';
import { SERVER, world } from './world.ts';

const ROOT = resolve(import.meta.dirname, '..');
const skip = existsSync(EXECUTABLE) ? false : `${EXECUTABLE} is not built`;

/** As root, without what makes root: no capability is left, and none can be had. */
const WITHOUT_RIGHTS =
  process.getuid?.() === 0 && inPath('setpriv')
    ? ['setpriv', '--bounding-set=-all', '--inh-caps=-all']
    : [];

it('vpn selftest passes without any rights', { skip }, () => {
  const device = run([...WITHOUT_RIGHTS, 'ip', 'tuntap', 'add', 'dev', 'vpntest0', 'mode', 'tun']);
  assert.notEqual(device.status, 0, 'it could have made a device');
  const { status, stdout, stderr } = run([...WITHOUT_RIGHTS, EXECUTABLE, 'selftest'], 60_000);
  assert.deepEqual([status, stderr], [0, '']);
  for (const cipher of ['aes-256-gcm', 'chacha20-poly1305'])
    assert.match(stdout, new RegExp(`^cipher ${cipher}: ok$`, 'm'));
  const tunnels = [
    ...stdout.matchAll(/^two ends over loopback, (\S+): (\d+) packets, (\d+) rekeys: ok$/gm),
  ];
  assert.equal(new Set(tunnels.map(([, cipher]) => cipher)).size, 2, stdout);
  for (const [line, , packets, rekeys] of tunnels)
    assert.ok(Number(packets) > 0 && Number(rekeys) >= 4, line);
  assert.match(stdout, /^selftest passed\n$/m);
});

/* Notices */

const flat = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();

/** What the embedded node says of itself and of OpenSSL: behind a line that starts so, between quotes. */
function terms(startsWith: string): string {
  const all = readFileSync(join(dirname(NODE), '..', 'LICENSE'), 'utf8');
  const [, text = ''] = new RegExp(`^${startsWith}[^]*?"""\n([^]*?)^ *"""$`, 'm').exec(all) ?? [];
  assert.notEqual(text, '', startsWith);
  return flat(text);
}

const NOTICES = [
  terms('Node.js is licensed'),
  terms('This license applies to parts of Node.js originating'),
  'The OpenSSL Project Authors. All Rights Reserved.',
  terms('- OpenSSL, located at'),
  'Frank Denis <j at pureftpd dot org>',
];

it('LICENSE has the notices of node, OpenSSL and libsodium in full', () => {
  const license = flat(readFileSync(join(ROOT, 'LICENSE'), 'utf8'));
  for (const notice of NOTICES) assert.ok(license.includes(notice), notice);
});

it('the executable shows the notices of all that it is made of', { skip }, () => {
  const { status, stdout, stderr } = run([EXECUTABLE, '--license']);
  assert.deepEqual([status, stderr], [0, '']);
  assert.ok(stdout.startsWith(readFileSync(join(ROOT, 'LICENSE'), 'utf8')));
  const all = flat(stdout);
  for (const notice of NOTICES) assert.ok(all.includes(notice), notice);
  // Of node with its libraries, and of each package: as it stands there.
  const headings = [...stdout.matchAll(/^==== (\S+) \S+ ====$/gm)].map(([, name]) => name!);
  for (const name of ['node-addon-api', 'sodium-native', 'dns-packet'])
    assert.ok(headings.includes(name), name);
  for (const name of headings) {
    const folder = join(ROOT, 'node_modules', name);
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    assert.ok(stdout.includes(readFileSync(join(folder, file!), 'utf8')), name);
  }
  assert.ok(headings.some((name) => name.startsWith('node-') && name !== 'node-addon-api'));
});

/* Native code */

/** A server that unpacks into a folder of its own, once its worker runs. */
async function unpacking(
  bed: Bed,
  TMPDIR: string,
  wrapper: readonly string[] = [],
): Promise<{ readonly end: End; readonly before: readonly string[] }> {
  const host = bed.host('host');
  const end = startServer(bed, host, {
    key: makeKey(bed),
    options: ['--no-default-routes'],
    env: { TMPDIR },
    wrapper,
  });
  // The monitor says so when the worker does.
  await end.daemon.line(/^vpn: server on /, 60_000);
  return { end, before: readdirSync(TMPDIR) };
}

function privateFolder(bed: Bed): string {
  const folder = bed.file('tmp');
  mkdirSync(folder, { mode: 0o755 });
  return folder;
}

netTest('while it runs nothing of what it has unpacked is there', [], async (bed) => {
  const TMPDIR = privateFolder(bed);
  const names = new Set<string>();
  const modes = new Set<number>();
  const watcher = watch(TMPDIR, (_, name) => {
    names.add(name ?? '');
    try {
      modes.add(statSync(join(TMPDIR, name ?? '')).mode & 0o777);
    } catch {
      // It is gone already.
    }
  });
  try {
    const { end, before } = await unpacking(bed, TMPDIR);
    assert.deepEqual(before, []);
    assert.equal(end.daemon.family.length, 2, 'there is no worker');
    // Two libraries in each of two processes, and the folder that the worker is locked into.
    await until('what has happened there', () => names.size >= 5);
    assert.deepEqual(
      [...names].filter((name) => !/^vpn-\w{6}$/.test(name)),
      [],
    );
    for (const mode of modes) assert.equal(mode, 0o700);
    // Neither has a name for what it has mapped.
    for (const pid of end.daemon.family) {
      const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
      const mapped = maps.filter((line) => line.includes(TMPDIR));
      for (const library of ['vpn.node', 'sodium-native.node'])
        assert.ok(
          mapped.some((line) => line.endsWith(`/${library} (deleted)`)),
          `${pid} ${library}`,
        );
      assert.ok(mapped.every((line) => line.endsWith(' (deleted)')));
    }
    assert.equal(await end.daemon.stop(), 0);
    assert.deepEqual(readdirSync(TMPDIR), []);
  } finally {
    watcher.close();
  }
});

/** What must happen with each library, in this order; strace(1) writes it so. */
const STEPS = [
  /^mkdir(at)?\(.*"FOLDER", 0700\) = 0/,
  // A new file, which nobody can have put there.
  /^openat\(.*"FOLDER\/LIBRARY", O_WRONLY\|O_CREAT\|O_EXCL(\|O_\w+)*, 0500\) = \d/,
  // dlopen(3).
  /^openat\(.*"FOLDER\/LIBRARY", O_RDONLY\|O_CLOEXEC\) = \d/,
  /^rmdir\("FOLDER"\) = 0/,
];

/** The calls that a thread of `server` made below `folder`, by thread, once it has ended. */
async function traced(server: End, trace: string, folder: string): Promise<readonly string[][]> {
  const parts = await until('the end of the trace', () => {
    const end = readFileSync(`${trace}.${server.daemon.pid}`, 'utf8');
    const names = readdirSync(dirname(trace)).map((name) => join(dirname(trace), name));
    const texts = names
      .filter((name) => name.startsWith(`${trace}.`))
      .map((name) => readFileSync(name, 'utf8'));
    const areComplete = texts.every((text) => /^\+\+\+ (exited|killed) /m.test(text));
    return end !== '' && areComplete && texts;
  });
  return parts
    .map((text) => text.split('\n').filter((line) => line.includes(`"${folder}/`)))
    .filter((lines) => lines.length > 0);
}

netTest('what is unpacked lies where only root can put something', ['strace'], async (bed) => {
  const TMPDIR = privateFolder(bed);
  const trace = bed.file('trace');
  const calls = 'trace=mkdir,mkdirat,open,openat,rename,renameat,renameat2,unlink,unlinkat,rmdir';
  // -D: the server itself is what is started, and signalled.
  const { end } = await unpacking(bed, TMPDIR, ['strace', '-D', '-ff', '-o', trace, '-e', calls]);
  assert.equal(await end.daemon.stop(), 0);
  const found: string[][] = [];
  for (const thread of await traced(end, trace, TMPDIR)) {
    const folders = thread.map((line) => /^mkdir.*"(.*)"/.exec(line)?.[1]);
    const libraries: string[] = [];
    for (const folder of folders.filter((name) => name !== undefined)) {
      const own = thread.filter((line) => line.includes(`"${folder}`)).join('\n');
      const library = /\/([\w.-]+\.node)"/.exec(own)?.[1];
      // The folder that a worker is locked into has nothing in it.
      if (library === undefined) continue;
      const lines = own.replaceAll(folder, 'FOLDER').replaceAll(library, 'LIBRARY').split('\n');
      const places = STEPS.map((step) => lines.findIndex((line) => step.test(line)));
      assert.ok(places[0]! >= 0, own);
      assert.deepEqual(
        places,
        places.toSorted((a, b) => a - b),
        own,
      );
      libraries.push(library);
    }
    found.push(libraries.toSorted());
  }
  const both = ['sodium-native.node', 'vpn.node'];
  assert.deepEqual(found, [both, both], 'of monitor and worker');
});

/* A dry run */

for (const [role, words, planned] of [
  [
    'server',
    [],
    [
      /^ip address add 192\.168\.192\.254 peer /m,
      / -j MASQUERADE$/m,
      /^sysctl -w net\.ipv4\.ip_forward=1$/m,
    ],
  ],
  [
    'client',
    [SERVER[4]],
    [
      /^ip address add 192\.168\.192\.1 peer /m,
      /^ip route add default dev tun0 table \d+$/m,
      /^ip rule add .* not fwmark /m,
    ],
  ],
] as const)
  netTest(`a dry run of a ${role} lists every command, and changes nothing`, [], async (bed) => {
    const host = world(bed)[role];
    const before = hostState(host);
    const [key, stateDir] = [makeKey(bed), bed.file('state')];
    const { status, stdout, stderr } = host.try([
      ...[EXECUTABLE, role, key, ...words, '--dry-run', '--state-dir', stateDir],
    ]);
    assert.deepEqual([status, stderr], [0, '']);
    const [up = '', down = ''] = stdout.split('\n# undo\n');
    assert.match(up, /^# set up\n/);
    for (const line of planned) assert.match(up, line);
    // Its firewall lines are all taken back.
    const count = (text: string, what: RegExp): number => [...text.matchAll(what)].length;
    assert.ok(count(up, /^ip6?tables .* -I /gm) > 0);
    assert.equal(count(down, /^ip6?tables .* -D /gm), count(up, /^ip6?tables .* -I /gm));
    assert.deepEqual(difference(before, hostState(host)), []);
    // Not even a folder for a journal.
    assert.equal(existsSync(stateDir), false);
  });
