/**
 * Changes a running instance to what its file says now, without dropping traffic: links, their caps and
 * weights, filters, classes, the log. What needs a restart is told and stays as it was.
 */
import type { Config } from '../config.ts';
import { compileFilters, filterSet } from '../filters.ts';
import type { FilterEntry } from '../filters.ts';
import { Failure, log, reason, setQuiet, setVerbose } from '../report.ts';
import type { Runner } from '../rules.ts';
import type { Ways } from '../uplinks.ts';
import type { Tunnel } from '../vpn.ts';
import type { DaemonConfig } from './config.ts';
import { settingsDiff } from './diff.ts';
import type { Change } from './diff.ts';
import { keysOf } from './schema.ts';
import type { ConfigFile } from './start.ts';
import { Values } from './settings.ts';
import type { Setting, Settings } from './settings.ts';

export interface ReloadDeps {
  readonly tunnel: Pick<Tunnel, 'setLink' | 'setFilters' | 'setRealtime'>;
  readonly ways: Ways;
  readonly runner: Pick<Runner, 'run'>;
}

/** How much is shown, as a file or a command line says. */
export function setLogLevel({ verbosity, debugTokens }: DaemonConfig): void {
  // Each subject in detail is every subject in detail.
  setVerbose(verbosity > 0 || debugTokens.length > 0);
  setQuiet(verbosity < 0);
}

export class Reload {
  private readonly file: ConfigFile;
  private readonly deps: ReloadDeps;
  private settings: Settings;
  private daemon: DaemonConfig;
  /** The number in the tunnel of each link. */
  private readonly places = new Map<string, number>();
  private busy: Promise<unknown> = Promise.resolve();

  constructor(file: ConfigFile, deps: ReloadDeps) {
    this.file = file;
    this.deps = deps;
    this.settings = file.settings;
    this.daemon = file.configsOf(file.settings).daemon;
    this.daemon.links.forEach(({ name }, place) => this.places.set(name, place));
  }

  /**
   * A line for each thing that has changed or needs a restart. Throws a `Failure` when the file is wrong:
   * then nothing was changed. One at a time; each waits for those before.
   */
  run(): Promise<readonly string[]> {
    const mine = this.busy.then(() => this.reload());
    this.busy = mine.catch(() => undefined);
    return mine;
  }

  private async reload(): Promise<readonly string[]> {
    const { settings: now, isPasswordChanged } = this.file.reread();
    const changes = settingsDiff(this.settings, now, isPasswordChanged);
    const lines = changes.map(({ line }) => line);
    // Links mean something else then.
    if (now.mode !== this.settings.mode) return this.told(lines);
    const settings = effective(this.settings, now);
    const { config, daemon } = this.file.configsOf(settings);
    const isFiltered = changes.some(({ what }) => what.kind === 'filters');
    const compiled = isFiltered ? await compileFilters(daemon.filters, this.deps.runner) : [];

    if (isFiltered) {
      const { filters, links } = filterSet(compiled);
      this.deps.tunnel.setFilters(filters, links);
    }
    if (changes.some(({ what }) => what.kind === 'key' && what.key === 'realtime')) {
      this.deps.tunnel.setRealtime(config.realtime);
    }
    lines.push(...(await this.changeLinks(config, daemon, changes)));
    this.settings = settings;
    this.daemon = daemon;
    setLogLevel(daemon);
    return this.told(lines);
  }

  /** Returns what went wrong. */
  private async changeLinks(
    config: Config,
    daemon: DaemonConfig,
    changes: readonly Change[],
  ): Promise<readonly string[]> {
    const { places, deps } = this;
    const wrong: string[] = [];
    for (const [name, place] of places) {
      if (daemon.links.some((link) => link.name === name)) continue;
      deps.ways.remove(place);
      places.delete(name);
    }
    daemon.links.forEach((link, from) => {
      const { name } = link;
      const isRebound = changes.some(
        ({ what }) => what.kind === 'link-rebound' && what.link === name,
      );
      const known = places.get(name);
      const place = known ?? deps.ways.add(config, from);
      if (place === undefined) {
        wrong.push(`link ${name}: too many links; not used`);
        return;
      }
      places.set(name, place);
      if (known !== undefined && isRebound) deps.ways.replace(place, config, from);
      const before = this.daemon.links.find((other) => other.name === name);
      // What a user has changed since then stays, unless the file has changed it, too.
      if (known !== undefined && JSON.stringify(before) === JSON.stringify(link)) return;
      deps.tunnel.setLink(place, link);
    });
    try {
      await deps.ways.settle();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      wrong.push(reason(error));
    }
    return wrong;
  }

  private told(lines: readonly string[]): readonly string[] {
    const all = lines.length === 0 ? ['nothing has changed'] : lines;
    for (const line of all) log(`reload: ${line}`);
    return all;
  }
}

/** Compiles the filters of a start. Throws a `Failure`. */
export async function startFilters(
  entries: readonly FilterEntry[],
  runner: Pick<Runner, 'run'>,
): Promise<ReturnType<typeof filterSet>> {
  return filterSet(await compileFilters(entries, runner));
}

/** What holds until the next start: of keys that need one the old values. */
function effective(old: Settings, now: Settings): Settings {
  const general = new Map<string, Setting>();
  for (const { name, reload } of keysOf('general')) {
    const setting = (reload === 'live' ? now : old).general.get(name);
    if (setting !== undefined) general.set(name, setting);
  }
  return { ...now, general: new Values(general), passwordLine: old.passwordLine };
}
