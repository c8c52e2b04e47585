/**
 * Programs whose streams test/bonding-bench.ts measures: each builds what it needs over the links it is
 * given and says where to send. Programs that bond are told the rates of the links.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { connected, EXECUTABLE, makeKey, startClient, startServer } from './ends.ts';
import { inPath, pass, until, type Bed, type Host } from './netns.ts';
import type { LinkFigures } from './profiles.ts';
import { reaches } from './traffic.ts';
import type { WanLink } from './wan.ts';

export interface Ground {
  readonly bed: Bed;
  readonly client: Host;
  readonly server: Host;
  /** The client's end of each is a, the server's b. */
  readonly links: readonly WanLink[];
  readonly figures: readonly LinkFigures[];
}

export interface Program {
  readonly name: string;
  /** Of what is measured: another one is measured anew. */
  readonly version: string;
  /** What must be in PATH for it. */
  readonly tools: readonly string[];
  /** Returns the address that the stream is sent to. */
  start(ground: Ground): Promise<string>;
}

export const plainTcp: Program = {
  name: 'TCP',
  version: '',
  tools: [],
  start: ({ links }) => Promise.resolve(links[0]!.ipB),
};

export const vpn: Program = {
  name: 'vpn',
  version: existsSync(EXECUTABLE)
    ? createHash('sha256').update(readFileSync(EXECUTABLE)).digest('hex').slice(0, 8)
    : 'missing',
  tools: [],
  async start({ bed, client, server, links }) {
    const [serverIp, clientIp] = ['192.168.200.254', '192.168.200.1'];
    // The links are tun devices too: the tunnel's has a name of its own.
    const common = { key: makeKey(bed), port: 4430, tun: 'vpn0', options: ['--no-default-routes'] };
    startServer(bed, server, { ...common, localIp: serverIp, peerIp: clientIp });
    const addresses = { address: links[0]!.ipB, localIp: clientIp, peerIp: serverIp };
    // Each link leads to an address of the server's own; one alone needs no option.
    const bonded = links.flatMap(({ device, ipB }) => ['--link', `${device},remote=${ipB}:4430`]);
    const options = [...common.options, ...(links.length > 1 ? bonded : [])];
    await connected(startClient(bed, client, { ...common, ...addresses, options }), serverIp);
    if (links.length > 1) await pass(LINKS_UP_MS);
    return serverIp;
  },
};

/** Until every link was probed. */
const LINKS_UP_MS = 1_000;

const PEER_SERVER = '10.60.0.1';
const PEER_CLIENT = '10.60.0.2';

/** Gives the two ends of a peer's tunnel their addresses, and waits for the first answer. */
async function raiseTunnel({ client, server }: Ground, device: string): Promise<string> {
  for (const [host, own, other] of [
    [server, PEER_SERVER, PEER_CLIENT],
    [client, PEER_CLIENT, PEER_SERVER],
  ] as const) {
    await until(
      `${device} of ${host.name}`,
      () => host.try([`ip link show ${device}`]).status === 0,
    );
    host.run(`ip address replace ${own} peer ${other} dev ${device}`);
    host.run(`ip link set ${device} up`);
  }
  await reaches(client, PEER_SERVER, 30_000);
  return PEER_SERVER;
}

const bytesPerSecond = ({ rateMbit }: LinkFigures): number => (rateMbit * 1e6) / 8;

/** MLVPN, with its example configuration. */
const mlvpn: Program = {
  name: 'MLVPN',
  version: '',
  tools: ['mlvpn'],
  async start(ground) {
    const { bed, client, server, links, figures } = ground;
    const general = (mode: string): string =>
      `[general]\nmode = "${mode}"\ntuntap = "tun"\ninterface_name = "mlvpn0"\nmtu = 1432\n` +
      `timeout = 30\nreorder_buffer_size = 64\npassword = "measured"\nloss_tolerence = 50\n`;
    const sections = (isServer: boolean): string =>
      links
        .map((link, i) => {
          const [own, port] = [isServer ? link.ipB : link.ipA, 5080 + i];
          const ends = isServer
            ? `bindport = ${port}`
            : `remotehost = "${link.ipB}"\nremoteport = ${port}`;
          const rate = `bandwidth_upload = ${bytesPerSecond(figures[i]!)}`;
          return `[link${i}]\nbindhost = "${own}"\n${ends}\n${rate}\n`;
        })
        .join('');
    for (const [host, mode] of [
      [server, 'server'],
      [client, 'client'],
    ] as const) {
      const file = bed.file(`mlvpn-${mode}.conf`);
      bed.write(file, general(mode) + sections(mode === 'server'));
      host.start(['mlvpn', '--yes-run-as-root', '--name', `measured-${mode}`, '-c', file]);
    }
    return raiseTunnel(ground, 'mlvpn0');
  },
};

/** glorytun 0.3, whose server has one address for all links. */
const glorytun: Program = {
  name: 'glorytun',
  version: '',
  tools: ['glorytun'],
  async start(ground) {
    const { bed, client, server, links, figures } = ground;
    const [service, device] = ['10.61.0.1', `gt${process.pid}`];
    server.run(`ip address add ${service}/32 dev lo`);
    for (const [i, { device: outward, ipA }] of links.entries()) {
      client.run(`ip route add ${service} dev ${outward} metric ${100 + i}`);
      client.run(`ip route add ${service} dev ${outward} table ${100 + i}`);
      client.run(`ip rule add from ${ipA} lookup ${100 + i}`);
    }
    const key = bed.file('glorytun.key');
    bed.write(key, `${server.run('glorytun keygen').trim()}\n`);
    // The name of the device is also that of a socket outside the namespace.
    const names = { [server.name]: `${device}s`, [client.name]: `${device}c` };
    server.start(`glorytun bind ${service} dev ${names[server.name]} keyfile ${key}`.split(' '));
    const to = `to ${service} dev ${names[client.name]} keyfile ${key}`;
    client.start(`glorytun bind 0.0.0.0 ${to}`.split(' '));
    for (const host of [server, client]) {
      const own = names[host.name]!;
      await until(own, () => host.try([`ip link show ${own}`]).status === 0);
      host.run(`ip link set ${own} name gt0`);
    }
    for (const [i, { ipA }] of links.entries()) {
      const rate = Math.round(bytesPerSecond(figures[i]!));
      const path = `path ${ipA} dev ${names[client.name]} up rate tx ${rate} rx ${rate}`;
      client.run(`glorytun ${path}`);
    }
    return raiseTunnel(ground, 'gt0');
  },
};

/** Those that are installed. */
export const bondingPeers: readonly Program[] = [mlvpn, glorytun].filter(({ tools }) =>
  tools.every(inPath),
);
