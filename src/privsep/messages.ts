/**
 * What monitor and worker say to each other. The worker reads what the network sends, so whatever it says
 * may be an intruder's: `wordOf` takes nothing that a worker in its right mind would not say. The monitor is
 * believed.
 */
import type { DaemonConfig } from '../conf/config.ts';
import type { Config } from '../config.ts';
import { MAX_TUN_MTU, MIN_TUN_MTU } from '../constants.ts';
import type { LoggedEvent } from '../daemon/eventlog.ts';
import type { HookCall } from '../daemon/hooks.ts';
import type { LinkBinding } from '../daemon/status.ts';
import type { CompiledEntry } from '../filters.ts';
import type { TunnelEvent } from '../host.ts';
import type { LinkSettings, RealtimeRule } from '../peering.ts';

/** Everything that a worker needs to know; the key follows as raw bytes. */
export interface Start {
  readonly config: Config;
  readonly daemon: DaemonConfig;
  readonly device: string;
  /** The monitor's. */
  readonly pid: number;
  /** What is configured of each link; null for one that was removed. */
  readonly links: readonly (LinkSettings | null)[];
  readonly bindings: readonly LinkBinding[];
  /** The server's endpoints for each link, in hexadecimal. */
  readonly endpoints: readonly (readonly string[])[];
  readonly ipv6Leaves: boolean;
  readonly filters: readonly CompiledEntry[];
  readonly realtime: readonly RealtimeRule[];
  readonly hasHooks: boolean;
  readonly cause: string;
  /** Of the worker that this one takes the place of. */
  readonly earlier: readonly LoggedEvent[];
  readonly startedMs: number;
  /** An empty folder to be the root; '' for none. */
  readonly root: string;
  /** 0: the worker stays who it is. */
  readonly uid: number;
  readonly gid: number;
}

/** The monitor's messages. `socket` and `link-up` come with a socket, `start` with the device. */
export type Order =
  | { readonly order: 'socket'; readonly index: number }
  | { readonly order: 'start'; readonly start: Start }
  | { readonly order: 'link-up'; readonly index: number; readonly binding: LinkBinding }
  | { readonly order: 'link-down' | 'link-drop' | 'link-remove'; readonly index: number }
  | { readonly order: 'link-add'; readonly settings: LinkSettings }
  | { readonly order: 'link-set'; readonly index: number; readonly settings: LinkSettings }
  | { readonly order: 'filters'; readonly filters: readonly CompiledEntry[] }
  | { readonly order: 'realtime'; readonly rules: readonly RealtimeRule[] }
  /** Networks behind the peer. */
  | { readonly order: 'routes'; readonly routes: readonly string[] }
  | { readonly order: 'bound-mtu'; readonly mtu: number }
  | { readonly order: 'log'; readonly log: Config['log']; readonly daemon: DaemonConfig }
  /** To be answered with `settled` when all before it is done. */
  | { readonly order: 'settle'; readonly id: number }
  | { readonly order: 'names'; readonly id: number; readonly endpoints: readonly string[] }
  | { readonly order: 'answer'; readonly id: number; readonly answer: Answer }
  | { readonly order: 'end'; readonly cause: string };

/** To a worker's request: lines to show, or what failed. */
export type Answer = { readonly lines: readonly string[] } | { readonly failure: string };

/** What a worker asks for on behalf of a user. */
export type Request =
  | { readonly request: 'reload' }
  | { readonly request: 'hold'; readonly index: number; readonly isHeld: boolean };

/** The worker's messages. */
export type Word =
  | { readonly word: 'running'; readonly httpPort: number }
  /** It could not start; the line of its failure. */
  | { readonly word: 'failed'; readonly line: string }
  | { readonly word: 'event'; readonly event: TunnelEvent }
  | { readonly word: 'logged'; readonly event: LoggedEvent }
  | { readonly word: 'mtu'; readonly mtu: number }
  | { readonly word: 'names'; readonly id: number; readonly index: number }
  | { readonly word: 'hooks'; readonly calls: readonly HookCall[] }
  | { readonly word: 'request'; readonly id: number; readonly request: Request }
  /** All its sockets are closed: whatever is there is to be opened anew. */
  | { readonly word: 'reopen' }
  | { readonly word: 'settled'; readonly id: number }
  | { readonly word: 'hang-up' | 'stop' | 'ended' };

type Fields = Readonly<Record<string, unknown>>;

/** Of a line for people, and of a cause. */
export const MOST_TEXT = 1024;
const MOST_CALLS = 64;
const HOOK_EVENTS: readonly unknown[] = ['tuntap_up', 'tuntap_down', 'rtun_up', 'rtun_down'];
/** Names of links as linkconfig.ts and conf/values.ts take them, and as the server numbers them. */
const LINK_NAME = /^[\w.:@#%/-]{0,64}$/;

/** Throws an `Error` for what no worker says. */
export function wordOf(message: unknown): Word {
  const fields = objectOf(message);
  const { word } = fields;
  if (typeof word !== 'string' || !Object.hasOwn(WORDS, word)) {
    throw new Error('sent what is no message');
  }
  return WORDS[word](fields);
}

const WORDS: Readonly<Record<string, (fields: Fields) => Word>> = {
  running: ({ httpPort }) => ({ word: 'running', httpPort: numberOf(httpPort, 0, 65_535) }),
  failed: ({ line }) => ({ word: 'failed', line: textOf(line) }),
  event: ({ event }) => ({ word: 'event', event: eventOf(objectOf(event)) }),
  logged: ({ event }) => ({ word: 'logged', event: loggedOf(objectOf(event)) }),
  mtu: ({ mtu }) => ({ word: 'mtu', mtu: numberOf(mtu, MIN_TUN_MTU, MAX_TUN_MTU) }),
  names: ({ id, index }) => ({ word: 'names', id: idOf(id), index: indexOf(index) }),
  hooks: ({ calls }) => ({ word: 'hooks', calls: callsOf(calls) }),
  request: ({ id, request }) => ({
    word: 'request',
    id: idOf(id),
    request: requestOf(objectOf(request)),
  }),
  reopen: () => ({ word: 'reopen' }),
  settled: ({ id }) => ({ word: 'settled', id: idOf(id) }),
  'hang-up': () => ({ word: 'hang-up' }),
  stop: () => ({ word: 'stop' }),
  ended: () => ({ word: 'ended' }),
};

function eventOf(fields: Fields): TunnelEvent {
  const { kind, endpoint, cipher, ipv6, again, epoch, forMs, peer, why, link, mtu, errno } = fields;
  const { isRekey } = fields;
  switch (kind) {
    case 'connected':
      return {
        kind,
        endpoint: textOf(endpoint),
        cipher: numberOf(cipher, 0, 8),
        ipv6: ipv6 === true,
        again: again === true,
      };
    case 'handshake':
      return { kind, isRekey: isRekey === true };
    case 'rekeyed':
      return { kind, epoch: numberOf(epoch, 0, 3) };
    case 'silent':
      return { kind, forMs: numberOf(forMs, 0, Number.MAX_SAFE_INTEGER) };
    case 'version':
      return { kind, peer: numberOf(peer, 0, 255) };
    case 'refused':
      if (why !== 'no-common-cipher' && why !== 'addresses-differ' && why !== 'modes-differ') break;
      return { kind, why };
    case 'moved':
      return { kind, link: numberOf(link, 0, 255), endpoint: textOf(endpoint) };
    case 'tun-mtu':
      return { kind, mtu: numberOf(mtu, MIN_TUN_MTU, MAX_TUN_MTU) };
    case 'tun-lost':
      return { kind, errno: numberOf(errno, -4096, 4096) };
    case 'back':
    case 'busy':
    case 'closed':
    case 'unresolved':
      return { kind };
    default:
  }
  throw new Error('told of what cannot happen');
}

function loggedOf({ number, time, event, link, cause }: Fields): LoggedEvent {
  const logged = {
    number: numberOf(number, 0, Number.MAX_SAFE_INTEGER),
    time: textOf(time),
    event: textOf(event),
    cause: textOf(cause),
  };
  return link === undefined ? logged : { ...logged, link: textOf(link) };
}

function callsOf(calls: unknown): readonly HookCall[] {
  if (!Array.isArray(calls) || calls.length > MOST_CALLS) throw new Error('sent no calls');
  return calls.map((call) => {
    const { event, link } = objectOf(call);
    if (!HOOK_EVENTS.includes(event) || !LINK_NAME.test(textOf(link))) {
      throw new Error('sent a call of no event');
    }
    return { event: event as HookCall['event'], link: textOf(link) };
  });
}

function requestOf({ request, index, isHeld }: Fields): Request {
  if (request === 'reload') return { request };
  if (request === 'hold') return { request, index: indexOf(index), isHeld: isHeld === true };
  throw new Error('asked for what there is not');
}

function objectOf(value: unknown): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw new Error('sent no object');
}

/** Whole, or a fraction where time is meant. */
function numberOf(value: unknown, least: number, most: number): number {
  if (typeof value === 'number' && value >= least && value <= most) return value;
  throw new Error('sent no number that can be');
}

function idOf(value: unknown): number {
  return numberOf(value, 0, Number.MAX_SAFE_INTEGER);
}

/** Of a link; whether there is one is for the caller to see. */
function indexOf(value: unknown): number {
  const index = numberOf(value, 0, 255);
  if (Number.isInteger(index)) return index;
  throw new Error('sent no index');
}

/** Printable: it may go to a terminal. */
function textOf(value: unknown): string {
  if (typeof value === 'string' && value.length <= MOST_TEXT && !/[\p{Cc}\p{Cf}]/u.test(value)) {
    return value;
  }
  throw new Error('sent no text');
}
