/**
 * The worker: reads what the network sends, and therefore may do nothing. It starts as root, loads its native
 * code, opens the control socket and the status over HTTP, and gives up everything before the first byte of
 * the network is looked at. What it wants of the host it asks of the monitor.
 */
import { controlActions } from '../actions.ts';
import { withNativeCode } from '../assets.ts';
import type { DaemonConfig } from '../conf/config.ts';
import { setLogLevel } from '../conf/reload.ts';
import type { Config } from '../config.ts';
import type { DaemonServices } from '../daemon/daemon.ts';
import type { LinkBinding } from '../daemon/status.ts';
import { filterSet } from '../filters.ts';
import type { CompiledEntry } from '../filters.ts';
import type { Host, TunnelEvent } from '../host.ts';
import { loadNative, type Handle, type Native } from '../native.ts';
import { PLAIN_LINK } from '../peering.ts';
import {
  EXIT_FAILURE,
  EXIT_SUCCESS,
  Failure,
  fail,
  reason,
  setLogFormat,
  warn,
} from '../report.ts';
import { keepSmall } from '../residence.ts';
import { makeHost, nativeTun } from '../runtime.ts';
import { startServices } from '../services.ts';
import { innerAddresses, instanceName, sourcesOf, tunnelConfig } from '../startup.ts';
import type { InnerAddresses } from '../startup.ts';
import { Tunnel } from '../vpn.ts';
import { Channel } from './channel.ts';
import { CHANNEL_DESCRIPTOR } from './command.ts';
import type { Answer, Order, Request, Start, Word } from './messages.ts';
import { MOST_TEXT } from './messages.ts';

const NOTHING: LinkBinding = { device: '', address: '', port: 0 };

/** The hidden command: runs until the monitor says that it ends, or is gone. Returns the exit status. */
export async function work(): Promise<number> {
  const native = withNativeCode('vpn.node', loadNative);
  let handle: Handle;
  try {
    handle = native.channelAdopt(CHANNEL_DESCRIPTOR);
  } catch {
    throw new Failure(
      'vpn worker',
      'it is started by vpn itself',
      'write vpn server or vpn client',
    );
  }
  return await new Worker(native, handle).done;
}

class Worker {
  /** Resolves to the exit status. */
  readonly done: Promise<number>;
  private readonly native: Native;
  private readonly channel: Channel;
  private finish: (status: number) => void = () => undefined;
  private device: Handle = 0;
  private start: Start | undefined = undefined;
  private tunnel: Tunnel | undefined = undefined;
  private inner: InnerAddresses | undefined = undefined;
  private services: DaemonServices | undefined = undefined;
  private readonly bindings: LinkBinding[] = [];
  /** That came and were not asked for yet. */
  private readonly sockets = new Map<number, Handle>();
  private readonly resolving = new Map<number, (endpoints: readonly Uint8Array[]) => void>();
  private readonly asking = new Map<number, (answer: Answer) => void>();
  private lastId = 0;

  constructor(native: Native, handle: Handle) {
    this.native = native;
    this.done = new Promise((resolve) => {
      this.finish = resolve;
    });
    this.channel = new Channel(native, handle, true, {
      message: (message, passed) => this.obey(message as Order, passed),
      raw: (key) => void this.run(key.slice()),
      // Whoever undoes what was done to the host is gone; the next start does it.
      ended: () => this.finish(EXIT_FAILURE),
    });
    process.on('SIGINT', () => undefined);
    process.on('SIGTERM', () => this.say({ word: 'stop' }));
    process.on('SIGHUP', () => this.say({ word: 'hang-up' }));
  }

  private say(word: Word): void {
    this.channel.send(word);
  }

  private obey(order: Order, passed: Handle): void {
    const { tunnel } = this;
    switch (order.order) {
      case 'socket':
        this.sockets.set(order.index, passed);
        return;
      case 'start':
        this.device = passed;
        this.start = order.start;
        return;
      case 'link-up':
        this.bindings[order.index] = order.binding;
        this.replaceSocket(order.index, passed);
        tunnel?.linkUp(order.index);
        return;
      case 'link-down':
        tunnel?.linkDown(order.index);
        return;
      case 'link-drop':
        tunnel?.dropLink(order.index);
        return;
      case 'link-remove':
        tunnel?.removeLink(order.index);
        return;
      case 'link-add':
        tunnel?.addLink(order.settings);
        return;
      case 'link-set':
        tunnel?.setLink(order.index, order.settings);
        return;
      case 'filters':
        this.setFilters(order.filters);
        return;
      case 'realtime':
        tunnel?.setRealtime(order.rules);
        return;
      case 'routes':
        this.setRoutes(order.routes);
        return;
      case 'bound-mtu':
        tunnel?.boundMtu(order.mtu);
        return;
      case 'log':
        this.setLog(order.log, order.daemon);
        return;
      case 'settle':
        this.say({ word: 'settled', id: order.id });
        return;
      case 'names':
        this.resolving.get(order.id)?.(order.endpoints.map((hex) => Buffer.from(hex, 'hex')));
        this.resolving.delete(order.id);
        return;
      case 'answer':
        this.asking.get(order.id)?.(order.answer);
        this.asking.delete(order.id);
        return;
      case 'end':
        void this.end(order.cause);
    }
  }

  /** `key` is ours. Never rejects. */
  private async run(key: Uint8Array): Promise<void> {
    try {
      if (this.start === undefined) throw new Error('a key before the start');
      await this.begin(this.start, key);
    } catch (error) {
      const line = error instanceof Failure ? error.message : '';
      if (line === '') fail(error);
      this.say({ word: 'failed', line: trimmed(line) });
    } finally {
      key.fill(0);
    }
  }

  private async begin(start: Start, key: Uint8Array): Promise<void> {
    const { native } = this;
    const { config, daemon } = start;
    this.setLog(config.log, daemon);
    this.bindings.push(...start.bindings);
    const endpoints = start.endpoints.map((link) => link.map((hex) => Buffer.from(hex, 'hex')));
    const links = start.links.map((link) => link ?? PLAIN_LINK);
    const tunnel = new Tunnel(
      tunnelConfig(config, daemon, native, key, start.ipv6Leaves, links),
      this.makeHost(),
      endpoints,
    );
    this.tunnel = tunnel;
    this.inner = innerAddresses(config, daemon, key);
    start.links.forEach((link, index) => {
      if (link === null) tunnel.removeLink(index);
    });
    this.setFilters(start.filters);
    tunnel.setRealtime(start.realtime);
    this.services = await startServices({
      native,
      start,
      tunnel,
      bindingOf: (place) => this.bindings[place] ?? NOTHING,
      actions: controlActions({
        tunnel,
        hold: async (index, isHeld) => {
          await this.ask({ request: 'hold', index, isHeld });
        },
        reopen: () => this.say({ word: 'reopen' }),
        reload: () => this.ask({ request: 'reload' }),
        stop: () => this.say({ word: 'stop' }),
      }),
      onHooks: (calls) => this.say({ word: 'hooks', calls }),
      onLogged: (event) =>
        this.say({ word: 'logged', event: { ...event, cause: trimmed(event.cause) } }),
    });
    // From here on nothing can be opened, and nothing of the network was read yet: this runs in the same
    // turn of the loop in which the last of the sockets began to listen.
    this.confine(start);
    tunnel.start();
    keepSmall(native);
    this.say({ word: 'running', httpPort: this.services.httpPort });
  }

  private setRoutes(routes: readonly string[]): void {
    const { start, inner } = this;
    if (start === undefined || inner === undefined) return;
    this.tunnel?.setSources(sourcesOf({ ...start.config, routes }, start.daemon, inner));
  }

  private setLog(log: Config['log'], daemon: DaemonConfig): void {
    setLogLevel(daemon);
    setLogFormat(log, instanceName(daemon, this.start?.device ?? ''), daemon.debug);
  }

  /** Throws a `Failure`. */
  private confine({ root, uid, gid }: Pick<Start, 'root' | 'uid' | 'gid'>): void {
    const { native } = this;
    try {
      native.confine(root, uid, gid);
    } catch (error) {
      const call = error instanceof Error && 'syscall' in error ? error.syscall : '';
      if (call !== 'chroot') {
        const what = `the worker cannot be user ${uid} (${String(call)})`;
        throw new Failure(what, reason(error), 'give another with --user');
      }
      // A container without the right to do so: it is the least of what there is.
      warn('the worker keeps the root folder', reason(error), 'give vpn CAP_SYS_CHROOT');
      this.confine({ root: '', uid, gid });
    }
  }

  private makeHost(): Host {
    const { native } = this;
    const options = {
      native,
      tun: {
        ...nativeTun(native, this.device),
        setMtu: (mtu: number) => this.say({ word: 'mtu', mtu }),
      },
      openSocket: (index: number) => this.takeSocket(index),
      resolve: (index: number) => this.resolve(index),
      report: (event: TunnelEvent) => {
        this.say({ word: 'event', event });
        this.services?.event(event);
      },
    };
    return makeHost(options, () => this.tunnel?.onTimer());
  }

  private setFilters(entries: readonly CompiledEntry[]): void {
    const { filters, links } = filterSet(entries);
    this.tunnel?.setFilters(filters, links);
  }

  private takeSocket(index: number): Handle | undefined {
    const socket = this.sockets.get(index);
    this.sockets.delete(index);
    return socket;
  }

  private replaceSocket(index: number, socket: Handle): void {
    const unused = this.takeSocket(index);
    if (unused !== undefined) this.native.close(unused);
    this.sockets.set(index, socket);
  }

  private resolve(index: number): Promise<readonly Uint8Array[]> {
    this.lastId++;
    const id = this.lastId;
    return new Promise((resolve) => {
      this.resolving.set(id, resolve);
      this.say({ word: 'names', id, index });
    });
  }

  /** Throws a `Failure`. */
  private async ask(request: Request): Promise<readonly string[]> {
    this.lastId++;
    const id = this.lastId;
    const answer = await new Promise<Answer>((resolve) => {
      this.asking.set(id, resolve);
      this.say({ word: 'request', id, request });
    });
    if ('failure' in answer) throw new Failure(answer.failure, '', '');
    return answer.lines;
  }

  private async end(cause: string): Promise<void> {
    this.tunnel?.close();
    await this.services?.close(cause);
    this.say({ word: 'ended' });
    this.finish(EXIT_SUCCESS);
  }
}

/** As long as the monitor takes it. */
function trimmed(text: string): string {
  return text.length <= MOST_TEXT ? text : `${text.slice(0, MOST_TEXT - 1)}…`;
}
