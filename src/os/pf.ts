/**
 * pf of macOS, OpenBSD, FreeBSD and DragonFly BSD: the ruleset of one instance, in an anchor of its
 * own, and the line of the main ruleset that leads there.
 *
 * A main ruleset is only ever loaded whole, so the line is put into what is running, and taken out of
 * what is running then: whatever an administrator has loaded meanwhile stays. That line, whether pf is
 * enabled and whether it is loaded at all are values of the whole host, shared and counted like
 * sysctls, and named like them: pf/anchor, pf/enabled, pf/loaded.
 */
import type { Outcome, Runner } from '../rules.ts';
import { pointToPoint } from './platform.ts';
import type { Line, Row } from './platform.ts';

/** Packets from the tunnel, recognised where they leave, behind a translation. */
const TAGGED = 'vpn.$TUN';

/** Not the host itself: what the tunnel may reach there is for the host's own rules to say. */
const OWN_ADDRESSES: Line = { text: 'table <vpn_own> const { self }' };

/** CVE-2019-14899: whoever shares a network with this host could otherwise probe the inner address. */
const PROTECTION: readonly Line[] = [
  { text: 'block drop in quick on $OUT_IF4 inet from any to $LOCAL' },
  { need: 'ipv6', text: 'block drop in quick on $OUT_IF6 inet6 from any to $LOCAL6' },
];

const FROM_TUNNEL: readonly Line[] = [
  { text: `pass in quick on $TUN inet from $PEER to ! <vpn_own> tag ${TAGGED}` },
  { text: `pass in quick on $TUN inet from $NET4 to ! <vpn_own> tag ${TAGGED}` },
  {
    need: 'ipv6-leaves',
    text: `pass in quick on $TUN inet6 from $PEER6 to ! <vpn_own> tag ${TAGGED}`,
  },
  {
    need: 'ipv6-forward',
    text: `pass in quick on $TUN inet6 from $NET6 to ! <vpn_own> tag ${TAGGED}`,
  },
];

/** Connections from outside are for the networks behind the client only. */
const TO_NETWORKS: readonly Line[] = [
  { text: 'pass in quick on $OUT_IF4 inet from any to $NET4' },
  { text: 'pass out quick on $TUN inet from any to $NET4' },
  { need: 'ipv6-forward', text: 'pass in quick on $OUT_IF6 inet6 from any to $NET6' },
  { need: 'ipv6-forward', text: 'pass out quick on $TUN inet6 from any to $NET6' },
];

/**
 * Since OpenBSD 4.7 translation is part of a pass rule. An address that was chosen comes first; the
 * others leave with the first address of their interface, whatever it is by then.
 */
export const openbsdRules: readonly Line[] = pointToPoint
  ? []
  : [
      OWN_ADDRESSES,
      { text: 'match on $TUN scrub (max-mss $MSS)' },
      ...PROTECTION,
      ...FROM_TUNNEL,
      { text: `pass out quick on $EXT_IF inet tagged ${TAGGED} nat-to $EXT4` },
      {
        need: 'ipv6-leaves',
        text: `pass out quick on $EXT_IF inet6 tagged ${TAGGED} nat-to $EXT6`,
      },
      { text: `pass out quick on $OUT_IF4 inet tagged ${TAGGED} nat-to ($OUT_IF4:0)` },
      {
        need: 'ipv6-leaves',
        text: `pass out quick on $OUT_IF6 inet6 tagged ${TAGGED} nat-to ($OUT_IF6:0)`,
      },
      ...TO_NETWORKS,
    ];

/** macOS, FreeBSD and DragonFly BSD: normalization, translation, filtering, in this order. */
export const classicRules: readonly Line[] = pointToPoint
  ? []
  : [
      OWN_ADDRESSES,
      { text: 'scrub on $TUN all max-mss $MSS' },
      { text: 'nat on $EXT_IF inet from $PEER to any -> $EXT4' },
      { text: 'nat on $EXT_IF inet from $NET4 to any -> $EXT4' },
      { need: 'ipv6-leaves', text: 'nat on $EXT_IF inet6 from $PEER6 to any -> $EXT6' },
      { need: 'ipv6-leaves', text: 'nat on $EXT_IF inet6 from $NET6 to any -> $EXT6' },
      { text: 'nat on $OUT_IF4 inet from $PEER to any -> ($OUT_IF4:0)' },
      { text: 'nat on $OUT_IF4 inet from $NET4 to any -> ($OUT_IF4:0)' },
      { need: 'ipv6-leaves', text: 'nat on $OUT_IF6 inet6 from $PEER6 to any -> ($OUT_IF6:0)' },
      { need: 'ipv6-leaves', text: 'nat on $OUT_IF6 inet6 from $NET6 to any -> ($OUT_IF6:0)' },
      ...PROTECTION,
      ...FROM_TUNNEL,
      { text: `pass out quick on $OUT_IF4 inet tagged ${TAGGED}` },
      { need: 'ipv6-leaves', text: `pass out quick on $OUT_IF6 inet6 tagged ${TAGGED}` },
      ...TO_NETWORKS,
    ];

/** The rows of a server: `anchor` is where its rules go. */
export function pfRows(anchor: string, input: readonly Line[]): readonly Row[] {
  return [
    {
      need: 'default',
      up: `pfctl -a ${anchor} -f -`,
      input,
      down: `pfctl -a ${anchor} -F all`,
    },
  ];
}

/** Where the main ruleset of a BSD leads to the instances. */
export const ANCHOR = 'vpn/*';
export const BSD_ANCHOR = 'vpn/$TUN';
const isOurs = (line: string): boolean =>
  /^(?:nat-|scrub-)?anchor "vpn\/\*"(?: all)?$/.test(line.trim());

/** How a system's main ruleset is read and loaded. */
export interface Dialect {
  /** Commands, and which of their lines, as lines of a ruleset; put together in this order. */
  readonly parts: readonly {
    readonly command: string;
    readonly lines: (output: string) => readonly string[];
  }[];
  /** Put in front of the first line that `before` recognises, or at the end. */
  readonly anchors: readonly { readonly line: string; readonly before: RegExp }[];
  readonly load: string;
}

const linesOf = (output: string): readonly string[] =>
  output.split('\n').filter((line) => line.trim() !== '');

/** Loading a main ruleset forgets which interfaces are skipped (pfctl.c, pfctl_clear_interface_flags). */
const SKIPPED = {
  command: 'pfctl -s Interfaces -v',
  lines: (output: string): readonly string[] =>
    linesOf(output).flatMap((line) => {
      const [, name] = /^(\S+) \(skip\)/.exec(line) ?? [];
      return name === undefined ? [] : [`set skip on ${name}`];
    }),
};

const isScrub = (line: string): boolean => /^(?:no )?scrub/.test(line);

export const classic: Dialect = {
  parts: [
    SKIPPED,
    // The same command gives normalization and filtering, which have translation between them.
    { command: 'pfctl -s rules', lines: (output) => linesOf(output).filter(isScrub) },
    { command: 'pfctl -s nat', lines: linesOf },
    {
      command: 'pfctl -s rules',
      lines: (output) => linesOf(output).filter((line) => !isScrub(line)),
    },
  ],
  anchors: [
    // The first that matches wins here, and the last that is not quick below.
    { line: `scrub-anchor "${ANCHOR}"`, before: /^(?!set )/ },
    { line: `nat-anchor "${ANCHOR}"`, before: /^(?!set |(?:no )?scrub)/ },
    {
      line: `anchor "${ANCHOR}"`,
      before: /^(?!set |(?:no )?(?:scrub|nat|rdr|binat)(?:-anchor)?\b)/,
    },
  ],
  // Merged options, translation and filter rules; tables and queues stay as they are.
  load: 'pfctl -m -O -N -R -f -',
};

export const openbsd: Dialect = {
  parts: [
    SKIPPED,
    {
      // Loading a main ruleset sets those that it does not name to their defaults.
      command: 'pfctl -s timeouts',
      lines: (output) =>
        linesOf(output).flatMap((line) => {
          const [, name, value] = /^(\S+)\s+(\d+)(?:s| states)?$/.exec(line) ?? [];
          return name === undefined ? [] : [`set timeout ${name} ${value}`];
        }),
    },
    { command: 'pfctl -s queue', lines: linesOf },
    { command: 'pfctl -s rules', lines: linesOf },
  ],
  anchors: [{ line: `anchor "${ANCHOR}"`, before: /^(?!set |queue )/ }],
  load: 'pfctl -f -',
};

/** Why a command that writes a value failed; `isUnfinished`: it may have done its work. */
export class SettingError extends Error {
  readonly isUnfinished: boolean;

  constructor(outcome: Outcome) {
    super(outcome.reason);
    this.isUnfinished = !outcome.refused;
  }
}

function mustRun(runner: Runner, argv: readonly string[], input?: string): void {
  const outcome = runner.runSync(argv, input === undefined ? {} : { input });
  if (outcome.status !== 0) throw new SettingError(outcome);
}

/** The running main ruleset as it can be loaded; undefined when pf does not say it. */
function runningRules(runner: Runner, dialect: Dialect): readonly string[] | undefined {
  const rules: string[] = [];
  for (const { command, lines } of dialect.parts) {
    const outcome = runner.runSync(command.split(' '));
    if (outcome.status !== 0) return undefined;
    rules.push(...lines(outcome.stdout));
  }
  return rules;
}

/** The same ruleset with our lines, or without them. */
export function withAnchors(
  rules: readonly string[],
  dialect: Dialect,
  wanted: boolean,
): readonly string[] {
  const result = rules.filter((line) => !isOurs(line));
  for (const { line, before } of wanted ? dialect.anchors : []) {
    const at = result.findIndex((one) => before.test(one));
    result.splice(at < 0 ? result.length : at, 0, line);
  }
  return result;
}

/** A value of the whole host that commands read and write. */
export interface Setting {
  readonly read: (runner: Runner) => string | undefined;
  readonly write: (runner: Runner, value: string) => void;
  /** As one would type it. */
  readonly line: (value: string) => string;
}

/** `isModule`: pf is a kernel module, which may not be loaded; then nothing of it is there yet. */
export function pfSettings(dialect: Dialect, isModule: boolean): Readonly<Record<string, Setting>> {
  const isLoaded = (runner: Runner): boolean =>
    !isModule || runner.runSync(['kldstat', '-q', '-m', 'pf']).status === 0;
  const settings: Record<string, Setting> = {
    'pf/anchor': {
      read: (runner) => {
        if (!isLoaded(runner)) return '0';
        const rules = runningRules(runner, dialect);
        if (rules === undefined) return undefined;
        return rules.filter(isOurs).length === dialect.anchors.length ? '1' : '0';
      },
      write: (runner, value) => {
        // Nothing to take out of a pf that is gone.
        if (value === '0' && !isLoaded(runner)) return;
        const rules = runningRules(runner, dialect);
        if (rules === undefined) throw new Error('pfctl does not show the running ruleset');
        const text = withAnchors(rules, dialect, value === '1');
        mustRun(runner, dialect.load.split(' '), text.map((line) => `${line}\n`).join(''));
      },
      line: (value) =>
        `${dialect.load} # the running ruleset ${value === '1' ? 'and' : 'without'} ` +
        dialect.anchors.map(({ line }) => line).join(', '),
    },
    'pf/enabled': {
      read: (runner) => {
        if (!isLoaded(runner)) return '0';
        const { status, stdout } = runner.runSync(['pfctl', '-s', 'info']);
        const [, state] = /^Status: (Enabled|Disabled)/m.exec(stdout) ?? [];
        return status !== 0 || state === undefined ? undefined : state === 'Enabled' ? '1' : '0';
      },
      write: (runner, value) => mustRun(runner, ['pfctl', value === '1' ? '-e' : '-d']),
      line: (value) => `pfctl ${value === '1' ? '-e' : '-d'}`,
    },
  };
  if (isModule) {
    settings['pf/loaded'] = {
      read: (runner) => (isLoaded(runner) ? '1' : '0'),
      write: (runner, value) => {
        // Somebody else has rules there by now, which would go with it.
        const rules = value === '0' ? runningRules(runner, dialect) : [];
        if (rules?.some((line) => !isOurs(line) && !line.startsWith('set '))) return;
        mustRun(runner, [value === '1' ? 'kldload' : 'kldunload', 'pf']);
      },
      line: (value) => `${value === '1' ? 'kldload' : 'kldunload'} pf`,
    };
  }
  return settings;
}
