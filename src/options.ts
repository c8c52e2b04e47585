/**
 * The options, as one table that parses the command line and prints the help. A test holds it
 * against the man page.
 */
import { nearest } from './nearest.ts';
import { UsageFailure } from './report.ts';

export type CommandName = 'server' | 'client' | 'keygen' | 'cleanup' | 'selftest' | AskName;

/** Commands that ask a running instance. */
export type AskName = 'status' | 'top' | 'check' | 'events' | 'link' | 'reload' | 'reset' | 'stop';

export interface Option {
  readonly long: string;
  readonly short?: string;
  /** What the value is called in the help; '' for an option without one. */
  readonly value: string;
  readonly repeats?: true;
  /** Only in the long help, with -v. */
  readonly rare?: true;
  /** For tests: not in the help. */
  readonly hidden?: true;
  readonly commands: readonly CommandName[];
  readonly help: string;
}

const ENDS: readonly CommandName[] = ['server', 'client'];
const HOST: readonly CommandName[] = [...ENDS, 'cleanup'];
const ASK: readonly CommandName[] = [
  'status',
  'top',
  'check',
  'events',
  'link',
  'reload',
  'reset',
  'stop',
];
const ALL: readonly CommandName[] = [...HOST, ...ASK, 'keygen', 'selftest'];

export const OPTIONS = [
  {
    long: 'no-default-routes',
    value: '',
    commands: ENDS,
    help: 'addresses only: no default route, NAT or forwarding',
  },
  {
    long: 'route',
    value: 'CIDR',
    repeats: true,
    commands: ENDS,
    help: 'send CIDR through the tunnel, and on a client only that',
  },
  {
    long: 'link',
    value: 'LINK',
    repeats: true,
    commands: ['client'],
    help: 'bond these links: an interface, an address or auto (none)',
  },
  {
    long: 'listen',
    value: 'ADDR:PORT',
    repeats: true,
    commands: ['server'],
    help: 'wait for the client here',
  },
  {
    long: 'realtime',
    value: 'udp:PORT',
    repeats: true,
    commands: ENDS,
    help: 'never hold this traffic; with ",duplicate" send it twice',
  },
  {
    long: 'filter',
    value: "'LINK EXPR'",
    repeats: true,
    commands: ENDS,
    help: 'what matches goes by LINK; see pcap-filter(7)',
  },
  { long: 'mtu', value: 'N', commands: ENDS, help: 'tun MTU, 1280 to 1500 (what fits the links)' },
  {
    long: 'mark',
    value: 'N',
    rare: true,
    commands: ENDS,
    help: 'firewall mark of own datagrams (a free one)',
  },
  {
    long: 'table',
    value: 'N',
    rare: true,
    commands: ENDS,
    help: 'routing table to fill (a free one)',
  },
  {
    long: 'cipher',
    value: 'NAME',
    rare: true,
    commands: ENDS,
    help: 'auto, aes-256-gcm or chacha20-poly1305 (auto)',
  },
  { long: 'no-offload', value: '', rare: true, commands: ENDS, help: 'no tun and UDP offloads' },
  {
    long: 'kill-switch',
    value: '',
    rare: true,
    commands: ['client'],
    help: 'without the tunnel nothing leaves, also after the end',
  },
  {
    long: 'dns',
    value: 'ADDR',
    repeats: true,
    rare: true,
    commands: ['client'],
    help: 'name servers while the tunnel is up',
  },
  {
    long: 'allow',
    value: 'CIDR',
    repeats: true,
    rare: true,
    commands: ENDS,
    help: 'the peer reaches only these networks through this end',
  },
  {
    long: 'proxy-arp',
    value: '',
    rare: true,
    commands: ENDS,
    help: 'answer for the other end in the local network',
  },
  {
    long: 'tuntap',
    value: 'TYPE',
    rare: true,
    commands: ENDS,
    help: 'tun carries IP packets, tap Ethernet frames (tun)',
  },
  {
    long: 'cleartext-data',
    value: '',
    rare: true,
    commands: ENDS,
    help: 'packets go authenticated, but in the clear',
  },
  {
    long: 'ip6',
    value: 'CIDR',
    rare: true,
    commands: ENDS,
    help: 'IPv6 address of this end (derived from the key)',
  },
  {
    long: 'ip6-gateway',
    value: 'ADDR',
    rare: true,
    commands: ENDS,
    help: 'IPv6 address of the other end',
  },
  {
    long: 'statuscommand',
    value: 'FILE',
    rare: true,
    commands: ENDS,
    help: 'script that is told of links and tunnel',
  },
  {
    long: 'timeout',
    value: 'SECONDS',
    rare: true,
    commands: ENDS,
    help: 'a silent link is down after this at the latest (60)',
  },
  {
    long: 'reorder-buffer-size',
    value: 'N',
    rare: true,
    commands: ENDS,
    help: 'without effect: as many are held as needed',
  },
  {
    long: 'control-unix-path',
    value: 'FILE',
    rare: true,
    commands: ENDS,
    help: 'socket of vpn status and the like',
  },
  {
    long: 'control-bind-host',
    value: 'ADDR',
    rare: true,
    commands: ENDS,
    help: 'address of the status over HTTP (127.0.0.1)',
  },
  {
    long: 'control-bind-port',
    value: 'PORT',
    rare: true,
    commands: ENDS,
    help: 'port of the status over HTTP (no HTTP)',
  },
  {
    long: 'user',
    short: 'u',
    value: 'USER',
    rare: true,
    commands: ENDS,
    help: 'who parses what comes from the network (_vpn)',
  },
  {
    long: 'log',
    value: 'FORM',
    rare: true,
    commands: ENDS,
    help: 'form of log lines, text or json (text)',
  },
  {
    long: 'natural-title',
    value: '',
    rare: true,
    commands: ENDS,
    help: 'leave the titles of processes alone',
  },
  {
    long: 'debug',
    value: '',
    rare: true,
    commands: ENDS,
    help: 'log to standard error',
  },
  {
    long: 'debug-token',
    short: 'D',
    value: 'TOKEN',
    repeats: true,
    rare: true,
    commands: ENDS,
    help: 'show one subject in detail',
  },
  {
    long: 'quiet',
    short: 'q',
    value: '',
    repeats: true,
    rare: true,
    commands: ENDS,
    help: 'show errors only',
  },
  {
    long: 'name',
    short: 'n',
    value: 'NAME',
    rare: true,
    commands: [...ENDS, ...ASK],
    help: 'of the instance (that of its device)',
  },
  { long: 'json', value: '', rare: true, commands: ['status'], help: 'all that vpn status knows' },
  {
    long: 'dry-run',
    value: '',
    commands: HOST,
    help: 'print the commands instead of running them',
  },
  {
    long: 'verbose',
    short: 'v',
    value: '',
    repeats: true,
    commands: ALL,
    help: 'show every command, and more',
  },
  { long: 'help', short: 'h', value: '', commands: ALL, help: 'show this help' },
  { long: 'version', short: 'V', value: '', commands: ALL, help: 'show the version' },
  {
    long: 'license',
    value: '',
    rare: true,
    commands: ALL,
    help: 'show the notices of what it is made of',
  },
  {
    long: 'rekey-after',
    value: 'SECONDS',
    hidden: true,
    commands: [...ENDS, 'selftest'],
    help: 'make new keys this often',
  },
  {
    long: 'state-dir',
    value: 'FOLDER',
    hidden: true,
    commands: [...HOST, ...ASK],
    help: 'keep the journal here',
  },
] as const satisfies readonly Option[];

export type OptionName = (typeof OPTIONS)[number]['long'];

/** A command line taken apart; no value was looked at yet. */
export interface Arguments {
  readonly words: readonly string[];
  readonly options: ReadonlyMap<OptionName, readonly string[]>;
}

const SEE_HELP = 'see vpn --help';

/** Takes a command line apart. Options may stand anywhere; `--` ends them. Throws a `UsageFailure`. */
export function parseArguments(argv: readonly string[]): Arguments {
  const words: string[] = [];
  const options = new Map<OptionName, string[]>();
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i];
    if (word === '--') {
      words.push(...argv.slice(i + 1));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      words.push(word);
      continue;
    }
    for (const [name, attached] of optionsIn(word)) {
      const option = findOption(name);
      let value = '';
      if (option.value !== '') {
        value = attached ?? argv[++i] ?? '';
        if (value === '' || (attached === undefined && value.startsWith('--'))) {
          throw new UsageFailure(
            `option ${name}`,
            'value missing',
            `write ${name} ${option.value}`,
          );
        }
      } else if (attached !== undefined) {
        throw new UsageFailure(`option ${name}`, 'takes no value', `write ${name} alone`);
      }
      const values = options.get(option.long) ?? [];
      if (values.length > 0 && !('repeats' in option)) {
        throw new UsageFailure(`option ${name}`, 'given twice', 'give it once');
      }
      options.set(option.long, [...values, value]);
    }
  }
  return { words, options };
}

/** Refuses options that mean nothing to `command`. */
export function checkOptions(command: CommandName, { options }: Arguments): void {
  for (const option of OPTIONS) {
    const commands: readonly CommandName[] = option.commands;
    if (options.has(option.long) && !commands.includes(command)) {
      throw new UsageFailure(`option --${option.long}`, `not for vpn ${command}`, SEE_HELP);
    }
  }
}

/** `did you mean …` for a misspelt word, with where to look. */
export function suggestion(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near === undefined ? SEE_HELP : `did you mean ${near}? ${SEE_HELP}`;
}

/** The lines of the options for the help, of rare ones only in a long one. */
export function optionHelp(isLong: boolean): readonly string[] {
  const shown = OPTIONS.filter(
    (option) => !('hidden' in option) && (isLong || !('rare' in option)),
  );
  return shown.map((option) => {
    const short = 'short' in option ? `-${option.short}, ` : '';
    const long = `--${option.long}${option.value === '' ? '' : ` ${option.value}`}`;
    return `  ${`${short}${long}`.padEnd(20)} ${option.help}`;
  });
}

/**
 * The options of a word, each with the value that hangs on it: `--mtu=1400`, or letters as getopt(3) takes
 * them, `-vvDrtt`. A word with a letter that is none is one option, which nobody knows.
 */
function optionsIn(word: string): readonly (readonly [string, string | undefined])[] {
  if (word.startsWith('--')) return [splitAtEquals(word)];
  const found: (readonly [string, string | undefined])[] = [];
  for (let at = 1; at < word.length; at++) {
    const option = OPTIONS.find((one) => 'short' in one && one.short === word[at]);
    if (option === undefined) return [[word, undefined]];
    const rest = word.slice(at + 1);
    if (option.value !== '') return [...found, [`-${word[at]}`, rest || undefined]];
    found.push([`-${word[at]}`, undefined]);
  }
  return found;
}

function splitAtEquals(word: string): readonly [string, string | undefined] {
  const at = word.indexOf('=');
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function findOption(name: string): (typeof OPTIONS)[number] {
  const found = OPTIONS.find(
    (option) => name === `--${option.long}` || ('short' in option && name === `-${option.short}`),
  );
  if (found !== undefined) return found;
  const known = OPTIONS.filter((option) => !('hidden' in option)).map(({ long }) => `--${long}`);
  throw new UsageFailure(`unknown option "${name}"`, '', suggestion(name, known));
}
