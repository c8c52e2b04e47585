/**
 * Sets a host up for one tunnel and puts it back: expands the rows of os.ts for the situation
 * (situation.ts), hands them to changes.ts, and undoes what dead instances left.
 *
 * Nothing here names a command; what a system needs is in its tables. doc/host.md has the overview.
 */
import { Changes } from './changes.ts';
import type { Tools, UndoReport } from './changes.ts';
import { bootId, isNamespaceGone, netnsInode, readFacts } from './facts.ts';
import type { Facts } from './facts.ts';
import { JOURNAL_VERSION, JournalDirectory } from './journal.ts';
import type { Header, Journal } from './journal.ts';
import type { Native } from './native.ts';
import { thisPlatform } from './os.ts';
import type { Platform } from './os.ts';
import { Failure } from './report.ts';
import { commandLine, expandRows, hostRunner, sysctlLine } from './rules.ts';
import type { Change, Runner } from './rules.ts';
import { PREFERENCES, Situation, chooseNumbers } from './situation.ts';
import type { HostSettings, Numbers } from './situation.ts';

export type { HostSettings } from './situation.ts';

export interface HostDeps {
  readonly native: Pick<Native, 'netnsCookie' | 'lockFile'>;
  readonly journalDir: string;
  /** PATH in which commands are found. */
  readonly path: string;
  /** Each command before it runs, and what was undone for dead instances. */
  log(line: string): void;
  /** One line, without "vpn: warning:". */
  warn(line: string): void;
  /** Tests give their own. */
  readonly runner?: Runner;
  readonly platform?: Platform;
}

export interface HostSetup {
  /** SO_MARK of the link sockets. */
  readonly mark: number;
  /**
   * Addresses, device up, protection; on the server forwarding and NAT. Undoes what was done before
   * it throws a `Failure`.
   */
  up(): Promise<void>;
  /**
   * Client: routes, once a session is up, and after every new one. `ipv6`: IPv6 leaves the server;
   * if not it is blocked here. Undoes everything before it throws a `Failure`. Server: nothing.
   */
  connected(facts: { readonly ipv6: boolean }): Promise<void>;
  /** Server: whether IPv6 from the client leaves this host. */
  readonly ipv6Leaves: boolean;
  /** Newest first, once; waits for a change under way. False: something is left for `vpn cleanup`. */
  undo(): Promise<boolean>;
  /** The last resort, from 'exit' and 'uncaughtException'. */
  undoSync(): void;
}

/** The network namespace, as journals write it. */
function identity(deps: HostDeps): Pick<Header, 'bootId' | 'netns' | 'netnsInode'> {
  const inode = netnsInode();
  const cookie = deps.native.netnsCookie();
  return { bootId: bootId(), netns: cookie === '' ? `i${inode}` : cookie, netnsInode: inode };
}

function toolsOf(deps: HostDeps): Tools & { readonly platform: Platform } {
  const platform = deps.platform ?? thisPlatform();
  if (platform === undefined) {
    throw new Failure('cannot set up this host', 'no rules for this system', 'use Linux');
  }
  const runner = deps.runner ?? hostRunner(deps.path, (line) => deps.log(line));
  const directory = new JournalDirectory(deps.journalDir, (fd) => deps.native.lockFile(fd));
  return { platform, runner, directory, absent: platform.absent, warn: (line) => deps.warn(line) };
}

/** Undoes what dead instances left in this namespace. The caller holds the directory's lock. */
async function undoDead(tools: Tools, deps: HostDeps): Promise<UndoReport> {
  const own = identity(deps);
  const undone: string[] = [];
  const failed: string[] = [];
  for (const { path, header, journal } of tools.directory.scan()) {
    if (journal === undefined) continue;
    const isReboot = header !== undefined && header.bootId !== own.bootId;
    const isForeign = header !== undefined && header.netns !== own.netns;
    if (header === undefined || isReboot) {
      journal.discard();
    } else if (isForeign) {
      const isGone = header.netnsInode === own.netnsInode || isNamespaceGone(header.netnsInode);
      if (isGone) journal.discard();
      else journal.release();
    } else if (header.version !== JOURNAL_VERSION) {
      deps.warn(`journal "${path}" is of another version: run vpn cleanup of that version`);
      journal.release();
    } else {
      const report = await new Changes(journal, header, tools, false).undo(true);
      journal.close();
      undone.push(...report.undone);
      failed.push(...report.failed);
    }
  }
  return { undone, failed };
}

class Host implements HostSetup {
  readonly mark: number;
  readonly #situation: Situation;
  readonly #platform: Platform;
  readonly #role: 'server' | 'client';
  readonly #journal: Journal;
  readonly #changes: Changes;
  /** The change under way; changes and undo never overlap. */
  #busy: Promise<void> = Promise.resolve();
  #isStopped = false;
  #undoing: Promise<boolean> | undefined;
  /** Of the last session; undefined before the first. */
  #serverIpv6: boolean | undefined;

  constructor(
    settings: HostSettings,
    situation: Situation,
    journal: Journal,
    header: Header,
    tools: Tools & { readonly platform: Platform },
  ) {
    this.mark = header.mark;
    this.#role = settings.role;
    this.#situation = situation;
    this.#platform = tools.platform;
    this.#journal = journal;
    this.#changes = new Changes(journal, header, tools, true);
  }

  get ipv6Leaves(): boolean {
    return this.#situation.ipv6Leaves;
  }

  async up(): Promise<void> {
    await this.#make(() => this.#expand(this.#platform[this.#role], false));
  }

  async connected(facts: { readonly ipv6: boolean }): Promise<void> {
    if (this.#role === 'server') return;
    await this.#make(() => {
      const isFirst = this.#serverIpv6 === undefined;
      if (this.#serverIpv6 === facts.ipv6) return [];
      this.#serverIpv6 = facts.ipv6;
      const { connected, everySession, enter } = this.#platform;
      const rows = isFirst ? [...connected, ...everySession, ...enter] : everySession;
      return this.#expand(rows, facts.ipv6);
    });
  }

  #expand(rows: Platform['client'], serverIpv6: boolean): readonly Change[] {
    return expandRows(rows, this.#situation.variables, this.#situation.needs(serverIpv6));
  }

  async #make(changes: () => readonly Change[]): Promise<void> {
    const mine = this.#busy.then(() => this.#changes.apply(changes(), () => this.#isStopped));
    this.#busy = mine.catch(() => undefined);
    try {
      await mine;
    } catch (error) {
      await this.undo();
      throw error;
    }
  }

  undo(): Promise<boolean> {
    this.#isStopped = true;
    this.#undoing ??= this.#busy.then(async () => {
      const { failed } = await this.#changes.undo(false);
      this.#journal.close();
      return failed.length === 0;
    });
    return this.#undoing;
  }

  undoSync(): void {
    this.#isStopped = true;
    this.#changes.undoSync();
    this.#journal.close();
    this.#undoing ??= Promise.resolve(true);
  }
}

/**
 * Undoes what dead instances left, chooses what this one has for itself, and opens its journal;
 * changes nothing else. Call it before the link sockets are opened: they need `mark`. Throws a
 * `Failure`.
 */
export async function prepareHost(settings: HostSettings, deps: HostDeps): Promise<HostSetup> {
  const tools = toolsOf(deps);
  return await tools.directory.locked(async () => {
    const { undone } = await undoDead(tools, deps);
    for (const line of undone) deps.log(`undone for a dead vpn: ${line}`);
    const own = identity(deps);
    const facts = await readFacts(tools.platform, tools.runner);
    const { situation, numbers, tag } = examine(settings, facts, tools, own);
    for (const line of situation.warnings) deps.warn(line);
    const header: Header = {
      version: JOURNAL_VERSION,
      ...own,
      role: settings.role,
      tun: settings.tun,
      tag,
      mark: numbers.mark,
      tables: [numbers.table, numbers.tableOut],
      preferences: Array.from({ length: PREFERENCES }, (_, i) => numbers.preference + i),
    };
    return new Host(settings, situation, tools.directory.create(header), header, tools);
  });
}

function examine(
  settings: HostSettings,
  facts: Facts,
  tools: Tools,
  own: Pick<Header, 'bootId' | 'netns'>,
): { readonly situation: Situation; readonly numbers: Numbers; readonly tag: string } {
  const others = tools.directory
    .peek()
    .flatMap(({ header }) => (header === undefined ? [] : [header]))
    .filter((header) => header.netns === own.netns && header.bootId === own.bootId);
  const numbers = chooseNumbers(settings, facts, others);
  // No two instances in a namespace have the same table.
  const tag = `${settings.tun}.${numbers.table}`;
  return { situation: new Situation(settings, facts, numbers, tag, tools.runner), numbers, tag };
}

/** `vpn cleanup`: undoes what dead instances left in this network namespace. Throws a `Failure`. */
export async function cleanUp(deps: HostDeps): Promise<UndoReport> {
  const tools = toolsOf(deps);
  return await tools.directory.locked(() => undoDead(tools, deps));
}

/**
 * `--dry-run`: the commands of `up` and `connected` (for a server through which IPv6 leaves), then
 * those of `undo`, with a line beginning with # above each part. Reads facts, changes nothing.
 */
export async function plan(settings: HostSettings, deps: HostDeps): Promise<string[]> {
  const tools = toolsOf(deps);
  const { runner, platform } = tools;
  const facts = await readFacts(platform, runner);
  const { situation } = examine(settings, facts, tools, identity(deps));
  const rows = [...platform[settings.role]];
  if (settings.role === 'client') {
    rows.push(...platform.connected, ...platform.everySession, ...platform.enter);
  }
  const up: string[] = [];
  const down: string[] = [];
  for (const change of expandRows(rows, situation.variables, situation.needs(true))) {
    if (change.kind === 'command') {
      if (change.up.length > 0) up.push(commandLine(change.up));
      if (change.down.length > 0) down.unshift(commandLine(change.down));
    } else {
      const found = runner.readSysctl(change.name);
      if (found === undefined || found === change.value) continue;
      up.push(sysctlLine(change.name, change.value));
      down.unshift(sysctlLine(change.name, found));
    }
  }
  return ['# set up', ...up, '# undo', ...down];
}
