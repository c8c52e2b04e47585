/**
 * What differs from system to system, as data: how a tun device is made, what is changed on a host
 * and how each change is taken back, how facts are read. doc/host.md explains the tables.
 *
 * Nothing is run here (`rules.ts` does that) and nothing is decided: a row whose `need` is not met,
 * or whose list variable has no value, is left out. Adding a system is adding a `Platform`.
 */
import { type } from 'node:os';
import type { Handle, Native } from './native.ts';
import { darwin } from './os/darwin.ts';
import { dragonfly } from './os/dragonfly.ts';
import { freebsd } from './os/freebsd.ts';
import { linux } from './os/linux.ts';
import { netbsd } from './os/netbsd.ts';
import { openbsd } from './os/openbsd.ts';
import type { Platform } from './os/platform.ts';

export { FOUND, LISTS, PROBES, SCALARS, pointToPoint } from './os/platform.ts';
export type { Line, Platform, ProbeName, Row } from './os/platform.ts';

export const PLATFORMS: Readonly<Record<string, Platform>> = {
  linux,
  darwin,
  openbsd,
  freebsd,
  netbsd,
  dragonfly,
};

export interface TunDevice {
  readonly handle: Handle;
  readonly name: string;
  /** Whether the offloads asked for were granted. */
  readonly offload: boolean;
}

/** Creates a tun device, with `ethernet` a tap; '' lets the kernel choose its name. Throws an errno. */
export function tunCreate(
  native: Pick<Native, 'tunCreate'>,
  { hasOffload }: Pick<Platform, 'hasOffload'>,
  name: string,
  offload: boolean,
  ethernet: boolean,
): TunDevice {
  return native.tunCreate(name, offload && hasOffload, ethernet);
}

/** The platform this runs on; undefined where there is none yet. */
export function thisPlatform(): Platform | undefined {
  // node takes DragonFly BSD for FreeBSD.
  return PLATFORMS[type() === 'DragonFly' ? 'dragonfly' : process.platform];
}
