/**
 * External commands that go wrong: a folder for PATH with a wrapper for each program that vpn runs. The
 * n-th call of any of them misbehaves; every call is written down.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Bed } from './netns.ts';

/** What the n-th call does, as a shell script; `real` runs the command itself. */
export const FAULTS = {
  none: ':',
  fails: 'echo "no luck" >&2; exit 1',
  'is killed': 'kill -9 $$',
  'does its work and is killed': 'real; kill -9 $$',
  hangs: 'sleep 60',
  'is the last thing before vpn is killed': 'kill -9 $PPID; exit 1',
  'is done when vpn is killed': 'real; kill -9 $PPID; exit 1',
  'comes with SIGTERM': 'kill -TERM $PPID; real; exit',
  'comes with SIGINT twice': 'kill -INT $PPID; sleep 0.1; kill -INT $PPID; real; exit',
  /** And so does the same command every time after. */
  'fails for ever': 'echo "$0 $*" > "$D/stubborn"; echo "no luck" >&2; exit 1',
} as const;
export type Fault = keyof typeof FAULTS;

const PROGRAMS = ['ip', 'iptables', 'ip6tables', 'nft'] as const;

export class FaultyPath {
  readonly folder: string;

  /** Only `programs` are found there. */
  constructor(bed: Bed, programs: readonly string[] = PROGRAMS) {
    this.folder = bed.file('faulty');
    mkdirSync(this.folder);
    for (const program of programs) {
      const real = ['/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin']
        .map((folder) => join(folder, program))
        .find((path) => existsSync(path));
      const script = [
        '#!/bin/sh',
        `D='${this.folder}'`,
        'PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin',
        'read n < "$D/count"; n=$((n + 1)); echo $n > "$D/count"',
        'echo "${0##*/} $*" >> "$D/log"',
        `real() { ${real} "$@"; }`,
        '[ -e "$D/stubborn" ] && [ "$(cat "$D/stubborn")" = "$0 $*" ] && { echo "no luck" >&2; exit 1; }',
        'read at < "$D/at"',
        '[ "$n" = "$at" ] && . "$D/how"',
        `exec ${real} "$@"`,
      ];
      writeFileSync(join(this.folder, program), `${script.join('\n')}\n`);
      chmodSync(join(this.folder, program), 0o755);
    }
    this.arm(0, 'none');
  }

  /** From now on the `n`-th call has the fault; counts from 1. */
  arm(n: number, fault: Fault): void {
    const how = FAULTS[fault].replaceAll(/\breal\b/g, 'real "$@"');
    for (const [name, text] of [
      ['count', '0'],
      ['at', String(n)],
      ['how', how],
      ['log', ''],
    ] as const)
      writeFileSync(join(this.folder, name), text === '' ? '' : `${text}\n`);
    rmSync(join(this.folder, 'stubborn'), { force: true });
  }

  /** The calls so far, as typed. */
  calls(): string[] {
    return readFileSync(join(this.folder, 'log'), 'utf8')
      .split('\n')
      .filter((line) => line !== '');
  }

  /** In front of a command whose commands shall be these. */
  get wrapper(): string[] {
    return ['env', `PATH=${this.folder}`];
  }
}

/** It reads, and changes nothing. */
export const isProbe = (call: string): boolean =>
  / show| -S | -V$|^nft -c |^nft -y list|^ip route get/.test(call);
