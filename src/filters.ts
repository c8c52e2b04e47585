/**
 * The `[filters]` of a configuration: pcap expressions that put flows on a link or into the realtime
 * class. libpcap compiles them, by way of `tcpdump -ddd`; what comes out is verified here (bpf.ts) and
 * asked once per flow (classes.ts).
 *
 * tcpdump needs neither an interface nor privileges for that. With `-y RAW` a packet starts with its IP
 * header, as it does in a TUN device, with `-y EN10MB` it is an Ethernet frame, as in a TAP device. Names of
 * hosts in an expression are resolved here and now.
 */
import { parseBpf, type BpfProgram } from './bpf.ts';
import { linkVerdict, MOST_LINK_FILTERS, TrafficClass, type Filter } from './classes.ts';
import { Failure } from './report.ts';
import type { Outcome, Runner } from './rules.ts';

/** One line of `[filters]`. Their order is that of the file. */
export interface FilterEntry {
  /** The name of a link, or one of `REALTIME_TARGETS`. */
  readonly target: string;
  /** See pcap-filter(7). */
  readonly expression: string;
}

/** An entry with its program as tcpdump printed it: text, to be handed to another process. */
export interface CompiledEntry extends FilterEntry {
  readonly program: string;
}

/** Rules for the classifier, and the links its filters name. */
export interface FilterSet {
  readonly filters: readonly Filter[];
  /** The link of each number that `firstMatch` asks for and returns. */
  readonly links: readonly string[];
}

/** What no link can be called. */
export const REALTIME_TARGETS: ReadonlyMap<string, number> = new Map([
  ['realtime', TrafficClass.realtime],
  ['realtime,duplicate', TrafficClass.duplicated],
]);

/** What a packet begins with: a link type of pcap-linktype(7), as tcpdump(1) has it. */
const LINK_TYPES = { tun: 'RAW', tap: 'EN10MB' } as const;

/**
 * Compiles each entry for the packets of a tun or the frames of a tap. Throws the `Failure` of the first
 * that does not compile.
 */
export async function compileFilters(
  entries: readonly FilterEntry[],
  runner: Pick<Runner, 'run'>,
  tuntap: keyof typeof LINK_TYPES,
): Promise<readonly CompiledEntry[]> {
  const compiled: CompiledEntry[] = [];
  for (const entry of entries) {
    const { expression } = entry;
    const argv = ['tcpdump', '-y', LINK_TYPES[tuntap], '-ddd', '--', expression];
    const outcome = await runner.run(argv);
    if (outcome.status !== 0) throw refusal(entry, outcome);
    verified(entry, outcome.stdout);
    compiled.push({ ...entry, program: outcome.stdout });
  }
  filterSet(compiled);
  return compiled;
}

/**
 * What the classifier takes. Neighbours of one link share a number, since between them order means
 * nothing. Throws a `Failure` when there are more than fit, or a program is none.
 */
export function filterSet(compiled: readonly CompiledEntry[]): FilterSet {
  const links: string[] = [];
  const filters = compiled.map((entry) => {
    const program = verified(entry, entry.program);
    const realtime = REALTIME_TARGETS.get(entry.target);
    if (realtime !== undefined) return { program, verdict: realtime };
    if (links.at(-1) !== entry.target) links.push(entry.target);
    return { program, verdict: linkVerdict(links.length - 1) };
  });
  if (links.length > MOST_LINK_FILTERS) {
    throw new Failure(
      'too many filters',
      `${links.length} changes from link to link, at most ${MOST_LINK_FILTERS}`,
      'put filters of one link together, or join their expressions with "or"',
    );
  }
  return { filters, links };
}

function verified(entry: FilterEntry, program: string): BpfProgram {
  try {
    return parseBpf(program);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Failure(subject(entry), `it cannot be used for a tunnel: ${why}`, 'use another one');
  }
}

function subject({ target, expression }: FilterEntry): string {
  return `filter "${expression}" of "${target}"`;
}

function refusal(entry: FilterEntry, { reason, stderr }: Outcome): Failure {
  if (reason === 'was not found') {
    return new Failure('filters need tcpdump', 'it was not found', 'install it, or check PATH');
  }
  // Warnings may stand above the error; a line of it without the program's name is all that it says.
  const said = stderr
    .split('\n')
    .filter((line) => /^tcpdump: /.test(line) && !/^tcpdump: warning/i.test(line))
    .at(-1);
  const why = said === undefined ? `tcpdump ${reason}` : said.replace('tcpdump: ', '');
  return new Failure(subject(entry), why, 'see pcap-filter(7)');
}
