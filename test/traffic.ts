/** Traffic through the tunnel and what came of it: ping and iperf3, their output read. */
import { Daemon, Host, until } from './netns.ts';

export interface PingResult {
  readonly sent: number;
  readonly received: number;
  /** NaN when nothing came back. */
  readonly averageMs: number;
  readonly text: string;
}

export function readPing(text: string): PingResult {
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(text) ?? [];
  const average = /= [\d.]+\/([\d.]+)\//.exec(text)?.[1];
  return {
    sent: Number(sent ?? 0),
    received: Number(received ?? 0),
    averageMs: Number(average),
    text,
  };
}

/** Pings `to`; `options` as for ping(8). Waits for the end. */
export function ping(host: Host, to: string, options = '-c 1 -W 2'): PingResult {
  const { stdout, stderr } = host.try(['ping', '-n', ...options.split(' '), to], 60_000);
  return readPing(stdout + stderr);
}

/** One ping for `until`: what gets no answer at once is asked again rather than waited for. */
export const answers = (host: Host, to: string): boolean =>
  ping(host, to, '-c 1 -W 0.2').received > 0;

/** Pings until the first answer. */
export async function reaches(host: Host, to: string, withinMs = 20_000): Promise<void> {
  await until(`ping from ${host.name} to ${to}`, () => answers(host, to), withinMs);
}

/** Starts `iperf3 -s` and returns when it listens. */
export async function iperfServer(host: Host, port = 5201): Promise<Daemon> {
  const server = host.start(['iperf3', '-s', '-p', String(port), '--forceflush']);
  await server.line(/Server listening/);
  return server;
}

interface IperfSum {
  readonly bits_per_second: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly packets?: number;
  readonly lost_packets?: number;
}

export interface IperfReport {
  readonly error?: string;
  readonly intervals: readonly {
    readonly sum: { readonly bytes: number; readonly start: number };
  }[];
  readonly end: {
    readonly sum?: IperfSum;
    readonly sum_received?: IperfSum;
    readonly sender_tcp_congestion?: string;
  };
}

export interface IperfResult {
  /** Bits per second as the receiver saw them. */
  readonly bitsPerSecond: number;
  readonly bytes: number;
  readonly packets: number;
  readonly lost: number;
  /** Bytes sent in each second of the run. */
  readonly perSecond: readonly number[];
}

export function readIperf(text: string): IperfResult {
  const report = JSON.parse(text.slice(text.indexOf('{'))) as IperfReport;
  if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
  const { sum, sum_received: received } = report.end;
  const final = received ?? sum;
  if (final === undefined) throw new Error(`iperf3 gave no sum: ${text}`);
  const packets = sum?.packets ?? 0;
  const lost = sum?.lost_packets ?? 0;
  return {
    // For UDP the sum counts what was sent.
    bitsPerSecond: sum?.packets
      ? (sum.bits_per_second * (packets - lost)) / packets
      : final.bits_per_second,
    bytes: final.bytes,
    packets,
    lost,
    perSecond: report.intervals.map(({ sum: { bytes } }) => bytes),
  };
}

/** Starts an iperf3 client; `options` as for iperf3(1). TCP is cubic, whatever the host's default. */
export function startIperf(host: Host, to: string, options: string): Daemon {
  const words = options.split(' ');
  const congestion = words.includes('-u') ? [] : ['-C', 'cubic'];
  return host.start([
    'iperf3',
    '-J',
    '-c',
    to,
    '--connect-timeout',
    '5000',
    ...congestion,
    ...words,
  ]);
}

/** The value of one of a kernel's counters, as "Udp InErrors" of /proc/net/snmp or netstat. */
export function counter(host: Host, protocol: string, name: string): number {
  const lines = host
    .run('cat /proc/net/snmp /proc/net/netstat')
    .split('\n')
    .filter((line) => line.startsWith(`${protocol}: `));
  const [names, values] = lines.map((line) => line.split(' ')) as [string[], string[]];
  return Number(values[names.indexOf(name)]);
}

/**
 * Packets that the kernel of a host has dropped because a program did not take them in time: from sockets
 * for UDP over IPv4, and from devices. On a busy machine some are.
 */
export function untaken(host: Host): number {
  const devices = host.run('sh', '-c', 'cat /sys/class/net/*/statistics/[rt]x_dropped');
  const dropped = devices.trim().split('\n').map(Number);
  return dropped.reduce((sum, count) => sum + count, counter(host, 'Udp', 'RcvbufErrors'));
}

export async function iperf(host: Host, to: string, options: string): Promise<IperfResult> {
  const client = startIperf(host, to, options);
  await client.ended(120_000);
  return readIperf(client.output);
}
