/** The two ends of a tunnel, run from the real executable. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { Daemon, Host, until, type Bed } from './netns.ts';
import { answers } from './traffic.ts';

export const EXECUTABLE = resolve(
  process.env['VPN_EXECUTABLE'] ?? resolve(import.meta.dirname, '../dist/vpn'),
);
/** The node that the executable embeds: for helper programs inside hosts. */
export const NODE = resolve(
  import.meta.dirname,
  `../node_modules/node-${process.platform}-${process.arch}/bin/node`,
);

export const SERVER_IP = '192.168.192.254';
export const CLIENT_IP = '192.168.192.1';

export function makeKey(bed: Bed): string {
  const file = bed.file('key');
  bed.write(file, `${randomBytes(32).toString('base64')}\n`);
  return file;
}

export interface EndOptions {
  readonly key: string;
  /** Positional arguments after the key; what is left out is "auto". */
  readonly port?: number;
  readonly tun?: string;
  readonly localIp?: string;
  readonly peerIp?: string;
  /** `<address>` of a server, `<server>` of a client. */
  readonly address?: string;
  /** `<external ip>` or `<gateway ip>`. */
  readonly last?: string;
  /** Options after the positional arguments. */
  readonly options?: readonly string[];
  /** Where the journal is kept; a directory of the end's own unless given. '' for the program's default. */
  readonly stateDir?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly wrapper?: readonly string[];
}

/** A running `vpn server` or `vpn client`. */
export class End {
  readonly host: Host;
  readonly daemon: Daemon;
  readonly stateDir: string;

  constructor(host: Host, daemon: Daemon, stateDir: string) {
    this.host = host;
    this.daemon = daemon;
    this.stateDir = stateDir;
  }

  /** The tun device of the host (the first, when there are several). */
  get tun(): string {
    const device = tunDevices(this.host)[0];
    if (device === undefined) throw new Error(`${this.host.name} has no tun device`);
    return device;
  }

  get tunMtu(): number {
    return Number(/mtu (\d+)/.exec(this.host.run(`ip link show ${this.tun}`))?.[1]);
  }

  /** The IPv6 address inside the tunnel. */
  get inner6(): string {
    const text = this.host.run(`ip -6 -o address show dev ${this.tun} scope global`);
    const address = /inet6 ([0-9a-f:]+)/.exec(text)?.[1];
    if (address === undefined) throw new Error(`${this.tun} has no IPv6 address: ${text}`);
    return address;
  }

  /** Packets that the tunnel delivered to this host. */
  get delivered(): number {
    return Number(this.host.run(`cat /sys/class/net/${this.tun}/statistics/rx_packets`));
  }

  /** What is left in the journal's directory. */
  journals(): string[] {
    return existsSync(this.stateDir) ? readdirSync(this.stateDir) : [];
  }
}

export function tunDevices(host: Host): string[] {
  const text = host.run('ip -o link show type tun');
  return [...text.matchAll(/^\d+: ([^:@]+)/gm)].map((match) => match[1]!);
}

function start(bed: Bed, host: Host, role: 'server' | 'client', options: EndOptions): End {
  if (!existsSync(EXECUTABLE)) throw new Error(`${EXECUTABLE} is missing: npm run build`);
  const stateDir = options.stateDir ?? bed.file('state');
  if (stateDir !== '') mkdirSync(stateDir, { recursive: true });
  const positional = [
    options.address ?? 'auto',
    String(options.port ?? 'auto'),
    options.tun ?? 'auto',
    options.localIp ?? 'auto',
    options.peerIp ?? 'auto',
    options.last ?? 'auto',
  ];
  const hidden = stateDir === '' ? [] : ['--state-dir', stateDir];
  const daemon = host.start(
    [EXECUTABLE, role, options.key, ...positional, ...(options.options ?? []), ...hidden],
    {
      env: options.env ?? {},
      wrapper: options.wrapper ?? [],
    },
  );
  return new End(host, daemon, stateDir);
}

export const startServer = (bed: Bed, host: Host, options: EndOptions): End =>
  start(bed, host, 'server', options);

export const startClient = (
  bed: Bed,
  host: Host,
  options: EndOptions & { readonly address: string },
): End => start(bed, host, 'client', options);

/** Waits until a ping from the client reaches the server's end of the tunnel. */
export async function connected(
  client: End,
  serverIp = SERVER_IP,
  withinMs = 20_000,
): Promise<void> {
  try {
    await until(
      `a tunnel to ${serverIp}`,
      () => {
        if (client.daemon.exit !== undefined) throw new Error('the client ended');
        return answers(client.host, serverIp);
      },
      withinMs,
    );
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${client.daemon.output}`);
  }
}

/**
 * Waits until a connected client has taken the default routes: the inner network answers before, and
 * what goes to others still leaves outside the tunnel then.
 */
export async function routed({ host }: End): Promise<void> {
  // The last of its changes.
  await until('the rule into the tunnel', () =>
    /not from all fwmark 0x1000\//.test(host.run('ip rule')),
  );
}

export interface Tunnel {
  readonly server: End;
  readonly client: End;
  readonly key: string;
}

/** A server and a client with one key, connected, and with all its routes. `both` go to both ends. */
export async function tunnel(
  bed: Bed,
  hosts: { readonly server: Host; readonly client: Host },
  address: string,
  ends: {
    readonly both?: readonly string[];
    readonly server?: readonly string[];
    readonly client?: readonly string[];
  } = {},
): Promise<Tunnel> {
  const key = makeKey(bed);
  const both = ends.both ?? [];
  const server = startServer(bed, hosts.server, {
    key,
    options: [...both, ...(ends.server ?? [])],
  });
  const options = [...both, ...(ends.client ?? [])];
  const client = startClient(bed, hosts.client, { key, address, options });
  await connected(client);
  const takesLess = options.includes('--no-default-routes') || options.includes('--route');
  if (!takesLess) await routed(client);
  return { server, client, key };
}

/** The port from which the client's datagrams come. */
export function clientPort(client: Host, serverPort = 443): number {
  for (const line of client.run('ss -Huanp').split('\n')) {
    const local = line.split(/\s+/)[3];
    const port = Number(local?.slice(local.lastIndexOf(':') + 1));
    if (/"(vpn[^"]*|node|MainThread)"/.test(line) && port !== serverPort) return port;
  }
  throw new Error('the client has no UDP socket');
}
