/**
 * Where the time goes at full load: both ends from source with `--cpu-prof`, one TCP stream, and the
 * samples of the CPU profile grouped by what was running.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { makeKey, NODE, SERVER_IP } from './ends.ts';
import { Bed, type Daemon } from './netns.ts';
import { iperf, iperfServer, reaches } from './traffic.ts';
import { pair } from './world.ts';

const MAIN = resolve(import.meta.dirname, '../src/main.ts');
const WRAPPED = resolve(import.meta.dirname, 'wrapped.ts');
/** So long that start-up, where node reads and compiles the source, hardly counts. */
const SECONDS = 15;

/** V8's .cpuprofile, the fields used here. */
interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

type Kind = 'TypeScript' | 'native' | 'node' | 'garbage collection' | 'idle';

function kindOf({ functionName, url }: { functionName: string; url: string }): Kind {
  if (functionName === '(idle)') return 'idle';
  if (functionName === '(garbage collector)') return 'garbage collection';
  if (url.endsWith('/wrapped.ts')) return 'native';
  if (url.endsWith('.ts')) return 'TypeScript';
  if (url !== '') return 'node';
  // A function of the addon has a name and no source; "(program)" is what runs outside JavaScript.
  return 'native';
}

/** Seconds per kind, and per function of TypeScript. */
export function groupProfile(profile: CpuProfile): {
  readonly kinds: Map<Kind, number>;
  readonly functions: Map<string, number>;
} {
  const kinds = new Map<Kind, number>();
  const functions = new Map<string, number>();
  const nodes = new Map(profile.nodes.map((node) => [node.id, node.callFrame]));
  profile.samples.forEach((id, i) => {
    const frame = nodes.get(id)!;
    const seconds = (profile.timeDeltas[i] ?? 0) / 1e6;
    const kind = kindOf(frame);
    kinds.set(kind, (kinds.get(kind) ?? 0) + seconds);
    if (kind !== 'TypeScript') return;
    const name = frame.functionName || '(anonymous)';
    functions.set(name, (functions.get(name) ?? 0) + seconds);
  });
  return { kinds, functions };
}

function busySeconds({ kinds }: ReturnType<typeof groupProfile>): number {
  return [...kinds].reduce((sum, [kind, s]) => sum + (kind === 'idle' ? 0 : s), 0);
}

function describe(name: string, { kinds, functions }: ReturnType<typeof groupProfile>): string {
  const busy = busySeconds({ kinds, functions });
  const share = (seconds: number): string => `${((seconds / busy) * 100).toFixed(1)} %`;
  const parts = [...kinds]
    .filter(([kind]) => kind !== 'idle')
    .sort((a, b) => b[1] - a[1])
    .map(([kind, seconds]) => `${kind} ${share(seconds)}`);
  const top = [...functions]
    .sort((a, b) => b[1] - a[1])
    .slice(0, 8)
    .map(([what, seconds]) => `${what} ${share(seconds)}`);
  return `- ${name}: ${parts.join(', ')}. Of TypeScript most: ${top.join(', ')}.`;
}

export async function profile(): Promise<string> {
  const bed = new Bed();
  try {
    const hosts = pair(bed);
    const key = makeKey(bed);
    const directories = { client: bed.file('profile'), server: bed.file('profile') };
    const common = ['auto', 'auto', 'auto', 'auto', '--no-default-routes', '--mtu', '1420'];
    const run = (role: 'server' | 'client', address: string): Daemon =>
      hosts[role].start([
        NODE,
        '--disable-warning=ExperimentalWarning',
        '--cpu-prof',
        `--cpu-prof-dir=${directories[role]}`,
        `--import=${WRAPPED}`,
        MAIN,
        role,
        key,
        address,
        '443',
        ...common,
        '--state-dir',
        bed.directory,
      ]);
    const ends = { server: run('server', 'auto'), client: run('client', '10.1.0.2') };
    await iperfServer(hosts.server);
    await reaches(hosts.client, SERVER_IP);
    const { bitsPerSecond } = await iperf(hosts.client, SERVER_IP, `-t ${SECONDS}`);
    // The profile is written when node ends by itself, as it does after the undo.
    await ends.client.stop('SIGTERM');
    await ends.server.stop('SIGTERM');
    const lines = (['client', 'server'] as const).map((role) => {
      // One of the monitor, one of the worker, which does the work.
      const profiles = readdirSync(directories[role]).map((file) => {
        const text = readFileSync(join(directories[role], file), 'utf8');
        return groupProfile(JSON.parse(text) as CpuProfile);
      });
      const [busiest] = profiles.sort((a, b) => busySeconds(b) - busySeconds(a));
      return describe(role, busiest!);
    });
    return [
      `Where the time goes, client → server at ${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s (with the profiler on), shares of the main thread's busy time:`,
      ...lines,
    ].join('\n');
  } finally {
    await bed.close();
  }
}
