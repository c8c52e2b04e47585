/**
 * The last changes of state of an instance, each with its date and cause, and those who want to hear of
 * the next ones at once. Told the time.
 */
import type { TunnelEvent } from '../host.ts';
import type { LinkChange } from './history.ts';
import { CIPHER_NAMES } from './status.ts';

/** Days of a quiet link, an hour of one that comes and goes every few seconds. */
export const KEPT_EVENTS = 512;

/** One line of `vpn events`. */
export interface LoggedEvent {
  /** Counts up, also over restarts of the worker; a gap: some were forgotten. */
  readonly number: number;
  /** ISO 8601, UTC. */
  readonly time: string;
  readonly event: string;
  /** Of events about one link. */
  readonly link?: string;
  readonly cause: string;
}

/** What there is to say of an event, before it has a number and a date. */
export type News = Omit<LoggedEvent, 'number' | 'time'>;

export class EventLog {
  private readonly events: LoggedEvent[];
  private readonly listeners = new Set<(event: LoggedEvent) => void>();
  private next: number;
  private text = '';

  /** `earlier`: of a process that this one takes the place of. */
  constructor(earlier: readonly LoggedEvent[] = []) {
    this.events = earlier.slice(-KEPT_EVENTS);
    this.next = (this.events.at(-1)?.number ?? 0) + 1;
  }

  /** `wallMs` is the wall clock: dates are for people. */
  add(news: News, wallMs: number): void {
    const event = { number: this.next++, time: new Date(wallMs).toISOString(), ...news };
    this.events.push(event);
    if (this.events.length > KEPT_EVENTS) this.events.shift();
    this.text = '';
    for (const listener of this.listeners) listener(event);
  }

  get all(): readonly LoggedEvent[] {
    return this.events;
  }

  /** The same as JSON, made once for all who ask between two events. */
  get json(): string {
    if (this.text === '') this.text = JSON.stringify(this.events);
    return this.text;
  }

  /** Calls `listener` with every later event until the returned function is called. */
  follow(listener: (event: LoggedEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** What an event of the tunnel is in the log; undefined for one that is no change of state. */
export function newsOf(event: TunnelEvent): News | undefined {
  switch (event.kind) {
    case 'connected': {
      const how = `${event.endpoint}, ${CIPHER_NAMES[event.cipher] ?? 'unknown cipher'}`;
      return { event: 'connected', cause: event.again ? `new session with ${how}` : how };
    }
    case 'rekeyed':
    case 'handshake':
      return undefined;
    case 'silent':
      return { event: 'silent', cause: `nothing came for ${Math.round(event.forMs / 1000)} s` };
    case 'back':
      return { event: 'back', cause: 'the peer answers again' };
    case 'busy':
      return { event: 'refused', cause: 'another client is connected' };
    case 'version':
      return { event: 'refused', cause: `the server speaks version ${event.peer}` };
    case 'refused':
      return { event: 'refused', cause: event.why };
    case 'closed':
      return { event: 'closed', cause: 'the peer closed the tunnel' };
    case 'unresolved':
      return { event: 'unresolved', cause: 'the name of the server has no address now' };
    case 'moved':
      return { event: 'moved', cause: `the peer moved to ${event.endpoint}` };
    case 'tun-mtu':
      return { event: 'mtu', cause: `the links carry packets of ${event.mtu} bytes` };
    case 'tun-lost':
      return { event: 'tun-lost', cause: `the device is gone (errno ${event.errno})` };
    default:
      // Kinds that were added since: the name says enough.
      return { event: (event as { readonly kind: string }).kind, cause: '' };
  }
}

const CAUSES: Readonly<Record<LinkChange['to'], string>> = {
  up: 'the peer is heard over it',
  suspect: 'nothing that was sent arrived lately',
  down: 'its socket is closed, or there is no session',
};

export function newsOfLink({ link, to }: LinkChange): News {
  return { event: `link-${to}`, link, cause: CAUSES[to] };
}
