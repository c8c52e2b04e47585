/**
 * Sets a host up for one tunnel and puts it back: expands the rows of os.ts for the situation
 * (situation.ts), hands them to changes.ts, and undoes what dead instances left.
 *
 * Nothing here names a command; what a system needs is in its tables. doc/host.md has the overview.
 */
import { Changes, recordLine, settingLine } from './changes.ts';
import type { Tools, UndoReport } from './changes.ts';
import { fileLine, textLines } from './filechanges.ts';
import { bootId, isNamespaceGone, netnsInode, readFacts } from './facts.ts';
import type { Facts } from './facts.ts';
import { firstChanges, Instance, waysTo } from './instance.ts';
import type { HostSetup } from './instance.ts';
import { JOURNAL_VERSION, JournalDirectory } from './journal.ts';
import type { Found, Header } from './journal.ts';
import { chooseSwitchName } from './killswitch.ts';
import { exits } from './linkroutes.ts';
import type { HostLink } from './linkroutes.ts';
import { LinkSetup } from './linksetup.ts';
import { findNaming } from './naming.ts';
import { PREFERENCES, chooseNumbers } from './numbers.ts';
import type { Numbers } from './numbers.ts';
import type { Native } from './native.ts';
import { thisPlatform } from './os.ts';
import type { Platform, Row } from './os.ts';
import type { Numbered } from './record.ts';
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

/**
 * Undoes what dead instances left in this namespace; `isKept`: but for their kill switches, whose journals
 * are `kept`. The caller holds the directory's lock.
 */
async function undoDead(
  tools: Tools & { readonly platform: Platform },
  deps: HostDeps,
  isKept: boolean,
): Promise<UndoReport & { readonly kept: readonly string[] }> {
  const own = identity(deps, tools);
  const undone: string[] = [];
  const failed: string[] = [];
  const kept: string[] = [];
  for (const { path, header, journal } of tools.directory.scan()) {
    if (journal === undefined) continue;
    const isReboot = header !== undefined && header.bootId !== own.bootId;
    const isForeign = header !== undefined && header.netns !== own.netns;
    if (header === undefined) {
      journal.discard();
    } else if (isReboot) {
      const report = new Changes(journal, header, tools, false).undoFiles();
      undone.push(...report.undone);
      failed.push(...report.failed);
      if (report.failed.length > 0) journal.release();
      else journal.discard();
    } else if (isForeign) {
      const isGone = header.netnsInode === own.netnsInode || isNamespaceGone(header.netnsInode);
      if (isGone) journal.discard();
      else journal.release();
    } else if (header.version !== JOURNAL_VERSION) {
      deps.warn(`journal "${path}" is of another version: run vpn cleanup of that version`);
      journal.release();
    } else {
      const report = await new Changes(journal, header, tools, false).undo(true, isKept);
      if (isKept && journal.remaining.some(isOfSwitch)) kept.push(path);
      journal.close();
      undone.push(...report.undone);
      failed.push(...report.failed);
    }
  }
  return { undone, failed, kept };
}

const isOfSwitch = ({ record }: Numbered): boolean => 'undo' in record && record.stays === true;

/** What remains of an instance that has ended, or of one that has just begun. */
const isOnlySwitch = ({ remaining }: Found): boolean =>
  remaining.length > 0 && remaining.every(isOfSwitch);

/**
 * Undoes what dead instances left, but for kill switches, and what was written to disk before a reboot. Before
 * names are resolved: name servers of a dead instance are those behind its tunnel. Throws a `Failure`.
 */
export async function settleDead(deps: HostDeps): Promise<void> {
  const tools = toolsOf(deps);
  if (tools.directory.peek().length === 0) return;
  const { undone } = await tools.directory.locked(() => undoDead(tools, deps, true));
  for (const line of undone) deps.log(`undone for a dead vpn: ${line}`);
}

/**
 * Undoes what dead instances left, chooses what this one has for itself, and opens its journal;
 * changes nothing else. Call it before the link sockets are opened: they need `mark`. Throws a
 * `Failure`.
 */
export async function prepareHost(settings: HostSettings, deps: HostDeps): Promise<HostSetup> {
  const tools = toolsOf(deps);
  return await tools.directory.locked(async () => {
    const { undone, kept } = await undoDead(tools, deps, true);
    for (const line of undone) deps.log(`undone for a dead vpn: ${line}`);
    const own = identity(deps, tools);
    checkSupport(settings, tools.platform);
    checkSite(settings, tools.platform);
    const facts = await readFacts(tools.platform, tools.runner, settings.killSwitch);
    await checkWay(settings, tools);
    const located = await locate(settings, tools);
    const isLeft = (found: Found): boolean => kept.includes(found.path) && isOnlySwitch(found);
    const examined = examine(located, facts, tools, own, isLeft);
    const { situation, numbers, tag, switchName } = examined;
    for (const line of situation.warnings) deps.warn(line);
    const header: Header = {
      version: JOURNAL_VERSION,
      ...own,
      role: settings.role,
      tun: settings.tun,
      tag,
      switchName,
      mark: numbers.mark,
      linkMarks: numbers.links.map((link) => link.mark),
      tables: [numbers.table, numbers.tableOut, ...numbers.links.map((link) => link.table)],
      preferences: [
        ...Array.from({ length: PREFERENCES }, (_, i) => numbers.preference + i),
        ...numbers.links.map((link) => link.preference),
      ],
    };
    const journal = tools.directory.create(header);
    const takesAway = kept.length > 0 && (settings.killSwitch || situation.takesEverything);
    const takeAway = async (): Promise<void> => {
      const report = await tools.directory.locked(() => undoDead(tools, deps, false));
      for (const line of report.undone) deps.log(`undone for an earlier vpn: ${line}`);
    };
    if (kept.length > 0 && !takesAway) deps.warn(STILL_THERE);
    const made = [located, situation, numbers, journal, header, tools] as const;
    return new Instance(...made, takesAway ? takeAway : undefined);
  });
}

const STILL_THERE = 'the kill switch of an earlier run is in force until vpn cleanup';

/** Throws a `Failure` where this system's tables lack what is asked for. */
function checkSupport(settings: HostSettings, platform: Platform): void {
  const { mostLinks = 0, killSwitch = false, dns = [] } = settings;
  for (const [option, isAsked, rows] of [
    // Links could not be told apart by what they are bound to.
    ['--link', mostLinks > 0, platform.link],
    ['--kill-switch', killSwitch, platform.killSwitch],
    ['--dns', dns.length > 0, platform.names],
  ] as const) {
    if (!isAsked || rows !== undefined) continue;
    throw new Failure(option, 'not on this system yet', 'leave it out');
  }
}

/** Throws a `Failure` where nothing is known of forwarding between networks. */
function checkSite({ allow = [], proxyArp = false }: HostSettings, platform: Platform): void {
  if (platform.site !== undefined || (allow.length === 0 && !proxyArp)) return;
  const what = allow.length > 0 ? '--allow' : '--proxy-arp';
  throw new Failure(what, 'not on this system yet', 'leave it out, and set forwarding up yourself');
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

/** With what of the host the settings depend on. */
async function locate(
  settings: HostSettings,
  tools: Tools & { readonly platform: Platform },
): Promise<HostSettings> {
  const located = await locateGateway(settings, tools);
  const { killSwitch = false, dns = [] } = settings;
  if (!killSwitch && dns.length === 0) return located;
  return { ...located, naming: await findNaming(tools.runner, settings.tun, dns.length > 0) };
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

/** `isLeft`: all that remains of an instance is its kill switch, so that its numbers are free. */
function examine(
  settings: HostSettings,
  facts: Facts,
  tools: Tools,
  own: Pick<Header, 'bootId' | 'netns'>,
  isLeft: (found: Found) => boolean,
): {
  readonly situation: Situation;
  readonly numbers: Numbers;
  readonly tag: string;
  readonly switchName: string;
} {
  const others = tools.directory
    .peek()
    .filter(({ header }) => header?.netns === own.netns && header.bootId === own.bootId);
  const headers = (found: readonly Found[]): readonly Header[] =>
    found.flatMap(({ header }) => header ?? []);
  const numbers = chooseNumbers(settings, facts, headers(others.filter((one) => !isLeft(one))));
  const switchName = chooseSwitchName(headers(others).map((header) => header.switchName));
  // No two instances in a namespace have the same table.
  const tag = `${settings.tun}.${numbers.table}`;
  const named = { ...settings, switchName };
  const situation = new Situation(named, facts, numbers, tag, tools.runner);
  return { situation, numbers, tag, switchName };
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
      if (journal === undefined || header === undefined) return [];
      const isReboot = header.bootId !== own.bootId;
      const isOurs = header.netns === own.netns && header.version === JOURNAL_VERSION;
      return [...journal.remaining]
        .reverse()
        .filter(({ record }) => (isReboot ? 'file' in record : isOurs))
        .map(({ record }) => recordLine(record, runner));
    });
  });
}

/** `vpn cleanup`: undoes what dead instances left in this network namespace. Throws a `Failure`. */
export async function cleanUp(deps: HostDeps): Promise<UndoReport> {
  const tools = toolsOf(deps);
  const { undone, failed } = await tools.directory.locked(() => undoDead(tools, deps, false));
  return { undone, failed };
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
  checkSupport(settings, platform);
  checkSite(settings, platform);
  const facts = await readFacts(platform, runner, settings.killSwitch);
  const located = await locate(settings, tools);
  const own = identity(deps, tools);
  const { situation, numbers } = examine(located, facts, tools, own, isOnlySwitch);
  const needs = situation.needs(true);
  const changes = (rows: readonly Row[]): readonly Change[] =>
    expandRows(rows, situation.variables, needs);
  const all = [
    ...changes(platform.killSwitch ?? []),
    ...firstChanges(platform, settings.role, situation, needs),
  ];
  if (settings.role === 'client') {
    const { servers = [] } = settings;
    const links = plannedLinks(settings, facts);
    all.push(...new LinkSetup(links, numbers.links, situation, tools, servers).plan(facts));
    all.push(...(await waysTo(settings.servers ?? [], tools, situation, needs)));
    const { connected, everySession, enter, names = [] } = platform;
    all.push(...changes([...connected, ...everySession, ...enter, ...names]));
  }
  const up: string[] = [];
  const down: string[] = [];
  const later: string[] = [];
  const set = new Set<string>();
  for (const change of all) {
    if (change.kind === 'command') {
      // Nothing has been made that could be reverted.
      if (change.revert) continue;
      if (change.up.length > 0) up.push(...typed(change.up, change.input));
      const undone = change.stays ? later : down;
      if (change.down.length > 0) undone.unshift(undoLine(change.down, change.find));
    } else if (change.kind === 'file') {
      const found = runner.files?.read(change.file) ?? { kind: 'none' };
      up.push(...textLines(change.file, change.text));
      down.unshift(fileLine(change.file, found));
    } else {
      const found = runner.readSysctl(change.name);
      if (found === undefined || found === change.value || set.has(change.name)) continue;
      set.add(change.name);
      up.push(settingLine(runner, change.name, change.value));
      down.unshift(settingLine(runner, change.name, found));
    }
  }
  const cleanup = later.length === 0 ? [] : ['# vpn cleanup', ...later];
  return ['# set up', ...up, '# undo', ...down, ...cleanup];
}
