/**
 * The programs that are measured: each builds its own tunnel over one cable and says where its two
 * ends are. All run at the same time, in turn under load; an idle one costs next to nothing.
 */
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { connected, EXECUTABLE, makeKey, startClient, startServer } from './ends.ts';
import { inPath, run, until, type Bed, type Daemon } from './netns.ts';
import { reaches } from './traffic.ts';
import type { Pair } from './world.ts';

export const MTU = 1420;

export interface Contestant {
  readonly name: string;
  readonly version: string;
  readonly serverIp: string;
  readonly client?: Daemon;
  readonly server?: Daemon;
}

/** A contestant, or the reason why it is not there. */
export type Entry = (bed: Bed, pair: Pair) => Promise<Contestant | string>;

const firstLine = (command: string): string => {
  const { stdout, stderr } = run([command], 5000);
  return (stdout + stderr).trim().split('\n')[0]!.trim();
};

export const bareCable: Entry = async (_bed, { server }) => {
  const [address] = /10\.1\.0\.\d+/.exec(server.run('ip -4 address show dev eth0'))!;
  return { name: 'veth, no tunnel', version: '', serverIp: address };
};

/** `index` keeps several pairs of ends apart: port, addresses. */
export function vpn(index: number, options: readonly string[]): Entry {
  return async (bed, { client: near, server: far }) => {
    if (!existsSync(EXECUTABLE)) return 'dist/vpn is missing: npm run build';
    const key = makeKey(bed);
    const [serverIp, clientIp] = [`192.168.${200 + index}.254`, `192.168.${200 + index}.1`];
    const common = {
      key,
      port: 4430 + index,
      options: ['--no-default-routes', '--mtu', String(MTU), ...options],
    };
    const server = startServer(bed, far, { ...common, localIp: serverIp, peerIp: clientIp });
    const client = startClient(bed, near, {
      ...common,
      address: '10.1.0.2',
      localIp: clientIp,
      peerIp: serverIp,
    });
    await connected(client, serverIp);
    return {
      name: ['vpn', ...options].join(' '),
      version: firstLine(`${EXECUTABLE} --version`),
      serverIp,
      client: client.daemon,
      server: server.daemon,
    };
  };
}

interface WireguardKey {
  readonly secret: string;
  readonly open: string;
}

function wireguardKey(): WireguardKey {
  const { privateKey } = generateKeyPairSync('x25519');
  const { d, x } = privateKey.export({ format: 'jwk' });
  const hex = (text: string | undefined): string => Buffer.from(text!, 'base64url').toString('hex');
  return { secret: hex(d), open: hex(x) };
}

/** Sends one "set" of WireGuard's cross-platform interface to the daemon's socket. */
async function configure(device: string, lines: readonly string[]): Promise<void> {
  const path = `/var/run/wireguard/${device}.sock`;
  await until(`${path}`, () => existsSync(path));
  const socket = connect(path);
  socket.end(`set=1\n${lines.join('\n')}\n\n`);
  let answer = '';
  for await (const piece of socket) answer += String(piece);
  if (!answer.includes('errno=0')) throw new Error(`wireguard-go refused: ${answer}`);
}

export const wireguardGo: Entry = async (_bed, { client: near, server: far }) => {
  if (!inPath('wireguard-go')) return 'wireguard-go is not in PATH';
  // The socket's name is the device's, and namespaces share the directory.
  const [nearDevice, farDevice] = [`wgc${process.pid}`, `wgs${process.pid}`];
  const options = { env: { WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD: '1' } };
  const client = near.start(['wireguard-go', '-f', nearDevice], options);
  const server = far.start(['wireguard-go', '-f', farDevice], options);
  process.once('exit', () => {
    for (const device of [nearDevice, farDevice])
      rmSync(`/var/run/wireguard/${device}.sock`, { force: true });
  });
  const [nearKey, farKey] = [wireguardKey(), wireguardKey()];
  await configure(nearDevice, [
    `private_key=${nearKey.secret}`,
    `public_key=${farKey.open}`,
    'endpoint=10.1.0.2:51820',
    'allowed_ip=10.50.0.0/24',
  ]);
  await configure(farDevice, [
    `private_key=${farKey.secret}`,
    'listen_port=51820',
    `public_key=${nearKey.open}`,
    'allowed_ip=10.50.0.0/24',
  ]);
  for (const [host, device, address] of [
    [near, nearDevice, '10.50.0.1/24'],
    [far, farDevice, '10.50.0.2/24'],
  ] as const) {
    host.run(`ip address add ${address} dev ${device}`);
    host.run(`ip link set ${device} mtu ${MTU} up`);
  }
  await reaches(near, '10.50.0.2');
  const version = firstLine('wireguard-go --version').replace(/^wireguard-go v?/, '');
  return { name: 'wireguard-go', version, serverIp: '10.50.0.2', client, server };
};

export const openvpn: Entry = async (bed, { client: near, server: far }) => {
  if (!inPath('openvpn')) return 'openvpn is not in PATH';
  if (!inPath('openssl')) return 'openvpn needs openssl in PATH for its certificates';
  const ends = ['server', 'client'].map((name) => {
    const [key, certificate] = [bed.file(`${name}.key`), bed.file(`${name}.crt`)];
    run([
      'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 2 ' +
        `-keyout ${key} -out ${certificate} -subj /CN=${name}`,
    ]);
    const { stdout } = run([`openssl x509 -in ${certificate} -noout -fingerprint -sha256`]);
    return { key, certificate, fingerprint: stdout.trim().split('=')[1]! };
  });
  const [own, peer] = ends as [(typeof ends)[0], (typeof ends)[0]];
  const common =
    `openvpn --dev ovpn0 --dev-type tun --proto udp --disable-dco --tun-mtu ${MTU} --mssfix 0 ` +
    '--data-ciphers AES-256-GCM --cipher AES-256-GCM --verb 1 --ping 10';
  const server = far.start([
    `${common} --tls-server --dh none --lport 1194 --ifconfig 10.51.0.2 10.51.0.1 ` +
      `--cert ${own.certificate} --key ${own.key} --peer-fingerprint ${peer.fingerprint}`,
  ]);
  const client = near.start([
    `${common} --tls-client --remote 10.1.0.2 1194 --nobind --ifconfig 10.51.0.1 10.51.0.2 ` +
      `--cert ${peer.certificate} --key ${peer.key} --peer-fingerprint ${own.fingerprint}`,
  ]);
  try {
    await reaches(near, '10.51.0.2');
  } catch {
    return `openvpn did not connect: ${client.output}`;
  }
  const version = /OpenVPN (\S+)/.exec(firstLine('openvpn --version'))?.[1] ?? '';
  return {
    name: 'openvpn',
    version: `${version} AES-256-GCM`,
    serverIp: '10.51.0.2',
    client,
    server,
  };
};
