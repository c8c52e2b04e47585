/**
 * Where the packets of a bound link are to go: its interface, gateways and networks, from the main
 * routing table and the rules of the administrator. Decides; runs nothing and changes nothing.
 */
import { isIPv6 } from 'node:net';
import { parseIp } from './address.ts';
import { canonicalAddress } from './facts.ts';
import type { Facts, PolicyRule, Route } from './facts.ts';

/** What a link is bound to: an interface, an address, or nothing. */
export interface HostLink {
  /** For an error line. */
  readonly name: string;
  readonly device: string;
  readonly address: string;
  /** Next hops, one of each family at most; where there is none it is derived. */
  readonly gateways: readonly string[];
}

export type LinkFacts = Pick<Facts, 'addresses' | 'rules' | 'routes4' | 'routes6'>;

/** How one route leads on. */
export type HopKind = 'direct' | 'via' | 'onlink' | 'across';

/** A route of a link's own table. */
export interface Hop {
  readonly family: 4 | 6;
  readonly to: string;
  readonly kind: HopKind;
  /** '' for 'direct'. */
  readonly gateway: string;
  readonly device: string;
}

export interface LinkWay {
  /** '' while the interface, or the address, is not there. */
  readonly device: string;
  /**
   * False: nothing to set up, its packets go by the routes that are there. It is bound to nothing, to an
   * address that is on no way out, or to one for which there is a rule already.
   */
  readonly isRouted: boolean;
  readonly hops: readonly Hop[];
  /** The default route by its interface is for another address: the gateway has to be given. */
  readonly otherGateway: string;
}

/** rt_tables, and the preference of the rule that leads to it (fib_rules.c): later rules seldom matter. */
const TABLE_MAIN = 254;
const PREFERENCE_MAIN = 32766;
/** A router with the whole Internet's routes still gets its networks; nobody has so many by hand. */
const MOST_NETWORKS = 64;
const NOWHERE: LinkWay = { device: '', isRouted: false, hops: [], otherGateway: '' };

/** The way of `link` on a host where these are the facts. */
export function wayOf(link: HostLink, facts: LinkFacts): LinkWay {
  const { device, address } = link;
  if (address === '') {
    if (device === '') return NOWHERE;
    const hops = ([4, 6] as const).flatMap((family) => hopsOf(link, device, family, facts).hops);
    return { device, isRouted: true, hops, otherGateway: '' };
  }
  const holder = holderOf(address, facts);
  if (holder === undefined) return { ...NOWHERE, isRouted: !hasRule(address, facts.rules) };
  // An address of the host itself leaves by whatever the routes say.
  if (/^lo\d*$/.test(holder) || hasRule(address, facts.rules))
    return { ...NOWHERE, device: holder };
  const family = isIPv6(address) ? 6 : 4;
  return { device: holder, isRouted: true, ...hopsOf(link, holder, family, facts) };
}

/** The interfaces that have a default route in table main, best first. */
export function exits({ routes4, routes6 }: LinkFacts): readonly string[] {
  const defaults = [...routes4, ...routes6].filter(isMainDefault);
  return [...new Set([...defaults].sort((a, b) => a.metric - b.metric).map((one) => one.device))];
}

/** Whether a packet to `address` finds a route among `hops`. */
export function leadsTo(hops: readonly Hop[], address: string): boolean {
  const family = isIPv6(address) ? 6 : 4;
  return hops.some(
    (hop) => hop.family === family && (hop.to === 'default' || contains(hop.to, address)),
  );
}

/** What is in `table` but not wanted there, and what is wanted but not there. */
export function difference(
  wanted: readonly Hop[],
  table: number,
  { routes4, routes6 }: Pick<LinkFacts, 'routes4' | 'routes6'>,
): { readonly missing: readonly Hop[]; readonly gone: readonly Hop[] } {
  const present = ([4, 6] as const).flatMap((family) =>
    (family === 4 ? routes4 : routes6)
      .filter((route) => route.table === table)
      .map((route) => hopOf(family, route)),
  );
  const isSame = (a: Hop, b: Hop): boolean =>
    isSamePlace(a, b) && a.kind === b.kind && a.gateway === b.gateway;
  return {
    missing: wanted.filter((hop) => !present.some((one) => isSame(one, hop))),
    // Another gateway on the same interface takes the place of the old one.
    gone: present.filter((hop) => !wanted.some((one) => isSamePlace(one, hop))),
  };
}

function isSamePlace(a: Hop, b: Hop): boolean {
  return a.family === b.family && a.to === b.to && a.device === b.device;
}

function isMainDefault({ table, destination }: Route): boolean {
  return table === TABLE_MAIN && destination === 'default';
}

function holderOf(address: string, { addresses }: LinkFacts): string | undefined {
  for (const [held, device] of addresses) {
    if (canonicalAddress(held) === address) return device;
  }
  return undefined;
}

/** Whether the administrator has said already where packets from `address` go. */
function hasRule(address: string, rules: readonly PolicyRule[]): boolean {
  return rules.some(
    ({ isPlain, preference, source }) =>
      isPlain && preference < PREFERENCE_MAIN && source !== '' && contains(source, address),
  );
}

function hopsOf(
  link: HostLink,
  device: string,
  family: 4 | 6,
  facts: LinkFacts,
): Pick<LinkWay, 'hops' | 'otherGateway'> {
  const { address } = link;
  const own = (family === 4 ? facts.routes4 : facts.routes6).filter(
    (route) => route.table === TABLE_MAIN && route.device === device,
  );
  const networks = own.filter(({ destination }) => destination !== 'default');
  const connected = networks.filter(({ gateway }) => gateway === '');
  /** Whether a neighbour is one of the link's: on the same network as its address. */
  const isNear = (gateway: string): boolean =>
    address === '' ||
    gateway === '' ||
    connected.some(
      ({ destination }) => contains(destination, address) && contains(destination, gateway),
    );
  const isFar = (gateway: string): boolean =>
    // A router that is on no network at all (/32 addresses), or of IPv6's link-local one, is everybody's.
    /^fe[89ab]/.test(gateway) ||
    !connected.some(({ destination }) => contains(destination, gateway));

  const given = link.gateways.find((gateway) => isIPv6(gateway) === (family === 6));
  const defaults = own
    .filter(({ destination }) => destination === 'default')
    .sort((a, b) => a.metric - b.metric);
  const derived =
    defaults.find(({ source }) => address !== '' && source === address) ??
    defaults.find(({ gateway }) => isNear(gateway)) ??
    defaults.find(({ gateway }) => isFar(gateway));
  const gateway = given ?? derived?.gateway;
  // Networks behind other routers are not for one who has a router of his own.
  const kept = networks.filter((route) =>
    given === undefined ? isNear(route.gateway) || isFar(route.gateway) : route.gateway === '',
  );
  const few = kept.length > MOST_NETWORKS ? connected.slice(0, MOST_NETWORKS) : kept;
  const hops = few
    .sort((a, b) => a.metric - b.metric)
    .map((route) => hopOf(family, route))
    // A table has one route to a place: the best.
    .filter((hop, i, all) => all.findIndex((one) => one.to === hop.to) === i);
  if (gateway === undefined) return { hops, otherGateway: defaults[0]?.gateway ?? '' };
  const isOnlink = given === undefined && derived !== undefined && derived.isOnlink;
  const way = {
    table: 0,
    destination: 'default',
    device,
    gateway,
    isOnlink,
    metric: 0,
    source: '',
  };
  return { hops: [...hops, hopOf(family, way)], otherGateway: '' };
}

function hopOf(family: 4 | 6, { destination, gateway, device, isOnlink }: Route): Hop {
  let kind: HopKind = isOnlink ? 'onlink' : 'via';
  if (gateway === '') kind = 'direct';
  else if (family === 4 && isIPv6(gateway)) kind = 'across';
  return { family, to: destination, kind, gateway, device };
}

/** Whether `address` is in `network`, an address with or without a prefix length. */
export function contains(network: string, address: string): boolean {
  const [base = '', prefix] = network.split('/');
  const a = parseIp(base);
  const b = parseIp(address);
  if (a === undefined || b === undefined || a.length !== b.length) return false;
  const bits = prefix === undefined ? a.length * 8 : Number(prefix);
  return a.every((byte, i) => {
    const mask = (0xff00 >> Math.min(8, Math.max(0, bits - 8 * i))) & 0xff;
    return (byte & mask) === (b[i] & mask);
  });
}
