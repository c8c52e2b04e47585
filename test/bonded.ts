/**
 * A tunnel over several emulated links, each of which leads to an address of the server's own:
 *
 *            wan0  10.100.0.1 ── 10.100.0.2
 *   client                                   server
 *            wan1  10.101.0.1 ── 10.101.0.2
 */
import {
  connected,
  CLIENT_IP,
  makeKey,
  SERVER_IP,
  startClient,
  startServer,
  type End,
} from './ends.ts';
import { until, type Bed, type Host } from './netns.ts';
import { wan, type Figures, type WanLink } from './wan.ts';

export interface Bonded {
  readonly bed: Bed;
  readonly client: Host;
  readonly server: Host;
  /** The client's end of each is a, the server's b. */
  readonly links: readonly WanLink[];
  readonly ends: { readonly client: End; readonly server: End };
}

export interface BondedOptions {
  /** Of each link, the same both ways. */
  readonly figures: readonly Figures[];
  /** For both ends. */
  readonly options?: readonly string[];
  /** Of the first link; the others count on from there. */
  readonly seed?: number;
}

const PORT = 4430;
/** Links that are alive bring probes and reports within a second. */
const ALIVE_PACKETS = 10;

/** The hosts, the links and both ends; the client is not yet connected. */
export async function startBonded(
  bed: Bed,
  { figures, options = [], seed = 1 }: BondedOptions,
): Promise<Bonded> {
  const [client, server] = [bed.host('client'), bed.host('server')];
  const links: WanLink[] = [];
  for (const [i, both] of figures.entries())
    links.push(await wan(bed, client, server, { both, seed: seed + i }));
  return { bed, client, server, links, ends: startEnds(bed, client, server, links, options) };
}

/** Both ends of a tunnel over links that are there. */
export function startEnds(
  bed: Bed,
  client: Host,
  server: Host,
  links: readonly WanLink[],
  options: readonly string[] = [],
): Bonded['ends'] {
  // The links are tun devices too: the tunnel's has a name of its own.
  const common = { key: makeKey(bed), port: PORT, tun: 'vpn0' };
  const plain = [...options, '--no-default-routes'];
  const bonds = links.flatMap(({ device, ipB }) => ['--link', `${device},remote=${ipB}:${PORT}`]);
  return {
    server: startServer(bed, server, {
      ...common,
      localIp: SERVER_IP,
      peerIp: CLIENT_IP,
      options: plain,
    }),
    client: startClient(bed, client, {
      ...common,
      address: links[0]!.ipB,
      localIp: CLIENT_IP,
      peerIp: SERVER_IP,
      options: [...plain, ...bonds],
    }),
  };
}

/** The same, connected over every link. */
export async function bonded(bed: Bed, options: BondedOptions): Promise<Bonded> {
  const hosts = await startBonded(bed, options);
  await connected(hosts.ends.client);
  for (const link of hosts.links)
    await until(`packets back over ${link.device}`, async () => {
      const { bToA } = await link.stats();
      return bToA.delivered > ALIVE_PACKETS;
    });
  return hosts;
}
