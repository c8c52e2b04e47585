/**
 * Makes a .deb of what is built: executable, unit, manual, examples (`npm run package`).
 *
 * By dpkg-deb alone, without debhelper: there is nothing to build here any more. The same input gives the
 * same bytes. The maintainer scripts are those of this folder.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';

const ARCHITECTURES = { x64: 'amd64', arm64: 'arm64' };
const MAINTAINER = 'vpn <vpn@localhost>';

/** Debian's package of each library that node links to; a symbol's version stands behind its name. */
const LIBRARIES = {
  'libc.so.6': { name: 'libc6', versions: /^GLIBC_([\d.]+)$/ },
  'libm.so.6': { name: 'libc6', versions: /^GLIBC_([\d.]+)$/ },
  'libdl.so.2': { name: 'libc6', versions: /^GLIBC_([\d.]+)$/ },
  'libpthread.so.0': { name: 'libc6', versions: /^GLIBC_([\d.]+)$/ },
  'ld-linux-x86-64.so.2': { name: 'libc6', versions: /^GLIBC_([\d.]+)$/ },
  'ld-linux-aarch64.so.1': { name: 'libc6', versions: /^GLIBC_([\d.]+)$/ },
  'libgcc_s.so.1': { name: 'libgcc-s1' },
  'libatomic.so.1': { name: 'libatomic1' },
  'libstdc++.so.6': { name: 'libstdc++6', versions: /^GLIBCXX_([\d.]+)$/, of: gccOf },
};
/** libstdc++'s manual, "ABI Policy and Guidelines": the first GCC that has each of its versions. */
const GCC = {
  '3.4.21': '5.1',
  '3.4.22': '6.1',
  '3.4.24': '7.2',
  '3.4.25': '8.1',
  '3.4.26': '9.1',
  '3.4.28': '9.3',
  '3.4.29': '11.1',
  '3.4.30': '12.1',
  '3.4.32': '13.2',
  '3.4.33': '14.1',
};
const SCRIPTS = ['postinst', 'prerm', 'postrm'];
/** Manuals that name them, and who runs it as a service, look here. */
const DOCUMENTS = ['README.md', 'changes.md', 'host.md', 'service.md', 'status.md'];

/**
 * Makes `dist/vpn_VERSION_ARCHITECTURE.deb` of the folder `root`, and returns its path. `natives` are what
 * the executable loads beside itself. Throws an `Error` of one line.
 */
export function makePackage({ root, executable, natives, output }) {
  const architecture = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || architecture === undefined)
    throw new Error(`no .deb for ${process.platform} on ${process.arch}`);
  const { version, description } = JSON.parse(fs.readFileSync(join(root, 'package.json'), 'utf8'));
  const folder = join(output, `package.${process.pid}`);
  const file = join(output, `vpn_${version}_${architecture}.deb`);
  const time = sourceTime(root);
  try {
    fs.mkdirSync(folder);
    fill(folder, { root, executable, output, version, time });
    const depends = dependencies([executable, ...natives]);
    const size = Math.ceil(sizeOf(folder) / 1024);
    control(folder, join(root, 'src', 'service'), [
      'Package: vpn',
      `Version: ${version}`,
      `Architecture: ${architecture}`,
      `Maintainer: ${MAINTAINER}`,
      `Installed-Size: ${size}`,
      `Depends: ${[...depends, 'iproute2', 'iptables | nftables'].join(', ')}`,
      'Recommends: tcpdump',
      'Section: net',
      'Priority: optional',
      `Description: ${description}`,
      ' One executable, one shared key, two commands. Takes the command line of dsvpn',
      ' and the configuration file of MLVPN.',
      '',
    ]);
    for (const path of walk(folder)) fs.lutimesSync(path, time, time);
    const temporary = `${file}.${process.pid}`;
    // zstd: as small as gzip in a fifth of the time; dpkg has it since Debian 12.
    const compression = ['-Zzstd', '-z3'];
    run('dpkg-deb', ['--root-owner-group', ...compression, '--build', folder, temporary], {
      SOURCE_DATE_EPOCH: String(time),
    });
    fs.renameSync(temporary, file);
    return file;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** Everything that is installed, below `folder`. */
function fill(folder, { root, executable, output, version, time }) {
  const put = (path, bytes, mode = 0o644) => {
    const target = join(folder, path);
    fs.mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
    fs.writeFileSync(target, bytes);
    // Whatever the umask.
    fs.chmodSync(target, mode);
  };
  const read = (...words) => fs.readFileSync(join(root, ...words));
  // The file's name would be in it, and the time (gzip -n).
  const zipped = (bytes) => gzipSync(bytes, { level: 9 });
  const doc = 'usr/share/doc/vpn';
  put('usr/sbin/vpn', fs.readFileSync(executable), 0o755);
  put('usr/lib/systemd/system/vpn@.service', read('src', 'service', 'vpn@.service'));
  put('usr/share/man/man8/vpn.8.gz', zipped(read('doc', 'vpn.8')));
  put('usr/share/man/man5/vpn.conf.5.gz', zipped(read('doc', 'vpn.conf.5')));
  put(`${doc}/copyright`, fs.readFileSync(join(output, 'LICENSES')));
  put(`${doc}/changelog.gz`, zipped(changelog(version, time)));
  for (const name of DOCUMENTS)
    put(`${doc}/${name}.gz`, zipped(read(...(name === 'README.md' ? [name] : ['doc', name]))));
  for (const name of ['client.conf', 'server.conf'])
    put(`${doc}/examples/${name}`, read('src', 'service', name));
  fs.mkdirSync(join(folder, 'etc', 'vpn'), { recursive: true });
  for (const path of walk(folder)) if (fs.statSync(path).isDirectory()) fs.chmodSync(path, 0o755);
  // There are keys in it.
  fs.chmodSync(join(folder, 'etc', 'vpn'), 0o700);
}

function control(folder, scripts, lines) {
  const files = walk(folder).filter((path) => fs.statSync(path).isFile());
  const sums = files.map((path) => {
    const sum = createHash('md5').update(fs.readFileSync(path)).digest('hex');
    return `${sum}  ${relative(folder, path)}\n`;
  });
  const target = join(folder, 'DEBIAN');
  fs.mkdirSync(target, { mode: 0o755 });
  fs.writeFileSync(join(target, 'control'), lines.join('\n'), { mode: 0o644 });
  fs.writeFileSync(join(target, 'md5sums'), sums.join(''), { mode: 0o644 });
  for (const name of SCRIPTS) {
    fs.copyFileSync(join(scripts, name), join(target, name));
    fs.chmodSync(join(target, name), 0o755);
  }
}

function changelog(version, time) {
  const date = new Date(time * 1000).toUTCString().replace('GMT', '+0000');
  const text = `vpn (${version}) unstable; urgency=medium\n\n  * Built from source.\n`;
  return `${text}\n -- ${MAINTAINER}  ${date}\n`;
}

/** Packages that the libraries of `files` are in, with the version that their symbols need. */
function dependencies(files) {
  const needed = new Map();
  for (const file of files) {
    const text = run('readelf', ['--wide', '--dynamic', '--version-info', file]);
    const libraries = [...text.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name);
    for (const library of libraries) {
      const known = LIBRARIES[library];
      if (known === undefined) throw new Error(`${file} needs ${library}: of which package?`);
      const least = needed.get(known.name) ?? '0';
      needed.set(known.name, newest([least, ...versionsIn(text, known)]));
    }
  }
  return [...needed.entries()]
    .map(([name, least]) => (least === '0' ? name : `${name} (>= ${least})`))
    .sort();
}

function versionsIn(text, { versions, of = (version) => version }) {
  if (versions === undefined) return [];
  const symbols = [...text.matchAll(/Name: (\S+)/g)].map(([, name]) => versions.exec(name)?.[1]);
  const found = symbols.filter((version) => version !== undefined);
  return found.length === 0 ? [] : [of(newest(found))];
}

function gccOf(version) {
  const known = Object.keys(GCC).find((one) => newest([one, version]) === one);
  if (known === undefined) throw new Error(`of which GCC is GLIBCXX_${version}?`);
  return GCC[known];
}

function newest(versions) {
  return versions.reduce((one, other) => (isOlder(one, other) ? other : one));
}

function isOlder(one, other) {
  const [a, b] = [one, other].map((version) => version.split('.').map(Number));
  const at = b.findIndex((part, index) => part !== (a[index] ?? 0));
  return at >= 0 && (a[at] ?? 0) < b[at];
}

/** Seconds since 1970: SOURCE_DATE_EPOCH, or the last commit, or the last change of package.json. */
function sourceTime(root) {
  const { SOURCE_DATE_EPOCH: given } = process.env;
  if (given !== undefined && /^\d+$/.test(given)) return Number(given);
  const words = ['-C', root, 'log', '-1', '--format=%ct'];
  const { status, stdout } = spawnSync('git', words, { encoding: 'utf8' });
  if (status === 0 && /^\d+\n$/.test(stdout)) return Number(stdout);
  return Math.floor(fs.statSync(join(root, 'package.json')).mtimeMs / 1000);
}

/** `folder` and everything in it, sorted. */
function walk(folder) {
  const inside = fs.readdirSync(folder).sort();
  return [
    folder,
    ...inside.flatMap((name) => {
      const path = join(folder, name);
      return fs.lstatSync(path).isDirectory() ? walk(path) : [path];
    }),
  ];
}

function sizeOf(folder) {
  return walk(folder).reduce((sum, path) => sum + fs.lstatSync(path).size, 0);
}

function run(program, words, environment = {}) {
  const env = { ...process.env, LC_ALL: 'C', ...environment };
  const { status, stdout, stderr, error } = spawnSync(program, words, { encoding: 'utf8', env });
  if (error?.code === 'ENOENT') {
    const debian = program === 'readelf' ? 'binutils' : 'dpkg';
    throw new Error(`${program} was not found; install what Debian calls ${debian}`);
  }
  if (status !== 0) throw new Error(`${program}: ${stderr.trim() || error?.message}`);
  return stdout;
}
