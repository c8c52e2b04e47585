import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { endpoint, formatEndpoint, formatIp, isSameRemote, parseIp } from './address.ts';
import { innerIpv6 } from './sharedkey.ts';
import { ENDPOINT_BYTES, ENDPOINT_REMOTE_BYTES } from './batch.ts';

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const parsed = (text: string): Uint8Array => {
  const bytes = parseIp(text);
  assert.ok(bytes !== undefined, text);
  return bytes;
};

describe('an IP address', () => {
  it('is read in every form of RFC 4291 §2.2', () => {
    const rows: readonly (readonly [text: string, hex: string])[] = [
      ['0.0.0.0', '00000000'],
      ['192.0.2.255', 'c00002ff'],
      ['::', '0'.repeat(32)],
      ['::1', '0'.repeat(31) + '1'],
      ['1::', '0001' + '0'.repeat(28)],
      ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
      ['1:2:3:4:5:6:7::', '00010002000300040005000600070000'],
      ['::2:3:4:5:6:7:8', '00000002000300040005000600070008'],
      ['2001:DB8::ff00:42:8329', '20010db8000000000000ff0000428329'],
      ['::ffff:192.0.2.1', '00000000000000000000ffffc0000201'],
      ['64:ff9b::203.0.113.9', '0064ff9b0000000000000000cb007109'],
      ['1:2:3:4:5:6:7.8.9.10', '0001000200030004000500060708090a'],
      ['fe80::1%eth0', 'fe80000000000000' + '0000000000000001'],
    ];
    for (const [text, hex] of rows) assert.equal(toHex(parsed(text)), hex, text);
  });

  it('is not found in what is none', () => {
    const rows = [
      '',
      '1.2.3',
      '1.2.3.256',
      '1.2.3.4%eth0',
      '01.2.3.4',
      'a.example',
      ':',
      ':::',
      '1::2::3',
    ];
    for (const text of [
      ...rows,
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      '12345::',
      '::1.2.3',
      '[::1]',
    ]) {
      assert.equal(parseIp(text), undefined, text);
    }
  });

  it('is written as RFC 5952 asks', () => {
    const rows = [
      '192.0.2.1',
      '::',
      '::1',
      '2001:db8::1',
      '1:0:2::3',
      '2001:db8:0:1:1:1:1:1',
      'fd00::a:0:b',
    ];
    for (const text of rows) assert.equal(formatIp(parsed(text)), text);
    assert.equal(formatIp(parsed('2001:0DB8:0:0:1:0:0:1')), '2001:db8::1:0:0:1');
  });

  it('survives writing and reading, with runs of zeros anywhere', () => {
    const random = new Random(2);
    for (let i = 0; i < 2_000; i++) {
      const bytes = new Uint8Array(i % 2 === 0 ? 4 : 16);
      random.fill(bytes);
      for (let at = 0; at < bytes.length; at += 2) {
        if (random.below(2) === 0) bytes.fill(0, at, at + 2);
      }
      assert.deepEqual(parseIp(formatIp(bytes)), bytes, formatIp(bytes));
    }
  });
});

describe('an endpoint', () => {
  it('has the layout of batch.ts', () => {
    const v4 = endpoint(parsed('192.0.2.1'), 443);
    assert.equal(toHex(v4), '040001bb00000000' + 'c0000201' + '0'.repeat(24) + '0'.repeat(32));
    const v6 = endpoint(parsed('fe80::1'), 65_535, 7);
    assert.equal(toHex(v6), '0600ffff00000007' + toHex(parsed('fe80::1')) + '0'.repeat(32));
  });

  it('is written with its port', () => {
    assert.equal(formatEndpoint(endpoint(parsed('192.0.2.1'), 443)), '192.0.2.1:443');
    assert.equal(formatEndpoint(endpoint(parsed('2001:db8::1'), 51_820)), '[2001:db8::1]:51820');
  });

  it('is the same peer if all bytes of the remote side agree, and whatever our side is', () => {
    const one = endpoint(parsed('2001:db8::1'), 443);
    for (let i = 0; i < ENDPOINT_BYTES; i++) {
      const table = new Uint8Array(ENDPOINT_BYTES + 3);
      table.set(one, 3);
      table[3 + i] ^= 1;
      assert.equal(isSameRemote(one, 0, table, 3), i >= ENDPOINT_REMOTE_BYTES, `byte ${i}`);
    }
  });
});

it('derives one unique local /64 for both ends, and another for other keys or addresses', () => {
  const serverIp = Uint8Array.of(10, 8, 0, 1);
  const clientIp = Uint8Array.of(10, 8, 0, 2);
  const key = new Uint8Array(32).fill(9);
  const { server, client } = innerIpv6(key, serverIp, clientIp);
  assert.equal(server[0], 0xfd);
  assert.equal(toHex(server.subarray(8)), '0000000000000001');
  assert.equal(toHex(client), toHex(server.subarray(0, 15)) + '02');
  const others = [
    innerIpv6(new Uint8Array(32).fill(8), serverIp, clientIp),
    innerIpv6(key, clientIp, serverIp),
    innerIpv6(key, serverIp, Uint8Array.of(10, 8, 0, 3)),
  ];
  for (const other of others) {
    assert.notEqual(toHex(other.server.subarray(1, 8)), toHex(server.subarray(1, 8)));
  }
});
