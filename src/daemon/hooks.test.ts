import { deepEqual, equal, ok, throws } from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Random } from '../../test/random.ts';
import { linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { Failure } from '../report.ts';
import { HookPlan, Hooks } from './hooks.ts';
import type { HookCall, HookSettings } from './hooks.ts';
import type { LinkStatus } from './status.ts';

const SEED = 61;
const skip = process.geteuid?.() === 0 ? false : 'needs root';

const words = (calls: readonly HookCall[]): readonly string[] =>
  calls.map(({ event, link }) => `${event} ${link}`.trim());

describe('what the script is told', () => {
  let plan: HookPlan;
  beforeEach(() => {
    plan = new HookPlan();
  });
  const observe = (
    atMs: number,
    links: readonly Partial<LinkStatus>[],
    hasSession = true,
  ): readonly string[] =>
    words(
      plan.observe(
        tunnelStatus(
          links.map((link) => linkStatus(link)),
          { hasSession },
        ),
        atMs,
      ),
    );

  it('is MLVPN’s order: the first link, the tunnel; the last link, the tunnel', () => {
    const a = { name: 'a' };
    const b = { name: 'b' };
    deepEqual(observe(0, [{ ...a, state: 'down' }, b], false), []);
    deepEqual(observe(250, [a, { ...b, state: 'down' }]), ['rtun_up a', 'tuntap_up']);
    deepEqual(observe(500, [a, b]), ['rtun_up b']);
    deepEqual(observe(750, [a, b]), []);
    deepEqual(observe(1_000, [{ ...a, state: 'down' }, b]), ['rtun_down a']);
    deepEqual(
      observe(
        1_250,
        [
          { ...a, state: 'down' },
          { ...b, state: 'down' },
        ],
        false,
      ),
      ['rtun_down b', 'tuntap_down'],
    );
    deepEqual(observe(1_500, [a, b]), ['rtun_up a', 'tuntap_up', 'rtun_up b']);
  });

  it('does not mention a link that is suspected for a moment', () => {
    observe(0, [{}]);
    deepEqual(observe(1_000, [{ state: 'suspect' }]), []);
    deepEqual(observe(2_999, [{ state: 'suspect' }]), []);
    deepEqual(observe(3_100, [{}]), []);
    deepEqual(observe(4_000, [{ state: 'suspect' }]), []);
    deepEqual(observe(6_000, [{ state: 'suspect' }]), ['rtun_down dsl', 'tuntap_down']);
    deepEqual(observe(6_250, [{}]), ['rtun_up dsl', 'tuntap_up']);
  });

  it('is told of a link that the tunnel does not have any more', () => {
    observe(0, [{ name: 'a' }, { name: 'b' }]);
    deepEqual(observe(250, [{ name: 'b' }]), ['rtun_down a']);
  });

  it('is that everything is down at the end, once', () => {
    observe(0, [{ name: 'a' }, { name: 'b' }]);
    deepEqual(words(plan.end()), ['rtun_down a', 'rtun_down b', 'tuntap_down']);
    deepEqual(words(plan.end()), []);
  });

  it(`is in pairs, whatever the links do (seed ${SEED})`, () => {
    const random = new Random(SEED);
    const states = ['up', 'suspect', 'down'] as const;
    const up = new Set<string>();
    let isTunUp = false;
    const take = (line: string, where: string): void => {
      const [event, link = ''] = line.split(' ');
      if (event === 'tuntap_up' || event === 'tuntap_down') {
        equal(isTunUp, event === 'tuntap_down', where);
        equal(up.size > 0, event === 'tuntap_up', where);
        isTunUp = event === 'tuntap_up';
      } else if (event === 'rtun_up') {
        ok(!up.has(link), where);
        up.add(link);
      } else {
        ok(up.delete(link), where);
      }
    };
    for (let step = 0; step < 5_000; step++) {
      const links = ['a', 'b', 'c']
        .filter(() => random.below(10) > 0)
        .map((name) => ({
          name,
          state: states[random.below(3)],
          heardAgoMs: random.below(4) === 0 ? 5_000 : 100,
        }));
      const hasSession = random.below(8) > 0;
      const lines = observe(step * 250, links, hasSession);
      for (const line of lines) take(line, `seed ${SEED}, step ${step}: ${lines.join(', ')}`);
      equal(isTunUp, up.size > 0, `seed ${SEED}, step ${step}`);
      // What is up is used, what is down is not; what is suspected may be either.
      for (const { name, state, heardAgoMs } of links) {
        if (!hasSession || state === 'down') ok(!up.has(name), `seed ${SEED}, step ${step}`);
        else if (state === 'up' && heardAgoMs < 3_000)
          ok(up.has(name), `seed ${SEED}, step ${step}`);
      }
    }
    for (const line of words(plan.end())) take(line, `seed ${SEED}, end`);
    ok(!isTunUp && up.size === 0);
  });
});

describe('the status script', () => {
  let folder = '';
  let output = '';
  let settings: HookSettings;
  let warnings: string[];

  beforeEach(() => {
    folder = mkdtempSync(join(homedir(), 'vpn-hooks-'));
    output = join(folder, 'output');
    warnings = [];
    settings = {
      command: join(folder, 'updown.sh'),
      device: 'tun7',
      ip4: '10.42.42.2/30',
      ip6: '',
      ip4Gateway: '10.42.42.1',
      ip6Gateway: '',
      ip4Routes: '10.1.0.0/16 10.2.0.0/16',
      ip6Routes: 'fd00::/8',
      mtu: 1420,
    };
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** `body` is told where to write in $OUT. */
  const hooks = (body: string, limitMs?: number): Hooks => {
    writeFileSync(settings.command, `#!/bin/sh\nOUT=${output}\n${body}\n`, { mode: 0o700 });
    const warn = (what: string, why: string): number => warnings.push(`${what}: ${why}`);
    return new Hooks(settings, { warn, log: () => undefined }, limitMs);
  };
  const lines = (): readonly string[] => readFileSync(output, 'utf8').trimEnd().split('\n');
  const up = (link: string): HookCall => ({ event: 'rtun_up', link });
  const tunUp: HookCall = { event: 'tuntap_up', link: '' };

  it('is another one from the next call on', { skip }, async () => {
    const script = hooks('echo old $2 >>$OUT');
    script.add([up('a')]);
    await script.close();
    const other = join(folder, 'other.sh');
    writeFileSync(other, `#!/bin/sh\necho new $2 $IP4 >>${output}\n`, { mode: 0o700 });
    script.setCommand(other);
    script.add([up('b')]);
    await script.close();
    deepEqual(lines(), ['old rtun_up', 'new rtun_up 10.42.42.2/30']);
    deepEqual(warnings, []);
  });

  it('gets MLVPN’s words and environment, and nothing of ours', { skip }, async () => {
    process.env.VPN_TEST_SECRET = 'secret';
    const script = hooks('echo "$# $*" >>$OUT; env | sort >>$OUT; pwd >>$OUT');
    script.add([up('adsl')]);
    await script.close();
    delete process.env.VPN_TEST_SECRET;
    const [first, ...rest] = lines();
    equal(first, '3 tun7 rtun_up adsl');
    deepEqual(
      rest.filter((line) => !/^(PATH|PWD|OLDPWD|SHLVL|_)=/.test(line)),
      [
        'DEVICE=tun7',
        'IP4=10.42.42.2/30',
        'IP4_GATEWAY=10.42.42.1',
        'IP4_ROUTES=10.1.0.0/16 10.2.0.0/16',
        'IP6=',
        'IP6_GATEWAY=',
        'IP6_ROUTES=fd00::/8',
        'MTU=1420',
        '/',
      ],
    );
  });

  it('has two words for the tunnel itself', { skip }, async () => {
    const script = hooks('echo "$# $*" >>$OUT');
    script.add([tunUp]);
    await script.close();
    deepEqual(lines(), ['2 tun7 tuntap_up']);
  });

  it('runs one at a time, in order, also what is added meanwhile', { skip }, async () => {
    const script = hooks('echo "in $3" >>$OUT; sleep 0.05; echo "out $3" >>$OUT');
    script.add([up('a'), up('b')]);
    await new Promise((done) => setTimeout(done, 20));
    script.add([up('c')]);
    await script.close();
    deepEqual(lines(), ['in a', 'out a', 'in b', 'out b', 'in c', 'out c']);
    script.add([up('d')]);
    await script.close();
    equal(lines().at(-1), 'out d');
    deepEqual(warnings, []);
  });

  it(
    'is killed with all it has started when it takes too long, and the next one runs',
    { skip },
    async () => {
      const script = hooks(
        'if [ "$3" = a ]; then trap "" TERM; sleep 300 & echo $! >>$OUT; wait; wait; sleep 300; fi; echo $3 >>$OUT',
        2_000,
      );
      script.add([up('a'), up('b')]);
      await script.close();
      const [child, last] = lines();
      equal(last, 'b');
      deepEqual(warnings, ['statuscommand rtun_up a: not done after 2 s']);
      for (let tries = 0; existsSync(`/proc/${child}`) && !isZombie(child); tries++) {
        ok(tries < 500, `${child} still runs`);
        await new Promise((done) => setTimeout(done, 10));
      }
    },
  );

  it('that fails is a warning, not an end', { skip }, async () => {
    const script = hooks('echo $3 >>$OUT; [ $3 = a ] && exit 3; [ $3 = b ] && kill -9 $$; exit 0');
    script.add([up('a'), up('b'), up('c')]);
    await script.close();
    deepEqual(lines(), ['a', 'b', 'c']);
    deepEqual(warnings, [
      'statuscommand rtun_up a: exit status 3',
      'statuscommand rtun_up b: ended by SIGKILL',
    ]);
  });

  it('is refused at the start, and later when it has been made writable', { skip }, async () => {
    const script = hooks('echo $3 >>$OUT');
    chmodSync(settings.command, 0o722);
    throws(() => new Hooks(settings, { warn: () => undefined, log: () => undefined }), Failure);
    script.add([up('a')]);
    await script.close();
    ok(!existsSync(output));
    equal(warnings.length, 1);
  });

  it('is left out of links, never of the tunnel, when it cannot keep up', { skip }, async () => {
    const script = hooks('echo "$2" >>$OUT');
    const many = Array.from({ length: 400 }, (_, i) => up(`wan${i}`));
    script.add([...many.slice(0, 200), tunUp, ...many.slice(200)]);
    await script.close();
    ok(lines().includes('tuntap_up'));
    ok(lines().length <= 257);
    equal(warnings.length, 1);
  });
});

function isZombie(pid: string): boolean {
  return / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}
