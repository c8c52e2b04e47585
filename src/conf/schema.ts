/**
 * All keys of the configuration file, as one table: the parser, `--dump`, the diff of a reload and the
 * key help read it, and a test holds vpn.conf(5) and the options of the command line against it.
 */
import { SUBJECTS } from '../report.ts';
import * as type from './values.ts';
import type { ValueType } from './values.ts';

export type Mode = 'client' | 'server';
export type SectionKind = 'general' | 'link';

/**
 * How far a value goes here: `exact` as in MLVPN or as written; `cap`, an upper bound of what is
 * measured; `ignored`, accepted and without effect.
 */
export type Meaning = 'exact' | 'cap' | 'ignored';

/** The same on the command line. */
export type CommandLine =
  | { readonly option: string; readonly inverse?: true }
  /** A word of `vpn server` or `vpn client`. */
  | { readonly word: string }
  /** A part of `--link`. */
  | { readonly part: string }
  | { readonly none: string };

export interface Key {
  readonly section: SectionKind;
  readonly name: string;
  /** Other spellings, MLVPN's among them. */
  readonly aliases?: readonly string[];
  readonly type: ValueType;
  /** As it would be written; a key without one is not set, or is measured. */
  readonly fallback?: string;
  /** Has a meaning in this mode only. */
  readonly mode?: Mode;
  /** Must be given in the section of a link in this mode. */
  readonly required?: Mode;
  /** Its value is never a string, and never shown. */
  readonly secret?: true;
  readonly meaning: Meaning;
  /** Whether MLVPN has it. */
  readonly mlvpn: boolean;
  readonly reload: 'live' | 'restart';
  readonly commandLine: CommandLine;
  readonly help: string;
}

/** The sections that are no links. */
export const GENERAL = 'general';
export const FILTERS = 'filters';

/** MLVPN's tokens, and the one that its scheduler had. */
export const DEBUG_TOKENS: readonly string[] = [...SUBJECTS, 'wrr'];

/** Options that no file can have, and why. */
export const COMMAND_LINE_ONLY: Readonly<Record<string, string>> = {
  config: 'names the file',
  json: 'is the form of an answer',
  check: 'validates the file and ends',
  dump: 'prints the file and ends',
  'dry-run': 'prints the commands and ends',
  help: 'prints and ends',
  version: 'prints and ends',
  license: 'prints and ends',
  'rekey-after': 'is for tests',
  'state-dir': 'is for tests',
};

/** Options that are whole sections here. */
export const SECTION_OPTIONS: readonly string[] = ['link', 'listen', 'filter'];

type Row = Omit<Key, 'section' | 'name' | 'type' | 'help' | 'meaning' | 'mlvpn' | 'reload'> &
  Partial<Pick<Key, 'meaning' | 'reload'>>;

function row(section: SectionKind, mlvpn: boolean) {
  return (name: string, valueType: ValueType, help: string, rest: Row): Key => {
    return {
      meaning: 'exact',
      reload: 'restart',
      ...rest,
      section,
      name,
      type: valueType,
      help,
      mlvpn,
    };
  };
}

/* A key of MLVPN and a key of vpn's own, in [general] and in the section of a link. */
const theirs = row('general', true);
const ours = row('general', false);
const theirLink = row('link', true);
const ourLink = row('link', false);

const option = (name: string): CommandLine => ({ option: name });
const word = (name: string): CommandLine => ({ word: name });
const part = (name: string): CommandLine => ({ part: name });
const none = (why: string): CommandLine => ({ none: why });

export const KEYS: readonly Key[] = [
  theirs('mode', type.choice('client', 'server'), 'which end this is', {
    commandLine: word('COMMAND'),
  }),
  theirs('password', type.TEXT, 'what the key of both ends is made of', {
    secret: true,
    commandLine: none('everybody on the host would see it'),
  }),
  ours('key_file', type.PATH, 'the key of both ends, better than a password', {
    commandLine: word('KEYFILE'),
  }),
  theirs('statuscommand', type.PATH, 'script that is told of changes and sets addresses up', {
    reload: 'live',
    commandLine: option('statuscommand'),
  }),
  theirs('interface_name', type.INTERFACE, 'the interface of the tunnel', {
    fallback: 'mlvpn0',
    commandLine: word('TUN'),
  }),
  theirs('tuntap', type.choice('tun', 'tap'), 'carry IP packets or Ethernet frames', {
    fallback: 'tun',
    commandLine: option('tuntap'),
  }),
  theirs('ip4', type.TUNNEL_CIDR4, 'IPv4 address of this end of the tunnel', {
    commandLine: word('LOCAL'),
  }),
  theirs('ip6', type.TUNNEL_CIDR6, 'IPv6 address of this end of the tunnel', {
    commandLine: option('ip6'),
  }),
  theirs('ip4_gateway', type.TUNNEL_IP4, 'IPv4 address of the other end', {
    commandLine: word('REMOTE'),
  }),
  theirs('ip6_gateway', type.TUNNEL_IP6, 'IPv6 address of the other end', {
    commandLine: option('ip6-gateway'),
  }),
  theirs('ip4_routes', type.NETWORKS4, 'IPv4 networks behind the other end', {
    reload: 'live',
    commandLine: option('route'),
  }),
  theirs('ip6_routes', type.NETWORKS6, 'IPv6 networks behind the other end', {
    reload: 'live',
    commandLine: option('route'),
  }),
  ours('default_routes', type.FLAG, 'client: all traffic by the tunnel; server: NAT for it', {
    fallback: 'no',
    commandLine: { option: 'no-default-routes', inverse: true },
  }),
  ours('external_ip', type.ADDRESS, 'address that the traffic of the client leaves from', {
    mode: 'server',
    commandLine: word('EXTERNAL'),
  }),
  theirs('mtu', type.wholeNumber(1280, 1500), 'upper bound of the MTU of the tunnel', {
    meaning: 'cap',
    commandLine: option('mtu'),
  }),
  theirs('timeout', type.TIMEOUT, 'a silent link is down after this at the latest', {
    fallback: '60',
    meaning: 'cap',
    reload: 'live',
    commandLine: option('timeout'),
  }),
  theirs('loss_tolerance', type.PERCENT, 'a link that loses more is used last', {
    aliases: ['loss_tolerence'],
    fallback: '100',
    reload: 'live',
    commandLine: part('loss'),
  }),
  theirs('latency_tolerance', type.MILLISECONDS, 'a link that is slower is used last', {
    aliases: ['latency_tolerence'],
    reload: 'live',
    commandLine: part('latency'),
  }),
  theirs(
    'reorder_buffer_size',
    type.wholeNumber(0, 65_536),
    'without effect: as many are held as needed',
    {
      fallback: '0',
      meaning: 'ignored',
      reload: 'live',
      commandLine: option('reorder-buffer-size'),
    },
  ),
  theirs('cleartext_data', type.FLAG, 'packets go authenticated, but in the clear', {
    fallback: 'no',
    commandLine: option('cleartext-data'),
  }),
  ours('cipher', type.choice('auto', 'aes-256-gcm', 'chacha20-poly1305'), 'the cipher of packets', {
    fallback: 'auto',
    commandLine: option('cipher'),
  }),
  ours('realtime', type.REALTIME, 'ports whose packets are never held, maybe sent twice', {
    reload: 'live',
    commandLine: option('realtime'),
  }),
  ours('kill_switch', type.FLAG, 'without the tunnel nothing leaves the client', {
    fallback: 'no',
    mode: 'client',
    commandLine: option('kill-switch'),
  }),
  ours('dns', type.ADDRESSES, 'name servers while the tunnel is up', {
    mode: 'client',
    commandLine: option('dns'),
  }),
  ours('proxy_arp', type.FLAG, 'answer for the other end in the local network', {
    fallback: 'no',
    commandLine: option('proxy-arp'),
  }),
  ours('allow', type.NETWORKS, 'networks that may be reached through this end', {
    reload: 'live',
    commandLine: option('allow'),
  }),
  ours('mark', type.MARK, 'firewall mark of own datagrams', {
    commandLine: option('mark'),
  }),
  ours('table', type.TABLE, 'routing table to fill', {
    commandLine: option('table'),
  }),
  ours('offload', type.FLAG, 'use the offloads of tun and UDP', {
    fallback: 'yes',
    commandLine: { option: 'no-offload', inverse: true },
  }),
  theirs('control_unix_path', type.PATH, 'socket of vpn status and the like', {
    commandLine: option('control-unix-path'),
  }),
  theirs('control_bind_host', type.ADDRESS, 'address of the status over HTTP', {
    fallback: '127.0.0.1',
    commandLine: option('control-bind-host'),
  }),
  theirs('control_bind_port', type.PORT, 'port of the status over HTTP', {
    commandLine: option('control-bind-port'),
  }),
  ours('name', type.NAME, 'name of this instance', {
    commandLine: option('name'),
  }),
  ours('user', type.NAME, 'who parses what comes from the network', {
    commandLine: option('user'),
  }),
  ours('natural_title', type.FLAG, 'leave the title of the processes as it is', {
    fallback: 'no',
    commandLine: option('natural-title'),
  }),
  ours('verbose', type.wholeNumber(0, 9), 'show every command, and more', {
    fallback: '0',
    reload: 'live',
    commandLine: option('verbose'),
  }),
  ours('quiet', type.FLAG, 'show errors only', {
    fallback: 'no',
    reload: 'live',
    commandLine: option('quiet'),
  }),
  ours('debug', type.FLAG, 'log to standard error and not to syslog', {
    fallback: 'no',
    commandLine: option('debug'),
  }),
  ours('debug_tokens', type.choices(DEBUG_TOKENS), 'subjects to log in detail', {
    reload: 'live',
    commandLine: option('debug-token'),
  }),
  ours('log', type.choice('text', 'json'), 'form of log lines', {
    fallback: 'text',
    reload: 'live',
    commandLine: option('log'),
  }),
  theirLink('bindhost', type.ADDRESS, 'source address of the link, or address to listen on', {
    reload: 'live',
    commandLine: part('ADDR'),
  }),
  theirLink('bindport', type.PORT, 'port to listen on, or to send from', {
    required: 'server',
    reload: 'live',
    commandLine: option('listen'),
  }),
  theirLink('bindfib', type.wholeNumber(0, 65_535), 'routing table of the socket (BSD)', {
    fallback: '0',
    reload: 'live',
    commandLine: none('setfib(1) and route(8) set it for a command'),
  }),
  ourLink('device', type.INTERFACE, 'interface of the link, instead of bindhost', {
    mode: 'client',
    reload: 'live',
    commandLine: part('DEV'),
  }),
  theirLink('remotehost', type.HOST, 'name or address of the server', {
    mode: 'client',
    required: 'client',
    reload: 'live',
    commandLine: part('remote'),
  }),
  theirLink('remoteport', type.PORT, 'port of the server', {
    mode: 'client',
    required: 'client',
    reload: 'live',
    commandLine: part('remote'),
  }),
  ourLink('gateway', type.ADDRESSES, 'next hop of the link, one for each family at most', {
    mode: 'client',
    reload: 'live',
    commandLine: part('gateway'),
  }),
  theirLink('bandwidth_upload', type.RATE, 'never send faster; 0: as fast as it goes', {
    fallback: '0',
    meaning: 'cap',
    reload: 'live',
    commandLine: part('max'),
  }),
  ourLink('weight', type.WEIGHT, 'share of the link relative to its measured rate', {
    fallback: '1',
    reload: 'live',
    commandLine: part('weight'),
  }),
  theirLink('timeout', type.TIMEOUT, 'as in [general], for this link', {
    meaning: 'cap',
    reload: 'live',
    commandLine: none('--timeout is for all links'),
  }),
  theirLink('loss_tolerance', type.PERCENT, 'as in [general], for this link', {
    aliases: ['loss_tolerence'],
    reload: 'live',
    commandLine: part('loss'),
  }),
  theirLink('latency_tolerance', type.MILLISECONDS, 'as in [general], for this link', {
    aliases: ['latency_tolerence'],
    reload: 'live',
    commandLine: part('latency'),
  }),
  theirLink('fallback_only', type.FLAG, 'used only while all others are down', {
    fallback: 'no',
    reload: 'live',
    commandLine: part('backup'),
  }),
  ourLink('mtu', type.wholeNumber(1280, 1580), 'largest datagram of the link', {
    meaning: 'cap',
    reload: 'live',
    commandLine: part('mtu'),
  }),
];

/** The key that `name` is in such a section, by any of its spellings. */
export function findKey(section: SectionKind, name: string): Key | undefined {
  return KEYS.find((key) => key.section === section && spellings(key).includes(name));
}

export function keysOf(section: SectionKind): readonly Key[] {
  return KEYS.filter((key) => key.section === section);
}

export function spellings(key: Key): readonly string[] {
  return [key.name, ...(key.aliases ?? [])];
}

/** The kind of a section; undefined for [filters], which has no keys of its own. */
export function kindOf(section: string): SectionKind | undefined {
  if (section === FILTERS) return undefined;
  return section === GENERAL ? 'general' : 'link';
}

/** One line for each key: what a file can have. */
export function keyHelp(): readonly string[] {
  return KEYS.map(({ section, name, help, fallback }) => {
    const place = section === 'link' ? '[LINK]' : '[general]';
    const end = fallback === undefined ? '' : ` (${fallback})`;
    return `${place.padEnd(9)} ${name.padEnd(19)} ${help}${end}`;
  });
}
