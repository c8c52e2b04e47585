/**
 * Sets a host up for one tunnel and puts it back: expands the rows of os.ts for the situation
 * (situation.ts), hands them to changes.ts, and undoes what dead instances left.
 *
 * Nothing here names a command; what a system needs is in its tables. doc/host.md has the overview.
 */
import { isIPv6 } from 'node:net';
import { Changes, recordLine, settingLine } from './changes.ts';
import type { Tools, UndoReport } from './changes.ts';
import { bootId, isNamespaceGone, netnsInode, readFacts, readRules } from './facts.ts';
import type { Facts } from './facts.ts';
import { JOURNAL_VERSION, JournalDirectory } from './journal.ts';
import type { Header, Journal } from './journal.ts';
import type { Native } from './native.ts';
import { thisPlatform } from './os.ts';
import type { Platform, ProbeName, Row } from './os.ts';
import { Failure } from './report.ts';
import { commandLine, expandRows, hostRunner, typed, undoLine } from './rules.ts';
import type { Change, Runner } from './rules.ts';
import { PREFERENCES, Situation, chooseNumbers, foreignMarks } from './situation.ts';
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
  /**
   * Client: the addresses of the server, also those that it had. Where link sockets have no mark, each
   * gets a route past the tunnel's. Once connected it does not fail; before, it undoes everything and
   * throws a `Failure`.
   */
  reach(servers: readonly string[]): Promise<void>;
  /** Client, every few seconds: follows what other programs changed meanwhile. Never rejects. */
  refresh(): Promise<void>;
  /** Server: whether IPv6 from the client leaves this host. */
  readonly ipv6Leaves: boolean;
  /** Newest first, once; waits for a change under way. False: something is left for `vpn cleanup`. */
  undo(): Promise<boolean>;
  /** The last resort, from 'exit' and 'uncaughtException'. */
  undoSync(): void;
}

/** The network namespace, as journals write it. */
function identity(
  deps: HostDeps,
  { platform, runner }: Tools & { readonly platform: Platform },
): Pick<Header, 'bootId' | 'netns' | 'netnsInode'> {
  const inode = netnsInode();
  const cookie = deps.native.netnsCookie();
  const { bootId: name } = platform;
  const boot = name === undefined ? bootId() : (runner.readSysctl(name) ?? '');
  return { bootId: boot, netns: cookie === '' ? `i${inode}` : cookie, netnsInode: inode };
}

function toolsOf(deps: HostDeps): Tools & { readonly platform: Platform } {
  const platform = deps.platform ?? thisPlatform();
  if (platform === undefined) {
    throw new Failure('cannot set up this host', 'no rules for this system', 'use Linux');
  }
  const plain = deps.runner ?? hostRunner(deps.path, (line) => deps.log(line));
  const runner = platform.adapt?.(plain) ?? plain;
  const directory = new JournalDirectory(deps.journalDir, (fd) => deps.native.lockFile(fd));
  return { platform, runner, directory, absent: platform.absent, warn: (line) => deps.warn(line) };
}

/** Undoes what dead instances left in this namespace. The caller holds the directory's lock. */
async function undoDead(
  tools: Tools & { readonly platform: Platform },
  deps: HostDeps,
): Promise<UndoReport> {
  const own = identity(deps, tools);
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

/** The rows of `Platform.reach` for the ways that now lead to the servers. */
async function waysTo(
  servers: readonly string[],
  { platform, runner }: Tools & { readonly platform: Platform },
  { variables }: Situation,
  needs: ReadonlySet<string>,
): Promise<readonly Change[]> {
  const { reach, wayTo } = platform;
  if (reach === undefined || wayTo === undefined || servers.length === 0) return [];
  const output = new Map<ProbeName, string>();
  for (const name of ['routes4', 'routes6'] as const) {
    const outcome = await runner.run((platform.probes[name] ?? '').split(' '));
    if (outcome.status === 0) output.set(name, outcome.stdout);
  }
  return servers.flatMap((server) => {
    const way = wayTo(server, String(variables.TUN), output);
    if (way === undefined) return [];
    const isSix = isIPv6(server);
    const gateway = (isSix ? variables.GATEWAY6 : variables.GATEWAY4)[0] ?? way.gateway;
    const to = {
      SERVER4: isSix ? [] : [server],
      SERVER6: isSix ? [server] : [],
      VIA: gateway === '' ? [] : [gateway],
      VIA_IF: gateway === '' ? [way.device] : [],
    };
    return expandRows(reach, { ...variables, ...to }, needs);
  });
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
  readonly #tools: Tools & { readonly platform: Platform };
  readonly #ownMark: number;
  readonly #servers = new Set<string>();
  /** Marks of other tunnels that are exempt from our routes. */
  readonly #exempt: Set<string>;

  constructor(
    settings: HostSettings,
    situation: Situation,
    journal: Journal,
    header: Header,
    tools: Tools & { readonly platform: Platform },
  ) {
    this.mark = header.mark;
    this.#role = settings.role;
    this.#ownMark = settings.mark;
    this.#situation = situation;
    this.#exempt = new Set(situation.variables.FOREIGN);
    this.#tools = tools;
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

  async reach(servers: readonly string[]): Promise<void> {
    if (this.#role === 'server' || this.#platform.reach === undefined) return;
    for (const server of servers) this.#servers.add(server);
    // A network that is away for now must not end a tunnel that waits for it.
    if (this.#serverIpv6 === undefined) await this.#make(() => this.#ways());
    else await this.refresh();
  }

  #ways(): Promise<readonly Change[]> {
    const needs = this.#situation.needs(this.#serverIpv6 ?? false);
    return waysTo([...this.#servers], this.#tools, this.#situation, needs);
  }

  async refresh(): Promise<void> {
    const mine = this.#busy.then(async () => {
      if (this.#role === 'server' || this.#serverIpv6 === undefined || this.#isStopped) return;
      const { platform, runner } = this.#tools;
      const marks = foreignMarks(await readRules(platform, runner), this.#ownMark);
      const news = marks.filter((mark) => !this.#exempt.has(mark));
      const variables = { ...this.#situation.variables, FOREIGN: news };
      const needs = this.#situation.needs(this.#serverIpv6);
      for (const change of expandRows(platform.refresh, variables, needs)) {
        await this.#changes.apply([change], () => this.#isStopped).catch(() => undefined);
      }
      for (const mark of news) this.#exempt.add(mark);
      for (const change of await this.#ways()) {
        await this.#changes.apply([change], () => this.#isStopped).catch(() => undefined);
      }
    });
    this.#busy = mine.catch(() => undefined);
    await this.#busy;
  }

  #expand(rows: Platform['client'], serverIpv6: boolean): readonly Change[] {
    return expandRows(rows, this.#situation.variables, this.#situation.needs(serverIpv6));
  }

  async #make(changes: () => Promise<readonly Change[]> | readonly Change[]): Promise<void> {
    const mine = this.#busy.then(async () =>
      this.#changes.apply(await changes(), () => this.#isStopped),
    );
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
    const own = identity(deps, tools);
    const facts = await readFacts(tools.platform, tools.runner);
    await checkWay(settings, tools);
    const located = await locateGateway(settings, tools);
    const { situation, numbers, tag } = examine(located, facts, tools, own);
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

/** Throws a `Failure` where no route leads to the server: there is nothing to wait for. */
async function checkWay(
  { servers = [], gateway }: HostSettings,
  { platform, runner }: Tools & { readonly platform: Platform },
): Promise<void> {
  if (platform.routeTo === undefined || servers.length === 0 || gateway !== '') return;
  for (const server of servers) {
    const { status, stderr } = await runner.run([...platform.routeTo.split(' '), server]);
    if (status <= 0 || !/unreachable|No route to host/.test(stderr)) return;
  }
  throw new Failure(
    `cannot reach ${servers.map((server) => `"${server}"`).join(' or ')}`,
    'no route leads there',
    'connect this host to a network, or give the gateway ip',
  );
}

/** Which way a gateway is that was given. */
async function locateGateway(
  settings: HostSettings,
  { platform, runner }: Tools & { readonly platform: Platform },
): Promise<HostSettings> {
  const { role, gateway } = settings;
  if (platform.routeTo === undefined || role === 'server' || gateway === '') return settings;
  const argv = [...platform.routeTo.split(' '), gateway];
  const { stdout, status, reason } = await runner.run(argv);
  const gatewayDevice = / dev (\S+)/.exec(stdout)?.[1];
  if (status !== 0 || gatewayDevice === undefined) {
    const why = `"${commandLine(argv)}" ${reason}`;
    throw new Failure('cannot find the gateway', why, 'give the address of a neighbour');
  }
  return { ...settings, gatewayDevice };
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

/** `vpn cleanup --dry-run`: what `cleanUp` would take back, a line each. Changes nothing. */
export async function planCleanUp(deps: HostDeps): Promise<readonly string[]> {
  const tools = toolsOf(deps);
  const { directory, runner } = tools;
  // There may be no directory yet, and none is to come into being.
  if (directory.peek().length === 0) return [];
  return await directory.locked(() => {
    const own = identity(deps, tools);
    return directory.scan().flatMap(({ header, journal }) => {
      journal?.release();
      const isOurs =
        header?.bootId === own.bootId &&
        header.netns === own.netns &&
        header.version === JOURNAL_VERSION;
      if (journal === undefined || !isOurs) return [];
      return [...journal.remaining].reverse().map(({ record }) => recordLine(record, runner));
    });
  });
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
  const located = await locateGateway(settings, tools);
  const { situation } = examine(located, facts, tools, identity(deps, tools));
  const needs = situation.needs(true);
  const changes = (rows: readonly Row[]): readonly Change[] =>
    expandRows(rows, situation.variables, needs);
  const all = [...changes(platform[settings.role])];
  if (settings.role === 'client') {
    all.push(...(await waysTo(settings.servers ?? [], tools, situation, needs)));
    all.push(...changes([...platform.connected, ...platform.everySession, ...platform.enter]));
  }
  const up: string[] = [];
  const down: string[] = [];
  for (const change of all) {
    if (change.kind === 'command') {
      // Nothing has been made that could be reverted.
      if (change.revert) continue;
      if (change.up.length > 0) up.push(...typed(change.up, change.input));
      if (change.down.length > 0) down.unshift(undoLine(change.down, change.find));
    } else {
      const found = runner.readSysctl(change.name);
      if (found === undefined || found === change.value) continue;
      up.push(settingLine(runner, change.name, change.value));
      down.unshift(settingLine(runner, change.name, found));
    }
  }
  return ['# set up', ...up, '# undo', ...down];
}
