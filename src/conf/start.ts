/** `vpn --config FILE`, up to the point where the tunnel starts; and reading the file again. */
import type { Config } from '../config.ts';
import { KEY_BYTES, isEqual, random, secret, wipe } from '../crypto.ts';
import { readKey } from '../key.ts';
import { compileFilters } from '../filters.ts';
import { EXIT_FAILURE, EXIT_SUCCESS, Failure, log, print, verbose } from '../report.ts';
import { hostRunner } from '../rules.ts';
import { fileConfig } from './config.ts';
import type { DaemonConfig } from './config.ts';
import { checkText, dumpText } from './dump.ts';
import { loadSettings } from './load.ts';
import type { Loaded } from './load.ts';
import type { FileArguments } from './mlvpnargs.ts';
import { passwordKey, passwordMark } from './password.ts';
import { Problems } from './problem.ts';
import type { Problem } from './problem.ts';
import type { Settings } from './settings.ts';

/** The file as it is now. */
export interface Reread {
  readonly settings: Settings;
  readonly isPasswordChanged: boolean;
}

export interface ConfigFile {
  readonly settings: Settings;
  /** What settings of this file mean. */
  readonly configsOf: (settings: Settings) => {
    readonly config: Config;
    readonly daemon: DaemonConfig;
  };
  /** Throws a `Failure` if the file is wrong: its first error; the others are logged before. */
  readonly reread: () => Reread;
}

export interface Ready {
  readonly config: Config;
  readonly daemon: DaemonConfig;
  /** The shared key, in secure memory; the caller wipes it. */
  readonly key: Uint8Array;
  readonly file: ConfigFile;
}

/**
 * Reads and checks the file, and makes the key of its password. An exit status instead where nothing is
 * left to do: after `--check` and `--dump`, and when the file is wrong. Throws a `Failure`.
 */
export async function prepare(args: FileArguments): Promise<Ready | number> {
  const isStart = !args.check && !args.dump;
  const key = secret(KEY_BYTES);
  const markKey = new Uint8Array(KEY_BYTES);
  random(markKey);
  let mark: Uint8Array = new Uint8Array(KEY_BYTES);
  const usePassword = (password: Uint8Array): void => {
    passwordKey(key, password);
    mark = passwordMark(markKey, password);
  };
  const loaded = loadSettings(args.config, args.overrides, isStart ? usePassword : undefined);
  const { settings, problems } = loaded;
  if (args.check) {
    const checked = await withFilters(loaded);
    print(checkText(args.config, checked));
    return checked.settings === undefined ? EXIT_FAILURE : EXIT_SUCCESS;
  }
  logAll(problems);
  if (settings === undefined) return EXIT_FAILURE;
  if (args.dump) {
    print(dumpText(settings));
    return EXIT_SUCCESS;
  }
  const configsOf = (effective: Settings): ReturnType<typeof fileConfig> =>
    fileConfig(effective, args.options);
  // A reload does not tell again what everybody knows.
  const known = new Set(problems.map(({ text }) => text));
  const reread = (): Reread => {
    let isPasswordChanged = false;
    const again = loadSettings(args.config, args.overrides, (password) => {
      isPasswordChanged = !isEqual(mark, passwordMark(markKey, password));
    });
    const errors = again.problems.filter(({ severity }) => severity === 'error');
    const [first, ...others] = errors;
    logAll(again.problems.filter((problem) => problem !== first && !known.has(problem.text)));
    if (again.settings !== undefined) return { settings: again.settings, isPasswordChanged };
    const more = others.length > 0 ? ` (and ${others.length} more)` : '';
    throw new Failure('nothing was changed', `${first.text}${more}`, '');
  };
  try {
    const { config, daemon } = configsOf(settings);
    const file = { settings, configsOf, reread };
    if (settings.passwordLine > 0) return { config, daemon, key, file };
    return { config, daemon, key: readKey(config.keyFile), file };
  } catch (error) {
    wipe(key);
    throw error;
  }
}

/** With the filters that do not compile. */
async function withFilters(loaded: Loaded): Promise<Loaded> {
  const { settings } = loaded;
  if (settings === undefined) return loaded;
  const problems = new Problems(settings.file);
  const runner = hostRunner(process.env.PATH ?? '', (line) => verbose('privsep', line));
  const tuntap = settings.general.text('tuntap') === 'tap' ? 'tap' : 'tun';
  for (const filter of settings.filters) {
    await compileFilters([filter], runner, tuntap).catch((error: unknown) =>
      problems.caught(filter.line, error),
    );
  }
  const all = [...loaded.problems, ...problems.all()];
  return { settings: problems.hasErrors() ? undefined : settings, problems: all };
}

function logAll(problems: readonly Problem[]): void {
  for (const { severity, text } of problems) {
    log(text, severity);
  }
}
