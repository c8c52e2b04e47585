/**
 * Who may be reached by way of this host: what of the tunnel is let through to its networks, and what of
 * them into the tunnel. Decides; changes nothing. os/site.ts has the rows.
 */
import type { Facts } from './facts.ts';
import type { Proxied } from './proxies.ts';
import { Failure } from './report.ts';
import type { HostSettings } from './situation.ts';

export interface Site {
  /** Packets are forwarded because --allow or --proxy-arp asks for it. */
  readonly isSite: boolean;
  /**
   * Nothing else passes. Not so where a server is only told to answer for its client: then that may go
   * wherever it may without.
   */
  readonly isLimited: boolean;
  readonly variables: Readonly<Record<SiteVariable, readonly string[]>>;
}

export type SiteVariable = 'FROM4' | 'FROM6' | 'TO4' | 'TO6' | 'ALLOW4' | 'ALLOW6';

const EVERYWHERE = ['0.0.0.0/0', '::/0'];

/** `isDefault`: the tunnel is the default route of its client; `isEverything`: and this is the client. */
export function siteOf(settings: HostSettings, isDefault: boolean, isEverything: boolean): Site {
  const { role, peerIp, peerIp6, routes, allow = [], proxyArp = false } = settings;
  const isServer = role === 'server' && isDefault;
  const peer = [peerIp, peerIp6].filter((address) => address !== '');
  const from = isEverything ? EVERYWHERE : [...peer, ...routes];
  // Nobody opens connections to a client that leaves by the NAT of its server.
  const to = isServer && !proxyArp ? routes : from;
  const of = (all: readonly string[], is6: boolean): readonly string[] => [
    ...new Set(all.filter((one) => one.includes(':') === is6)),
  ];
  return {
    isSite: allow.length > 0 || proxyArp,
    isLimited: allow.length > 0 || (proxyArp && !isServer),
    variables: {
      FROM4: of(from, false),
      FROM6: of(from, true),
      TO4: of(to, false),
      TO6: of(to, true),
      ALLOW4: of(allow, false),
      ALLOW6: of(allow, true),
    },
  };
}

export function cannotLimit(why: string): Failure {
  const remedy = 'install iptables or nftables, or pass neither --allow nor --proxy-arp';
  return new Failure('cannot limit what is forwarded', why, remedy);
}

/** What --proxy-arp asks for in vain. */
export function proxyWarnings(
  { proxyArp, peerIp }: HostSettings,
  proxied: readonly Proxied[],
): readonly string[] {
  if (proxyArp !== true) return [];
  if (proxied.length === 0) {
    return [`proxy ARP: no network of this host has "${peerIp}" or a --route in it`];
  }
  return proxied
    .flatMap(({ networks6 }) => networks6)
    .map((network) => `proxy ARP: nothing answers for ${network}: only for single addresses`);
}

/** Tables that an instance makes for itself (os/nft.ts). */
const OWN_TABLE = /^vpn-\d+$/;

/** Chains of others, besides those that iptables reaches, that may drop what is forwarded. */
export function forwardChains(facts: Facts, to: '4' | '6'): readonly string[] {
  const family = to === '4' ? 'ip' : 'ip6';
  return facts.chains
    .filter((one) => [family, 'inet'].includes(one.family) && !OWN_TABLE.test(one.table))
    .filter(
      (one) =>
        !(facts.isIptablesNft && facts.present.has(`filter${to}`)) ||
        `${one.family} ${one.table} ${one.chain}` !== `${family} filter FORWARD`,
    )
    .map((one) => `${one.family} ${one.table} ${one.chain}`);
}
