import assert from 'node:assert/strict';
import { encode } from 'dns-packet';
import { describe, it } from 'node:test';
import { formatEndpoint, formatIp } from './address.ts';
import { Random } from '../test/random.ts';
import { parseNameServers, readAnswer, resolveName } from './resolve.ts';

function answer(id: number, name: string): Uint8Array {
  return encode({
    type: 'response',
    id,
    questions: [{ type: 'A', name }],
    answers: [
      { type: 'CNAME', name, data: 'other.example' },
      { type: 'A', name: 'other.example', data: '192.0.2.7' },
      { type: 'AAAA', name: 'other.example', data: '2001:db8::7' },
    ],
  });
}

describe('names', () => {
  it('that are addresses need no resolver', async () => {
    assert.deepEqual((await resolveName('192.0.2.1', 443)).map(formatEndpoint), ['192.0.2.1:443']);
    assert.deepEqual((await resolveName('2001:db8::1', 5)).map(formatEndpoint), [
      '[2001:db8::1]:5',
    ]);
  });

  it('are asked of the servers of resolv.conf, three at most', () => {
    const text =
      '# nameserver 1.1.1.1\nnameserver 192.0.2.53\n nameserver fe80::1%eth0\nsearch x\n';
    assert.deepEqual(parseNameServers(text).map(formatIp), ['192.0.2.53', 'fe80::1']);
    assert.equal(parseNameServers('nameserver 192.0.2.1\n'.repeat(9)).length, 3);
    assert.deepEqual(parseNameServers('nameserver nonsense\n'), []);
  });

  it('are answered once, by an answer to our question only', () => {
    const ids = Uint16Array.of(7, 8);
    assert.equal(readAnswer(answer(9, 'vpn.example'), ids, 'vpn.example'), undefined);
    assert.equal(readAnswer(answer(7, 'evil.example'), ids, 'vpn.example'), undefined);
    const found = readAnswer(answer(7, 'VPN.example'), ids, 'vpn.example');
    assert.deepEqual(found?.map(formatIp), ['192.0.2.7', '2001:db8::7']);
    assert.equal(readAnswer(answer(7, 'vpn.example'), ids, 'vpn.example'), undefined);
  });

  it('survive answers that are garbage', () => {
    const random = new Random(5);
    for (let i = 0; i < 20_000; i++) {
      const bytes = answer(7, 'vpn.example').slice(
        0,
        random.below(2) === 0 ? 200 : random.below(90),
      );
      for (let flips = random.below(6); flips > 0 && bytes.length > 0; flips--) {
        bytes[random.below(bytes.length)] = random.below(256);
      }
      readAnswer(bytes, Uint16Array.of(7, 8), 'vpn.example');
    }
  });
});
