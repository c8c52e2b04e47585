import assert from 'node:assert/strict';
import { encode } from 'dns-packet';
import { describe, it } from 'node:test';
import { formatEndpoint, formatIp } from './address.ts';
import { mutated } from '../test/mutate.ts';
import { Random } from '../test/random.ts';
import { parseNameServers, readAnswer, resolveName } from './resolve.ts';

/** RFC 1035 §4.1.1, §3.2.2; RFC 3596 §2.1. */
const HEADER_BYTES = 12;
const TYPE_A = 1;
const TYPE_AAAA = 28;

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
    const ids = [7, 8];
    assert.equal(readAnswer(answer(9, 'vpn.example'), ids, 'vpn.example'), undefined);
    assert.equal(readAnswer(answer(7, 'evil.example'), ids, 'vpn.example'), undefined);
    const found = readAnswer(answer(7, 'VPN.example'), ids, 'vpn.example');
    assert.deepEqual(found?.map(formatIp), ['192.0.2.7', '2001:db8::7']);
    assert.equal(readAnswer(answer(7, 'vpn.example'), ids, 'vpn.example'), undefined);
  });

  it('are not answered by whoever guesses the number that an answered question has left behind', () => {
    const ids = [7, 8];
    assert.ok(readAnswer(answer(7, 'vpn.example'), ids, 'vpn.example'));
    assert.equal(readAnswer(answer(0, 'vpn.example'), ids, 'vpn.example'), undefined);
  });

  it('are taken from nothing but addresses in an answer to our question, whatever comes', () => {
    const random = new Random(5);
    const asked = ['vpn.example', 'VPN.Example'];
    const seeds = [
      answer(7, 'vpn.example'),
      answer(8, 'VPN.EXAMPLE'),
      answer(9, 'vpn.example'),
      answer(7, 'evil.example'),
      encode({ type: 'query', id: 7, questions: [{ type: 'A', name: 'vpn.example' }] }),
      encode({
        type: 'response',
        id: 8,
        questions: [{ type: 'AAAA', name: 'vpn.example' }],
        answers: [{ type: 'TXT', name: 'vpn.example', data: 'x' }],
        authorities: [{ type: 'A', name: 'vpn.example', data: '198.51.100.1' }],
        additionals: [{ type: 'A', name: 'vpn.example', data: '198.51.100.2' }],
      }),
    ].map((bytes) => Uint8Array.from(bytes));
    let taken = 0;
    let right = 0;
    let refused = 0;
    for (let i = 0; i < 20_000; i++) {
      let bytes = mutated(random, seeds);
      if (random.below(4) === 0) bytes = seeds[random.below(seeds.length)].slice();
      // Mostly the head stays, or hardly anything would be read any further.
      if (random.below(2) === 0)
        bytes.set(seeds[random.below(2)].subarray(0, 12).subarray(0, bytes.length));
      const ids = [7, 8];
      const found = readAnswer(bytes, ids, asked[i % asked.length]);
      const where = Buffer.from(bytes).toString('hex');
      if (found === undefined) {
        refused++;
        assert.deepEqual(ids, [7, 8], where);
        continue;
      }
      const seen = readIndependently(bytes);
      assert.ok(seen.isResponse, where);
      assert.ok(seen.id === 7 || seen.id === 8, where);
      assert.equal(seen.name.toLowerCase(), 'vpn.example', where);
      assert.ok(!ids.includes(seen.id), `${where}: each question is answered once`);
      if (found.length > 0) taken++;
      if (seen.isRight) {
        right++;
        const strange = found.map(formatIp).filter((one) => !seen.addresses.includes(one));
        assert.deepEqual(strange, [], where);
      } else {
        // What is read of records with wrong lengths is at least among them; what is cut off counts as zero.
        const answers = Buffer.concat([bytes.slice(seen.questionEnd), new Uint8Array(16)]);
        for (const one of found) {
          assert.ok(answers.includes(Buffer.from(one)), where);
        }
      }
    }
    const said = `${taken} taken, ${right} of right form, ${refused} refused`;
    assert.ok(taken > 1_000 && right > 1_000 && refused > 1_000, said);
  });
});

interface Seen {
  readonly id: number;
  readonly isResponse: boolean;
  /** Of the first question. */
  readonly name: string;
  /** Of A and AAAA records among the answers. */
  readonly addresses: readonly string[];
  /** Whether every record is as long as it says, and as its type is. */
  readonly isRight: boolean;
  /** Where the first question ends. */
  readonly questionEnd: number;
}

/** What stands in a message, up to where it breaks off, read once more by RFC 1035 §4.1 alone. */
function readIndependently(bytes: Uint8Array): Seen {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [id, flags, questions, answers] = [0, 2, 4, 6].map((at) => view.getUint16(at));
  const addresses: string[] = [];
  const { name, end } = readName(view, HEADER_BYTES);
  let isRight = true;
  try {
    let at = HEADER_BYTES;
    for (let i = 0; i < questions; i++) at = readName(view, at).end + 4;
    for (let i = 0; i < answers; i++) {
      at = readName(view, at).end;
      const type = view.getUint16(at);
      const length = view.getUint16(at + 8);
      at += 10;
      const size = type === TYPE_A ? 4 : type === TYPE_AAAA ? 16 : 0;
      if (size > 0 && size !== length) isRight = false;
      else if (size > 0) addresses.push(formatIp(bytes.slice(at, at + size)));
      at += length;
      if (at > bytes.length) isRight = false;
    }
  } catch {
    isRight = false;
  }
  return { id, isResponse: flags >= 0x8000, name, addresses, isRight, questionEnd: end + 4 };
}

function readName(view: DataView, start: number): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let end = -1;
  for (let at = start, jumps = 0; jumps < 100;) {
    const length = view.getUint8(at);
    if (length >= 0xc0) {
      if (end === -1) end = at + 2;
      at = view.getUint16(at) & 0x3fff;
      jumps++;
      continue;
    }
    if (length === 0) return { name: labels.join('.'), end: end === -1 ? at + 1 : end };
    const label = Array.from({ length }, (_, i) => String.fromCharCode(view.getUint8(at + 1 + i)));
    labels.push(label.join(''));
    at += 1 + length;
  }
  throw new Error('a name without an end');
}
