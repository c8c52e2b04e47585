import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { LISTS, PLATFORMS, PROBES, SCALARS } from './os.ts';
import {
  commandFailure,
  commandLine,
  expand,
  expandRows,
  hostRunner,
  sysctlLine,
} from './rules.ts';

describe('templates', () => {
  it('replace whole names, word by word', () => {
    const variables = { A: '1', A6: '2', B: 'with space' };
    assert.deepEqual(expand('x $A6 a$A.$B --$A', variables), [['x', '2', 'a1.with space', '--1']]);
  });

  it('stand for one command per value of a list, for none when it is empty', () => {
    assert.deepEqual(expand('add $N dev $T', { N: ['1', '2'], T: 't' }), [
      ['add', '1', 'dev', 't'],
      ['add', '2', 'dev', 't'],
    ]);
    assert.deepEqual(expand('add $N', { N: [] }), []);
    assert.equal(expand('$N $M', { N: ['1', '2'], M: ['3', '4'] }).length, 4);
  });

  it('refuse a variable that is unknown or empty', () => {
    assert.throws(() => expand('$NOPE', {}), /\$NOPE has no value/);
    assert.throws(() => expand('$A', { A: '' }), /\$A has no value/);
    assert.throws(() => expand('$constructor$A', {}), /\$A has no value/);
  });

  it('leave a row out when one of its needs does not hold', () => {
    const rows = [{ need: 'a b', up: 'x' }, { up: 'y' }, { need: 'a', down: 'z' }];
    const of = (...facts: readonly string[]): number => expandRows(rows, {}, new Set(facts)).length;
    assert.deepEqual([of(), of('a'), of('a', 'b')], [1, 2, 3]);
  });

  for (const [name, platform] of Object.entries(PLATFORMS)) {
    it(`of ${name} expand, each undo names what its change names, nothing is left unexpanded`, () => {
      const variables = Object.fromEntries([
        ...SCALARS.map((variable) => [variable, `<${variable}>`] as const),
        ...LISTS.map((variable) => [variable, [`<${variable}>`, '<2>']] as const),
      ]);
      const rows = [
        ...platform.server,
        ...platform.client,
        ...platform.connected,
        ...platform.everySession,
        ...platform.enter,
        ...platform.refresh,
        ...(platform.link ?? []),
        ...(platform.linkRule ?? []),
        ...(platform.linkRoute ?? []),
      ];
      const needs = new Set(rows.flatMap((row) => row.need?.split(' ') ?? []));
      for (const change of expandRows(rows, variables, needs)) {
        if (change.kind === 'file') assert.fail('a file among these tables');
        const words =
          change.kind === 'command' ? [...change.up, ...change.down] : [change.name, change.value];
        for (const word of words) assert.ok(!word.includes('$'), words.join(' '));
        if (change.kind !== 'command' || !change.up.includes('-I')) continue;
        assert.deepEqual(
          change.down,
          change.up.map((word) => (word === '-I' ? '-D' : word)),
        );
        assert.ok(change.up.includes('vpn:<TAG>'));
      }
      for (const probe of PROBES) assert.ok(!platform.probes[probe]?.includes('$'));
    });
  }
});

describe('lines for people', () => {
  it('quote what a shell would not take as it is', () => {
    assert.equal(commandLine(['a', 'b c', "d'e", '']), "a 'b c' 'd'\\''e' ''");
  });

  it('write a sysctl as sysctl(8) does', () => {
    assert.equal(
      sysctlLine('net/ipv6/conf/eth0.5/forwarding', '1'),
      'sysctl -w net.ipv6.conf.eth0/5.forwarding=1',
    );
  });
});

describe('running commands', () => {
  const echoed: string[] = [];
  const runner = hostRunner(process.env.PATH ?? '', (line) => echoed.push(line));

  it('gives status and output, in English, without a shell', async () => {
    const fine = await runner.run(['printf', '%s', '$HOME;x']);
    assert.deepEqual([fine.status, fine.stdout, fine.refused], [0, '$HOME;x', true]);
    assert.deepEqual(echoed, ["[#] printf %s '$HOME;x'"]);
    const failed = await runner.run([
      'sh',
      '-c',
      'echo "RTNETLINK answers: File exists" >&2; exit 2',
    ]);
    assert.equal(failed.reason, 'exited with 2: File exists');
    const failure = commandFailure(['ip', '-6', 'route', 'add', 'x'], failed);
    assert.equal(
      failure.message,
      'cannot set up routing: "ip -6 route add x" exited with 2: File exists; ' +
        'another program owns it: stop it, or pass --no-default-routes',
    );
  });

  it('tells a command that is not there from one that was killed', async () => {
    const absent = await runner.run(['vpn-no-such-command']);
    assert.deepEqual([absent.status, absent.reason, absent.refused], [-1, 'was not found', true]);
    const killed = await runner.run(['sh', '-c', 'kill -9 $$']);
    assert.deepEqual([killed.status, killed.refused], [-1, false]);
    assert.equal(killed.reason, 'was killed by SIGKILL');
    for (const argv of [['vpn-no-such-command'], ['false'], ['sh', '-c', 'kill -9 $$']]) {
      const { status, reason, refused } = await runner.run(argv);
      const same = runner.runSync(argv);
      assert.deepEqual([same.status, same.reason, same.refused], [status, reason, refused]);
    }
  });

  it('kills a hanging command with its children after 5 s', { timeout: 20_000 }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vpnr-'));
    const script = join(folder, 'hang');
    writeFileSync(script, '#!/bin/sh\nsleep 60\nexit 0\n');
    chmodSync(script, 0o700);
    const outcome = await runner.run([script]);
    rmSync(folder, { recursive: true });
    assert.equal(outcome.reason, 'took longer than 5 s');
    assert.equal(outcome.refused, false);
  });
});
