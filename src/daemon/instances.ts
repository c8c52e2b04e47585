/**
 * Which instances run on this host: each leaves a small file in the state folder that says in which
 * network namespace it is and where its control socket is. Whether it lives is asked of the socket.
 */
import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { netnsInode } from '../facts.ts';
import type { Native } from '../native.ts';
import { Failure, reason, UsageFailure } from '../report.ts';
import { isAnswered } from './connect.ts';

const ENDING = '.instance';
const SOCKET_ENDING = '.sock';

export interface InstanceFile {
  readonly name: string;
  /** As journals write it. */
  readonly netns: string;
  readonly device: string;
  readonly pid: number;
  /** Path of its control socket. */
  readonly socket: string;
}

/** The network namespace of this process, as journals write it (setup.ts). */
export function ownNamespace(native: Pick<Native, 'netnsCookie'>): string {
  const cookie = native.netnsCookie();
  return cookie === '' ? `i${netnsInode()}` : cookie;
}

/** Where the control socket of an instance is unless its configuration says otherwise. */
export function defaultSocket(folder: string, netns: string, name: string): string {
  return join(folder, `${netns}-${name}${SOCKET_ENDING}`);
}

/**
 * Makes sure of the folder, removes what dead instances left in it, and refuses a name that a living one has
 * in this namespace. Throws a `Failure`.
 */
export async function claimName(folder: string, netns: string, name: string): Promise<void> {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new Failure(`cannot make the folder "${folder}"`, reason(error), 'run as root');
  }
  checkFolder(folder);
  await forgetDead(folder);
  for (const { instance } of readFolder(folder)) {
    if (instance !== undefined && instance.name === name && instance.netns === netns) {
      const why = `runs here already (pid ${instance.pid})`;
      throw new Failure(
        `instance "${name}"`,
        why,
        'stop it, or give this one another name with -n',
      );
    }
  }
}

/** Removes what instances left in the folder that do not answer any more. */
export async function forgetDead(folder: string): Promise<void> {
  for (const { path, instance } of readFolder(folder)) {
    if (instance !== undefined && (await isAnswered(instance.socket))) continue;
    remove(path);
    // Only our own: where a configuration put it, that may be anything by now.
    if (instance?.socket === defaultSocket(folder, instance?.netns ?? '', instance?.name ?? ''))
      remove(instance.socket);
  }
}

/** Writes the file of an instance. Throws a `Failure`. */
export function announce(folder: string, instance: InstanceFile): void {
  const path = pathOf(folder, instance);
  try {
    writeFileSync(`${path}.new`, `${JSON.stringify(instance)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch (error) {
    throw new Failure(`cannot write "${path}"`, reason(error), 'make room, or make it writable');
  }
}

export function withdraw(folder: string, instance: InstanceFile): void {
  remove(pathOf(folder, instance));
}

/** The same for a process that could not do it: its file, its token, its control socket (`path`, or '' for the default). */
export function removeInstance(
  folder: string,
  native: Pick<Native, 'netnsCookie'>,
  name: string,
  path: string,
): void {
  const netns = ownNamespace(native);
  remove(pathOf(folder, { netns, name }));
  remove(tokenPath(folder, netns, name));
  remove(path === '' ? defaultSocket(folder, netns, name) : path);
}

/** Where the token of the status over HTTP is left for who may read it. */
export function tokenPath(folder: string, netns: string, name: string): string {
  return join(folder, `${netns}-${name}.token`);
}

/** The instances that live in `netns`, by name. */
export async function livingInstances(
  folder: string,
  netns: string,
): Promise<readonly InstanceFile[]> {
  const living: InstanceFile[] = [];
  for (const { instance } of readFolder(folder)) {
    if (instance?.netns !== netns) continue;
    if (await isAnswered(instance.socket)) living.push(instance);
  }
  return living;
}

/** The one that is meant; `name` is '' where the user gave none. Throws a `Failure`. */
export function chooseInstance(instances: readonly InstanceFile[], name: string): InstanceFile {
  const names = instances.map((instance) => instance.name).join(', ');
  const named = instances.find((instance) => instance.name === name);
  if (named !== undefined) return named;
  if (instances.length === 0) {
    throw new Failure('no vpn runs in this network namespace', '', 'start one');
  }
  if (name !== '')
    throw new Failure(`instance "${name}"`, 'does not run here', `there is ${names}`);
  if (instances.length === 1) return instances[0];
  throw new UsageFailure('several instances run here', names, 'choose one with -n NAME');
}

/** Its lines name what root talks to. Throws a `Failure`. */
function checkFolder(folder: string): void {
  const status = lstatSync(folder);
  const isOurs = status.isDirectory() && status.uid === process.geteuid?.();
  if (isOurs && (status.mode & 0o022) === 0) return;
  const remedy = `run chown root "${folder}" and chmod 700 "${folder}"`;
  throw new Failure(`cannot trust the folder "${folder}"`, 'another user can write there', remedy);
}

function pathOf(folder: string, { netns, name }: Pick<InstanceFile, 'netns' | 'name'>): string {
  return join(folder, `${netns}-${name}${ENDING}`);
}

function readFolder(
  folder: string,
): readonly { readonly path: string; readonly instance: InstanceFile | undefined }[] {
  let names: readonly string[];
  try {
    names = readdirSync(folder).sort();
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (isMissing) return [];
    throw new Failure(`cannot read the folder "${folder}"`, reason(error), 'run as root');
  }
  return names
    .filter((name) => name.endsWith(ENDING))
    .map((name) => ({ path: join(folder, name), instance: readInstance(join(folder, name)) }));
}

/** undefined for what is no such file, or was removed just now. */
function readInstance(path: string): InstanceFile | undefined {
  try {
    const value = JSON.parse(readFileSync(path, 'utf8')) as Partial<InstanceFile>;
    const { name, netns, device, pid, socket } = value;
    const isWhole = [name, netns, device, socket].every((text) => typeof text === 'string');
    return isWhole && typeof pid === 'number' ? (value as InstanceFile) : undefined;
  } catch {
    return undefined;
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Somebody else removed it.
  }
}
