/**
 * `vpn server` and `vpn client`: sets the host up, runs the tunnel, and puts the host back whatever ends it.
 */
import { formatIp, formatRemote, parseIp } from './address.ts';
import { withNativeCode } from './assets.ts';
import type { CipherChoice, CleanupConfig, Config } from './config.ts';
import { MIN_TUN_MTU } from './constants.ts';
import { innerIpv6, sharedKeys } from './sharedkey.ts';
import type { TunnelEvent } from './host.ts';
import type { Network } from './inner.ts';
import { Cipher, loadNative, type Native } from './native.ts';
import { thisPlatform } from './os.ts';
import type { TunnelConfig } from './peering.ts';
import {
  EXIT_FAILURE,
  EXIT_SUCCESS,
  fail,
  Failure,
  log,
  print,
  reason,
  verbose,
} from './report.ts';
import { codeOf, makeHost, nativeTun, onRouteChanges, openLinkSocket } from './runtime.ts';
import { resolveName, resolveOutside } from './resolve.ts';
import { cleanUp as cleanUpHost, plan, planCleanUp, prepareHost } from './setup.ts';
import type { HostDeps, HostSettings, HostSetup } from './setup.ts';
import { Tunnel } from './vpn.ts';

const CIPHER_NAMES: Readonly<Record<number, string>> = {
  [Cipher.aes256Gcm]: 'AES-256-GCM',
  [Cipher.chacha20Poly1305]: 'ChaCha20-Poly1305',
};
const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Runs until a signal (exit status 0) or a failure (1). `key` is borrowed until the promise settles. */
export async function run(config: Config, key: Uint8Array): Promise<number> {
  const native = withNativeCode('vpn.node', loadNative);
  const deps = hostDeps(native, config.stateDir);
  const inner = innerAddresses(config, key);
  if (config.dryRun) {
    const servers = (await endpointsOf(config)).map(formatRemote);
    const settings = { ...hostSettings(config, inner, config.tun || 'tun0'), servers };
    const lines = await plan(settings, deps);
    print(lines.map((line) => `${line}\n`).join(''));
    return EXIT_SUCCESS;
  }
  const endpoints = await firstEndpoints(config);
  const device = openTun(native, config);
  const guard = guardHost();
  const servers = endpoints.map(formatRemote);
  const settings = { ...hostSettings(config, inner, device.name), servers };
  const setup = await prepareHost(settings, deps);
  guard.protect(setup);
  let stopRefreshing = (): void => {};
  let status = EXIT_SUCCESS;
  let tunnel: Tunnel | undefined;
  try {
    stopRefreshing = onRouteChanges(native, () => void setup.refresh());
    await setup.up();
    await setup.reach(servers);
    await new Promise<void>((done, failed) => {
      const onEvent = (event: TunnelEvent): void => {
        say(event, config);
        if (event.kind === 'tun-lost') {
          failed(new Failure(`tun device "${device.name}"`, 'gone', 'start vpn again'));
        } else if (event.kind === 'connected') {
          setup.connected({ ipv6: event.ipv6 }).catch(failed);
        }
      };
      guard.onStop(done);
      const options = {
        native,
        tun: nativeTun(native, device.handle),
        openSocket: (index: number) => openLinkSocket(native, config, index, setup.mark),
        resolve: async () => {
          const found = await endpointsOf(config, native, setup.mark);
          setup.reach(found.map(formatRemote)).catch(failed);
          return found;
        },
        report: onEvent,
      };
      const host = makeHost(options, () => tunnel?.onTimer());
      tunnel = new Tunnel(tunnelConfig(config, native, key, setup), host, endpoints);
      tunnel.start();
      log(`${config.role} on ${device.name}: ${waitingFor(config)}`);
    });
  } catch (error) {
    status = fail(error);
  }
  stopRefreshing();
  tunnel?.close();
  if (!(await setup.undo())) status = EXIT_FAILURE;
  guard.release();
  native.close(device.handle);
  return status;
}

/** `vpn cleanup`. */
export async function cleanUp(config: CleanupConfig): Promise<number> {
  const native = withNativeCode('vpn.node', loadNative);
  const deps = hostDeps(native, config.stateDir);
  if (config.dryRun) {
    const lines = await planCleanUp(deps);
    print(lines.length === 0 ? 'nothing to undo\n' : lines.map((line) => `${line}\n`).join(''));
    return EXIT_SUCCESS;
  }
  const { undone, failed } = await cleanUpHost(deps);
  for (const line of undone) print(`undone: ${line}\n`);
  for (const line of failed) print(`not undone: ${line}\n`);
  if (undone.length === 0 && failed.length === 0) print('nothing to undo\n');
  return failed.length === 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/** The ciphers of a choice, bit n − 1 for cipher n. AES is offered only where the processor has it. */
export function cipherBits(choice: CipherChoice, native: Native): number {
  const aes = 1 << (Cipher.aes256Gcm - 1);
  const chacha = 1 << (Cipher.chacha20Poly1305 - 1);
  if (choice === 'aes-256-gcm') return aes;
  if (choice === 'chacha20-poly1305') return chacha;
  return native.cpuHasAes() ? aes | chacha : chacha;
}

interface InnerAddresses {
  readonly serverIp: Uint8Array;
  readonly clientIp: Uint8Array;
  readonly serverIp6: Uint8Array;
  readonly clientIp6: Uint8Array;
}

function innerAddresses(config: Config, key: Uint8Array): InnerAddresses {
  const isServer = config.role === 'server';
  const serverIp = parseIp(isServer ? config.localIp : config.peerIp)!;
  const clientIp = parseIp(isServer ? config.peerIp : config.localIp)!;
  const { server, client } = innerIpv6(key, serverIp, clientIp);
  return { serverIp, clientIp, serverIp6: server, clientIp6: client };
}

function hostSettings(config: Config, inner: InnerAddresses, tun: string): HostSettings {
  const isServer = config.role === 'server';
  const server = formatIp(inner.serverIp6);
  const client = formatIp(inner.clientIp6);
  return {
    role: config.role,
    tun,
    localIp: config.localIp,
    peerIp: config.peerIp,
    localIp6: isServer ? server : client,
    peerIp6: isServer ? client : server,
    mtu: config.mtu === 0 ? MIN_TUN_MTU : config.mtu,
    defaultRoutes: config.defaultRoutes,
    routes: config.routes,
    mark: config.mark,
    table: config.table,
    externalIp: config.role === 'server' ? config.externalIp : '',
    gateway: config.role === 'client' ? config.gateway : '',
    port: config.port,
  };
}

function tunnelConfig(
  config: Config,
  native: Native,
  key: Uint8Array,
  setup: HostSetup,
): TunnelConfig {
  const inner = innerAddresses(config, key);
  const networks = config.routes.map((route): Network => {
    const [address, bits] = route.split('/');
    return { address: parseIp(address)!, bits: Number(bits) };
  });
  return {
    role: config.role,
    keys: sharedKeys(key),
    serverIp: inner.serverIp,
    clientIp: inner.clientIp,
    ciphers: cipherBits(config.cipher, native),
    ipv6: setup.ipv6Leaves,
    mtu: config.mtu,
    rekeyAfterMs: config.rekeyAfterMs,
    // A client has packets from anywhere behind its server.
    sources:
      config.role === 'server'
        ? [
            { address: inner.clientIp, bits: 32 },
            { address: inner.clientIp6, bits: 128 },
            ...networks,
          ]
        : undefined,
    linkCount: config.links.length,
  };
}

function hostDeps(native: Native, journalDir: string): HostDeps {
  return { native, journalDir, path: process.env.PATH ?? '', log: verbose, warn: warnLine };
}

function warnLine(line: string): void {
  log(`warning: ${line}`);
}

/** Where the peer is; a server waits to be told. */
async function endpointsOf(
  config: Config,
  native?: Native,
  mark = 0,
): Promise<readonly Uint8Array[]> {
  if (config.role === 'server') return [];
  // At the very start nothing is in the way of the system's resolver.
  if (native === undefined) return resolveName(config.server, config.port);
  return resolveOutside(native, config.server, config.port, mark);
}

/** A name that does not resolve at the very start is mistyped more often than not. */
async function firstEndpoints(config: Config): Promise<readonly Uint8Array[]> {
  const endpoints = await endpointsOf(config);
  if (endpoints.length > 0 || config.role === 'server') return endpoints;
  throw new Failure(
    `cannot resolve "${config.server}"`,
    'no address found',
    'check the name and the network connection',
  );
}

function openTun(
  native: Native,
  config: Config,
): { readonly handle: number; readonly name: string } {
  const platform = thisPlatform();
  if (platform === undefined) {
    throw new Failure('this system', 'not supported yet', 'see the platforms in the README');
  }
  try {
    return platform.tunCreate(native, config.tun, config.offload);
  } catch (error) {
    const { file, remedy } = platform.tun;
    const what = `cannot open ${file}`;
    switch (codeOf(error)) {
      case 'EBUSY':
      case 'EEXIST':
        throw new Failure(`tun device "${config.tun}"`, 'in use', 'give another name, or auto');
      case 'ENOENT':
      case 'ENODEV':
      case 'ENXIO':
        throw new Failure(what, 'no such device', remedy);
      default:
        throw new Failure(what, reason(error), 'run as root or grant CAP_NET_ADMIN');
    }
  }
}

interface Guard {
  /** From now on there is something to undo. */
  protect(setup: HostSetup): void;
  /** Calls `stop` at the first stop signal, also one that came before. */
  onStop(stop: () => void): void;
  release(): void;
}

/**
 * Every way out leads to undo: signals by way of `onStop`, a bug or a forgotten exit by the last
 * resort. Further signals while undoing change nothing, so that impatience leaves no rule behind.
 */
function guardHost(): Guard {
  let setup: HostSetup | undefined;
  let isStopped = false;
  let stop = (): void => {};
  const onSignal = (): void => {
    isStopped = true;
    stop();
  };
  const onExit = (): void => setup?.undoSync();
  const onBug = (error: unknown): void => {
    const status = fail(error);
    setup?.undoSync();
    process.exit(status);
  };
  for (const signal of STOP_SIGNALS) process.on(signal, onSignal);
  process.on('exit', onExit);
  process.on('uncaughtException', onBug);
  return {
    protect: (made) => {
      setup = made;
    },
    onStop: (callback) => {
      stop = callback;
      if (isStopped) callback();
    },
    release: () => {
      process.off('exit', onExit);
      process.off('uncaughtException', onBug);
    },
  };
}

function waitingFor(config: Config): string {
  return config.role === 'server'
    ? `waiting for the client on UDP port ${config.port}`
    : `connecting to ${config.server}, UDP port ${config.port}`;
}

/** The line of an event; details only with -v. */
function say(event: TunnelEvent, config: Config): void {
  const peer = config.role === 'server' ? 'client' : 'server';
  switch (event.kind) {
    case 'connected':
      log(`connected to ${event.endpoint} (${CIPHER_NAMES[event.cipher]})`);
      break;
    case 'silent':
      log(silenceLine(config, event.forMs));
      break;
    case 'back':
      log(`${peer} answers again`);
      break;
    case 'busy':
      log('server is busy: another client is connected; waiting until it is gone');
      break;
    case 'version':
      log(`server speaks another version (${event.peer}) of the protocol; upgrade the older end`);
      break;
    case 'refused':
      log(
        event.why === 'no-common-cipher'
          ? 'server refuses: no cipher in common; give both ends the same --cipher'
          : 'server refuses: its tunnel addresses differ; give both ends the same two',
      );
      break;
    case 'closed':
      log(`${peer} has closed the tunnel`);
      break;
    case 'unresolved':
      log(
        `cannot resolve "${config.role === 'client' ? config.server : ''}" now; using what is known`,
      );
      break;
    case 'moved':
      log(`${peer} moved to ${event.endpoint}`);
      break;
    case 'rekeyed':
      verbose(`new keys (epoch ${event.epoch})`);
      break;
    case 'tun-mtu':
      verbose(`MTU of the tunnel: ${event.mtu}`);
      break;
    case 'tun-lost':
      break;
  }
}

function silenceLine(config: Config, forMs: number): string {
  const seconds = Math.round(forMs / 1000);
  return config.role === 'server'
    ? `nothing from the client for ${seconds} s; waiting`
    : `no reply from ${config.server}, UDP port ${config.port}, for ${seconds} s; check that vpn ` +
        'runs there, that the port is open, and that both keys match; trying on';
}
