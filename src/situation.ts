/**
 * What one instance wants and what this host can do, in the terms of os.ts: the facts that rows `need`,
 * the values of their variables. Decides; changes nothing.
 */
import { isIPv6 } from 'node:net';
import { canonicalAddress, isIpv6Usable } from './facts.ts';
import type { Facts, PolicyRule } from './facts.ts';
import { nameServerWarnings, switchMarks, switchNeeds } from './killswitch.ts';
import type { HostLink } from './linkroutes.ts';
import type { Naming } from './naming.ts';
import { FIRST_NUMBER, MARKS_MASK } from './numbers.ts';
import type { Numbers } from './numbers.ts';
import { PROBES, pointToPoint } from './os.ts';
import type { LISTS, ProbeName, SCALARS } from './os.ts';
import { proxiedBy } from './proxies.ts';
import type { Proxied } from './proxies.ts';
import { Failure } from './report.ts';
import type { Runner } from './rules.ts';
import { cannotLimit, forwardChains, proxyWarnings, siteOf } from './site.ts';

export interface HostSettings {
  readonly role: 'server' | 'client';
  /** Interface name; the device exists when `up` is called. */
  readonly tun: string;
  /** Inner addresses; '' for none: of IPv6, or where a script sets them. */
  readonly localIp: string;
  readonly peerIp: string;
  readonly localIp6: string;
  readonly peerIp6: string;
  /**
   * The device is a tap: `localIp` and `localIp6` with the prefix lengths of the networks that they are in
   * with the peer, '' for those that are ''. Absent for a tun.
   */
  readonly onLink?: { readonly ip4: string; readonly ip6: string };
  readonly mtu: number;
  /** False: no default routes, no NAT, no forwarding. */
  readonly defaultRoutes: boolean;
  /**
   * CIDRs of either family. Client: only these go through the tunnel. Server: networks behind the
   * client, routed to it, forwarded and translated like it.
   */
  readonly routes: readonly string[];
  /**
   * The only networks, as CIDR, that what is behind the tunnel reaches through this host; with any, packets
   * are forwarded. Empty: see `defaultRoutes`.
   */
  readonly allow?: readonly string[];
  /** This host answers for what is behind the tunnel in its networks, and forwards. */
  readonly proxyArp?: boolean;
  /** 0 chooses one that is not in use. */
  readonly mark: number;
  readonly table: number;
  /** Server: source address of what leaves this host; '' is the address of the outgoing interface. */
  readonly externalIp: string;
  /** Client: through which the links leave; '' follows the main routing table. */
  readonly gateway: string;
  /** The device behind which it is; `prepareHost` finds it. */
  readonly gatewayDevice?: string;
  /** UDP port of the server. */
  readonly port: number;
  /** Client: addresses of the server that are known. */
  readonly servers?: readonly string[];
  /** Client: the links that are bound to something; none where there is one that is not. */
  readonly links?: readonly HostLink[];
  /** Client: how many links there may come to be. */
  readonly mostLinks?: number;
  /** Client: interfaces with a default route are links too. */
  readonly isAuto?: boolean;
  /** Client: nothing but the tunnel's own packets leaves, also after its end until `vpn cleanup`. */
  readonly killSwitch?: boolean;
  /** Client: name servers once connected. */
  readonly dns?: readonly string[];
  /** How that is done here; `prepareHost` finds it. */
  readonly naming?: Naming;
  /** What the rules of the kill switch are called; `prepareHost` chooses it. */
  readonly switchName?: string;
}

type Table = 'filter4' | 'filter6' | 'raw4' | 'raw6' | 'nat4' | 'nat6' | 'mangle4' | 'mangle6';
/** Where what is forwarded is limited, and where the rest is accepted. */
const FORWARD4 = ['mangle4', 'filter4'] as const;
const FORWARD6 = ['mangle6', 'filter6'] as const;
type VariableName = (typeof SCALARS)[number] | (typeof LISTS)[number];
type AllVariables = Readonly<Record<VariableName, string | readonly string[]>>;

/**
 * The marks by which other tunnels (wg-quick) exempt their own datagrams from their routes, as
 * `mark/mask`. `ownMark`: what was asked for, 0 for one of ours.
 */
export function foreignMarks(rules: readonly PolicyRule[], ownMark: number): readonly string[] {
  const isOwn = ({ mark, mask }: PolicyRule): boolean =>
    ownMark === 0 ? mark === FIRST_NUMBER && mask === MARKS_MASK : mark === ownMark;
  const marks = rules
    .filter((rule) => rule.isInverted && rule.mark !== 0 && !isOwn(rule))
    .map(({ mark, mask }) => `0x${mark.toString(16)}/0x${mask.toString(16)}`);
  return [...new Set(marks)];
}

/** Throws when an inner address belongs to another interface. */
function checkAddresses(settings: HostSettings, facts: Facts): void {
  for (const address of [settings.localIp, settings.peerIp, settings.localIp6, settings.peerIp6]) {
    if (address === '') continue;
    for (const [held, device] of facts.addresses) {
      if (canonicalAddress(held) !== canonicalAddress(address) || device === settings.tun) continue;
      throw new Failure(
        `tunnel address "${address}"`,
        `interface "${device}" has it already`,
        'give another pair of tunnel addresses on both ends, or stop what uses it',
      );
    }
  }
}

/** The interfaces, other than the tunnel, that have such an address. */
function outerDevices(settings: HostSettings, facts: Facts, address: RegExp): readonly string[] {
  const devices = [...facts.addresses]
    .filter(([held]) => address.test(held))
    .map(([, device]) => device);
  return [...new Set(devices)].filter(
    (device) => !/^lo\d*$/.test(device) && device !== settings.tun,
  );
}

/** Where `externalIp` is, and how to leave from there. */
function externalRoute(
  settings: HostSettings,
  facts: Facts,
): { readonly device: string; readonly via: readonly string[]; readonly isElsewhere: boolean } {
  const wanted = canonicalAddress(settings.externalIp);
  const addresses = [...facts.addresses].map(([address, device]) => ({ address, device }));
  const holder = addresses.find(({ address }) => canonicalAddress(address) === wanted)?.device;
  if (holder === undefined) {
    const own = addresses.filter(({ device }) => device !== 'lo' && device !== settings.tun);
    throw new Failure(
      `external address "${settings.externalIp}"`,
      'no interface of this host has it',
      `give auto, or one of ${own.map(({ address }) => address).join(', ')}`,
    );
  }
  const defaults = isIPv6(wanted) ? facts.defaults6 : facts.defaults4;
  const best = defaults[0];
  // An address on the loopback interface leaves by whatever the routes say.
  const device = holder === 'lo' ? (best?.device ?? holder) : holder;
  if (best === undefined || best.device === device) return { device, via: [], isElsewhere: false };
  const route = defaults.find((one) => one.device === device);
  if (route === undefined || isIPv6(wanted) || facts.oneTable) {
    throw new Failure(
      `external address "${settings.externalIp}"`,
      `it is on "${device}", but the default route leaves by "${best.device}"`,
      facts.oneTable ? 'give auto' : `add a default route by "${device}", or give auto`,
    );
  }
  return { device, via: route.gateway === '' ? [] : [route.gateway], isElsewhere: true };
}

/** What the rows of os.ts may `need`, and their variables. */
export class Situation {
  readonly #settings: HostSettings;
  readonly #facts: Facts;
  readonly #runner: Runner;
  readonly variables: AllVariables;
  readonly #needs = new Set<string>();
  readonly #numbers: Numbers;
  readonly #tag: string;
  /** Neighbours that are answered. */
  readonly proxied: readonly Proxied[];
  /** Said once, by `prepareHost`. */
  readonly warnings: string[] = [];

  /** Throws a `Failure` where the host lacks what cannot be done without. */
  constructor(settings: HostSettings, facts: Facts, numbers: Numbers, tag: string, runner: Runner) {
    this.#settings = settings;
    this.#facts = facts;
    this.#runner = runner;
    this.#numbers = numbers;
    this.#tag = tag;
    this.proxied = settings.proxyArp === true ? proxiedBy(settings, facts) : [];
    const { role, gateway, externalIp } = settings;
    const routes = [...new Set(settings.routes)];
    const net4 = routes.filter((cidr) => !cidr.includes(':'));
    const net6 = routes.filter((cidr) => cidr.includes(':'));
    const isDefault = settings.defaultRoutes && !pointToPoint;
    const isServer = role === 'server';
    const isSplit = !isServer && routes.length > 0;
    const isEverything = !isServer && isDefault && !isSplit;
    const site = siteOf(settings, isDefault, isEverything);
    checkAddresses(settings, facts);
    const external =
      isServer && isDefault && externalIp !== '' && facts.present.has('addresses')
        ? externalRoute(settings, facts)
        : undefined;
    const list = (value: string): readonly string[] => (value === '' ? [] : [value]);
    const marks = switchMarks(settings.mark, numbers);
    const is6 = (value: string): boolean => value.includes(':');
    this.variables = {
      TUN: settings.tun,
      MTU: String(settings.mtu),
      LOCAL: list(settings.localIp),
      PEER: list(settings.peerIp),
      LOCAL6: list(settings.localIp6),
      PEER6: list(settings.peerIp6),
      ON_LINK4: list(settings.onLink?.ip4 ?? ''),
      ON_LINK6: list(settings.onLink?.ip6 ?? ''),
      MARK: String(numbers.mark),
      MARKS:
        settings.mark === 0
          ? `0x${FIRST_NUMBER.toString(16)}/0x${MARKS_MASK.toString(16)}`
          : String(numbers.mark),
      TABLE: String(numbers.table),
      TABLE_OUT: String(numbers.tableOut),
      PREF_OUT: String(numbers.preference),
      PREF_MAIN: String(numbers.preference + 1),
      PREF: String(numbers.preference + 2),
      TAG: tag,
      NET4: net4,
      NET6: net6,
      EXT_IF: external === undefined ? [] : [external.device],
      EXT_VIA: external?.via ?? [],
      EXT4: external === undefined || is6(externalIp) ? [] : [externalIp],
      EXT6: external === undefined || !is6(externalIp) ? [] : [externalIp],
      GATEWAY4: isServer || is6(gateway) ? [] : list(gateway),
      GATEWAY6: isServer || !is6(gateway) ? [] : list(gateway),
      GATEWAY_IF: list(settings.gatewayDevice ?? ''),
      RA_IF: facts.advertisedInterfaces,
      CHAIN4: forwardChains(facts, '4'),
      CHAIN6: forwardChains(facts, '6'),
      FOREIGN: isServer ? [] : foreignMarks(facts.rules, settings.mark),
      // An IPv6 header more than the 20 bytes of TCP.
      MSS: String(settings.mtu - 60),
      OUT_IF4: outerDevices(settings, facts, /^(?!127\.)[\d.]+$/),
      OUT_IF6: outerDevices(settings, facts, /^(?!fe80:|::1$).*:/),
      // Those of `Platform.reach` come with each address of the server.
      SERVER4: [],
      SERVER6: [],
      VIA: [],
      VIA_IF: [],
      // Those of `Platform.link` and `linkRoute` come with each link.
      LINK_MARK: [],
      LINK_TABLE: [],
      LINK_PREF: [],
      LINK_TO: [],
      LINK_VIA: [],
      LINK_IF: [],
      STRICT_IF: [],
      ...site.variables,
      // Those of `Platform.proxy` come with each interface.
      PROXY_IF: [],
      PROXY4: [],
      PROXY6: [],
      SWITCH: settings.switchName ?? '',
      SWITCH_MARK: marks.masked,
      SWITCH_RANGE: marks.ranges,
      DNS: settings.dns ?? [],
      DNS_NAME: list(settings.naming?.entry ?? ''),
    };
    const hold = (need: string, holds: boolean): void => {
      if (holds) this.#needs.add(need);
    };
    for (const name of facts.present) this.#needs.add(name);
    for (const family of ['4', '6'] as const) {
      const tables = ['filter', 'raw', 'mangle', 'nat'] as const;
      hold(
        `nft${family}`,
        tables.some((name) => facts.present.has(`nft-${name}${family}`)),
      );
    }
    hold('tun', settings.onLink === undefined);
    hold('tap', settings.onLink !== undefined);
    hold('default', isDefault);
    hold('everything', isEverything);
    hold('split', isSplit);
    hold('route4', isEverything || (isSplit && net4.length > 0));
    hold(
      'route6',
      facts.hasIpv6 &&
        facts.present.has('rules6') &&
        (isEverything || (isSplit && net6.length > 0)),
    );
    hold('clamp', isDefault || routes.length > 0 || site.isSite);
    hold('site', site.isSite);
    hold('limited', site.isLimited);
    hold('proxy', settings.proxyArp === true && !site.isLimited);
    hold('gateway4', !is6(gateway) && gateway !== '');
    hold('gateway6', is6(gateway));
    hold('external-route4', external?.isElsewhere ?? false);
    hold('external-link4', (external?.isElsewhere ?? false) && external?.via.length === 0);
    if (settings.killSwitch) {
      for (const need of switchNeeds(facts, isEverything)) this.#needs.add(need);
    }
    for (const need of settings.naming?.needs ?? []) this.#needs.add(need);
    this.#check(isServer && isDefault);
    this.warnings.push(...nameServerWarnings(settings, facts, isEverything));
  }

  get #hasIpv6(): boolean {
    const { localIp6, tun } = this.#settings;
    const { hasIpv6, ipv6OnEveryDevice } = this.#facts;
    if (localIp6 === '') return false;
    return ipv6OnEveryDevice ? hasIpv6 : isIpv6Usable(this.#runner, tun);
  }

  /** iptables can do it, or nft in its place. */
  #has(table: Table): boolean {
    const { present } = this.#facts;
    return present.has(table) || present.has(`nft-${table}`);
  }

  /** A client whose default route is the tunnel. */
  get takesEverything(): boolean {
    return this.#needs.has('everything');
  }

  /** See `HostSetup.ipv6Leaves`. The device may come into being between two calls. */
  get ipv6Leaves(): boolean {
    const { defaults6, cannotForward6 } = this.#facts;
    return (
      cannotForward6 !== true &&
      this.#settings.role === 'server' &&
      this.#needs.has('default') &&
      this.#hasIpv6 &&
      defaults6.length > 0 &&
      this.#has('nat6') &&
      this.#has('filter6')
    );
  }

  /** The needs that hold. `serverIpv6`: what the server says of itself. */
  needs(serverIpv6: boolean): ReadonlySet<string> {
    const needs = new Set(this.#needs);
    const hasIpv6 = this.#hasIpv6;
    const hasNetworks6 =
      this.variables.NET6.length > 0 ||
      this.variables.ALLOW6.length > 0 ||
      this.proxied.some(({ addresses6 }) => addresses6.length > 0);
    if (hasIpv6) needs.add('ipv6');
    if (this.ipv6Leaves) needs.add('ipv6-leaves');
    const canForward = hasIpv6 && this.#has('filter6') && this.#facts.cannotForward6 !== true;
    if (this.ipv6Leaves || (canForward && hasNetworks6)) {
      needs.add('ipv6-forward');
    }
    // Networks that are named are behind the server or nowhere; there is nothing to keep from leaking.
    const isThrough = serverIpv6 || needs.has('split');
    needs.add(hasIpv6 && isThrough ? 'through6' : 'blocked6');
    return needs;
  }

  /** The same host, with other networks. Throws a `Failure`. */
  with(networks: Pick<HostSettings, 'routes' | 'allow'>): Situation {
    const settings = { ...this.#settings, ...networks };
    return new Situation(settings, this.#facts, this.#numbers, this.#tag, this.#runner);
  }

  #check(translates: boolean): void {
    const { present, reasons, defaults4, defaults6, hasIpv6, cannotForward6, remedies } =
      this.#facts;
    const because = (probe: ProbeName): string => {
      const inPlace = PROBES.find((name) => name === `nft-${probe}`) ?? probe;
      const said = [...new Set([reasons.get(probe), reasons.get(inPlace)])];
      return said.filter((why) => why !== undefined).join(', and ');
    };
    if (!present.has('addresses')) {
      throw new Failure(
        'cannot read the addresses of this host',
        because('addresses'),
        remedies?.addresses ?? 'install iproute2, or check PATH',
      );
    }
    if (translates && !(this.#has('nat4') && this.#has('filter4'))) {
      throw new Failure(
        'cannot set up NAT',
        because(this.#has('nat4') ? 'filter4' : 'nat4'),
        remedies?.nat ?? 'install iptables or nftables, or pass --no-default-routes',
      );
    }
    const needed = this.#hasIpv6 ? [...FORWARD4, ...FORWARD6] : FORWARD4;
    const missing = needed.find((table) => !this.#has(table));
    if (this.#needs.has('limited') && missing !== undefined) throw cannotLimit(because(missing));
    this.warnings.push(...proxyWarnings(this.#settings, this.proxied));
    for (const name of ['rules4', 'rules6', 'routes4', 'routes6'] as const) {
      const counts = reasons.has(name) && (hasIpv6 || name.endsWith('4'));
      if (counts) this.warnings.push(`${because(name)}: taken for none`);
    }
    if (this.#needs.has('everything') && hasIpv6 && reasons.has('rules6')) {
      throw new Failure(
        'cannot keep IPv6 inside the tunnel',
        because('rules6'),
        'switch IPv6 off, or pass --no-default-routes',
      );
    }
    const ipv6 = this.#hasIpv6;
    if (this.#settings.localIp6 !== '' && !ipv6) {
      const why = hasIpv6
        ? `net.ipv6.conf.${this.#settings.tun}.disable_ipv6 is 1`
        : 'this kernel has none';
      this.warnings.push(`IPv6 is off (${why}): the tunnel carries IPv4 only`);
    }
    const exposed = 'neighbours can probe for the tunnel address (CVE-2019-14899)';
    if (!this.#has('raw4')) {
      this.warnings.push(`no raw table for iptables: ${because('raw4')}: ${exposed}`);
    } else if (ipv6 && !this.#has('raw6')) {
      this.warnings.push(`no raw table for ip6tables: ${because('raw6')}: ${exposed}`);
    }
    if (translates && defaults4.length === 0 && !reasons.has('routes4')) {
      this.warnings.push('no default route: the client gets no further than networks of this host');
    }
    if (translates && ipv6 && defaults6.length > 0 && cannotForward6 === true) {
      this.warnings.push('IPv6 forwarding cannot be set: IPv6 does not leave this server');
    } else if (translates && ipv6 && defaults6.length > 0 && !this.#has('nat6')) {
      this.warnings.push(`no IPv6 NAT: ${because('nat6')}: IPv6 does not leave this server`);
    }
  }
}
