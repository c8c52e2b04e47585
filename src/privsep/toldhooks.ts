/** The status script on behalf of a worker, which may die before it has told that all is down. */
import type { HookCall, HookSink } from '../daemon/hooks.ts';

/** Links have ids below that. */
const MOST_LINKS_UP = 255;

export class ToldHooks implements HookSink {
  private readonly hooks: HookSink;
  private readonly up = new Set<string>();
  private isDeviceUp = false;

  constructor(hooks: HookSink) {
    this.hooks = hooks;
  }

  add(calls: readonly HookCall[]): void {
    for (const { event, link } of calls) {
      if (event === 'rtun_up') {
        if (this.up.size < MOST_LINKS_UP) this.up.add(link);
      } else if (event === 'rtun_down') this.up.delete(link);
      else this.isDeviceUp = event === 'tuntap_up';
    }
    this.hooks.add(calls);
  }

  /** Takes back what the worker has not. */
  allDown(): void {
    const links = [...this.up].map((link): HookCall => ({ event: 'rtun_down', link }));
    const device: HookCall = { event: 'tuntap_down', link: '' };
    this.add(this.isDeviceUp ? [...links, device] : links);
  }

  close(): Promise<void> {
    return this.hooks.close();
  }
}
