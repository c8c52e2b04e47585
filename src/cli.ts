/**
 * The command line: which commands there are, and the exit status of each.
 *
 * Everything a command needs is imported when it is needed: help and version load no native code.
 */
import { checkOptions, optionHelp, parseArguments, suggestion } from './options.ts';
import type { Config } from './config.ts';
import type { Arguments, CommandName } from './options.ts';
import { EXIT_SUCCESS, UsageFailure, fail, print, setVerbose } from './report.ts';

/** The program's version; the protocol has its own. A test holds it against package.json. */
export const VERSION = '0.1.0';
const VARIANT = process.env.NO_DEFAULT_ROUTES === '1' ? ' (no default routes)' : '';

interface Command {
  readonly words: string;
  readonly help: string;
  /** Returns the exit status. */
  readonly run: (args: Arguments) => Promise<number>;
}

const COMMANDS: Readonly<Record<CommandName, Command>> = {
  server: {
    words: 'KEYFILE [ADDRESS] [PORT] [TUN] [LOCAL] [REMOTE] [EXTERNAL]',
    help: '',
    run: async (args) => {
      const { serverConfig } = await import('./config.ts');
      return start(serverConfig(args));
    },
  },
  client: {
    words: 'KEYFILE SERVER [PORT] [TUN] [LOCAL] [REMOTE] [GATEWAY]',
    help: '',
    run: async (args) => {
      const { clientConfig } = await import('./config.ts');
      return start(clientConfig(args));
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
};

/** Runs a command line (without the program's name), prints failures, and returns the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    const args = parseArguments(argv);
    setVerbose(args.options.has('verbose'));
    if (args.options.has('help')) return show(help());
    if (args.options.has('version')) return show(`vpn ${VERSION}${VARIANT}\n`);
    const [word, ...words] = args.words;
    const name = findCommand(word);
    checkOptions(name, args);
    return await COMMANDS[name].run({ words, options: args.options });
  } catch (error) {
    return fail(error);
  }
}

/** 80 columns, 24 lines. */
export function help(): string {
  const usage = Object.entries(COMMANDS).map(([name, { words, help: what }]) => {
    const command = `  vpn ${name}${words === '' ? '' : ` ${words}`}`;
    return what === '' ? command : `${command.padEnd(22)} ${what}`;
  });
  return [
    'Example:  vpn keygen vpn.key, copy vpn.key to the other host, then',
    '  on a server: vpn server vpn.key      on a client: vpn client vpn.key HOST',
    'Usage:',
    ...usage,
    'A trailing word may be left out or be "auto". PORT is UDP, 443 by default.',
    'Options (and their defaults):',
    ...optionHelp(),
    'See vpn(8).',
    '',
  ].join('\n');
}

async function start(config: Config): Promise<number> {
  const { readKey } = await import('./key.ts');
  const { wipe } = await import('./crypto.ts');
  const { run } = await import('./run.ts');
  const key = readKey(config.keyFile);
  try {
    return await run(config, key);
  } finally {
    wipe(key);
  }
}

function show(text: string): number {
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
