/**
 * The local networks that hold addresses of what is behind the tunnel, and what this host is to answer for
 * there (RFC 1027 for ARP, RFC 4861 §7.2.8 for neighbour discovery). Decides; changes nothing.
 */
import type { Facts, Route } from './facts.ts';
import { contains } from './linkroutes.ts';
import type { Platform } from './os.ts';
import { expandRows } from './rules.ts';
import type { Change } from './rules.ts';
import type { HostSettings, Situation } from './situation.ts';

/** What is answered for on one interface. */
export interface Proxied {
  readonly device: string;
  readonly addresses4: readonly string[];
  readonly addresses6: readonly string[];
  /** Networks: ARP answers for them as a whole. */
  readonly networks4: readonly string[];
  /** For these nothing can answer. */
  readonly networks6: readonly string[];
}

/** rt_tables */
const TABLE_MAIN = 254;

type Wanted = Pick<HostSettings, 'tun' | 'peerIp' | 'peerIp6' | 'routes'>;

/** For each interface whose network has some of it. */
export function proxiedBy(settings: Wanted, facts: Facts): readonly Proxied[] {
  const { tun, peerIp, peerIp6, routes } = settings;
  const wanted = [peerIp, peerIp6, ...routes].filter((one) => one !== '');
  const local = [...facts.routes4, ...facts.routes6].filter((route) => isLocal(route, tun));
  return [...new Set(local.map(({ device }) => device))].flatMap((device) => {
    const networks = local.filter((route) => route.device === device);
    const here = wanted.filter((one) => networks.some((route) => holds(route.destination, one)));
    const [four, six] = [false, true].map((is6) => here.filter((one) => one.includes(':') === is6));
    const proxied = {
      device,
      addresses4: four.filter(isSingle).map(addressOf),
      addresses6: six.filter(isSingle).map(addressOf),
      networks4: four.filter((one) => !isSingle(one)),
      networks6: six.filter((one) => !isSingle(one)),
    };
    return here.length === 0 ? [] : [proxied];
  });
}

/** The rows of `Platform.proxy` for each of those interfaces. */
export function proxyChanges(
  { proxy = [] }: Platform,
  { variables, proxied }: Situation,
  needs: ReadonlySet<string>,
): readonly Change[] {
  return proxied.flatMap(({ device, addresses4, addresses6, networks4 }) => {
    const here = { PROXY_IF: [device], PROXY4: addresses4, PROXY6: addresses6 };
    const held = new Set(needs);
    if (networks4.length > 0) held.add('proxy-networks');
    if (addresses6.length > 0 && needs.has('ipv6-forward')) held.add('proxy6');
    return expandRows(proxy, { ...variables, ...here }, held);
  });
}

/** Whether it leads to a network of an interface of this host. */
function isLocal({ table, destination, device, gateway }: Route, tun: string): boolean {
  if (table !== TABLE_MAIN || gateway !== '' || device === tun || /^lo\d*$/.test(device)) {
    return false;
  }
  return destination.includes('/') && !/^fe80:/.test(destination);
}

function holds(network: string, one: string): boolean {
  const [address = '', bits] = one.split('/');
  const [, ownBits] = network.split('/');
  // A network here that is not larger is this one, or no part of it.
  const isPart = bits === undefined || Number(bits) > Number(ownBits);
  return isPart && contains(network, address);
}

const addressOf = (one: string): string => one.split('/')[0] ?? '';

const isSingle = (one: string): boolean => !one.includes('/') || /\/(32|128)$/.test(one);
