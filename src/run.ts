/**
 * `vpn server`, `vpn client` and `vpn --config`: sets the host up, runs the tunnel and what belongs to it, and
 * puts the host back whatever ends it.
 */
import { withNativeCode } from './assets.ts';
import type { DaemonConfig } from './conf/config.ts';
import type { ConfigFile } from './conf/start.ts';
import type { CleanupConfig, Config } from './config.ts';
import { compileFilters } from './filters.ts';
import { guardHost } from './guard.ts';
import { loadNative, type Native } from './native.ts';
import { takeNotifier } from './notify.ts';
import { thisPlatform, tunCreate } from './os.ts';
import {
  EXIT_FAILURE,
  EXIT_SUCCESS,
  fail,
  Failure,
  log,
  print,
  reason,
  verbose,
} from './report.ts';
import { keepSmall } from './residence.ts';
import { hostRunner } from './rules.ts';
import { Running } from './running.ts';
import { codeOf, onRouteChanges } from './runtime.ts';
import { forgetDead } from './daemon/instances.ts';
import { cleanUp as cleanUpHost, plan, planCleanUp, prepareHost, settleDead } from './setup.ts';
import type { HostDeps } from './setup.ts';
import { addressesOf, firstEndpoints, hostSettings, innerAddresses } from './startup.ts';

/** SIGHUP is another where there is a configuration file. */
const STOP_SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Runs until a signal (exit status 0) or a failure (1). `key` is borrowed until the promise settles. `file` is
 * what can be read again.
 */
export async function run(
  config: Config,
  daemon: DaemonConfig,
  key: Uint8Array,
  file: ConfigFile | undefined,
): Promise<number> {
  const native = withNativeCode('vpn.node', loadNative);
  const notifier = takeNotifier(native, process.env, process.pid);
  const deps = hostDeps(native, config.stateDir);
  const inner = innerAddresses(config, daemon, key);
  if (!config.dryRun) await settleDead(deps);
  const known = await firstEndpoints(config, native);
  const servers = addressesOf(known);
  const runner = hostRunner(deps.path, deps.log);
  const filters = await compileFilters(daemon.filters, runner, config.tuntap);
  if (config.dryRun) {
    const settings = { ...hostSettings(config, daemon, inner, config.tun || 'tun0'), servers };
    const lines = await plan(settings, deps);
    print(lines.map((line) => `${line}\n`).join(''));
    return EXIT_SUCCESS;
  }
  const device = openTun(native, config);
  verbose('tuntap', `opened ${device.name} (${config.tuntap})`);
  const guard = guardHost(file === undefined ? [...STOP_SIGNALS, 'SIGHUP'] : STOP_SIGNALS);
  let running: Running | undefined;
  if (file !== undefined) process.on('SIGHUP', () => running?.hangUp());
  const settings = { ...hostSettings(config, daemon, inner, device.name), servers };
  const setup = await prepareHost(settings, deps);
  guard.protect(setup);
  const stop = (): void => guard.stop();
  running = new Running({
    native,
    config,
    daemon,
    file,
    key,
    device,
    setup,
    filters,
    runner,
    known,
    notifier,
    stop,
  });
  let stopWatching = (): void => {};
  let stopBeating = (): void => {};
  let status = EXIT_SUCCESS;
  let cause = 'asked to stop';
  try {
    stopWatching = onRouteChanges(
      native,
      () => running?.changed(),
      () => running?.follow(),
    );
    await setup.up();
    await setup.reach(servers);
    const stopped = new Promise<void>((done) => guard.onStop(done));
    await running.start();
    stopBeating = notifier.watch(() => running?.isWell === true);
    keepSmall(native);
    await Promise.race([stopped, running.failed]);
  } catch (error) {
    // ^C may have ended a worker that was not ready to ignore it.
    if (!guard.isStopped) {
      status = fail(error);
      cause = reason(error);
    }
  }
  stopWatching();
  stopBeating();
  notifier.stopping(cause);
  await running.close(cause);
  if (!(await setup.undo())) status = EXIT_FAILURE;
  guard.release();
  native.close(device.handle);
  return status;
}

/** `vpn cleanup`. */
export async function cleanUp(config: CleanupConfig): Promise<number> {
  const native = withNativeCode('vpn.node', loadNative);
  const deps = hostDeps(native, config.stateDir);
  if (config.dryRun) {
    const lines = await planCleanUp(deps);
    print(lines.length === 0 ? 'nothing to undo\n' : lines.map((line) => `${line}\n`).join(''));
    return EXIT_SUCCESS;
  }
  const { undone, failed } = await cleanUpHost(deps);
  await forgetDead(config.stateDir);
  for (const line of undone) print(`undone: ${line}\n`);
  for (const line of failed) print(`not undone: ${line}\n`);
  if (undone.length === 0 && failed.length === 0) print('nothing to undo\n');
  return failed.length === 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

function hostDeps(native: Native, journalDir: string): HostDeps {
  const path = process.env.PATH ?? '';
  return { native, journalDir, path, log: (line) => verbose('privsep', line), warn: warnLine };
}

function warnLine(line: string): void {
  log(line, 'warning');
}

function openTun(
  native: Native,
  config: Config,
): { readonly handle: number; readonly name: string } {
  const platform = thisPlatform();
  if (platform === undefined) {
    throw new Failure('this system', 'not supported yet', 'see the platforms in the README');
  }
  const { tuntap } = config;
  const place = platform[tuntap];
  if (place === undefined) {
    throw new Failure('tuntap "tap"', 'this system has no such device', 'write tuntap = "tun"');
  }
  try {
    return tunCreate(native, platform, config.tun, config.offload, tuntap === 'tap');
  } catch (error) {
    const { file, remedy } = place;
    const what = `cannot open ${file}`;
    switch (codeOf(error)) {
      case 'EBUSY':
      case 'EEXIST':
        throw new Failure(
          `${tuntap} device "${config.tun}"`,
          'in use',
          'give another name, or auto',
        );
      case 'ENOENT':
      case 'ENODEV':
      case 'ENXIO':
        throw new Failure(what, 'no such device', remedy);
      default:
        throw new Failure(what, reason(error), 'run as root or grant CAP_NET_ADMIN');
    }
  }
}
