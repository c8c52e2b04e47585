/**
 * Whether a program may be run as root at every change of the tunnel: nobody but root can have written it, or
 * put another in its place.
 */
import { lstatSync, readlinkSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { Failure, reason } from '../report.ts';

/** As the kernel's (path_resolution(7)). */
const MOST_LINKS = 40;
const ROOT = 0;
const WRITABLE_BY_OTHERS = 0o022;
const EXECUTABLE_BY_OWNER = 0o100;

/**
 * Checks the file, each folder on the way to it and each symbolic link: owned by root, writable by nobody
 * else. Returns the path without links. What is checked cannot be changed by others afterwards, so there is
 * no race with running it. Throws a `Failure`, in which `what` names the program.
 */
export function trustedProgram(what: string, path: string): string {
  if (!isAbsolute(path)) throw new Failure(what, 'not an absolute path', 'start it with /');
  let links = 0;
  let known = '/';
  check(what, known, statusOf(what, known));
  const rest = components(path);
  while (rest.length > 0) {
    const name = rest.shift() ?? '';
    if (name === '..') {
      known = dirname(known);
      continue;
    }
    const next = join(known, name);
    const status = statusOf(what, next);
    if (status.isSymbolicLink()) {
      if (++links > MOST_LINKS) throw new Failure(what, 'too many symbolic links', 'give the file');
      // The mode of a link says nothing; whoever owns it can point it elsewhere.
      if (status.uid !== ROOT) throw ownerFailure(what, next);
      const target = readlinkSync(next);
      if (isAbsolute(target)) known = '/';
      rest.unshift(...components(target));
      continue;
    }
    check(what, next, status);
    if (rest.length > 0 && !status.isDirectory()) {
      throw new Failure(what, `"${next}" is no folder`, 'correct the path');
    }
    known = next;
  }
  const status = statusOf(what, known);
  if (!status.isFile()) throw new Failure(what, 'not a file', 'give a program');
  if ((status.mode & EXECUTABLE_BY_OWNER) === 0) {
    throw new Failure(what, 'not executable', `run chmod 700 "${known}"`);
  }
  return resolve(known);
}

function components(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.');
}

function statusOf(what: string, path: string): Stats {
  try {
    return lstatSync(path);
  } catch (error) {
    throw new Failure(what, `"${path}": ${reason(error)}`, 'correct the path');
  }
}

function check(what: string, path: string, status: Stats): void {
  if (status.uid !== ROOT) throw ownerFailure(what, path);
  if (!status.isSymbolicLink() && (status.mode & WRITABLE_BY_OTHERS) !== 0) {
    throw new Failure(what, `others can write to "${path}"`, `run chmod go-w "${path}"`);
  }
}

function ownerFailure(what: string, path: string): Failure {
  return new Failure(what, `"${path}" is not owned by root`, `run chown root "${path}"`);
}
