/**
 * Changes a running instance to what its file says now, without dropping traffic: links, their caps and
 * weights, filters, classes, the log. What needs a restart is told and stays as it was.
 */
import type { Config } from '../config.ts';
import { checkScript } from '../daemon/hooks.ts';
import type { Hooks } from '../daemon/hooks.ts';
import { compileFilters } from '../filters.ts';
import {
  Failure,
  log,
  reason,
  setLogFormat,
  setQuiet,
  setSubjects,
  setVerbose,
} from '../report.ts';
import type { RemoteTunnel } from '../privsep/remote.ts';
import type { Runner } from '../rules.ts';
import type { Ways } from '../uplinks.ts';
import type { DaemonConfig } from './config.ts';
import { isLive, settingsDiff } from './diff.ts';
import type { Change } from './diff.ts';
import { keysOf } from './schema.ts';
import type { ConfigFile } from './start.ts';
import { Values } from './settings.ts';
import type { Setting, Settings } from './settings.ts';

export interface ReloadDeps {
  readonly tunnel: Pick<RemoteTunnel, 'setLink' | 'setFilters' | 'setRealtime' | 'setLog'>;
  readonly ways: Ways;
  /** Makes the routes and what is allowed those of `config`. Throws a `Failure`; then nothing has changed. */
  networks(config: Config, daemon: DaemonConfig): Promise<void>;
  /** undefined: there is no status script. */
  readonly hooks: Pick<Hooks, 'setCommand'> | undefined;
  readonly runner: Pick<Runner, 'run'>;
}

/** What is behind either end. */
const NETWORKS = ['ip4_routes', 'ip6_routes', 'allow'];

/** How much is shown, as a file or a command line says. */
export function setLogLevel({ verbosity, debugTokens }: DaemonConfig): void {
  setVerbose(verbosity > 0);
  // MLVPN's word for what divides packets among links.
  setSubjects(debugTokens.map((token) => (token === 'wrr' ? 'scheduler' : token)));
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
    const compiled = isFiltered
      ? await compileFilters(daemon.filters, this.deps.runner, config.tuntap)
      : [];

    const { statuscommand } = daemon;
    const isOtherScript = statuscommand !== this.daemon.statuscommand;
    // May throw, as the filters may: nothing has changed before.
    if (isOtherScript) checkScript(statuscommand);

    const isRouted = changes.some(({ what }) => what.kind === 'key' && NETWORKS.includes(what.key));
    if (isRouted) await this.deps.networks(config, daemon);
    if (isOtherScript) this.deps.hooks?.setCommand(statuscommand);
    if (isFiltered) this.deps.tunnel.setFilters(compiled);
    if (changes.some(({ what }) => what.kind === 'key' && what.key === 'realtime')) {
      this.deps.tunnel.setRealtime(config.realtime);
    }
    lines.push(...(await this.changeLinks(config, daemon, changes)));
    this.settings = settings;
    this.daemon = daemon;
    setLogLevel(daemon);
    setLogFormat(config.log, daemon.name, daemon.debug);
    this.deps.tunnel.setLog(config.log, daemon);
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

/** What holds until the next start: of keys that need one the old values. */
function effective(old: Settings, now: Settings): Settings {
  const general = new Map<string, Setting>();
  for (const key of keysOf('general')) {
    const setting = (isLive(key, old.general, now.general) ? now : old).general.get(key.name);
    if (setting !== undefined) general.set(key.name, setting);
  }
  return { ...now, general: new Values(general), passwordLine: old.passwordLine };
}
