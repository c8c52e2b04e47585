/**
 * Where native code is loaded from: the executable carries it as assets, anything else (the source,
 * the plain bundle) finds it in `build/`.
 *
 * dlopen(3) wants a file. A file of a fixed name in a folder that others can write to would let them
 * choose what root loads, so each asset gets a directory of its own (0700) that lives only for the
 * length of one call: the mapping stays valid without the name.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { getRawAsset, isSea } from 'node:sea';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Failure, reason } from './report.ts';

/**
 * Calls `load` with the path of native code `name`, and returns what it returns. The path is gone
 * afterwards. Throws a `Failure`.
 */
export function withNativeCode<T>(name: string, load: (path: string) => T): T {
  if (!isSea()) {
    // From src/ as well as from the bundle, which lies in build/ itself.
    const path = resolve(import.meta.dirname, '..', 'build', name);
    return loadFrom(path, () => load(path));
  }
  const folder = makeFolder();
  try {
    const path = join(folder, name);
    return loadFrom(path, () => {
      unpack(name, path);
      return load(path);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Loads a module: what takes the place of a package's own search for its prebuilt code. */
export function loadModule(name: string): unknown {
  return withNativeCode(name, (path) => {
    const module: { exports: unknown } = { exports: {} };
    process.dlopen(module, path);
    return module.exports;
  });
}

function makeFolder(): string {
  const prefix = join(tmpdir(), 'vpn-');
  try {
    return mkdtempSync(prefix);
  } catch (error) {
    throw new Failure(
      `cannot unpack native code into "${tmpdir()}"`,
      reason(error),
      'set TMPDIR to a folder that allows writing',
    );
  }
}

function unpack(name: string, path: string): void {
  const bytes = new Uint8Array(getRawAsset(name));
  // 'x' is O_EXCL: whatever is there already is not ours.
  const fd = openSync(path, 'wx', 0o500);
  try {
    for (let written = 0; written < bytes.length;) {
      written += writeSync(fd, bytes, written);
    }
  } finally {
    closeSync(fd);
  }
}

function loadFrom<T>(path: string, load: () => T): T {
  try {
    return load();
  } catch (error) {
    // What glibc says of a folder mounted with noexec; it may leave out the rest.
    const why = reason(error).replace(/failed to map segment.*/, 'operation not permitted');
    const known = /operation not permitted|permission denied|no space left/i.exec(why);
    throw new Failure(
      `cannot load native code from "${path}"`,
      known === null ? why.replace(`${path}: `, '') : known[0].toLowerCase(),
      remedyFor(why),
    );
  }
}

function remedyFor(why: string): string {
  if (/GLIBC|GLIBCXX/.test(why)) return 'run vpn on a system with a newer C library';
  if (/no such file/i.test(why) && !isSea()) return 'run npm run build';
  if (/no space left/i.test(why)) return 'set TMPDIR to a folder with room';
  return 'set TMPDIR to a folder that allows execution';
}
