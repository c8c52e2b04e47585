/**
 * What may be changed of a running tunnel, and what there is to see of it: links that come and go, their
 * settings, filters, the MTU (uplinks.ts, a reload, `vpn link`), and the numbers of the status.
 */
import type { Filter } from './classes.ts';
import type { TunnelParts } from './daemon/snapshot.ts';
import type { LinkSocket } from './host.ts';
import type { Link } from './link.ts';
import type { Network } from './inner.ts';
import { Keeping } from './keeping.ts';
import type { LinkSettings, RealtimeRule } from './peering.ts';

/** Over so many other links the end of one is told. */
const LEFT_COPIES = 2;

export abstract class Managed extends Keeping {
  /** Opens the socket of link `index`; undefined if it is not there. */
  protected abstract open(index: number): LinkSocket | undefined;

  /** What status and metrics are made of (daemon/snapshot.ts). */
  get parts(): TunnelParts {
    const { config, set, bonding, inbound, reports, tunMtu, heardMs } = this;
    return {
      config,
      set,
      session: this.peering.session,
      bonding: this.isBonding ? bonding : undefined,
      reorder: inbound.reorder,
      holdMs: reports.holdMs,
      tunMtu: tunMtu.current,
      heardMs,
      counters: { ...this.counters },
      countsOf: ({ sentPackets, sentBytes, repairedPackets }) => ({
        sentPackets,
        sentBytes,
        repairedPackets,
      }),
    };
  }

  /** The interface or address of link `index` is there: its socket is opened. */
  linkUp(index: number): void {
    if (this.isClosed || this.set.sockets[index] !== undefined) return;
    const nowMs = this.host.nowMs();
    const socket = this.open(index);
    if (socket === undefined) return;
    const link = this.set.byId[index];
    if (link !== undefined && this.config.role === 'client') {
      link.reopened(socket, nowMs);
      this.linksChanged();
    } else {
      this.peering.linkOpened(index, nowMs);
    }
    this.onTimer();
  }

  /** It is gone, or carries nothing: its socket is closed, and what was under way goes over others. */
  linkDown(index: number): void {
    const socket = this.set.sockets[index];
    if (socket === undefined) return;
    for (const link of this.links) {
      if (link.socket === socket) this.sayLeft(link);
    }
    this.set.sockets[index] = undefined;
    for (const link of this.links) {
      if (link.socket !== socket) continue;
      link.closed();
      this.bonding?.settle(link);
    }
    socket.close();
    this.linksChanged();
    this.pump(this.host.nowMs());
  }

  /** By itself, if it still carries anything, and by others, one of which may lose it. */
  private sayLeft(gone: Link): void {
    const { session } = this.peering;
    if (session === undefined || this.links.length < 2 || gone.state === 'down') return;
    const nowMs = this.host.nowMs();
    const others = this.links.filter((link) => link.state === 'up' && link.socket !== gone.socket);
    for (const link of [...others.slice(0, LEFT_COPIES), gone]) {
      this.control.sendLeft(session, link, gone, nowMs);
    }
  }

  /** Adds a link to the configuration; returns its index. */
  addLink(settings: LinkSettings): number {
    const index = this.set.settings.push(settings) - 1;
    this.linkUp(index);
    return index;
  }

  /** What is configured of link `index`, which need not have a socket, is this from now on. */
  setLink(index: number, settings: LinkSettings): void {
    this.set.configure(index, settings);
    this.linksChanged();
    this.pump(this.host.nowMs());
  }

  /** Link `index` is not there any more, or leads elsewhere; `linkUp` opens it anew. */
  dropLink(index: number): void {
    this.linkDown(index);
    const link = this.set.byId[index];
    if (this.config.role === 'server') return;
    this.peering.linkChanged(index);
    if (link === undefined) return;
    this.set.remove(link);
    this.linksChanged();
  }

  /** The same for good: it is no part of the configuration any more, until `setLink`. */
  removeLink(index: number): void {
    this.dropLink(index);
    delete this.set.settings[index];
  }

  /** What is configured of each link; nothing of those that were removed. */
  get settings(): readonly (LinkSettings | undefined)[] {
    return this.set.settings;
  }

  /** `links` has the name of the link of each number in the filters' verdicts. Flows are decided anew. */
  setFilters(filters: readonly Filter[], links: readonly string[]): void {
    this.filters = filters;
    this.filterLinks = links;
    this.classifier.setRules(this.realtime, filters);
    this.bonding?.pins.setLinks(links, this.bonding.queue);
  }

  setRealtime(rules: readonly RealtimeRule[]): void {
    this.realtime = rules;
    this.classifier.setRules(rules, this.filters);
  }

  /** Where packets of the peer's may come from, from now on; undefined: anywhere. */
  setSources(sources: readonly Network[] | undefined): void {
    this.inbound.setSources(sources);
  }

  /** The MTU that the tun device is to have. */
  get deviceMtu(): number {
    return this.tunMtu.current;
  }

  /** The tun device gets no larger MTU than this from now on, and what fits at once. */
  boundMtu(most: number): void {
    this.tunMtu.bound(most);
    this.adaptTunMtu(this.host.nowMs());
    this.host.tun.setMtu(this.tunMtu.current);
  }

  /** Makes the session anew, and closes all sockets: whoever asks for it opens them again (`linkUp`). */
  reset(): void {
    const nowMs = this.host.nowMs();
    this.sayGoodbye(nowMs);
    this.peering.reset(nowMs);
    for (let index = 0; index < this.set.sockets.length; index++) {
      if (this.set.sockets[index] === undefined) continue;
      this.linkDown(index);
    }
    this.onTimer();
  }
}
