/** Reading a configuration file: who may read it, its text, and its settings. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { secret, wipe } from '../crypto.ts';
import { Failure, reason } from '../report.ts';
import { checkFeatures } from './features.ts';
import { parseIni } from './ini.ts';
import { Problems } from './problem.ts';
import type { Problem } from './problem.ts';
import { effectiveSettings, mayDecode, passwordEntry } from './settings.ts';
import type { Override, Settings } from './settings.ts';

/** Room for 200 links with every key and a comment to each. */
const MOST_FILE_BYTES = 256 * 1024;
/** As MLVPN: nothing for group and others. */
const OTHERS_MODE = 0o077;

export interface Loaded {
  /** undefined if there are errors. */
  readonly settings: Settings | undefined;
  /** Errors and warnings, in the order of the lines. */
  readonly problems: readonly Problem[];
}

/**
 * Reads and checks the file. `overrides` are what the command line says besides. `onPassword` gets the
 * password, if the file is right and has one: borrowed for the call, and wiped after it. Throws a
 * `Failure` if the file cannot be read, or if others can read it; a `UsageFailure` for an override.
 */
export function loadSettings(
  path: string,
  overrides: readonly Override[],
  onPassword?: (password: Uint8Array) => void,
): Loaded {
  const bytes = secret(MOST_FILE_BYTES + 1);
  try {
    const content = bytes.subarray(0, readFile(path, bytes));
    const problems = new Problems(path);
    const sections = parseIni(content, mayDecode, problems);
    const wanted = effectiveSettings(sections, overrides, problems);
    if (wanted !== undefined) checkFeatures(wanted, problems);
    const settings = problems.hasErrors() ? undefined : wanted;
    const password = passwordEntry(sections);
    if (settings !== undefined && password !== undefined) onPassword?.(password.bytes);
    return { settings, problems: problems.all() };
  } finally {
    wipe(bytes);
  }
}

/** Fills `bytes` from the file, and returns how many there were. */
function readFile(path: string, bytes: Uint8Array): number {
  const what = `cannot read configuration file "${path}"`;
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new Failure(what, reason(error), 'give the file with --config');
  }
  try {
    const status = fstatSync(fd);
    const mode = status.mode & 0o777;
    if (status.isFile() && (mode & OTHERS_MODE) !== 0) {
      const why = `open to group or others (mode ${mode.toString(8).padStart(4, '0')})`;
      throw new Failure(`configuration file "${path}"`, why, `run chmod 600 ${path}`);
    }
    let size = 0;
    while (size < bytes.length) {
      const read = readSync(fd, bytes, size, bytes.length - size, null);
      if (read === 0) return size;
      size += read;
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(what, reason(error), 'give a file');
  } finally {
    closeSync(fd);
  }
  throw new Failure(what, `larger than ${MOST_FILE_BYTES / 1024} KiB`, 'give a configuration file');
}
