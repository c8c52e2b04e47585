/**
 * The server's name, resolved for each new handshake, also when the way to the resolver leads into the very
 * tunnel that is down: then only a query that carries the links' mark gets out. Both ways are asked,
 * and the first that knows addresses wins. (A wrong answer costs a handshake that nobody answers.)
 */
import { decode, encode, type Answer } from 'dns-packet';
import { lookup } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { endpoint, formatIp, formatRemote, isSameRemote, parseIp } from './address.ts';
import { datagramTable, ENDPOINT_BYTES } from './batch.ts';
import { random } from './crypto.ts';
import { PollEvent, type Native } from './native.ts';
import { reason, verbose } from './report.ts';

/** What resolv.conf(5) waits for each server. */
const LIMIT_MS = 5_000;
/** How long the answer of the other family is waited for. */
const OTHER_FAMILY_MS = 250;
/** How long the host's own answer has precedence: it may be of /etc/hosts, of which name servers know nothing. */
const OWN_GRACE_MS = 250;
/** resolv.conf(5), MAXNS. */
const MOST_SERVERS = 3;
/** The stub of systemd-resolved asks upstream without our mark; this file names who it asks. */
const RESOLV_CONF = ['/run/systemd/resolve/resolv.conf', '/etc/resolv.conf'];
const DNS_PORT = 53;
/** In place of the id of a question: that of no answer. */
const ANSWERED = -1;
/** Datagrams that may wait; a resolver sends two. */
const SLOTS = 8;
/** The addon's place for one datagram without offloads is 9216 bytes. */
const SLAB_BYTES = SLOTS * 9_216;

type Endpoints = readonly Uint8Array[];

/** The endpoints of `server`, a name or an address, in the resolver's order; empty if there are none now. */
export async function resolveName(server: string, port: number): Promise<Endpoints> {
  const literal = parseIp(server);
  if (literal !== undefined) return [endpoint(literal, port, scopeOf(server))];
  try {
    const found = await lookup(server, { all: true, order: 'verbatim' });
    const addresses = found.map(({ address }) => address);
    verbose('dns', `the system knows ${server} as ${addresses.join(', ')}`);
    return addresses.map((address) => endpoint(parseIp(address)!, port, scopeOf(address)));
  } catch (error) {
    verbose('dns', `the system does not know ${server}: ${reason(error)}`);
    return [];
  }
}

/** The scope id behind the `%` of a link-local address, a number or an interface (RFC 4007 §11); else 0. */
function scopeOf(address: string): number {
  const [, zone] = address.split('%');
  if (zone === undefined) return 0;
  for (const known of networkInterfaces()[zone] ?? []) {
    if (known.family === 'IPv6' && known.scopeid > 0) return known.scopeid;
  }
  return /^\d{1,9}$/.test(zone) ? Number(zone) : 0;
}

/** Whom the host asks, where `vpn` itself has changed that. */
export interface Changed {
  /** Reached through the tunnel only. */
  readonly inside: readonly string[];
  /** Whom it asked before. */
  readonly before: readonly string[];
}

/** As `resolveName`, and by marked queries of our own besides. */
export function resolveOutside(
  native: Native,
  server: string,
  port: number,
  mark: number,
  changed: Changed = { inside: [], before: [] },
): Promise<Endpoints> {
  if (parseIp(server) !== undefined) return resolveName(server, port);
  const own = resolveName(server, port);
  const asked = nameServers(changed).then(async (servers) => {
    const found = await askServers(native, servers, server, port, mark);
    if (found.length > 0) await Promise.race([own, sleep(OWN_GRACE_MS)]);
    return found;
  });
  return firstKnown([own, asked]);
}

/** The first result that is not empty; empty when all are, or time is up. */
function firstKnown(questions: readonly Promise<Endpoints>[]): Promise<Endpoints> {
  return new Promise((done) => {
    const timer = setTimeout(() => done([]), LIMIT_MS);
    let open = questions.length;
    const answered = (endpoints: Endpoints): void => {
      open--;
      if (endpoints.length === 0 && open > 0) return;
      clearTimeout(timer);
      done(endpoints);
    };
    for (const question of questions) question.then(answered, () => answered([]));
  });
}

/** Asks all of `servers`, and takes the first that knows addresses. */
export async function askServers(
  native: Native,
  servers: readonly Uint8Array[],
  name: string,
  port: number,
  mark: number,
): Promise<Endpoints> {
  const questions = servers.map(async (address) => {
    const found = await askServer(native, address, name, port, mark);
    const known = found.length === 0 ? 'no address' : found.map(formatRemote).join(', ');
    verbose('dns', `${formatIp(address)}, asked past the tunnel for ${name}: ${known}`);
    return found;
  });
  return questions.length === 0 ? [] : firstKnown(questions);
}

/** Those in the files now, without those inside; where only they are left, those from before. */
async function nameServers({ inside, before }: Changed): Promise<readonly Uint8Array[]> {
  const hidden = inside.map((address) => formatIp(parseIp(address)!));
  for (const file of RESOLV_CONF) {
    try {
      const found = parseNameServers(await readFile(file, 'utf8'));
      const outside = found.filter((address) => !hidden.includes(formatIp(address)));
      if (outside.length > 0) return outside;
    } catch {
      // Not there: the next one.
    }
  }
  return before.map((address) => parseIp(address)).filter((address) => address !== undefined);
}

/** The addresses in the `nameserver` lines of a resolv.conf(5). */
export function parseNameServers(text: string): readonly Uint8Array[] {
  return text
    .split('\n')
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1])
    .map((address) => (address === undefined ? undefined : parseIp(address)))
    .filter((address) => address !== undefined)
    .slice(0, MOST_SERVERS);
}

/**
 * Asks one server for both families (RFC 1035, RFC 3596). Empty if it does not answer in time; rejects
 * where there is no socket of its family.
 */
async function askServer(
  native: Native,
  address: Uint8Array,
  name: string,
  port: number,
  mark: number,
): Promise<Endpoints> {
  const { handle } = native.udpOpen({
    family: address.length === 4 ? 4 : 6,
    dualStack: false,
    address: '',
    port: 0,
    device: '',
    mark,
    offload: false,
    bufferBytes: 65_536,
  });
  const peer = endpoint(address, DNS_PORT);
  const drawn = new Uint16Array(2);
  random(new Uint8Array(drawn.buffer));
  const ids = [...drawn];
  const table = datagramTable(SLOTS);
  const slab = new Uint8Array(SLAB_BYTES);
  return new Promise((done) => {
    const found: Uint8Array[] = [];
    let open = ids.length;
    let timer = setTimeout(() => finish(), LIMIT_MS);
    const finish = (): void => {
      clearTimeout(timer);
      native.close(handle);
      done(found);
    };
    native.poll(handle, PollEvent.readable, () => {
      const count = native.udpReceive(handle, slab, 0, slab.length, table);
      for (let i = 0; i < count && open > 0; i++) {
        if (!isSameRemote(table.endpoints, table.sources[i] * ENDPOINT_BYTES, peer, 0)) continue;
        const at = table.offsets[i];
        const addresses = readAnswer(slab.subarray(at, at + table.lengths[i]), ids, name);
        if (addresses === undefined) continue;
        found.push(...addresses.map((bytes) => endpoint(bytes, port)));
        if (--open === 0) return finish();
        if (found.length === 0) continue;
        clearTimeout(timer);
        timer = setTimeout(() => finish(), OTHER_FAMILY_MS);
      }
    });
    (['AAAA', 'A'] as const).forEach((type, i) => {
      const query = encode({
        type: 'query',
        id: ids[i],
        flags: 0x100,
        questions: [{ type, name }],
      });
      const size = Uint16Array.of(query.length);
      native.udpSend(handle, query, Uint32Array.of(0), size, 0, 1, peer, 0);
    });
    // No way leads there: no answer will.
    if (native.udpErrno(handle) !== 0) finish();
  });
}

/** The addresses in an answer to one of our questions; undefined if it is none. Each id counts once. */
export function readAnswer(
  message: Uint8Array,
  ids: number[],
  name: string,
): readonly Uint8Array[] | undefined {
  let answer: ReturnType<typeof decode>;
  try {
    answer = decode(Buffer.from(message));
  } catch {
    return undefined;
  }
  const place = ids.indexOf(answer.id ?? Number.NaN);
  const asked = answer.questions?.[0]?.name.toLowerCase();
  if (answer.type !== 'response' || place === -1 || asked !== name.toLowerCase()) return undefined;
  ids[place] = ANSWERED;
  return (answer.answers ?? []).flatMap((record: Answer) => {
    if (record.type !== 'A' && record.type !== 'AAAA') return [];
    const bytes = parseIp(record.data);
    return bytes === undefined ? [] : [bytes];
  });
}
