/**
 * The notices of the works that the executable is made of, which it carries as an asset: it is copied alone,
 * and they have to go where it goes. The source finds those of the last build in `dist/`.
 */
import { readFileSync } from 'node:fs';
import { getRawAsset, isSea } from 'node:sea';
import { resolve } from 'node:path';
import { Failure, reason } from './report.ts';

/** Throws a `Failure`. */
export function licenses(): Uint8Array {
  if (isSea()) return new Uint8Array(getRawAsset('LICENSES'));
  const file = resolve(import.meta.dirname, '..', 'dist', 'LICENSES');
  try {
    return readFileSync(file);
  } catch (error) {
    throw new Failure(`cannot read "${file}"`, reason(error), 'run npm run build');
  }
}
