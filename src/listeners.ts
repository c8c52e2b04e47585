/**
 * The sockets that a running server listens with: as Uplinks for a client, but each is there as soon as it is
 * asked for, or it is an error.
 */
import type { Config } from './config.ts';
import { listenName, type ListenConfig } from './linkconfig.ts';
import type { Handle } from './native.ts';
import { PLAIN_LINK } from './peering.ts';
import { Failure } from './report.ts';
import type { LinkedTunnel, Ways } from './uplinks.ts';

export class Listeners implements Ways {
  /** In the tunnel's numbers. */
  readonly configs: ListenConfig[];
  readonly #openSocket: (listen: ListenConfig) => Handle | undefined;
  readonly #held = new Set<number>();
  readonly #free = new Set<number>();
  /** To be opened by `settle`. */
  readonly #closed = new Set<number>();
  #tunnel: LinkedTunnel | undefined;

  /** `openSocket` returns undefined where there is no such address, and throws a `Failure`. */
  constructor(
    configs: readonly ListenConfig[],
    openSocket: (listen: ListenConfig) => Handle | undefined,
  ) {
    this.configs = [...configs];
    this.#openSocket = openSocket;
  }

  attach(tunnel: LinkedTunnel): void {
    this.#tunnel = tunnel;
  }

  /** For `Host.openLink`. Throws a `Failure`. */
  open(index: number): Handle | undefined {
    if (this.#held.has(index) || this.#closed.has(index)) return undefined;
    const listen = this.configs[index];
    const handle = this.#openSocket(listen);
    if (handle !== undefined) return handle;
    const what = `cannot listen on UDP port ${listen.port}`;
    const why = `"${listen.address}" is not an address of this host`;
    throw new Failure(what, why, 'give one, or auto');
  }

  add(config: Config, from: number): number | undefined {
    const listen = listenOf(config, from);
    const [free] = this.#free;
    if (free !== undefined) {
      this.#free.delete(free);
      this.#held.delete(free);
      this.configs[free] = listen;
      this.#closed.add(free);
      return free;
    }
    this.#closed.add(this.configs.length);
    this.configs.push(listen);
    return this.#tunnel?.addLink({ ...PLAIN_LINK, name: listenName(listen) });
  }

  replace(index: number, config: Config, from: number): void {
    this.#tunnel?.dropLink(index);
    this.configs[index] = listenOf(config, from);
    this.#closed.add(index);
  }

  remove(index: number): void {
    this.#held.add(index);
    this.#tunnel?.removeLink(index);
    this.#free.add(index);
  }

  hold(index: number, isHeld: boolean): void {
    if (isHeld) {
      this.#held.add(index);
      this.#tunnel?.linkDown(index);
    } else if (this.#held.delete(index)) {
      this.#closed.add(index);
    }
  }

  async settle(): Promise<void> {
    let failed: unknown;
    await this.#tunnel?.settled();
    for (const index of [...this.#closed]) {
      if (this.#held.has(index)) continue;
      this.#closed.delete(index);
      try {
        this.#tunnel?.linkUp(index);
      } catch (error) {
        // The next reload tries again.
        this.#closed.add(index);
        failed ??= error;
      }
    }
    if (failed !== undefined) throw failed;
  }
}

function listenOf(config: Config, from: number): ListenConfig {
  if (config.role !== 'server') throw new Error('a client does not listen');
  return config.listen[from];
}
