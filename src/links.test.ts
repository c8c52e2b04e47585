import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { endpoint, parseIp } from './address.ts';
import type { Host, LinkSocket } from './host.ts';
import { Links } from './links.ts';
import { PLAIN_LINK, type TunnelConfig } from './peering.ts';
import { LINK_IDS } from './wire.ts';

const SOCKET: LinkSocket = {
  receive: () => 0,
  send: () => 0,
  errno: () => 0,
  watch: () => undefined,
  close: () => undefined,
};
const PEERS = ['192.0.2.1', '192.0.2.2'].map((text) => endpoint(parseIp(text)!, 443));

function newLinks(role: 'client' | 'server'): Links {
  const links = ['first', 'second'].map((name) => ({ ...PLAIN_LINK, name }));
  const config = { role, links } as unknown as TunnelConfig;
  return new Links(config, {
    randomBytes: (bytes: Uint8Array) => bytes.fill(1),
  } as unknown as Host);
}

describe('the links of a tunnel', () => {
  it('are found by their id, in the order in which they came, until they are removed', () => {
    const links = newLinks('server');
    const [late, early, last] = [7, 0, LINK_IDS - 1].map((id) =>
      links.add(id, SOCKET, PEERS[0], 0),
    );
    assert.deepEqual(links.list, [late, early, last]);
    assert.deepEqual([links.byId[7], links.byId[0], links.byId[254]], [late, early, last]);
    assert.deepEqual(late.endpoint, PEERS[0]);
    links.remove(early);
    assert.deepEqual([links.list, links.byId[0]], [[late, last], undefined]);
    links.clear();
    assert.equal(links.list.length, 0);
    assert.ok(links.byId.every((link) => link === undefined));
  });

  it('of a client have the settings of their place, a server knows nothing of them', () => {
    const client = newLinks('client');
    assert.equal(client.add(1, SOCKET, PEERS[0], 0).settings.name, 'second');
    assert.equal(client.add(9, SOCKET, PEERS[0], 0).settings, PLAIN_LINK);
    assert.equal(newLinks('server').add(1, SOCKET, PEERS[0], 0).settings, PLAIN_LINK);
  });

  it('another source is a candidate, and moves nothing by itself', () => {
    const links = newLinks('server');
    const link = links.add(0, SOCKET, PEERS[0], 0);
    assert.equal(links.learnEndpoint(link, PEERS[0], 0, 100, 10), 'known');
    assert.equal(links.learnEndpoint(link, PEERS[1], 0, 100, 20), 'elsewhere');
    assert.deepEqual(link.endpoint, PEERS[0]);
    assert.equal(link.roaming.decide(20, 40, 50), 'challenge');
  });
});
