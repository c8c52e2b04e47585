/**
 * The bound links of one client on this host: the mark, table and rule of each, and the routes in its
 * table, which follow those of the host. What goes there is decided in linkroutes.ts; the commands
 * are rows of the platform.
 */
import type { Tools } from './changes.ts';
import type { PolicyRule } from './facts.ts';
import { difference, leadsTo, wayOf } from './linkroutes.ts';
import type { Hop, HostLink, LinkFacts, LinkWay } from './linkroutes.ts';
import type { LinkNumbers } from './numbers.ts';
import type { Platform, Row } from './os.ts';
import { Failure } from './report.ts';
import { expandRows } from './rules.ts';
import type { Change } from './rules.ts';
import type { Situation } from './situation.ts';

interface Entry {
  link: HostLink;
  readonly numbers: LinkNumbers;
  way: LinkWay;
  /** Of its rule: that of `numbers`, or one further in front. */
  preference: number;
  /** Its rule and its table are there. */
  isMade: boolean;
}

/** The strict reverse path filter of ip-sysctl.rst; the larger of the interface's and of "all" holds. */
const STRICT = 1;

export class LinkSetup {
  readonly #entries: Entry[] = [];
  readonly #numbers: readonly LinkNumbers[];
  readonly #tools: Tools & { readonly platform: Platform };
  readonly #situation: Situation;
  readonly #servers: readonly string[];

  /** `numbers`: for as many links as there may be. `servers`: their addresses, as far as known. */
  constructor(
    links: readonly HostLink[],
    numbers: readonly LinkNumbers[],
    situation: Situation,
    tools: Tools & { readonly platform: Platform },
    servers: readonly string[],
  ) {
    this.#numbers = numbers;
    this.#tools = tools;
    this.#situation = situation;
    this.#servers = servers;
    for (const link of links) this.add(link);
  }

  /** Its place; undefined when no more links can be. `follow` sets it up. */
  add(link: HostLink): number | undefined {
    const index = this.#entries.length;
    const numbers = this.#numbers[index];
    if (numbers === undefined) return undefined;
    const way: LinkWay = { device: '', isRouted: false, hops: [], otherGateway: '' };
    this.#entries.push({
      link,
      numbers,
      way,
      preference: numbers.preference,
      isMade: false,
    });
    return index;
  }

  /** What has the mark and the table of link `index` from now on; `follow` gives it its routes. */
  replace(index: number, link: HostLink): void {
    const entry = this.#entries[index];
    if (entry !== undefined) entry.link = link;
  }

  /** SO_MARK of a link's socket; undefined where it needs none of its own. */
  mark(index: number): number | undefined {
    const entry = this.#entries[index];
    return entry?.isMade && entry.way.isRouted ? entry.numbers.mark : undefined;
  }

  /**
   * Sets the links up on a host with these facts, and makes their routes what they are to be. Each
   * change goes through `apply`, by groups that end at their first failure. `isFirst`: a link whose
   * gateway cannot be derived is a `Failure`.
   */
  async follow(
    facts: LinkFacts,
    isFirst: boolean,
    apply: (group: readonly Change[]) => Promise<boolean>,
  ): Promise<void> {
    for (const entry of this.#entries) {
      entry.way = wayOf(entry.link, facts);
      // Later on a route that is missing may be on its way.
      if (isFirst) this.#check(entry);
      if (!entry.way.isRouted) continue;
      entry.isMade ||= await apply(this.#made(entry));
      for (const change of this.#routeChanges(entry, facts)) await apply([change]);
    }
    for (const group of this.#advance(facts.rules)) await apply(group);
  }

  /** The changes of the first `follow`, for a plan. */
  plan(facts: LinkFacts): readonly Change[] {
    return this.#entries.flatMap((entry) => {
      entry.way = wayOf(entry.link, facts);
      if (!entry.way.isRouted) return [];
      return [...this.#made(entry), ...this.#routeChanges(entry, facts)];
    });
  }

  #made(entry: Entry): readonly Change[] {
    const { link = [], linkRule = [] } = this.#tools.platform;
    return this.#expand([...link, ...linkRule], entry);
  }

  /**
   * A tunnel of another program that came later has its rule in front of all others (the kernel chooses so
   * where none is given), and would take the links: their rules go in front of it, the new one first.
   */
  #advance(rules: readonly PolicyRule[]): readonly (readonly Change[])[] {
    const foreign = rules.filter(({ isInverted, mark }) => isInverted && mark !== 0);
    const front = Math.min(...foreign.map(({ preference }) => preference));
    const behind = this.#entries.filter((entry) => entry.isMade && entry.preference >= front);
    // Nothing comes in front of the rule of table local.
    if (front <= behind.length) return [];
    const { linkRule = [] } = this.#tools.platform;
    return behind.map((entry, i) => {
      const old = this.#expand(linkRule, entry);
      entry.preference = front - 1 - i;
      const reverts = old.flatMap((change): readonly Change[] =>
        change.kind === 'command' ? [{ ...change, revert: true }] : [],
      );
      return [...this.#expand(linkRule, entry), ...reverts];
    });
  }

  /** Says, or throws, where a link that is there leads nowhere. */
  #check({ link, way }: Entry): void {
    const { device, hops, otherGateway } = way;
    const isLed =
      this.#servers.length === 0
        ? hops.some(({ to }) => to === 'default')
        : this.#servers.some((server) => leadsTo(hops, server));
    if (isLed || hops.length === 0) return;
    const what = `link "${link.name}"`;
    const remedy = `write --link ${link.device}${link.address},gateway=ADDRESS`;
    if (otherGateway !== '') {
      const why = `${otherGateway}, the gateway on "${device}", is not on its network`;
      throw new Failure(what, why, remedy);
    }
    const why = `no default route leads out by "${device}"`;
    this.#tools.warn(`${what}: ${why}; if none is to come, ${remedy}`);
  }

  #routeChanges(entry: Entry, facts: LinkFacts): readonly Change[] {
    const { numbers, way } = entry;
    const { missing, gone } = difference(way.hops, numbers.table, facts);
    const isNew = missing.length > 0 && this.#isStrict(way.device);
    return [
      // A device that came into being anew has the default of its kind.
      ...this.#expand(this.#tools.platform.linkRoute ?? [], entry, isNew ? ['loose4'] : []),
      ...gone.flatMap((hop) => this.#expandHop(entry, hop, 'gone')),
      ...missing.flatMap((hop) => this.#expandHop(entry, hop, hop.kind)),
    ];
  }

  /** Whether replies would be dropped there, and no mark can be given back to them. */
  #isStrict(device: string): boolean {
    const needs = this.#situation.needs(false);
    if (needs.has('mangle4') || needs.has('nft-mangle4')) return false;
    const value = (name: string): number =>
      Number(this.#tools.runner.readSysctl(`net/ipv4/conf/${name}/rp_filter`) ?? 0);
    return Math.max(value('all'), value(device)) === STRICT;
  }

  #expandHop(entry: Entry, hop: Hop, kind: string): readonly Change[] {
    const variables = {
      LINK_TO: [hop.to],
      LINK_VIA: hop.gateway === '' ? [] : [hop.gateway],
      LINK_IF: [hop.device],
    };
    const rows = this.#tools.platform.linkRoute ?? [];
    return this.#expand(rows, entry, [`${kind}${hop.family}`], variables);
  }

  #expand(
    rows: readonly Row[],
    { numbers, way, preference }: Entry,
    more: readonly string[] = [],
    variables: Readonly<Record<string, readonly string[]>> = {},
  ): readonly Change[] {
    const all = {
      ...this.#situation.variables,
      LINK_MARK: [String(numbers.mark)],
      LINK_TABLE: [String(numbers.table)],
      LINK_PREF: [String(preference)],
      STRICT_IF: way.device === '' ? [] : [way.device],
      ...variables,
    };
    return expandRows(rows, all, new Set([...this.#situation.needs(false), ...more]));
  }
}
