import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { parseIp } from './address.ts';
import { isSourceAllowed, packetVersion, type Network } from './inner.ts';

/** A header that says what it is told, in `size` bytes behind 3 others. */
function packet(first: number, lengthField: number, size: number, fieldAt: number): Uint8Array {
  const bytes = new Uint8Array(3 + size + 8).fill(0x55);
  bytes[3] = first;
  bytes[3 + fieldAt] = lengthField >>> 8;
  bytes[4 + fieldAt] = lengthField;
  return bytes;
}

describe('a packet', () => {
  it('is IPv4 only with a header that fits and the length it says', () => {
    const rows: readonly (readonly [
      first: number,
      total: number,
      size: number,
      version: number,
    ])[] = [
      [0x45, 20, 20, 4],
      [0x45, 1500, 1500, 4],
      [0x45, 1499, 1500, 0],
      [0x45, 1501, 1500, 0],
      [0x45, 19, 19, 0],
      [0x44, 20, 20, 0],
      [0x46, 24, 24, 4],
      [0x46, 20, 20, 0],
      [0x4f, 60, 60, 4],
      [0x4f, 59, 59, 0],
      [0x55, 20, 20, 0],
      [0x05, 20, 20, 0],
    ];
    for (const [first, total, size, version] of rows) {
      const found = packetVersion(packet(first, total, size, 2), 3, size);
      assert.equal(found, version, `first byte ${first}, ${total} of ${size}`);
    }
  });

  it('is IPv6 only with a whole header and the length it says', () => {
    const rows: readonly (readonly [payload: number, size: number, version: number])[] = [
      [0, 40, 6],
      [1460, 1500, 6],
      [1461, 1500, 0],
      [1459, 1500, 0],
      [0, 39, 0],
      [0, 20, 0],
    ];
    for (const [payload, size, version] of rows) {
      const found = packetVersion(packet(0x60, payload, size, 4), 3, size);
      assert.equal(found, version, `${payload} of ${size}`);
    }
  });

  it('of less than a header is none, however few its bytes', () => {
    for (let size = 0; size < 20; size++) {
      assert.equal(packetVersion(packet(0x45, size, size, 2), 3, size), 0, `${size} bytes`);
    }
  });
});

describe('a source', () => {
  it('is allowed inside the networks given, by their prefix length and family', () => {
    const rows: readonly (readonly [
      network: string,
      bits: number,
      source: string,
      allowed: boolean,
    ])[] = [
      ['10.1.2.3', 32, '10.1.2.3', true],
      ['10.1.2.3', 32, '10.1.2.2', false],
      ['10.1.2.0', 24, '10.1.2.255', true],
      ['10.1.2.0', 24, '10.1.3.0', false],
      ['10.1.2.128', 25, '10.1.2.127', false],
      ['10.1.2.128', 25, '10.1.2.129', true],
      ['10.0.0.0', 7, '11.255.255.255', true],
      ['10.0.0.0', 7, '12.0.0.0', false],
      ['0.0.0.0', 0, '203.0.113.7', true],
      ['0.0.0.0', 0, '2001:db8::1', false],
      ['fd00::2', 128, 'fd00::2', true],
      ['fd00::2', 128, 'fd00::3', false],
      ['fd00::', 64, 'fd00::ffff:ffff', true],
      ['fd00::', 65, 'fd00::8000:0:0:1', false],
      ['::', 0, '10.0.0.1', false],
    ];
    for (const [network, bits, source, allowed] of rows) {
      const address = parseIp(network)!;
      const from = parseIp(source)!;
      const version = from.length === 4 ? 4 : 6;
      const bytes = new Uint8Array(64);
      bytes.set(from, 5 + (version === 4 ? 12 : 8));
      const found = isSourceAllowed(bytes, 5, version, [{ address, bits }]);
      assert.equal(found, allowed, `${source} in ${network}/${bits}`);
    }
  });

  it('agrees with a comparison bit by bit, over several networks', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new Random(seed);
      const version = random.below(2) === 0 ? 4 : 6;
      const bytes = new Uint8Array(40);
      random.fill(bytes);
      const sourceAt = version === 4 ? 12 : 8;
      const networks: Network[] = [];
      let expected = false;
      for (let n = random.below(4); n > 0; n--) {
        const size = random.below(4) === 0 ? (version === 4 ? 16 : 4) : version === 4 ? 4 : 16;
        const address = bytes.slice(sourceAt, sourceAt + size);
        const bits = random.below(8 * size + 1);
        const flipped = random.below(8 * size);
        address[flipped >> 3] ^= 0x80 >> (flipped & 7);
        networks.push({ address, bits });
        if (size === (version === 4 ? 4 : 16) && flipped >= bits) expected = true;
      }
      assert.equal(isSourceAllowed(bytes, 0, version, networks), expected, `seed ${seed}`);
    }
  });
});
