/**
 * What one instance has done to its host, from its first change to the last undo: rows of os.ts in the
 * order of a tunnel's life, one change at a time, and the routes of its links as they come and go.
 */
import { isIPv6 } from 'node:net';
import { Changes } from './changes.ts';
import type { Tools } from './changes.ts';
import { readRules, readWays } from './facts.ts';
import type { Header, Journal } from './journal.ts';
import { exits } from './linkroutes.ts';
import type { HostLink } from './linkroutes.ts';
import { LinkSetup } from './linksetup.ts';
import { changeLive } from './livechange.ts';
import type { Numbers } from './numbers.ts';
import type { Platform, ProbeName } from './os.ts';
import { proxyChanges } from './proxies.ts';
import { expandRows } from './rules.ts';
import type { Change } from './rules.ts';
import { foreignMarks } from './situation.ts';
import type { HostSettings, Situation } from './situation.ts';

/** What a running instance can change of `HostSettings`. */
export type Networks = Required<Pick<HostSettings, 'routes' | 'allow'>>;

export interface HostSetup {
  /** SO_MARK of sockets that are to go past the tunnel. */
  readonly mark: number;
  /** Client: the name servers that the host asked before; none known where neither `dns` nor a kill switch is. */
  readonly nameServers: readonly string[];
  /** The same for the socket of link `index`, once `up` or `followLinks` has set it up. */
  linkMark(index: number): number;
  /**
   * Addresses, device up, protection; on the server forwarding and NAT, on the client the ways of its
   * links. Undoes what was done before it throws a `Failure`.
   */
  up(): Promise<void>;
  /**
   * Client: routes, once a session is up, and after every new one. `ipv6`: IPv6 leaves the server;
   * if not it is blocked here. Undoes everything before it throws a `Failure`. Server: nothing.
   */
  connected(facts: { readonly ipv6: boolean }): Promise<void>;
  /**
   * Client: the addresses of the server, also those that it had. Where link sockets have no mark, each
   * gets a route past the tunnel's. Once connected it does not fail; before, it undoes everything and
   * throws a `Failure`.
   */
  reach(servers: readonly string[]): Promise<void>;
  /**
   * Client: another link, whose number is returned, to be set up by `followLinks`; undefined when
   * there are as many as can be.
   */
  addLink(link: HostLink): number | undefined;
  /** Client: link `index` is another from now on, as `followLinks` finds. */
  replaceLink(index: number, link: HostLink): void;
  /**
   * Client: makes the ways of the links what they are to be now that interfaces, addresses or routes
   * have changed. Returns the interfaces that have a default route, best first. Never rejects.
   */
  followLinks(): Promise<readonly string[]>;
  /** Client, every few seconds: follows what other programs changed meanwhile. Never rejects. */
  refresh(): Promise<void>;
  /**
   * From now on `routes` and `allow` are these: what is new is made first, then the rest taken back, and
   * what stays is there at every moment. Throws a `Failure`; then nothing is changed.
   */
  changeNetworks(networks: Networks): Promise<void>;
  /** Server: whether IPv6 from the client leaves this host. */
  readonly ipv6Leaves: boolean;
  /**
   * Newest first, once; waits for a change under way. A kill switch stays, and a warning says so. False:
   * something else is left for `vpn cleanup`.
   */
  undo(): Promise<boolean>;
  /** The last resort, from 'exit' and 'uncaughtException'. */
  undoSync(): void;
}

/** What dead instances left that still blocks: taken away when nothing can leak any more. */
export type TakeAway = () => Promise<void>;

const STAYS = 'the kill switch stays: nothing leaves this host until vpn cleanup';
const TAKEN_AWAY = 'the kill switch of an earlier run is taken away: this one has none';

/** The rows of `Platform.reach` for the ways that now lead to the servers. */
export async function waysTo(
  servers: readonly string[],
  { platform, runner }: Tools & { readonly platform: Platform },
  { variables }: Situation,
  needs: ReadonlySet<string>,
): Promise<readonly Change[]> {
  const { reach, wayTo } = platform;
  if (reach === undefined || wayTo === undefined || servers.length === 0) return [];
  const output = new Map<ProbeName, string>();
  for (const name of ['routes4', 'routes6'] as const) {
    const outcome = await runner.run((platform.probes[name] ?? '').split(' '));
    if (outcome.status === 0) output.set(name, outcome.stdout);
  }
  return servers.flatMap((server) => {
    const way = wayTo(server, String(variables.TUN), output);
    if (way === undefined) return [];
    const isSix = isIPv6(server);
    const gateway = (isSix ? variables.GATEWAY6 : variables.GATEWAY4)[0] ?? way.gateway;
    const to = {
      SERVER4: isSix ? [] : [server],
      SERVER6: isSix ? [server] : [],
      VIA: gateway === '' ? [] : [gateway],
      VIA_IF: gateway === '' ? [way.device] : [],
    };
    return expandRows(reach, { ...variables, ...to }, needs);
  });
}

/** What `up` does, but for the ways of links. */
export function firstChanges(
  platform: Platform,
  role: 'server' | 'client',
  situation: Situation,
  needs: ReadonlySet<string>,
): readonly Change[] {
  const rows = [...platform[role], ...(platform.site ?? [])];
  const changes = expandRows(rows, situation.variables, needs);
  return [...changes, ...proxyChanges(platform, situation, needs)];
}

export class Instance implements HostSetup {
  readonly mark: number;
  readonly nameServers: readonly string[];
  readonly #hasSwitch: boolean;
  /** Undefined where there is nothing, or it is not for this instance to do. */
  #takeAway: TakeAway | undefined;
  /** Its kill switch is whole. */
  #isSwitched = false;
  #isClosed = false;
  #situation: Situation;
  readonly #platform: Platform;
  readonly #role: 'server' | 'client';
  readonly #journal: Journal;
  readonly #changes: Changes;
  readonly #links: LinkSetup;
  /** The change under way; changes and undo never overlap. */
  #busy: Promise<void> = Promise.resolve();
  #isStopped = false;
  #undoing: Promise<boolean> | undefined;
  /** Of the last session; undefined before the first. */
  #serverIpv6: boolean | undefined;
  readonly #tools: Tools & { readonly platform: Platform };
  readonly #ownMark: number;
  readonly #tun: string;
  readonly #servers = new Set<string>();
  /** Marks of other tunnels that are exempt from our routes. */
  readonly #exempt: Set<string>;

  constructor(
    settings: HostSettings,
    situation: Situation,
    numbers: Numbers,
    journal: Journal,
    header: Header,
    tools: Tools & { readonly platform: Platform },
    takeAway: TakeAway | undefined,
  ) {
    this.mark = header.mark;
    this.nameServers = settings.naming?.servers ?? [];
    this.#hasSwitch = settings.killSwitch ?? false;
    this.#takeAway = takeAway;
    this.#role = settings.role;
    this.#tun = settings.tun;
    this.#ownMark = settings.mark;
    this.#situation = situation;
    this.#exempt = new Set(situation.variables.FOREIGN);
    this.#tools = tools;
    this.#platform = tools.platform;
    this.#journal = journal;
    this.#changes = new Changes(journal, header, tools, true);
    const { links = [], servers = [] } = settings;
    this.#links = new LinkSetup(links, numbers.links, situation, tools, servers);
  }

  linkMark(index: number): number {
    return this.#links.mark(index) ?? this.mark;
  }

  addLink(link: HostLink): number | undefined {
    return this.#links.add(link);
  }

  replaceLink(index: number, link: HostLink): void {
    this.#links.replace(index, link);
  }

  get ipv6Leaves(): boolean {
    return this.#situation.ipv6Leaves;
  }

  async up(): Promise<void> {
    await this.#make(async () => {
      await this.#switch();
      await this.#apply(this.#standing(this.#situation));
      if (this.#role === 'server' || this.#platform.link === undefined) return;
      const facts = await readWays(this.#platform, this.#tools.runner);
      await this.#links.follow(facts, true, async (group) => {
        await this.#apply(group);
        return true;
      });
    });
  }

  /** The new one first: there is no moment without. */
  async #switch(): Promise<void> {
    if (!this.#hasSwitch) return;
    await this.#apply(this.#expand(this.#platform.killSwitch ?? [], false));
    this.#isSwitched = true;
    await this.#takeAway?.();
    this.#takeAway = undefined;
  }

  async followLinks(): Promise<readonly string[]> {
    let found: readonly string[] = [];
    await this.#quietly(async () => {
      if (this.#role === 'server' || this.#platform.link === undefined) return;
      const facts = await readWays(this.#platform, this.#tools.runner);
      found = exits(facts).filter((device) => device !== this.#tun);
      await this.#links.follow(facts, false, (group) =>
        this.#apply(group).then(
          () => true,
          () => false,
        ),
      );
    });
    return found;
  }

  async connected(facts: { readonly ipv6: boolean }): Promise<void> {
    if (this.#role === 'server') return;
    await this.#make(async () => {
      const isFirst = this.#serverIpv6 === undefined;
      if (this.#serverIpv6 === facts.ipv6) return;
      this.#serverIpv6 = facts.ipv6;
      const { connected, everySession, enter, names = [] } = this.#platform;
      const rows = isFirst ? [...connected, ...everySession, ...enter, ...names] : everySession;
      await this.#apply(this.#expand(rows, facts.ipv6));
      if (this.#takeAway === undefined) return;
      this.#tools.warn(TAKEN_AWAY);
      await this.#takeAway();
      this.#takeAway = undefined;
    });
  }

  async reach(servers: readonly string[]): Promise<void> {
    if (this.#role === 'server' || this.#platform.reach === undefined) return;
    for (const server of servers) this.#servers.add(server);
    // A network that is away for now must not end a tunnel that waits for it.
    if (this.#serverIpv6 === undefined) {
      await this.#make(async () => this.#apply(await this.#ways()));
    } else await this.refresh();
  }

  #ways(): Promise<readonly Change[]> {
    const needs = this.#situation.needs(this.#serverIpv6 ?? false);
    return waysTo([...this.#servers], this.#tools, this.#situation, needs);
  }

  async refresh(): Promise<void> {
    await this.#quietly(async () => {
      if (this.#role === 'server' || this.#serverIpv6 === undefined) return;
      const { platform, runner } = this.#tools;
      const marks = foreignMarks(await readRules(platform, runner), this.#ownMark);
      const news = marks.filter((mark) => !this.#exempt.has(mark));
      const variables = { ...this.#situation.variables, FOREIGN: news };
      const needs = this.#situation.needs(this.#serverIpv6);
      await this.#try(expandRows(platform.refresh, variables, needs));
      for (const mark of news) this.#exempt.add(mark);
      await this.#try(await this.#ways());
      // A DHCP client writes them with each lease.
      const names = this.#expand(platform.names ?? [], false);
      await this.#try(names.filter(({ kind }) => kind === 'file'));
    });
  }

  async changeNetworks(networks: Networks): Promise<void> {
    const mine = this.#busy.then(async () => {
      const next = this.#situation.with(networks);
      const [before, after] = [this.#standing(this.#situation), this.#standing(next)];
      const isStopped = (): boolean => this.#isStopped;
      const warn = (line: string): void => this.#tools.warn(line);
      await changeLive(this.#changes, before, after, isStopped, warn);
      this.#situation = next;
    });
    this.#busy = mine.catch(() => undefined);
    await mine;
  }

  /** What follows from the situation, as far as the tunnel has come. */
  #standing(situation: Situation): readonly Change[] {
    const needs = situation.needs(this.#serverIpv6 ?? false);
    const first = firstChanges(this.#platform, this.#role, situation, needs);
    if (this.#serverIpv6 === undefined) return first;
    const { connected, everySession, enter } = this.#platform;
    const later = [...connected, ...everySession, ...enter];
    return [...first, ...expandRows(later, situation.variables, needs)];
  }

  #expand(rows: Platform['client'], serverIpv6: boolean): readonly Change[] {
    return expandRows(rows, this.#situation.variables, this.#situation.needs(serverIpv6));
  }

  #apply(changes: readonly Change[]): Promise<void> {
    return this.#changes.apply(changes, () => this.#isStopped);
  }

  /** One that fails does not stop the others. */
  async #try(changes: readonly Change[]): Promise<void> {
    for (const change of changes) await this.#apply([change]).catch(() => undefined);
  }

  /** What others changed meanwhile is no reason to end. */
  async #quietly(body: () => Promise<void>): Promise<void> {
    const mine = this.#busy.then(async () => {
      if (!this.#isStopped) await body();
    });
    this.#busy = mine.catch(() => undefined);
    await this.#busy;
  }

  /** Undoes everything before it throws. */
  async #make(body: () => Promise<void>): Promise<void> {
    const mine = this.#busy.then(body);
    this.#busy = mine.catch(() => undefined);
    try {
      await mine;
    } catch (error) {
      await this.undo();
      throw error;
    }
  }

  undo(): Promise<boolean> {
    this.#isStopped = true;
    this.#undoing ??= this.#busy.then(async () => {
      const { failed } = await this.#changes.undo(false, this.#isSwitched);
      this.#close();
      return failed.length === 0;
    });
    return this.#undoing;
  }

  undoSync(): void {
    this.#isStopped = true;
    this.#changes.undoSync(this.#isSwitched);
    this.#close();
    this.#undoing ??= Promise.resolve(true);
  }

  #close(): void {
    // Once, also where the last resort comes upon an undo that is under way.
    if (this.#isSwitched && !this.#isClosed) this.#tools.warn(STAYS);
    this.#isClosed = true;
    this.#journal.close();
  }
}
