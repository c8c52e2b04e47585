/**
 * The status as Prometheus reads it: text format 0.0.4, base units (seconds, bytes, ratios), counters with
 * `_total`, each family once with HELP and TYPE.
 */
import type { PublishedLink, Status } from './status.ts';

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [value: number, labels?: Labels];

interface Family {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  readonly samples: (status: Status) => readonly Sample[];
}

const BITS = 8;
const STATES = ['up', 'suspect', 'down'] as const;

const FAMILIES: readonly Family[] = [
  gauge('vpn_info', 'What runs here; always 1.', ({ name, version, role, cipher, tuntap }) => [
    [1, { name, version, role, cipher: cipher ?? '', device: tuntap.name }],
  ]),
  gauge('vpn_start_time_seconds', 'When the instance started, Unix time.', ({ uptime }) => [
    [uptime],
  ]),
  gauge('vpn_connected', 'Whether the peer is connected and heard.', ({ state }) => [
    [state === 'connected' ? 1 : 0],
  ]),
  gauge('vpn_key_age_seconds', 'Age of the keys in use.', ({ key_age_seconds: age }) =>
    age === null ? [] : [[age]],
  ),
  gauge('vpn_cleartext', 'Whether packets go in the clear, authenticated only.', (status) => [
    [status.cleartext ? 1 : 0],
  ]),
  gauge('vpn_mtu_bytes', 'MTU of the tunnel.', ({ mtu }) => [[mtu]]),
  counter('vpn_sent_packets_total', 'Packets that went into the tunnel here.', (status) => [
    [status.sent_packets],
  ]),
  counter('vpn_received_packets_total', 'Packets that came out of the tunnel here.', (status) => [
    [status.received_packets],
  ]),
  counter('vpn_repaired_packets_total', 'Packets that were lost and sent again.', (status) => [
    [status.repaired_packets],
  ]),
  counter('vpn_abandoned_packets_total', 'Packets that were lost for good.', (status) => [
    [status.abandoned_packets],
  ]),
  counter('vpn_dropped_packets_total', 'Packets and datagrams dropped, by reason.', (status) =>
    Object.entries(status.dropped_packets).map(([reason, count]) => [count, { reason }]),
  ),
  gauge('vpn_waiting_bytes', 'Bytes that wait for a link.', (status) => [[status.waiting_bytes]]),
  gauge('vpn_held_packets', 'Packets that wait for earlier ones.', (status) => [
    [status.held_packets],
  ]),
  gauge('vpn_link_state', 'Which state a link is in: 1 for that one, 0 for others.', (status) =>
    status.tunnels.flatMap(({ name: link, state }) =>
      STATES.map((one): Sample => [one === state ? 1 : 0, { link, state: one }]),
    ),
  ),
  ofLinks('gauge', 'vpn_link_backup', 'Whether a link is a backup.', ({ backup }) =>
    backup ? 1 : 0,
  ),
  ofLinks('gauge', 'vpn_link_rtt_seconds', 'Round trip of a link, smoothed.', ({ rtt_ms: rtt }) =>
    rtt === null ? undefined : seconds(rtt),
  ),
  ofLinks('gauge', 'vpn_link_jitter_seconds', 'Mean deviation of the round trip.', (link) =>
    link.jitter_ms === null ? undefined : seconds(link.jitter_ms),
  ),
  ofLinks(
    'gauge',
    'vpn_link_loss_ratio',
    'Share of datagrams lost lately, 0 to 1.',
    ({ loss_ratio: loss }) => loss,
  ),
  ofLinks(
    'gauge',
    'vpn_link_capacity_bytes_per_second',
    'What a link can carry, as measured.',
    ({ capacity_bits_per_second: capacity }) => (capacity === null ? undefined : capacity / BITS),
  ),
  ofLinks(
    'gauge',
    'vpn_link_share_ratio',
    'Share of what is sent that goes over a link.',
    ({ share }) => share,
  ),
  ofLinks('gauge', 'vpn_link_mtu_bytes', 'Largest IP packet that passes.', ({ mtu }) => mtu),
  ofLinks('counter', 'vpn_link_sent_bytes_total', 'Bytes sent, with all headers.', (link) => {
    return link.sentbytes;
  }),
  ofLinks(
    'counter',
    'vpn_link_received_bytes_total',
    'Bytes received, with all headers.',
    (link) => link.recvbytes,
  ),
  ofLinks('counter', 'vpn_link_sent_packets_total', 'Datagrams sent.', (link) => link.sentpackets),
  ofLinks(
    'counter',
    'vpn_link_received_packets_total',
    'Datagrams received.',
    (link) => link.recvpackets,
  ),
  ofLinks(
    'counter',
    'vpn_link_lost_packets_total',
    'Datagrams found lost, also such as came late.',
    (link) => link.lost_packets,
  ),
  ofLinks(
    'counter',
    'vpn_link_repaired_packets_total',
    'Packets lost on a link and sent again.',
    (link) => link.repaired_packets,
  ),
  ofLinks(
    'counter',
    'vpn_link_disconnects_total',
    'Times that a link went down.',
    (link) => link.disconnects,
  ),
];

/** The whole exposition; a family without a sample is left out. */
export function metrics(status: Status): string {
  const lines: string[] = [];
  for (const { name, type, help, samples } of FAMILIES) {
    const found = samples(status);
    if (found.length === 0) continue;
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const [value, labels] of found) lines.push(`${name}${labelText(labels)} ${value}`);
  }
  return `${lines.join('\n')}\n`;
}

function gauge(name: string, help: string, samples: Family['samples']): Family {
  return { name, type: 'gauge', help, samples };
}

function counter(name: string, help: string, samples: Family['samples']): Family {
  return { name, type: 'counter', help, samples };
}

/** A family with a sample for each link; undefined: not known. */
function ofLinks(
  type: Family['type'],
  name: string,
  help: string,
  value: (link: PublishedLink) => number | undefined,
): Family {
  const samples = ({ tunnels }: Status): readonly Sample[] =>
    tunnels.flatMap((link): readonly Sample[] => {
      const known = value(link);
      return known === undefined ? [] : [[known, { link: link.name }]];
    });
  return { name, type, help, samples };
}

/** To the microsecond: the quotient would have seventeen digits. */
function seconds(ms: number): number {
  return Math.round(ms * 1000) / 1e6;
}

function labelText(labels: Labels = {}): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

/** Backslash, quote and newline, as the format asks. */
function escaped(value: string): string {
  return value.replaceAll(/[\\"\n]/g, (found) => (found === '\n' ? '\\n' : `\\${found}`));
}
