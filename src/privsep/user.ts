/** Who the worker is: nobody who owns anything. */
import type { Native } from '../native.ts';
import { Failure } from '../report.ts';

/** As OpenBSD's daemons are called; a package may make it. */
const OWN_USER = '_vpn';
/**
 * Ids that no account gets: systemd keeps 61184 to 65519 for users that live as long as a service, and
 * sees to it that an id is free in the same way (systemd.exec(5), DynamicUser=).
 */
const FIRST_ID = 61_184;
const IDS = 65_519 - FIRST_ID + 1;

export interface WorkerUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * `wanted` is a name or number, '' for `_vpn` if there is one, else for an id of nobody's; two instances get
 * two of those, so that one cannot get at the other. Zeros: not root, so it stays as it is. Throws a `Failure`.
 */
export function workerUser(
  wanted: string,
  native: Pick<Native, 'findUser'>,
  processUid: number | undefined,
  seed: number,
): WorkerUser {
  if (processUid !== 0) return { uid: 0, gid: 0 };
  if (wanted !== '') {
    const user = native.findUser(wanted);
    const what = `user "${wanted}"`;
    if (user === undefined) throw new Failure(what, 'no such user', 'create it, or leave it out');
    if (user.uid === 0 || user.gid === 0) {
      throw new Failure(what, 'has the rights of root', 'give another, or leave it out');
    }
    return user;
  }
  const own = native.findUser(OWN_USER);
  if (own !== undefined && own.uid !== 0 && own.gid !== 0) return own;
  for (let i = 0; i < IDS; i++) {
    const id = FIRST_ID + ((seed + i) % IDS);
    if (native.findUser(String(id)) === undefined) return { uid: id, gid: id };
  }
  throw new Failure('no user for the worker', 'all ids have accounts', 'give one with --user');
}
