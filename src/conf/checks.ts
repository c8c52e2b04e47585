/** What must hold between the keys of a file, each of which is fine by itself. */
import { isIP } from 'node:net';
import { REALTIME_TARGETS } from '../filters.ts';
import { MOST_LINKS } from '../constants.ts';
import { nearest } from '../nearest.ts';
import type { Problems } from './problem.ts';
import type { FileLink, Settings } from './settings.ts';

/** A network so small that the other end's address follows from ours (RFC 3021 for 31). */
const TWO_HOST_PREFIXES = [30, 31];

/** Adds what is wrong to `problems`. */
export function checkSettings(settings: Settings, problems: Problems): void {
  checkKey(settings, problems);
  checkAddresses(settings, problems);
  checkLinks(settings, problems);
  checkFilters(settings, problems);
}

function checkKey({ general, passwordLine }: Settings, problems: Problems): void {
  const hasPassword = passwordLine > 0;
  if (hasPassword && general.has('key_file')) {
    const why = `password at line ${passwordLine}`;
    const line = general.lineOf('key_file');
    problems.error(line, 'key "key_file"', `beside a ${why}`, 'take one of them out');
  } else if (hasPassword) {
    const remedy = 'better vpn keygen FILE and key_file = FILE, on both ends';
    problems.warn(passwordLine, 'key "password"', 'can be guessed', remedy);
  } else if (!general.has('key_file')) {
    problems.error(0, 'neither key_file nor password', '', 'add one of them to [general]');
  }
}

function checkAddresses({ general }: Settings, problems: Problems): void {
  if (general.has('statuscommand')) return;
  for (const [own, other] of [
    ['ip4', 'ip4_gateway'],
    ['ip6', 'ip6_gateway'],
  ]) {
    const local = general.text(own).split('/')[0];
    if (general.has(other) && !general.has(own)) {
      const line = general.lineOf(other);
      problems.error(line, `key "${other}"`, `without ${own}`, `add ${own} to [general]`);
    }
    if (general.has(own) && peerAddress(general.text(own), general.text(other)) === '') {
      const remedy = `add ${other}, the address of the other end`;
      problems.error(general.lineOf(own), `key "${own}"`, `without ${other}`, remedy);
    }
    if (local !== '' && local === general.text(other)) {
      const why = `the same address as ${own}`;
      problems.error(general.lineOf(other), `key "${other}"`, why, 'give each end its own');
    }
  }
}

/** The address of the other end: the one given, or the second of two; '' if it does not follow. */
export function peerAddress(cidr: string, given: string): string {
  if (given !== '') return given;
  const [address, prefix] = cidr.split('/');
  if (isIP(address) !== 4 || !TWO_HOST_PREFIXES.includes(Number(prefix))) return '';
  const last = Number(address.split('.')[3]);
  const peer = Number(prefix) === 31 ? last ^ 1 : last ^ 3;
  // The first and the last address of a /30 are nobody's.
  if (Number(prefix) === 30 && [0, 3].includes(last & 3)) return '';
  return address.replace(/\d+$/, String(peer));
}

function checkLinks({ links, mode }: Settings, problems: Problems): void {
  if (links.length === 0) {
    const key = mode === 'client' ? 'remotehost and remoteport' : 'bindport';
    problems.error(0, 'no link', '', `add a section such as [adsl1] with ${key}`);
  }
  if (links.length > MOST_LINKS) {
    problems.error(0, `${links.length} links`, `at most ${MOST_LINKS}`, 'leave some out');
  }
  const seen = new Map<string, FileLink>();
  for (const link of links) {
    const { values } = link;
    if (values.has('device') && values.has('bindhost')) {
      const line = values.lineOf('device');
      problems.error(line, 'key "device"', 'beside bindhost', 'take one of them out');
    }
    checkFamilies(link, problems);
    const way = wayOf(link);
    const same = seen.get(way);
    seen.set(way, link);
    const isComplete = values.has(mode === 'client' ? 'remotehost' : 'bindport');
    if (same === undefined || !isComplete) continue;
    const why = `the same addresses and ports as [${same.name}]`;
    problems.error(link.line, `section [${link.name}]`, why, 'change or remove it');
  }
}

/** A name may have addresses of both families, and a link without an address too. */
function checkFamilies({ values }: FileLink, problems: Problems): void {
  const own = isIP(values.text('bindhost'));
  const remote = isIP(values.text('remotehost'));
  const gateways = values.list('gateway').map((address) => isIP(address));
  if (own !== 0 && remote !== 0 && own !== remote) {
    const why = `IPv${own}, but remotehost is IPv${remote}`;
    problems.error(values.lineOf('bindhost'), 'key "bindhost"', why, 'give both the same');
  }
  const isTwice = new Set(gateways).size < gateways.length;
  if (isTwice || (own !== 0 && gateways.some((family) => family !== own))) {
    const why = isTwice ? 'two of one family' : `not all are IPv${own}, as bindhost is`;
    problems.error(values.lineOf('gateway'), 'key "gateway"', why, 'give one, or make two links');
  }
}

/** What makes a link: two links with the same are one. */
function wayOf({ values }: FileLink): string {
  const host = values.text('bindhost');
  const own = host === '0.0.0.0' || host === '::' ? '' : host;
  const keys = ['bindport', 'remoteport', 'bindfib'].map((key) => values.number(key));
  return [own, values.text('device'), values.text('remotehost'), ...keys].join(' ');
}

function checkFilters({ filters, links }: Settings, problems: Problems): void {
  const names = links.map(({ name }) => name);
  const targets = [...names, ...REALTIME_TARGETS.keys()];
  for (const { target, line } of filters) {
    if (targets.includes(target)) continue;
    const meant = nearest(target, targets);
    const remedy = meant === undefined ? `they are ${names.join(', ')}` : `did you mean ${meant}?`;
    problems.error(line, `filter for "${target}"`, 'no such link', remedy);
  }
}
