/**
 * The links of one tunnel: their sockets, which may come and go, and what is known of each by its id. A
 * client's links are those of its configuration; a server learns its own from what comes.
 */
import { isSameRemote } from './address.ts';
import { MOST_LINKS } from './constants.ts';
import type { Host, LinkSocket } from './host.ts';
import { Link } from './link.ts';
import { PLAIN_LINK, type LinkSettings, type TunnelConfig } from './peering.ts';
import { LINK_IDS } from './wire.ts';

/** A server forgets a link that was not heard for so long; its id stays taken for as long as the keys live. */
const FORGET_MS = 120_000;

export class Links {
  /** In use in this session. */
  readonly list: Link[] = [];
  /** By their id in the header; undefined: none. */
  readonly byId: (Link | undefined)[] = new Array<Link | undefined>(LINK_IDS).fill(undefined);
  /** By their place in the configuration; undefined: closed. */
  readonly sockets: (LinkSocket | undefined)[] = [];
  readonly settings: LinkSettings[];
  private readonly role: TunnelConfig['role'];
  private readonly randomBytes: Host['randomBytes'];

  constructor(config: TunnelConfig, host: Host) {
    this.role = config.role;
    this.settings = [...config.links];
    this.randomBytes = (bytes) => host.randomBytes(bytes);
  }

  /** A link that speaks through `socket` to the endpoint at `endpoints[at]`. */
  add(id: number, socket: LinkSocket, endpoints: Uint8Array, at: number): Link {
    const settings = this.settingsOf(id, socket);
    const link = new Link(id, socket, settings, this.randomBytes, this.role === 'server');
    link.place = this.freePlace();
    link.moveTo(endpoints, at);
    this.byId[id] = link;
    this.list.push(link);
    return link;
  }

  /** Whether the peer may have a link of this id made: each costs half a megabyte, and time for each packet. */
  mayAdd(id: number): boolean {
    if (this.role === 'client') return this.settings[id] !== undefined;
    return this.list.length < MOST_LINKS;
  }

  private freePlace(): number {
    let place = 0;
    while (this.list.some((link) => link.place === place)) place++;
    return place;
  }

  /** What is configured at `place` is this from now on; also for links in use. */
  configure(place: number, settings: LinkSettings): void {
    this.settings[place] = settings;
    for (const link of this.list) link.configure(this.settingsOf(link.id, link.socket));
  }

  /** A server's link now comes in through this socket. */
  adopt(link: Link, socket: LinkSocket, nowMs: number): void {
    if (link.state === 'down') link.reopened(socket, nowMs);
    link.socket = socket;
    link.configure(this.settingsOf(link.id, socket));
  }

  /** Of a client each link is configured, of a server each socket. */
  private settingsOf(id: number, socket: LinkSocket): LinkSettings {
    const place = this.role === 'client' ? id : this.sockets.indexOf(socket);
    return this.settings[place] ?? PLAIN_LINK;
  }

  remove(link: Link): void {
    this.byId[link.id] = undefined;
    this.list.splice(this.list.indexOf(link), 1);
  }

  /** The first link that a server has not heard for long, undefined: none. */
  stale(nowMs: number): Link | undefined {
    if (this.role === 'client' || this.list.length < 2) return undefined;
    return this.list.find((link) => nowMs - link.heardMs > FORGET_MS);
  }

  clear(): void {
    this.list.length = 0;
    this.byId.fill(undefined);
  }

  /** What arrived from `sources[at]` carried the newest counter of `link`. */
  learnEndpoint(
    link: Link,
    sources: Uint8Array,
    at: number,
    size: number,
    nowMs: number,
  ): 'known' | 'elsewhere' {
    if (isSameRemote(link.endpoint, 0, sources, at)) {
      link.adoptLocalAddress(sources, at);
      link.heardThere(size);
      return 'known';
    }
    link.roaming.heardElsewhere(sources, at, size, nowMs);
    return 'elsewhere';
  }
}
