import { equal, throws } from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Failure } from '../report.ts';
import { trustedProgram } from './trusted.ts';

/** Ownership is what is checked: only root can make it. */
const skip = process.geteuid?.() === 0 ? false : 'needs root';
const NOBODY = 65_534;

let folder = '';
let script = '';

beforeEach(() => {
  // Not below the folder for temporary files, where everybody can write.
  folder = mkdtempSync(join(skip === false ? homedir() : tmpdir(), 'vpn-trusted-'));
  mkdirSync(join(folder, 'hooks'), { mode: 0o755 });
  script = join(folder, 'hooks', 'updown.sh');
  writeFileSync(script, '#!/bin/sh\n', { mode: 0o700 });
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

const check = (path = script): string => trustedProgram('statuscommand', path);
const refuses = (why: RegExp, path = script): void => {
  throws(
    () => check(path),
    (error) => error instanceof Failure && why.test(error.message),
  );
};

describe('a program to be run as root', () => {
  it('is taken when it is root’s, also through links of root', { skip }, () => {
    equal(check(), script);
    chmodSync(script, 0o755);
    equal(check(), script);
    const link = join(folder, 'link');
    symlinkSync('hooks/../hooks/./updown.sh', link);
    equal(check(link), script);
    equal(check(join(folder, 'hooks', '..', 'hooks', 'updown.sh')), script);
  });

  it('is refused when others can write to it, or own it', { skip }, () => {
    for (const mode of [0o720, 0o702, 0o777]) {
      chmodSync(script, mode);
      refuses(/others can write to ".*updown\.sh"; run chmod go-w/);
    }
    chmodSync(script, 0o700);
    chownSync(script, NOBODY, NOBODY);
    refuses(/"\/.*updown\.sh" is not owned by root; run chown root/);
  });

  it(
    'is refused in a folder that others can write to, or own, anywhere on the way',
    { skip },
    () => {
      for (const path of [join(folder, 'hooks'), folder]) {
        chmodSync(path, 0o770);
        refuses(/others can write to/);
        chmodSync(path, 0o755);
        chownSync(path, NOBODY, NOBODY);
        refuses(/is not owned by root/);
        chownSync(path, 0, 0);
        equal(check(), script);
      }
    },
  );

  it('is refused below the folder for temporary files, sticky or not', { skip }, () => {
    const place = mkdtempSync('/tmp/vpn-trusted-');
    try {
      const path = join(place, 'updown.sh');
      writeFileSync(path, '#!/bin/sh\n', { mode: 0o700 });
      refuses(/others can write to "\/tmp"/, path);
      const link = join(folder, 'link');
      symlinkSync(path, link);
      refuses(/others can write to "\/tmp"/, link);
    } finally {
      rmSync(place, { recursive: true });
    }
  });

  it('is refused behind a link of somebody else, and behind links that go round', { skip }, () => {
    const link = join(folder, 'link');
    symlinkSync(script, link);
    lchownSync(link, NOBODY, NOBODY);
    refuses(/link" is not owned by root/, link);
    const round = join(folder, 'round');
    symlinkSync(round, round);
    refuses(/too many symbolic links/, round);
  });

  it('is a file that can be run, by an absolute path', { skip }, () => {
    chmodSync(script, 0o600);
    refuses(/not executable; run chmod 700/);
    refuses(/not a file/, join(folder, 'hooks'));
    refuses(/no such file or directory/, join(folder, 'none'));
    refuses(/is no folder/, join(script, 'x'));
    refuses(/not an absolute path/, 'updown.sh');
  });
});
