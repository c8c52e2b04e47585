/**
 * What NO_DEFAULT_ROUTES=1 builds, beside the ordinary build of the same source: the code that would take
 * default routes, translate or forward is not in it, and what protects the addresses is.
 */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, before, it } from 'node:test';
import { makeKey, NODE } from './ends.ts';
import { netTest, run } from './netns.ts';
import { scratchFolder } from './scratch.ts';
import { SERVER, world } from './world.ts';

const BUILD = resolve(import.meta.dirname, '../build.mjs');
const BUILD_WITHIN_MS = 120_000;

const folder = scratchFolder();
after(() => rmSync(folder, { recursive: true, force: true }));
const variant = join(folder, 'variant');
const ordinary = join(folder, 'ordinary');

before(() => {
  for (const [where, setting] of [
    [variant, '1'],
    [ordinary, ''],
  ] as const) {
    const words = [NODE, BUILD, 'build', where];
    const command = ['env', `NO_DEFAULT_ROUTES=${setting}`, ...words];
    const { status, stdout, stderr } = run(command, BUILD_WITHIN_MS);
    assert.equal(status, 0, stdout + stderr);
  }
});

const bundleIn = (where: string): string => readFileSync(join(where, 'vpn.cjs'), 'utf8');
const count = (text: string, what: RegExp): number =>
  [...text.matchAll(new RegExp(what, 'g'))].length;

it('says which it is, as bundle and as executable', () => {
  for (const program of [[NODE, join(variant, 'vpn.cjs')], [join(variant, 'vpn')]])
    assert.match(run([...program, '--version']).stdout, /^vpn [\d.]+ \(no default routes\)\n$/);
  for (const program of [[NODE, join(ordinary, 'vpn.cjs')], [join(ordinary, 'vpn')]])
    assert.match(run([...program, '--version']).stdout, /^vpn [\d.]+\n$/);
});

/** Of Linux, then of the others. */
const GONE = [
  ...[/-j MASQUERADE/, /-j SNAT/, /snat to/, /" masquerade|\$TUN" masquerade/],
  ...[/suppress_prefixlength 1/, /"default external/, /"everything", "ip route add default"/],
  ...[/nat-to/, /nat on \$/, /map \$\w+ dynamic/, /"0\.0\.0\.0\/1"/, /inet6?\/ip6?\/forwarding/],
];
const STAYS = [/addrtype ! --src-type LOCAL/, /fib saddr type != local drop/];

it('has neither default routes nor NAT in its bundle, but the protection of its addresses', () => {
  const [without, all] = [bundleIn(variant), bundleIn(ordinary)];
  for (const what of GONE) {
    assert.ok(count(all, what) > 0, `${what} is not even in the ordinary one`);
    assert.equal(count(without, what), 0, `${what} is dead in the variant`);
  }
  for (const what of STAYS) {
    assert.ok(count(all, what) > 0, `${what}`);
    assert.equal(count(without, what), count(all, what), `${what}`);
  }
  // Forwarding is what --allow asks for, and says what passes: nothing else leads there.
  assert.deepEqual(
    [...all.matchAll(/\.\.\.routing\("(.*?)"\)/g)].map(([, need]) => need).toSorted(),
    ['default', 'site'],
  );
  assert.deepEqual(
    [...without.matchAll(/\.\.\.routing\("(.*?)"\)/g)].map(([, need]) => need),
    ['site'],
  );
});

netTest('plans neither, whatever it is told', [], async (bed) => {
  const hosts = world(bed);
  const key = makeKey(bed);
  /** What the command line and a file that asks for default routes come to. */
  const plans = (where: string, role: 'server' | 'client'): readonly string[] => {
    const file = bed.file('conf');
    const link =
      role === 'server' ? 'bindport = 443' : `remotehost = ${SERVER[4]}\nremoteport = 443`;
    bed.write(
      file,
      `[general]\nmode = ${role}\nkey_file = ${key}\ndefault_routes = yes\n[one]\n${link}\n`,
    );
    const words = role === 'server' ? [] : [SERVER[4]];
    return [
      [role, key, ...words],
      ['--config', file],
    ].map((first) => {
      const more = ['--dry-run', '--state-dir', bed.file('state')];
      const { status, stdout, stderr } = hosts[role].try([join(where, 'vpn'), ...first, ...more]);
      assert.deepEqual([status, stderr], [0, '']);
      return stdout;
    });
  };
  const changes =
    /MASQUERADE|SNAT|ip_forward|forwarding|-j ACCEPT|not fwmark|(rule|route) (add|replace) (default|preference)/;
  for (const role of ['server', 'client'] as const) {
    for (const text of plans(ordinary, role)) assert.match(text, changes);
    for (const text of plans(variant, role)) {
      assert.doesNotMatch(text, changes);
      const protection = / -t raw -I PREROUTING .* ! --src-type LOCAL .* -j DROP/;
      assert.equal(count(text, protection), 2, text);
    }
  }
});
