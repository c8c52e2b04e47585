import { deepEqual, equal } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { LinkHistory } from './history.ts';
import { publish } from './status.ts';
import type { LinkStatus, Status, TunnelStatus } from './status.ts';

const MOMENTS = { nowMs: 1_000_000, startedMs: 400_000, reloadedMs: 500_900 };
const DOCUMENT = join(import.meta.dirname, '../../doc/status.md');

function published(tunnel: TunnelStatus): Status {
  const history = new LinkHistory();
  history.observe(tunnel, 0);
  return publish(tunnel, history, ABOUT, MOMENTS);
}

function linkOf(changes: Partial<LinkStatus>, tunnel: Partial<TunnelStatus> = {}) {
  return published(tunnelStatus([linkStatus(changes)], tunnel)).tunnels[0];
}

/** The fields of the n-th table of the section about the status. */
function documented(table: number): readonly string[] {
  const section = readFileSync(DOCUMENT, 'utf8').split('\n## ')[2];
  const tables = section.split(/\n\n/).filter((part) => part.startsWith('| field'));
  return [...tables[table].matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name);
}

describe('the status', () => {
  it('has the fields of MLVPN, in its units', () => {
    const status = published(tunnelStatus());
    deepEqual(
      { ...status, tunnels: [] },
      {
        ...status,
        tunnels: [],
        name: 'home',
        version: '0.1.0',
        uptime: 400,
        last_reload: 500,
        pid: 4242,
        tuntap: { type: 'tun', name: 'tun0' },
      },
    );
    const mlvpn = Object.fromEntries(Object.entries(status.tunnels[0]).slice(0, 17));
    deepEqual(mlvpn, {
      name: 'dsl',
      mode: 'client',
      bindaddr: 'any',
      bindport: 'any',
      destaddr: '192.0.2.1',
      destport: '443',
      status: 'connected',
      sentpackets: 100,
      recvpackets: 50,
      sentbytes: 140_000,
      recvbytes: 70_000,
      bandwidth: 1_250_000,
      srtt: 20,
      loss: 1,
      disconnects: 0,
      last_packet: 999,
      timeout: 60,
    });
  });

  it('has exactly the fields that doc/status.md lists, and of these types when written as JSON', () => {
    const status = published(tunnelStatus());
    const [base, more, link, moreOfLink] = [0, 1, 2, 3].map(documented);
    deepEqual([...base, ...more].sort(), Object.keys(status).sort());
    deepEqual([...link, ...moreOfLink].sort(), Object.keys(status.tunnels[0]).sort());
    // Neither Infinity nor undefined: a reader would find null, or nothing.
    const never = published(tunnelStatus([linkStatus({ heardAgoMs: undefined, rttMs: 0 })]));
    deepEqual(JSON.parse(JSON.stringify(never)), never);
  });

  it('takes an IPv6 endpoint apart', () => {
    const link = linkOf({ endpoint: '[2001:db8::1]:5080' });
    deepEqual([link.destaddr, link.destport], ['2001:db8::1', '5080']);
    const none = linkOf({ endpoint: '' });
    deepEqual([none.destaddr, none.destport], ['', '']);
  });

  it('says in MLVPN’s words how a link is', () => {
    equal(linkOf({}).status, 'connected');
    equal(linkOf({}, { hasSession: false }).status, 'waiting peer');
    equal(linkOf({ state: 'suspect' }).status, 'disconnected');
    equal(linkOf({ state: 'down' }).status, 'disconnected');
    equal(linkOf({ heardAgoMs: 3_000 }).status, 'disconnected');
    equal(linkOf({ lossLimit: 0.01 }).status, 'lossy link');
    equal(linkOf({ latencyLimitMs: 20 }).status, 'slow link');
    equal(linkOf({ lossLimit: 0.0123, latencyLimitMs: 21 }).status, 'connected');
  });

  it('suspects a link alone that is not heard', () => {
    equal(linkOf({ heardAgoMs: 2_999 }).state, 'up');
    equal(linkOf({ heardAgoMs: 3_000 }).state, 'suspect');
    equal(published(tunnelStatus([], { heardAgoMs: 3_000 })).state, 'silent');
    equal(published(tunnelStatus([], { hasSession: false })).state, 'connecting');
  });

  it('says null for what is not known', () => {
    const link = linkOf({ rttMs: 0, capacity: 0, maxRate: 0, heardAgoMs: undefined });
    deepEqual(
      [link.rtt_ms, link.jitter_ms, link.capacity_bits_per_second, link.max_bits_per_second],
      [null, null, null, null],
    );
    equal(link.heard_seconds_ago, null);
    equal(link.last_packet, 0);
    equal(published(tunnelStatus([], { cipher: 0, keyAgeMs: undefined })).cipher, null);
  });
});
