/**
 * Files of the host that an instance writes and puts back: read and written whole, with their kind and
 * whose they are.
 */
import {
  chmodSync,
  chownSync,
  fsyncSync,
  openSync,
  closeSync,
  lstatSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';

/** What is at a path. */
export type HostFile =
  | { readonly kind: 'none' }
  | { readonly kind: 'link'; readonly target: string }
  | {
      readonly kind: 'file';
      /** Base64: nobody says that it is text. */
      readonly bytes: string;
      readonly mode: number;
      readonly owner: readonly [user: number, group: number];
    };

export interface HostFiles {
  /** What is there. Throws what the system says. */
  read(path: string): HostFile;
  /** The text there, behind links too; undefined if there is none. */
  text(path: string): string | undefined;
  /** Replaces what is there, whole or not at all where the folder allows that. Throws what the system says. */
  write(path: string, file: HostFile): void;
  /** Removes what a `write` left that was killed. */
  tidy(path: string): void;
}

/** A resolv.conf(5) has some hundred bytes; this is to be kept in a journal. */
const MOST_BYTES = 65_536;
/** By a fixed name, so that one that a killed instance left is replaced by the next. */
const NEW = '.vpn-new';
/** The path is a mount of its own (a container's resolv.conf), or its folder cannot be written. */
const IN_PLACE = ['EBUSY', 'EXDEV', 'EROFS', 'EACCES', 'EPERM'];

/** A file that root writes and everybody reads. */
export function plainFile(text: string): HostFile {
  return { kind: 'file', bytes: Buffer.from(text).toString('base64'), mode: 0o644, owner: [0, 0] };
}

export function textOf(file: HostFile): string | undefined {
  return file.kind === 'file' ? Buffer.from(file.bytes, 'base64').toString() : undefined;
}

export function isSameFile(a: HostFile, b: HostFile): boolean {
  if (a.kind === 'link' && b.kind === 'link') return a.target === b.target;
  if (a.kind === 'file' && b.kind === 'file') return a.bytes === b.bytes;
  return a.kind === 'none' && b.kind === 'none';
}

/** The files of this host. */
export const HOST_FILES: HostFiles = {
  read: readFile,
  text: (path) => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
  },
  write: writeFile,
  tidy: (path) => {
    try {
      rmSync(`${path}${NEW}`, { force: true });
    } catch {
      // Where it cannot be removed it was not made.
    }
  },
};

function readFile(path: string): HostFile {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return { kind: 'none' };
  if (status.isSymbolicLink()) return { kind: 'link', target: readlinkSync(path) };
  if (!status.isFile() || status.size > MOST_BYTES) {
    throw new Error(`not a file of at most ${MOST_BYTES} bytes`);
  }
  const { mode, uid, gid } = status;
  const bytes = readFileSync(path).toString('base64');
  return { kind: 'file', bytes, mode: mode & 0o7777, owner: [uid, gid] };
}

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : '';

function writeFile(path: string, file: HostFile): void {
  if (file.kind === 'none') return rmSync(path, { force: true });
  const made = `${path}${NEW}`;
  try {
    rmSync(made, { force: true });
    if (file.kind === 'link') symlinkSync(file.target, made);
    else {
      writeFileSync(made, Buffer.from(file.bytes, 'base64'), { mode: 0o600, flag: 'wx' });
      chownSync(made, ...file.owner);
      chmodSync(made, file.mode);
      sync(made);
    }
    renameSync(made, path);
    sync(dirname(path));
  } catch (error) {
    rmSync(made, { force: true });
    if (file.kind === 'link' || !IN_PLACE.includes(codeOf(error))) throw error;
    // Its mode and owner are then as they were.
    writeFileSync(path, Buffer.from(file.bytes, 'base64'), { flush: true });
  }
}

function sync(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
