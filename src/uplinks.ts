/**
 * The links of a running client: which there are ("auto" follows the host's default routes), what their
 * sockets are bound to, and whether that is there. Tells the tunnel at once when it goes, and when it
 * is back as soon as the host's routes lead that way again.
 */
import type { Config } from './config.ts';
import type { LinkConfig } from './linkconfig.ts';
import { LinkWatch } from './linkwatch.ts';
import type { Snapshot } from './linkwatch.ts';
import type { Handle } from './native.ts';
import type { LinkSettings } from './peering.ts';
import { log, reason } from './report.ts';
import type { HostSetup } from './setup.ts';

/** What of a tunnel the links need. */
export interface LinkedTunnel {
  linkUp(index: number): void;
  linkDown(index: number): void;
  /** Returns the number of the new link. */
  addLink(settings: LinkSettings): number;
  /** Closes a link that leads elsewhere from now on, or is none any more. */
  dropLink(index: number): void;
  removeLink(index: number): void;
  /** Resolves when all that was asked for is done: an address that a link had is free then. Never rejects. */
  settled(): Promise<void>;
}

/** The links of a running instance, as its configuration may change them (reload.ts). */
export interface Ways {
  /** Link `from` of `config` comes in addition, to be opened by `settle`; undefined: there are too many. */
  add(config: Config, from: number): number | undefined;
  /** Link `index` is link `from` of `config` from now on; `settle` opens it. Throws a `Failure`. */
  replace(index: number, config: Config, from: number): void;
  remove(index: number): void;
  /** Keeps a link closed, or lets `settle` open it again. */
  hold(index: number, isHeld: boolean): void;
  /** Opens what there is to open. Throws a `Failure`. */
  settle(): Promise<void>;
}

export interface UplinkDeps {
  readonly setup: Pick<HostSetup, 'addLink' | 'followLinks' | 'linkMark' | 'replaceLink'>;
  /** Interfaces as they are now; never fails. */
  observe(): Snapshot;
  /** Why an interface is of no use now: 'no such interface', 'no carrier', … */
  stateOf(device: string): string;
  /** Undefined where the interface or address is not there. Throws a `Failure`. */
  openSocket(bound: {
    device: string;
    address: string;
    port: number;
    mark: number;
  }): Handle | undefined;
}

export class Uplinks implements Ways {
  /** Link by link, in the tunnel's numbers. */
  readonly configs: LinkConfig[];
  readonly #auto: LinkConfig | undefined;
  readonly #deps: UplinkDeps;
  readonly #watch = new LinkWatch();
  #tunnel: LinkedTunnel | undefined;
  #isFollowing = false;
  #isAskedAgain = false;
  #isFullSaid = false;
  /** Places of links that were removed. */
  readonly #free = new Set<number>();

  constructor(links: readonly LinkConfig[], deps: UplinkDeps) {
    this.#deps = deps;
    this.configs = links.filter((link) => !link.isAuto);
    this.#auto = links.find((link) => link.isAuto);
    for (const link of this.configs) this.#watch.add(link);
  }

  /** Whether anything but the host's own routes matters to a link. */
  get isBound(): boolean {
    return this.#auto !== undefined || this.configs.some((one) => one.device + one.address !== '');
  }

  /** Finds the links of "auto"; `HostSetup.up` is done. */
  async prepare(): Promise<void> {
    if (this.isBound) {
      this.#adopt(await this.#deps.setup.followLinks());
      await this.#deps.setup.followLinks();
    }
    this.#watch.observe(this.#deps.observe());
  }

  /** Opens the socket of a link, for `Host.openLink`. Throws a `Failure`. */
  open(index: number): Handle | undefined {
    if (!this.#watch.isPresent(index)) return undefined;
    const { device, address, localPort: port } = this.configs[index];
    const mark = this.#deps.setup.linkMark(index);
    const handle = this.#deps.openSocket({ device, address, port, mark });
    if (handle !== undefined) this.#watch.opened(index);
    return handle;
  }

  /** From now on `tunnel`, which has just been started, is told of changes. */
  attach(tunnel: LinkedTunnel): void {
    this.#tunnel = tunnel;
    this.configs.forEach((link, index) => {
      if (this.#watch.isPresent(index)) return;
      log(`${this.#nameOf(link)}: ${this.#whyAbsent(link)}; used once that changes`, 'warning');
    });
    if (this.isBound && this.configs.length === 0)
      log('no interface has a default route; waiting for one', 'warning');
  }

  add(config: Config, from: number): number | undefined {
    const link = linkOf(config, from);
    const [free] = this.#free;
    if (free !== undefined) {
      this.#free.delete(free);
      this.#put(free, link);
      return free;
    }
    if (this.#deps.setup.addLink(link) === undefined) return undefined;
    this.configs.push(link);
    this.#watch.add(link);
    return this.#tunnel?.addLink(link);
  }

  replace(index: number, config: Config, from: number): void {
    this.#tunnel?.dropLink(index);
    this.#put(index, linkOf(config, from));
  }

  #put(index: number, link: LinkConfig): void {
    this.configs[index] = link;
    this.#deps.setup.replaceLink(index, link);
    this.#watch.replace(index, link);
    this.#watch.hold(index, false);
  }

  remove(index: number): void {
    this.#watch.hold(index, true);
    this.#lose(this.#watch.observe(this.#deps.observe()).lost);
    this.#tunnel?.removeLink(index);
    this.#free.add(index);
  }

  hold(index: number, isHeld: boolean): void {
    this.#watch.hold(index, isHeld);
    this.#lose(this.#watch.observe(this.#deps.observe()).lost);
  }

  async settle(): Promise<void> {
    if (this.isBound) await this.follow();
    else await this.#raise();
  }

  /** Interfaces, addresses or routes have just changed: what is gone must not be sent to any more. */
  changed(): void {
    if (!this.isBound) return;
    const { lost, found } = this.#watch.observe(this.#deps.observe());
    this.#lose(lost);
    if (lost.length > 0 || found.length > 0) void this.follow();
  }

  #lose(lost: readonly number[]): void {
    for (const index of lost) {
      this.#tunnel?.linkDown(index);
      if (this.#watch.isPresent(index) || this.#watch.isHeld(index)) continue;
      const link = this.configs[index];
      log(`${this.#nameOf(link)}: ${this.#whyAbsent(link)}`);
    }
  }

  /** Follows the host's routes, then uses what is there again. Never rejects. */
  async follow(): Promise<void> {
    if (!this.isBound) return;
    this.#isAskedAgain = true;
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    while (this.#isAskedAgain) {
      this.#isAskedAgain = false;
      const exits = await this.#deps.setup.followLinks();
      if (this.#adopt(exits)) this.#isAskedAgain = true;
      else await this.#raise();
    }
    this.#isFollowing = false;
  }

  /** Its routes are there: the tunnel may open its socket. */
  async #raise(): Promise<void> {
    if (this.#tunnel === undefined) return;
    await this.#tunnel.settled();
    const { lost, found } = this.#watch.observe(this.#deps.observe());
    this.#lose(lost);
    for (const index of found) {
      try {
        this.#tunnel.linkUp(index);
      } catch (error) {
        log(`${this.#nameOf(this.configs[index])}: ${reason(error)}`, 'warning');
      }
      if (this.#watch.isOpen(index)) log(`${this.#nameOf(this.configs[index])}: there`);
    }
  }

  /** "auto": a link for each interface that none has. Whether there are new ones. */
  #adopt(exits: readonly string[]): boolean {
    const auto = this.#auto;
    if (auto === undefined) return false;
    const { interfaces } = this.#deps.observe();
    const isOurs = (device: string): boolean =>
      this.configs.some(
        (link) =>
          link.device === device ||
          (link.address !== '' && interfaces[device]?.some((one) => one.address === link.address)),
      );
    const news = exits.filter((device) => !isOurs(device));
    let isNew = false;
    for (const device of news) {
      const link = { ...auto, name: device, device, isAuto: false };
      if (this.#deps.setup.addLink(link) === undefined) {
        if (!this.#isFullSaid) log(`link ${device}: too many links; not used`, 'warning');
        this.#isFullSaid = true;
        break;
      }
      this.configs.push(link);
      this.#watch.add(link);
      this.#tunnel?.addLink(link);
      isNew = true;
    }
    return isNew;
  }

  #nameOf(link: LinkConfig): string {
    return `link ${link.name}`;
  }

  #whyAbsent({ device }: LinkConfig): string {
    if (device === '') return 'no interface that is up has this address';
    return this.#deps.stateOf(device);
  }
}

/** Link `from` of a client's configuration. */
function linkOf(config: Config, from: number): LinkConfig {
  if (config.role !== 'client') throw new Error('a server has no uplinks');
  return config.links[from];
}
