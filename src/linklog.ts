/** Links that fail and come back while their interfaces stay, for the log: what `vpn events` knows at once. */
import { after } from './daemon/clock.ts';
import type { LoggedEvent } from './daemon/eventlog.ts';
import { log } from './report.ts';

/** Names come from the other end, and by way of a worker: no more than links have ids. */
const MOST_NAMES = 255;
/** A link that is suspected for less is nothing to read about. */
const LASTING_MS = 2_000;

export class LinkLog {
  /** Of suspected links: what stops the line from being said. */
  private readonly waiting = new Map<string, () => void>();
  private readonly told = new Set<string>();

  /** Takes every event; says what lasts. */
  take({ event, link, cause }: LoggedEvent): void {
    if (link === undefined) return;
    this.waiting.get(link)?.();
    this.waiting.delete(link);
    if (event === 'link-suspect') {
      if (this.waiting.size + this.told.size >= MOST_NAMES) return;
      const tell = (): void => {
        this.told.add(link);
        log(`link ${link}: ${cause}`);
      };
      this.waiting.set(link, after(LASTING_MS, tell));
    } else if (this.told.delete(link) && event === 'link-up') log(`link ${link}: works again`);
  }

  close(): void {
    for (const stop of this.waiting.values()) stop();
    this.waiting.clear();
  }
}
