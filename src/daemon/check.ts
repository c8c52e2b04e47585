/**
 * `vpn check`: is the other end reachable outside the tunnel, and is it inside? One line each, for people and
 * monitors.
 */
import { isIP } from 'node:net';
import { runProgram } from './programs.ts';
import type { Status } from './status.ts';
import { msText } from './text.ts';

const PING_LIMIT_MS = 5_000;
const PINGS = '3';

export interface CheckLine {
  readonly isOk: boolean;
  readonly line: string;
}

/** Whether `address` answers a ping, and how quickly. Tests give another. */
export type Ping = (address: string) => Promise<PingResult>;

export interface PingResult {
  readonly isAnswered: boolean;
  /** Least round trip; null where the program does not say. */
  readonly ms: number | null;
  /** Why there is no result at all: ping cannot be run. '' otherwise. */
  readonly why: string;
}

/** The two steps, the second also when the first has failed. */
export async function check(status: Status, ping: Ping): Promise<readonly CheckLine[]> {
  return [await outside(status, ping), await inside(status, ping)];
}

/** Authenticated datagrams over a link say more than a ping; without any, a ping says where to look. */
async function outside({ tunnels, role, state }: Status, ping: Ping): Promise<CheckLine> {
  const peer = role === 'client' ? 'the server' : 'the client';
  const heard = tunnels.filter((link) => link.state === 'up' && link.status !== 'disconnected');
  if (state === 'connected' && heard.length > 0) {
    const links = heard.map((link) => `${link.name} (${link.endpoint}, ${msText(link.rtt_ms)})`);
    return { isOk: true, line: `outside: reachable: ${peer} is heard over ${links.join(', ')}` };
  }
  const address = tunnels.map((link) => link.destaddr).find((one) => isIP(one) !== 0);
  if (address === undefined) {
    return { isOk: false, line: `outside: not reachable: ${peer} was never heard` };
  }
  const { isAnswered, why } = await ping(address);
  if (why !== '')
    return { isOk: false, line: `outside: not reachable: ${peer} is silent (${why})` };
  const hint = isAnswered
    ? `the host ${address} answers a ping; see whether vpn runs there and UDP passes`
    : `the host ${address} answers no ping either`;
  return { isOk: false, line: `outside: not reachable: ${peer} is silent; ${hint}` };
}

async function inside({ peer_address: peer, tuntap }: Status, ping: Ping): Promise<CheckLine> {
  if (isIP(peer) === 0) {
    const why = 'only the status script knows the address of the other end';
    return { isOk: false, line: `inside: unknown: ${why}; set ip4_gateway to have it asked` };
  }
  const { isAnswered, ms, why } = await ping(peer);
  if (why !== '') return { isOk: false, line: `inside: unknown: ${why}` };
  const through = `${peer} through ${tuntap.name}`;
  return isAnswered
    ? { isOk: true, line: `inside: reachable: ${through} answers in ${msText(ms)}` }
    : { isOk: false, line: `inside: not reachable: no answer from ${through}` };
}

/** ping(8) of the system: everybody has it. Its options are those that all systems have. */
export async function systemPing(address: string): Promise<PingResult> {
  const { status, why, isStarted, output } = await runProgram({
    file: 'ping',
    words: ['-n', '-c', PINGS, '-i', '0.2', address],
    environment: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin', LC_ALL: 'C' },
    limitMs: PING_LIMIT_MS,
    isRead: true,
  });
  if (!isStarted) return { isAnswered: false, ms: null, why: `cannot run ping (${why})` };
  // `min/avg/max`, however a system calls the fourth.
  const least = /= ([\d.]+)\//.exec(output)?.[1];
  return { isAnswered: status === 0, ms: least === undefined ? null : Number(least), why: '' };
}
