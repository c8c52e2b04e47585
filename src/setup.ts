/**
 * Sets a host up for one tunnel and puts it back: expands the rows of os.ts for the situation
 * (situation.ts), hands them to changes.ts, and undoes what dead instances left.
 *
 * Nothing here names a command; what a system needs is in its tables. doc/host.md has the overview.
 */
import { Changes, recordLine, settingLine } from './changes.ts';
import type { Tools, UndoReport } from './changes.ts';
import { bootId, isNamespaceGone, netnsInode, readFacts } from './facts.ts';
import type { Facts } from './facts.ts';
import { Instance, waysTo } from './instance.ts';
import type { HostSetup } from './instance.ts';
import { JOURNAL_VERSION, JournalDirectory } from './journal.ts';
import type { Header } from './journal.ts';
import { exits } from './linkroutes.ts';
import type { HostLink } from './linkroutes.ts';
import { LinkSetup } from './linksetup.ts';
import { PREFERENCES, chooseNumbers } from './numbers.ts';
import type { Numbers } from './numbers.ts';
import type { Native } from './native.ts';
import { thisPlatform } from './os.ts';
import type { Platform, Row } from './os.ts';
import { Failure } from './report.ts';
import { commandLine, expandRows, hostRunner, typed, undoLine } from './rules.ts';
import type { Change, Runner } from './rules.ts';
import { Situation } from './situation.ts';
import type { HostSettings } from './situation.ts';

export type { HostSetup } from './instance.ts';
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
    checkLinks(settings, tools.platform);
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
      linkMarks: numbers.links.map((link) => link.mark),
      tables: [numbers.table, numbers.tableOut, ...numbers.links.map((link) => link.table)],
      preferences: [
        ...Array.from({ length: PREFERENCES }, (_, i) => numbers.preference + i),
        ...numbers.links.map((link) => link.preference),
      ],
    };
    const journal = tools.directory.create(header);
    return new Instance(settings, situation, numbers, journal, header, tools);
  });
}

/** Throws a `Failure` where links cannot be told apart by what they are bound to. */
function checkLinks({ mostLinks = 0 }: HostSettings, platform: Platform): void {
  if (mostLinks === 0 || platform.link !== undefined) return;
  throw new Failure('--link', 'not on this system yet', 'leave it out');
}

/** Throws a `Failure` where no route leads to the server: there is nothing to wait for. */
async function checkWay(
  { servers = [], gateway, mostLinks = 0 }: HostSettings,
  { platform, runner }: Tools & { readonly platform: Platform },
): Promise<void> {
  if (platform.routeTo === undefined || servers.length === 0 || gateway !== '') return;
  // Links come and go, and have gateways of their own.
  if (mostLinks > 0) return;
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

/** With those that "auto" finds, but for interfaces that are links already. */
function plannedLinks(
  { links = [], isAuto, tun }: HostSettings,
  facts: Facts,
): readonly HostLink[] {
  if (isAuto !== true) return links;
  const taken = links.map(({ device, address }) => device || facts.addresses.get(address));
  const found = exits(facts).filter((device) => device !== tun && !taken.includes(device));
  return [
    ...links,
    ...found.map((device) => ({ name: device, device, address: '', gateways: [] })),
  ];
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
  checkLinks(settings, platform);
  const { situation, numbers } = examine(located, facts, tools, identity(deps, tools));
  const needs = situation.needs(true);
  const changes = (rows: readonly Row[]): readonly Change[] =>
    expandRows(rows, situation.variables, needs);
  const all = [...changes(platform[settings.role])];
  if (settings.role === 'client') {
    const { servers = [] } = settings;
    const links = plannedLinks(settings, facts);
    all.push(...new LinkSetup(links, numbers.links, situation, tools, servers).plan(facts));
    all.push(...(await waysTo(settings.servers ?? [], tools, situation, needs)));
    all.push(...changes([...platform.connected, ...platform.everySession, ...platform.enter]));
  }
  const up: string[] = [];
  const down: string[] = [];
  const set = new Set<string>();
  for (const change of all) {
    if (change.kind === 'command') {
      // Nothing has been made that could be reverted.
      if (change.revert) continue;
      if (change.up.length > 0) up.push(...typed(change.up, change.input));
      if (change.down.length > 0) down.unshift(undoLine(change.down, change.find));
    } else {
      const found = runner.readSysctl(change.name);
      if (found === undefined || found === change.value || set.has(change.name)) continue;
      set.add(change.name);
      up.push(settingLine(runner, change.name, change.value));
      down.unshift(settingLine(runner, change.name, found));
    }
  }
  return ['# set up', ...up, '# undo', ...down];
}
