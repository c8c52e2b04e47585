/**
 * The command line: which commands there are, and the exit status of each.
 *
 * Everything a command needs is imported when it is needed: help and version load no native code.
 */
import { fileArguments } from './conf/mlvpnargs.ts';
import type { FileArguments } from './conf/mlvpnargs.ts';
import { keyHelp } from './conf/schema.ts';
import { checkOptions, optionHelp, parseArguments, suggestion } from './options.ts';
import type { DaemonConfig } from './conf/config.ts';
import type { Config } from './config.ts';
import type { Arguments, AskName, CommandName } from './options.ts';
import {
  EXIT_SUCCESS,
  UsageFailure,
  fail,
  isDetailed,
  print,
  setLogFormat,
  setVerbose,
  verbose,
} from './report.ts';
import { WORKER_COMMAND } from './privsep/command.ts';
import { VERSION } from './version.ts';

export { VERSION } from './version.ts';

const VARIANT = process.env.NO_DEFAULT_ROUTES === '1' ? ' (no default routes)' : '';

interface Command {
  readonly words: string;
  readonly help: string;
  /** Returns the exit status. */
  readonly run: (args: Arguments) => Promise<number>;
}

/** Asks the instance that runs here. */
function ask(name: AskName, words: string, help: string): Command {
  return {
    words,
    help,
    run: async (args) => {
      const commands = await import('./daemon/commands.ts');
      return commands[`${name}Command`](args);
    },
  };
}

const ASKS: Readonly<Record<AskName, Command>> = {
  status: ask('status', '', 'what a running vpn is doing'),
  top: ask('top', '', 'the same, live'),
  check: ask('check', '', 'is the outside reachable, and the inside?'),
  events: ask('events', '', 'what has happened, and what happens'),
  link: ask('link', 'NAME up|down|backup|max=RATE', 'change a link'),
  reload: ask('reload', '', 'read the configuration file again'),
  reset: ask('reset', '', 'new keys, links built anew'),
  stop: ask('stop', '', 'end it'),
};

const COMMANDS: Readonly<Record<CommandName, Command>> = {
  server: {
    words: 'KEYFILE [ADDRESS] [PORT] [TUN] [LOCAL] [REMOTE] [EXTERNAL]',
    help: '',
    run: async (args) => {
      const { serverConfig } = await import('./config.ts');
      return start(serverConfig(args), args);
    },
  },
  client: {
    words: 'KEYFILE SERVER [PORT] [TUN] [LOCAL] [REMOTE] [GATEWAY]',
    help: '',
    run: async (args) => {
      const { clientConfig } = await import('./config.ts');
      return start(clientConfig(args), args);
    },
  },
  keygen: {
    words: '[FILE]',
    help: 'print a new key, or put it into a new FILE',
    run: async ({ words }) => {
      const { checkCount } = await import('./config.ts');
      checkCount(words, 0, 1, 'vpn keygen [FILE]');
      const { printNewKey, writeNewKey } = await import('./key.ts');
      const [file] = words;
      if (file === undefined) printNewKey();
      else writeNewKey(file);
      return EXIT_SUCCESS;
    },
  },
  cleanup: {
    words: '',
    help: 'undo what a killed vpn left behind here',
    run: async (args) => {
      const { cleanupConfig } = await import('./config.ts');
      const config = cleanupConfig(args);
      const { cleanUp } = await import('./run.ts');
      return cleanUp(config);
    },
  },
  selftest: {
    words: '',
    help: 'test ciphers and two ends over loopback',
    run: async ({ words, options }) => {
      const { checkCount, rekeyAfterMs } = await import('./config.ts');
      checkCount(words, 0, 0, 'vpn selftest');
      const rekeyMs = rekeyAfterMs(options);
      const { selftest } = await import('./selftest.ts');
      return selftest(rekeyMs);
    },
  },
  ...ASKS,
};

/** Runs a command line (without the program's name), prints failures, and returns the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    if (argv[0] === WORKER_COMMAND) return await (await import('./privsep/worker.ts')).work();
    const file = fileArguments(argv);
    if (file !== undefined) return await startFile(file);
    const args = parseArguments(argv);
    setVerbose(args.options.has('verbose'));
    tellAs(args.options.get('log')?.at(-1));
    if (args.options.has('help')) return show(help(args.options.has('verbose')));
    if (args.options.has('version')) return show(`vpn ${VERSION}${VARIANT}\n`);
    if (args.options.has('license')) return await showLicenses();
    const [word, ...words] = args.words;
    const name = findCommand(word);
    checkOptions(name, args);
    return await COMMANDS[name].run({ words, options: args.options });
  } catch (error) {
    return fail(error);
  }
}

/** 80 columns, 24 lines; everything there is when `isLong`. */
export function help(isLong = false): string {
  const usage = Object.entries(COMMANDS)
    .filter(([name]) => isLong || !Object.hasOwn(ASKS, name))
    .map(([name, { words, help: what }]) => usageLine(name, words, what));
  const asks = Object.keys(ASKS).join('|');
  return [
    'Example:  vpn keygen vpn.key, copy vpn.key to the other host, then',
    '  on a server: vpn server vpn.key      on a client: vpn client vpn.key HOST',
    'Usage:',
    usageLine('--config FILE', '', 'what FILE says, as of MLVPN; --check, --dump'),
    ...usage,
    ...(isLong ? [] : [`  vpn ${asks}`]),
    'A trailing word may be left out or be "auto". PORT is UDP, 443 by default.',
    'Options (and their defaults); vpn(8) and vpn --help -v have more:',
    ...optionHelp(isLong),
    ...(isLong ? ['Keys of FILE (and their defaults); vpn.conf(5) has more:', ...keyLines()] : []),
    '',
  ].join('\n');
}

function usageLine(name: string, words: string, what: string): string {
  const command = `  vpn ${name}${words === '' ? '' : ` ${words}`}`;
  return what === '' ? command : `${command.padEnd(22)} ${what}`;
}

function keyLines(): readonly string[] {
  return keyHelp().map((line) => `  ${line}`);
}

async function start(config: Config, { options }: Arguments): Promise<number> {
  const { daemonOf } = await import('./conf/commandline.ts');
  const { setLogLevel } = await import('./conf/reload.ts');
  const daemon = daemonOf(config, options);
  setLogLevel(daemon);
  setLogFormat(config.log, daemon.name, daemon.debug);
  tellConfig(config, daemon);
  const { readKey } = await import('./key.ts');
  const { wipe } = await import('./crypto.ts');
  const { run } = await import('./run.ts');
  const key = readKey(config.keyFile);
  try {
    return await run(config, daemon, key, undefined);
  } finally {
    wipe(key);
  }
}

/** `vpn --config FILE`. */
async function startFile(args: FileArguments): Promise<number> {
  if (args.help) return show(help());
  if (args.version) return show(`vpn ${VERSION}${VARIANT}\n`);
  if (args.options.has('license')) return await showLicenses();
  tellAs(args.overrides.find(({ key }) => key === 'log')?.text);
  const { prepare } = await import('./conf/start.ts');
  const ready = await prepare(args);
  if (typeof ready === 'number') return ready;
  const { setLogLevel } = await import('./conf/reload.ts');
  const { wipe } = await import('./crypto.ts');
  const { run } = await import('./run.ts');
  const { config, key, daemon, file } = ready;
  setLogLevel(daemon);
  setLogFormat(config.log, daemon.name, daemon.debug);
  tellConfig(config, daemon);
  try {
    return await run(config, daemon, key, file);
  } finally {
    wipe(key);
  }
}

/** What goes wrong before there is a configuration is told in the form that the command line asks for. */
function tellAs(form: string | undefined): void {
  setLogFormat(form === 'json' ? 'json' : 'text', '', false);
}

/** What holds, with what was left out. Nothing of it is secret: keys and passwords stand elsewhere. */
function tellConfig(config: Config, daemon: DaemonConfig): void {
  if (!isDetailed('config')) return;
  for (const [name, value] of Object.entries({ ...daemon, ...config })) {
    verbose('config', `${name} ${JSON.stringify(value)}`);
  }
}

async function showLicenses(): Promise<number> {
  const { licenses } = await import('./licenses.ts');
  return show(licenses());
}

function show(text: string | Uint8Array): number {
  print(text);
  return EXIT_SUCCESS;
}

function findCommand(word: string | undefined): CommandName {
  if (word === undefined) {
    throw new UsageFailure('no command', '', 'write vpn server, vpn client or vpn --help');
  }
  if (isCommand(word)) return word;
  throw new UsageFailure(`unknown command "${word}"`, '', suggestion(word, Object.keys(COMMANDS)));
}

function isCommand(word: string): word is CommandName {
  return Object.hasOwn(COMMANDS, word);
}
