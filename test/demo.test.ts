/** `npm run demo` itself: what it shows, and that nothing of it is left whatever happens. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { childrenOf, type Daemon } from './daemon.ts';
import { EXECUTABLE, NODE } from './ends.ts';
import { netTest, run, Spoiled, until, type Bed } from './netns.ts';
import { scratchFolder } from './scratch.ts';

const DEMO = join(import.meta.dirname, 'demo.ts');
const CHAPTERS = [
  'Three hosts, and two links from the first to the second',
  'One key, two commands',
  'Two links, one of them pulled out in mid-transfer',
  'The same without a limit',
  'Everything goes through it',
  'What it changed',
  'And back again',
];
/** The only one of its claims that a machine which is busy with other things can spoil. */
const SPOILT = 'not so: it never stood still';

interface Demo {
  readonly daemon: Daemon;
  /** Where it keeps its files. What it starts inherits the word, by which it is found. */
  readonly TMPDIR: string;
}

function startDemo(bed: Bed, executable = EXECUTABLE): Demo {
  const TMPDIR = scratchFolder();
  const daemon = bed.spawn([NODE, DEMO], { TMPDIR, VPN_EXECUTABLE: executable });
  return { daemon, TMPDIR };
}

function namespaces({ daemon }: Demo): readonly string[] {
  const list = run(['ip netns list']).stdout.split('\n');
  return list.filter((line) => line.startsWith(`vpnt${daemon.pid}x`));
}

/** Whose environment is the demo's. */
function processes({ TMPDIR }: Demo): readonly string[] {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && hasWord(pid, `TMPDIR=${TMPDIR}`))
    .map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '));
}

function hasWord(pid: string, word: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(word);
  } catch {
    // It has ended.
    return false;
  }
}

async function checkGone(demo: Demo): Promise<void> {
  // A worker ends when its monitor is gone, a moment later.
  await until('the end of all processes', () => processes(demo).length === 0);
  assert.deepEqual(namespaces(demo), []);
  assert.deepEqual(readdirSync(demo.TMPDIR), []);
}

netTest('the demo shows it all, and leaves both hosts as before', ['iperf3'], async (bed) => {
  const demo = startDemo(bed);
  const exit = await demo.daemon.ended(120_000);
  const { output } = demo.daemon;
  if (output.includes(SPOILT)) throw new Spoiled(output);
  assert.equal(exit, 0, output);
  const titles = [...output.matchAll(/^(\d)\. (.*)$/gm)].map(([, number, title]) => [
    number,
    title,
  ]);
  assert.deepEqual(
    titles,
    CHAPTERS.map((title, i) => [String(i + 1), title]),
  );
  assert.match(output, /^ {2}Throughput: \d+ Mbit\/s over both links, \d+ over lte0 alone, /m);
  assert.match(output, /^ {4}\d+ Mbit\/s, one TCP connection$/m);
  const [, changes = ''] = output.split('6. What it changed');
  for (const [what, count] of [
    // On the server.
    [/^ {4}iptables: \+ .* -j MASQUERADE$/gm, 1],
    [/^ {4}sysctls: \+ net\.ipv4\.ip_forward = 1$/gm, 1],
    // On the client.
    [/^ {4}IPv4 rules: \+ .*not from all fwmark/gm, 1],
    [/^ {4}sysctls: \+ net\.ipv4\.conf\.all\.src_valid_mark = 1$/gm, 1],
    // On both.
    [/^ {2}✓ addresses, rules, routes, firewall and sysctls are exactly as before$/gm, 2],
    [/^ {2}✓ the (server|client) ended with status 0$/gm, 2],
  ] as const)
    assert.equal([...changes.matchAll(what)].length, count, `${what}\n${changes}`);
  await checkGone(demo);
});

netTest('a demo that fails on its way leaves nothing', ['iperf3'], async (bed) => {
  const broken = bed.file('broken');
  bed.write(broken, `#!/bin/sh\n[ "$1" != client ] || exit 7\nexec "${EXECUTABLE}" "$@"\n`);
  run(['chmod', '755', broken]);
  const demo = startDemo(bed, broken);
  const { daemon } = demo;
  // It gets as far as having something to leave.
  await until('its hosts', () => namespaces(demo).length > 0 || daemon.exit !== undefined);
  assert.equal(await daemon.ended(60_000), 1, daemon.output);
  assert.match(daemon.output, /vpn server vpn\.key/);
  assert.match(daemon.output, /^demo: the client ended$/m);
  await checkGone(demo);
});

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  netTest(`a demo that is ended by ${signal} leaves nothing`, ['iperf3'], async (bed) => {
    const demo = startDemo(bed);
    const { daemon } = demo;
    await daemon.line(/One TCP connection from the client/, 60_000);
    assert.ok(namespaces(demo).length > 0);
    assert.ok(childrenOf(daemon.pid).length > 0 && existsSync(demo.TMPDIR));
    assert.equal(await daemon.stop(signal), signal === 'SIGINT' ? 130 : 143);
    await checkGone(demo);
  });
