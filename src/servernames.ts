/** The server's names while the tunnel runs: asked for past it. */
import type { Native } from './native.ts';
import { resolveOutside } from './resolve.ts';
import type { Changed } from './resolve.ts';

export class ServerNames {
  private readonly native: Native;
  private readonly mark: number;
  private readonly changed: Changed;
  private readonly asked = new Map<string, Promise<readonly Uint8Array[]>>();

  /** `mark`: SO_MARK of sockets that are to go past the tunnel. */
  constructor(native: Native, mark: number, changed: Changed) {
    this.native = native;
    this.mark = mark;
    this.changed = changed;
  }

  /**
   * The endpoints of a remote (`remoteOf`); none where its name does not resolve now. Links that ask for the
   * same at the same time share the answer. Never rejects.
   */
  async resolve(remote: string): Promise<readonly Uint8Array[]> {
    const [host, port] = remote.split(' ');
    const answer =
      this.asked.get(remote) ??
      resolveOutside(this.native, host, Number(port), this.mark, this.changed)
        .catch(() => [])
        .finally(() => this.asked.delete(remote));
    this.asked.set(remote, answer);
    return await answer;
  }
}
