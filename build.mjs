/**
 * Builds, tests, shows and measures vpn. Runs on any node from 20 on with nothing installed.
 *
 *   node build.mjs [build | package | test | sweep | soak | demo | bench | setup] [words]
 *
 *   setup   what is missing: npm packages, and system packages through apt when root
 *   build   addon (g++) -> bundle (esbuild) -> executable (node's single executable application);
 *           with a folder, bundle and executable are made there
 *   package dist/vpn_VERSION_ARCHITECTURE.deb of it
 *
 * In build/: vpn.node and sodium-native.node, the addons; vpn.cjs, the bundle, which runs on a system's
 * own node beside them. In dist/: vpn, the executable; LICENSES, the notices of what it embeds.
 * NO_DEFAULT_ROUTES=1 builds the point-to-point variant.
 */
import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { type } from 'node:os';
import { delimiter, join, relative } from 'node:path';

const ROOT = import.meta.dirname ?? new URL('.', import.meta.url).pathname;
const BUILD = join(ROOT, 'build');
const DIST = join(ROOT, 'dist');
const PACKAGES = join(ROOT, 'node_modules');
const SYSTEM = `${process.platform}-${process.arch}`;
/** The node that is embedded, compiled against, and tested on. */
const EMBEDDED = join(PACKAGES, `node-${SYSTEM}`);
const NODE = join(EMBEDDED, 'bin', 'node');

/** Debian's package for each program. */
const TO_BUILD = { 'g++': 'g++' };
const TO_RUN = { ip: 'iproute2', iptables: 'iptables', ping: 'iputils-ping', sysctl: 'procps' };
/** Without these the tests of what they do are skipped by name. */
const TO_MEASURE = {
  iperf3: 'iperf3',
  tcpdump: 'tcpdump',
  nft: 'nftables',
  'clang++': 'clang',
  ethtool: 'ethtool',
  strace: 'strace',
};

/** node:single-executable-applications, "Single executable application creation process". */
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';
const NODE_FLAGS = [
  // SIGUSR1 would open an inspector, through which anyone on the host reads the keys.
  '--disable-sigusr1',
  // Under a load of short-lived objects: 61 MB resident, 164 MB without, 150 MB with 2 (node 24.21).
  '--max-semi-space-size=4',
];

/**
 * The endings of the native files that a system takes beside those of all systems: tun_linux.cc is for
 * Linux, tun_bsd.cc for macOS and the BSDs, udp_mmsg.cc for those of them that have recvmmsg(2).
 */
const ENDINGS = {
  linux: ['linux'],
  darwin: ['bsd', 'msg', 'darwin'],
  freebsd: ['bsd', 'msg', 'freebsd'],
  dragonfly: ['bsd', 'msg', 'dragonfly'],
  openbsd: ['bsd', 'mmsg', 'openbsd'],
  netbsd: ['bsd', 'mmsg', 'netbsd'],
};

const COMMANDS = {
  build,
  package: makePackage,
  test,
  sweep,
  soak,
  demo,
  bench,
  setup: () => setUp(allPrograms()),
};

// Debian keeps ip and iptables where an ordinary user's PATH does not look.
process.env.PATH = [process.env.PATH, '/usr/local/sbin', '/usr/sbin', '/sbin'].join(delimiter);
process.chdir(ROOT);

const [name = 'build', ...words] = process.argv.slice(2);
if (!Object.hasOwn(COMMANDS, name))
  stop(`unknown command "${name}"; use build, package, test, sweep, soak, demo, bench or setup`);
await COMMANDS[name](words);

/* Commands */

async function build([folder]) {
  await setUp(TO_BUILD);
  await make(folder === undefined ? undefined : { build: folder, dist: folder });
}

async function makePackage() {
  await build([]);
  const service = await import('./src/service/package.mjs');
  const natives = ['vpn.node', 'sodium-native.node'].map((name) => join(BUILD, name));
  const parts = { root: ROOT, executable: join(DIST, 'vpn'), natives, output: DIST };
  await step('make the Debian package', () => service.makePackage(parts));
}

async function test(files) {
  // Without root the tests that need the other programs skip themselves.
  await setUp(isRoot() ? allPrograms() : TO_BUILD);
  await make();
  await makeEmulator();
  await step('check types', () => run(join(PACKAGES, '.bin', 'tsc'), ['-p', '.']));
  // Hundreds of programs start that are TypeScript: each file is compiled once.
  process.env.NODE_COMPILE_CACHE ??= join(BUILD, 'compiled');
  const node = (patterns, ...flags) =>
    runVisibly(NODE, ['--test', '--test-reporter=spec', ...flags, ...patterns]);
  if (files.length > 0) process.exit(await node(files, '--test-concurrency=1'));
  say('unit tests');
  const unit = await node(['src/**/*.test.ts'], '--test-timeout=120000', '--test-concurrency=2');
  // Three at a time: most of them wait for most of their time, and .ci/run has a quarter of an hour.
  say('tests in network namespaces, and of the executable');
  const whole = await node(['test/**/*.test.ts'], '--test-timeout=600000', '--test-concurrency=3');
  say(unit + whole === 0 ? 'all passed' : 'FAILED; what failed stands above');
  process.exit(unit + whole === 0 ? 0 : 1);
}

/** Every failing command and every moment to be killed, one after the other; goes on where it was left. */
async function sweep() {
  await setUp(allPrograms());
  await make();
  process.env.VPN_SWEEP ??= join(ROOT, 'build', 'sweep');
  const files = ['test/failures.test.ts', 'test/host.test.ts'];
  process.exit(await runVisibly(NODE, ['--test', '--test-reporter=spec', ...files]));
}

async function demo(args) {
  await setUp(allPrograms());
  await make();
  await makeEmulator();
  process.exit(await runVisibly(NODE, ['test/demo.ts', ...args]));
}

/** A tunnel over links that lose, corrupt, go and come, for as many minutes as the first word says. */
async function soak(args) {
  await setUp(allPrograms());
  await make();
  await makeEmulator();
  process.exit(await runVisibly(NODE, ['test/soak.ts', ...args]));
}

async function bench(args) {
  await setUp(allPrograms());
  await make();
  await makeEmulator();
  const [what, ...rest] = args;
  const isOther = what === 'bonding' || what === 'status';
  const program = isOther ? [`test/${what}-bench.ts`, ...rest] : ['test/bench.ts', ...args];
  process.exit(await runVisibly(NODE, program));
}

/* Set-up */

function allPrograms() {
  return { ...TO_BUILD, ...TO_RUN, ...TO_MEASURE };
}

async function setUp(programs) {
  const missing = Object.entries(programs).filter(([program]) => !isInstalled(program));
  const packages = [...new Set(missing.map(([, debian]) => debian))];
  if (packages.length > 0) await installPackages(packages);
  if (!isLockFileInstalled()) {
    // No install scripts: nothing here needs one, and they run as whoever builds.
    const npm = ['ci', '--ignore-scripts', '--include=dev', '--include=optional'];
    await step('install npm packages', () => run('npm', [...npm, '--no-audit', '--no-fund']));
  }
  if (!fs.existsSync(NODE))
    stop(`there is no node to embed for ${SYSTEM} (package.json, node-${SYSTEM})`);
}

function isInstalled(program) {
  return process.env.PATH.split(delimiter).some((folder) => {
    try {
      fs.accessSync(join(folder, program), fs.constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

async function installPackages(packages) {
  const install = ['install', '-y', '--no-install-recommends', ...packages];
  if (!isInstalled('apt-get'))
    stop(`install what Debian calls ${packages.join(', ')}, then try again`);
  if (!isRoot())
    stop(`type this, then try again:\n  sudo apt-get update && sudo apt-get ${install.join(' ')}`);
  process.env.DEBIAN_FRONTEND = 'noninteractive';
  await step('update the package lists', () => run('apt-get', ['update']));
  await step(`install ${packages.join(', ')}`, () => run('apt-get', install));
}

/** By content and not by time: a fresh clone, a switched branch and an interrupted install all count. */
function isLockFileInstalled() {
  try {
    const read = (file) => JSON.parse(fs.readFileSync(file, 'utf8')).packages;
    const installed = read(join(PACKAGES, '.package-lock.json'));
    return Object.entries(read('package-lock.json')).every(([path, { integrity, optional }]) => {
      if (path === '') return true;
      const found = installed[path];
      // Optional ones are those of other systems.
      return found === undefined ? optional === true : found.integrity === integrity;
    });
  } catch {
    return false;
  }
}

/* Build */

/** The addon is the same for every variant, and always in build/. */
async function make({ build: folder, dist } = { build: BUILD, dist: DIST }) {
  for (const each of [BUILD, folder, dist]) fs.mkdirSync(each, { recursive: true });
  const sodium = join(PACKAGES, 'sodium-native', 'prebuilds', SYSTEM, 'sodium-native.node');
  const assets = {
    'vpn.node': join(BUILD, 'vpn.node'),
    'sodium-native.node': join(BUILD, 'sodium-native.node'),
    LICENSES: join(dist, 'LICENSES'),
  };
  await makeAddon(assets['vpn.node']);
  copyIfChanged(sodium, assets['sodium-native.node']);
  const bundle = join(folder, 'vpn.cjs');
  const inputs = await step('bundle', () => makeBundle(bundle));
  writeLicenses(assets.LICENSES, inputs);
  const executable = join(dist, 'vpn');
  if (
    isNewer(executable, [
      bundle,
      ...Object.values(assets),
      NODE,
      import.meta.filename ?? 'build.mjs',
    ])
  )
    return;
  await step(`make ${relative(ROOT, executable)}`, () =>
    makeExecutable(executable, bundle, assets, folder),
  );
}

function isSourceFor(system, file) {
  if (!file.endsWith('.cc')) return false;
  const ending = /_(\w+)\.cc$/.exec(file)?.[1];
  const isForSome = Object.values(ENDINGS).flat().includes(ending);
  return !isForSome || (ENDINGS[system] ?? []).includes(ending);
}

async function makeAddon(output) {
  const files = fs.readdirSync('native').map((file) => join('native', file));
  // node takes DragonFly BSD for FreeBSD.
  const system = type() === 'DragonFly' ? 'dragonfly' : process.platform;
  const sources = files.filter((file) => isSourceFor(system, file));
  if (isNewer(output, [...files, NODE])) return;
  const flags = ['-std=c++17', '-O2', '-fPIC', '-fno-exceptions', '-fvisibility=hidden'];
  const warnings = ['-Wall', '-Wextra'];
  const includes = [join(EMBEDDED, 'include', 'node'), join(PACKAGES, 'node-addon-api')];
  const link =
    process.platform === 'darwin' ? ['-bundle', '-undefined', 'dynamic_lookup'] : ['-shared'];
  const temporary = `${output}.${process.pid}`;
  await step('compile the addon', () =>
    run('g++', [
      ...[...flags, ...warnings, ...link],
      // -isystem: their warnings are not ours.
      ...includes.flatMap((folder) => ['-isystem', folder]),
      ...['-o', temporary, ...sources],
    ]),
  );
  fs.renameSync(temporary, output);
}

/** The links that tests and measurements run over. Its devices are those of Linux. */
async function makeEmulator() {
  const output = join(BUILD, 'wan');
  const [source, header] = ['wan.cc', 'wan_way.h'].map((file) => join('test', file));
  if (process.platform !== 'linux' || isNewer(output, [source, header])) return;
  const temporary = `${output}.${process.pid}`;
  await step('compile the emulated links', () =>
    run('g++', ['-std=c++17', '-O2', '-Wall', '-Wextra', '-o', temporary, source]),
  );
  fs.renameSync(temporary, output);
}

/** Returns the files that went in. */
async function makeBundle(output) {
  const esbuild = createRequire(join(ROOT, 'build.mjs'))('esbuild');
  const variant = process.env.NO_DEFAULT_ROUTES === '1' ? '1' : '';
  const result = await esbuild.build({
    entryPoints: ['src/main.ts'],
    outfile: output,
    bundle: true,
    write: false,
    metafile: true,
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    // Folds the constants below and drops what they exclude; names stay, for stack traces.
    minifySyntax: true,
    define: {
      'import.meta.dirname': '__dirname',
      'process.env.NO_DEFAULT_ROUTES': JSON.stringify(variant),
    },
    plugins: [{ name: 'sodium-from-asset', setup: loadSodiumFromAsset }],
    legalComments: 'none',
    logLevel: 'warning',
  });
  writeIfChanged(output, result.outputFiles[0].contents);
  return Object.keys(result.metafile.inputs);
}

/** sodium-native looks for its prebuilt code in its package, which an executable has not. */
function loadSodiumFromAsset(esbuild) {
  const assets = JSON.stringify(join(ROOT, 'src', 'assets.ts'));
  esbuild.onLoad({ filter: /sodium-native[\\/]binding\.js$/ }, () => ({
    contents: `module.exports = require(${assets}).loadModule('sodium-native.node');`,
    resolveDir: ROOT,
  }));
}

/** In `folder` it leaves what it is made of. */
async function makeExecutable(output, main, assets, folder) {
  const config = join(folder, 'sea-config.json');
  const blob = join(folder, 'vpn.blob');
  const temporary = `${output}.${process.pid}`;
  const settings = {
    main,
    output: blob,
    assets,
    execArgv: NODE_FLAGS,
    // Neither NODE_OPTIONS nor the command line adds flags of node.
    execArgvExtension: 'none',
    disableExperimentalSEAWarning: true,
    useCodeCache: true,
  };
  fs.writeFileSync(config, JSON.stringify(settings));
  await run(NODE, ['--experimental-sea-config', config]);
  fs.copyFileSync(NODE, temporary);
  fs.chmodSync(temporary, 0o755);
  if (process.platform === 'darwin') await run('codesign', ['--remove-signature', temporary]);
  // Debug information and local symbols: 18 MB. What the addon links to is in the dynamic table.
  else if (isInstalled('strip')) await run('strip', [temporary]);
  const segment = process.platform === 'darwin' ? ['--macho-segment-name', 'NODE_SEA'] : [];
  const postject = join(PACKAGES, 'postject', 'dist', 'cli.js');
  const inject = [temporary, 'NODE_SEA_BLOB', blob, '--sentinel-fuse', FUSE, ...segment];
  await run(process.execPath, [postject, ...inject]);
  if (process.platform === 'darwin') await run('codesign', ['--sign', '-', temporary]);
  // As it is copied to where it is used. What was written in one go the kernel keeps, and maps into a process, in
  // large pieces (folios): then 100 MB are resident for each end, and 70 without.
  const copy = `${temporary}.copy`;
  fs.copyFileSync(temporary, copy);
  fs.rmSync(temporary);
  // At once, so that a running vpn keeps its file and nobody ever starts half of one.
  fs.renameSync(copy, output);
}

/** The notices that go with the executable: ours, of each bundled package, and node's with its parts. */
function writeLicenses(output, inputs) {
  const bundled = inputs.map((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]);
  const names = new Set([
    ...bundled.filter((found) => found !== undefined),
    'node-addon-api',
    `node-${SYSTEM}`,
  ]);
  const notices = [...names].sort().map((name) => {
    const folder = join(PACKAGES, name);
    const file = fs.readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (file === undefined) stop(`node_modules/${name} has no license file`);
    const { version } = JSON.parse(fs.readFileSync(join(folder, 'package.json'), 'utf8'));
    return `\n==== ${name} ${version} ====\n\n${fs.readFileSync(join(folder, file), 'utf8')}`;
  });
  writeIfChanged(output, Buffer.from([fs.readFileSync('LICENSE', 'utf8'), ...notices].join('')));
}

/* Files and processes */

function isNewer(output, inputs) {
  if (!fs.existsSync(output)) return false;
  const { mtimeMs } = fs.statSync(output);
  return inputs.every((input) => fs.statSync(input).mtimeMs <= mtimeMs);
}

function writeIfChanged(file, bytes) {
  if (fs.existsSync(file) && fs.readFileSync(file).equals(bytes)) return;
  fs.writeFileSync(file, bytes);
}

function copyIfChanged(from, to) {
  writeIfChanged(to, fs.readFileSync(from));
}

function isRoot() {
  return process.getuid?.() === 0;
}

function say(line) {
  process.stdout.write(`build: ${line}\n`);
}

function stop(why) {
  process.stderr.write(`build: ${why}\n`);
  process.exit(1);
}

/** One line per step, with the time it took. */
async function step(what, action) {
  process.stdout.write(`build: ${what} ...`);
  const start = performance.now();
  try {
    const result = await action();
    process.stdout.write(` ${((performance.now() - start) / 1000).toFixed(1)} s\n`);
    return result;
  } catch (error) {
    process.stdout.write(' failed\n');
    return stop(error instanceof Error ? error.message : error);
  }
}

/** What a program prints is shown only when it fails. */
function run(program, args) {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  if (status === 0) return;
  throw new Error(`${[program, ...args].join(' ')}\n${stdout ?? ''}${stderr ?? ''}${error ?? ''}`);
}

/** Runs a program on this terminal; resolves to its exit status. */
function runVisibly(program, args) {
  const child = spawn(program, args, { stdio: 'inherit' });
  // ^C goes to both; the child cleans up, and this process waits for it.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  return new Promise((resolve) => child.on('close', (status) => resolve(status ?? 1)));
}
