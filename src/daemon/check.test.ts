import { deepEqual, equal } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { check } from './check.ts';
import type { PingResult } from './check.ts';
import { LinkHistory } from './history.ts';
import { publish } from './status.ts';
import type { About, TunnelStatus } from './status.ts';

const ANSWERED: PingResult = { isAnswered: true, ms: 21.3, why: '' };
const SILENT: PingResult = { isAnswered: false, ms: null, why: '' };

async function lines(
  tunnel: TunnelStatus,
  answers: Readonly<Record<string, PingResult>>,
  about: About = ABOUT,
): Promise<readonly string[]> {
  const history = new LinkHistory();
  history.observe(tunnel, 0);
  const moments = { nowMs: 1e6, startedMs: 4e5, reloadedMs: 4e5 };
  const found = await check(publish(tunnel, history, about, moments), async (address) => {
    return answers[address] ?? SILENT;
  });
  return found.map(({ isOk, line }) => `${isOk ? 'ok' : 'NO'} ${line}`);
}

describe('vpn check', () => {
  it('is content when a link is heard and the other end answers inside', async () => {
    const links = [linkStatus(), linkStatus({ id: 1, name: 'lte', state: 'suspect' })];
    deepEqual(await lines(tunnelStatus(links), { '192.168.192.254': ANSWERED }), [
      'ok outside: reachable: the server is heard over dsl (192.0.2.1:443, 20.4ms)',
      'ok inside: reachable: 192.168.192.254 through tun0 answers in 21.3ms',
    ]);
  });

  it('says where to look when the peer is silent', async () => {
    const silent = tunnelStatus([linkStatus({ heardAgoMs: 9_000 })], { heardAgoMs: 9_000 });
    deepEqual(await lines(silent, { '192.0.2.1': ANSWERED }), [
      'NO outside: not reachable: the server is silent; the host 192.0.2.1 answers a ping; ' +
        'see whether vpn runs there and UDP passes',
      'NO inside: not reachable: no answer from 192.168.192.254 through tun0',
    ]);
    equal(
      (await lines(silent, {}))[0],
      'NO outside: not reachable: the server is silent; the host 192.0.2.1 answers no ping either',
    );
  });

  it('tells a peer that was never heard, on a server too', async () => {
    const server = tunnelStatus([], { role: 'server', hasSession: false });
    equal((await lines(server, {}))[0], 'NO outside: not reachable: the client was never heard');
  });

  it('does not take a missing ping for an answer', async () => {
    const why = 'cannot run ping (no such file or directory)';
    const none: PingResult = { isAnswered: false, ms: null, why };
    equal(
      (await lines(tunnelStatus(), { '192.168.192.254': none }))[1],
      `NO inside: unknown: ${why}`,
    );
    const about = { ...ABOUT, peerIp: '' };
    equal(
      (await lines(tunnelStatus(), {}, about))[1],
      'NO inside: unknown: only the status script knows the address of the other end; ' +
        'set ip4_gateway to have it asked',
    );
  });
});
