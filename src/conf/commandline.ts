/** The `DaemonConfig` of `vpn server` and `vpn client`: what a file says under the names of its keys. */
import { parseFilter } from '../configwords.ts';
import type { Config } from '../config.ts';
import type { Arguments } from '../options.ts';
import { PLAIN_LINK } from '../peering.ts';
import { UsageFailure } from '../report.ts';
import type { DaemonConfig, DaemonLink, InnerIpv6 } from './config.ts';
import { listOf, numberOf, textOf } from './keyed.ts';

/** `config` was made of the same options. Throws a `UsageFailure`. */
export function daemonOf(config: Config, options: Arguments['options']): DaemonConfig {
  return Object.freeze({
    name: textOf(options, 'name'),
    naturalTitle: options.has('natural-title'),
    verbosity: verbosityOf(options),
    debug: options.has('debug'),
    debugTokens: listOf(options, 'debug-token'),
    statuscommand: textOf(options, 'statuscommand'),
    scriptEnvironment: scriptEnvironment(config, options),
    // Whoever wants no default routes says so: a script that is told takes nothing over.
    setsAddresses: true,
    innerIpv6: innerIpv6(options),
    mostMtu: config.mtu,
    reorderPackets: numberOf(options, 'reorder-buffer-size'),
    controlPath: textOf(options, 'control-unix-path'),
    controlAddress: textOf(options, 'control-bind-host'),
    controlPort: numberOf(options, 'control-bind-port'),
    filters: Object.freeze((options.get('filter') ?? []).map(parseFilter)),
    mayGrow: false,
    links: linksOf(config, numberOf(options, 'timeout') * 1000),
  });
}

/** As MLVPN counts: -v and -q against each other. */
function verbosityOf(options: Arguments['options']): number {
  const count = (name: 'verbose' | 'quiet'): number => options.get(name)?.length ?? 0;
  return Math.max(-1, count('verbose') - count('quiet'));
}

/** Both or none. */
function innerIpv6(options: Arguments['options']): InnerIpv6 {
  const [local] = textOf(options, 'ip6').split('/');
  const peer = textOf(options, 'ip6-gateway');
  if (local === '' && peer !== '') {
    throw new UsageFailure(`--ip6-gateway "${peer}"`, 'without --ip6', 'add --ip6 ADDRESS/PREFIX');
  }
  if (local !== '' && peer === '') {
    const remedy = 'add --ip6-gateway, the address of the other end';
    throw new UsageFailure(`--ip6 "${local}"`, 'without --ip6-gateway', remedy);
  }
  if (local !== '' && local === peer) {
    const why = 'the same address as --ip6';
    throw new UsageFailure(`--ip6-gateway "${peer}"`, why, 'give each end its own');
  }
  return Object.freeze({ local, peer });
}

function linksOf(config: Config, timeoutMs: number): readonly DaemonLink[] {
  const own = { timeoutMs, fib: 0 };
  const links =
    config.role === 'client'
      ? config.links.map((link) => ({ ...link, ...own }))
      : // The client says what its links are called.
        config.listen.map(() => ({ ...PLAIN_LINK, ...own }));
  return Object.freeze(links.map((link) => Object.freeze(link)));
}

/** The addresses are those of two points. */
function scriptEnvironment(
  { localIp, peerIp, routes, mtu }: Config,
  options: Arguments['options'],
): Readonly<Record<string, string>> {
  const isIpv6 = (route: string): boolean => route.includes(':');
  return Object.freeze({
    IP4: `${localIp}/32`,
    IP6: textOf(options, 'ip6'),
    IP4_GATEWAY: peerIp,
    IP6_GATEWAY: textOf(options, 'ip6-gateway'),
    IP4_ROUTES: routes.filter((route) => !isIpv6(route)).join(' '),
    IP6_ROUTES: routes.filter(isIpv6).join(' '),
    MTU: mtu === 0 ? '' : String(mtu),
  });
}
