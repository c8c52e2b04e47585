import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { parseBpf, runBpf } from './bpf.ts';

const skip = spawnSync('tcpdump', ['--version']).error === undefined ? false : 'needs tcpdump';
const PACKETS = 600;

/** pcap(5), in host order: link type 101 is RAW; the time of a packet is its number. */
function capture(packets: readonly Uint8Array[]): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(262_144, 16);
  header.writeUInt32LE(101, 20);
  const records = packets.flatMap((packet, i) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(i, 0);
    record.writeUInt32LE(packet.length, 8);
    record.writeUInt32LE(packet.length, 12);
    return [record, packet];
  });
  return Buffer.concat([header, ...records]);
}

/** The numbers of the packets in a capture. */
function numbersOf(file: Buffer): number[] {
  const numbers: number[] = [];
  for (let at = 24; at < file.length; at += 16 + file.readUInt32LE(at + 8)) {
    numbers.push(file.readUInt32LE(at));
  }
  return numbers;
}

function tcpdump(words: readonly string[], input: Buffer = Buffer.alloc(0)): Buffer {
  const done = spawnSync('tcpdump', words, { input, maxBuffer: 1 << 24, timeout: 10_000 });
  assert.equal(done.status, 0, `tcpdump ${words.join(' ')}: ${done.stderr}`);
  return done.stdout;
}

/** Addresses, ports and sizes are drawn from few, so that every expression has both answers. */
function drawPacket(random: Random): Uint8Array {
  const isIpv4 = random.below(2) === 0;
  const extension = !isIpv4 && random.below(4) === 0 ? 8 : 0;
  const options = isIpv4 && random.below(4) === 0 ? 4 * random.below(11) : 0;
  const headerBytes = isIpv4 ? 20 + options : 40 + extension;
  const bytes = Buffer.alloc(headerBytes + [0, 3, 8, 20, 60, 600][random.below(6)]!);
  random.fill(bytes);
  const protocol = [1, 6, 6, 17, 17, 58, 132, random.below(256)][random.below(8)]!;
  const trafficClass = [0, 0xb8, random.below(256)][random.below(3)]!;
  if (isIpv4) {
    bytes.set([0x45 + options / 4, trafficClass], 0);
    bytes.writeUInt16BE(bytes.length, 2);
    bytes.writeUInt16BE([0, 0x4000, 0x2000, 0x2064, 100][random.below(5)]!, 6);
    bytes[9] = protocol;
    for (const at of [12, 16]) bytes.set([10, random.below(2), 0, random.below(3)], at);
  } else {
    bytes.writeUInt16BE(0x6000 | (trafficClass << 4), 0);
    bytes.writeUInt16BE(bytes.length - 40, 4);
    const kind = [0, 43, 44, 60][random.below(4)]!;
    bytes[6] = extension > 0 ? kind : protocol;
    if (extension > 0) bytes.set([protocol, 0], 40);
    for (const at of [8, 24]) {
      bytes.fill(0, at, at + 16);
      bytes.set([0xfd, random.below(2)], at);
      bytes[at + 15] = random.below(3);
    }
  }
  // 0x0800 is what an ICMP echo request starts with.
  const ports = [22, 53, 80, 5060, 5061, 20_000, 0x0800];
  for (const at of [headerBytes, headerBytes + 2]) {
    if (at + 2 <= bytes.length) bytes.writeUInt16BE(ports[random.below(ports.length)]!, at);
  }
  return random.below(20) === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

const EXPRESSIONS = [
  '',
  'ip',
  'ip6',
  'udp port 5060',
  'udp and (port 5060 or port 5061)',
  'tcp dst port 22 or src port 53',
  'portrange 5000-21000 and not udp',
  'host 10.0.0.1',
  'src net 10.1.0.0/16 and dst host 10.0.0.2',
  'host fd00::1 or host 10.1.0.2',
  'ip6 dst net fd01::/16',
  'icmp or icmp6',
  'icmp[icmptype] == icmp-echo',
  'ip proto 132',
  'ip6 proto 17',
  'tcp[tcpflags] & (tcp-syn|tcp-fin) != 0',
  'ip[1] & 0xfc == 184',
  'ip6[0:2] & 0x0fc0 == 0x0b80',
  'greater 200 or less 30',
  'len > 100 and len % 3 != 1',
  'ip[6:2] & 0x1fff != 0',
  'udp[4:2] * 3 + 7 > 90000',
  '(ip[2:2] - ((ip[0] & 0xf) << 2)) / 3 > ip[8]',
  'ip[ip[8] & 31] ^ ip[9] > 100 and ip[0:4] >> ip[8] & 1 = 0',
  'ip[4:4] / ip[11] > 9 or ip[4:4] % ip[10] = 2 or ip[9] << ip[11] = 0',
  '-ip[12:4] > 5 or ip[16:4] | ip[12:4] = 7',
] as const;

describe('a BPF program', () => {
  it('is right about every packet that tcpdump selects', { skip }, () => {
    const selected = new Map<string, number>();
    for (let seed = 1; seed <= 3; seed++) {
      const random = new Random(seed);
      const packets = Array.from({ length: PACKETS }, () => drawPacket(random));
      const file = capture(packets);
      for (const expression of EXPRESSIONS) {
        // Without the optimiser come instructions that it takes out, and other answers: a load from
        // outside a short packet may come before what would have decided.
        for (const optimiser of [[], ['-O']]) {
          const words = [...optimiser, '--', expression];
          const wanted = numbersOf(tcpdump(['-r', '-', '-w', '-', ...words], file));
          selected.set(expression, (selected.get(expression) ?? 0) + wanted.length);
          const program = parseBpf(tcpdump(['-y', 'RAW', '-ddd', ...words]).toString());
          const found = packets.flatMap((packet, i) => {
            const bytes = Buffer.concat([Buffer.alloc(9, 0xff), packet, Buffer.alloc(9, 0xff)]);
            return runBpf(program, bytes, 9, packet.length, packet.length) === 0 ? [] : [i];
          });
          assert.deepEqual(found, wanted, `seed ${seed}, ${words.join(' ')}`);
        }
      }
    }
    for (const [expression, count] of selected) {
      const isMixed = count > 0 && count < 6 * PACKETS;
      assert.equal(isMixed, expression !== '', `"${expression}" selects ${count}`);
    }
  });

  it('computes as bpf(4) says', () => {
    const packet = Uint8Array.of(0x45, 0x80, 3, 4, 0xff, 0xfe, 7, 8);
    const rows: readonly (readonly [what: string, result: number, ...lines: string[]])[] = [
      ['a word', 0x4580_0304, '32 0 0 0', '22 0 0 0'],
      ['a word above 2³¹', 0xff_fe_07_08, '32 0 0 4', '22 0 0 0'],
      ['a word half outside', 0, '32 0 0 5', '6 0 0 1'],
      ['a half word', 0xfffe, '40 0 0 4', '22 0 0 0'],
      ['a half word half outside', 0, '40 0 0 7', '6 0 0 1'],
      ['a byte', 8, '48 0 0 7', '22 0 0 0'],
      ['a byte outside', 0, '48 0 0 8', '6 0 0 1'],
      ['a byte by index', 7, '1 0 0 2', '80 0 0 4', '22 0 0 0'],
      ['no byte by an index that wraps', 0, '1 0 0 4294967295', '80 0 0 2', '6 0 0 1'],
      ['no word by an index that wraps', 0, '1 0 0 4294967292', '64 0 0 4', '6 0 0 1'],
      ['a header length', 20, '177 0 0 0', '135 0 0 0', '22 0 0 0'],
      ['a header length outside', 0, '177 0 0 8', '6 0 0 1'],
      ['the length', 1500, '128 0 0 0', '22 0 0 0'],
      ['the length in X', 1500, '129 0 0 0', '135 0 0 0', '22 0 0 0'],
      ['memory that nobody wrote', 0, '96 0 0 15', '22 0 0 0'],
      ['memory', 9, '0 0 0 9', '2 0 0 3', '97 0 0 3', '135 0 0 0', '22 0 0 0'],
      ['X in memory', 9, '1 0 0 9', '3 0 0 15', '96 0 0 15', '22 0 0 0'],
      ['a sum that wraps', 1, '0 0 0 4294967295', '4 0 0 2', '22 0 0 0'],
      ['a difference below 0', 4294967295, '0 0 0 1', '20 0 0 2', '22 0 0 0'],
      ['the low half of a product', 1, '0 0 0 4294967295', '36 0 0 4294967295', '22 0 0 0'],
      ['a quotient', 2147483647, '0 0 0 4294967295', '52 0 0 2', '22 0 0 0'],
      ['no quotient by 0', 0, '1 0 0 0', '60 0 0 0', '6 0 0 1'],
      ['a remainder', 5, '0 0 0 4294967295', '148 0 0 10', '22 0 0 0'],
      ['no remainder by 0', 0, '1 0 0 0', '156 0 0 0', '6 0 0 1'],
      ['bits of both', 0x8000_0000, '0 0 0 4026531840', '84 0 0 2147483648', '22 0 0 0'],
      ['bits of one', 0xf000_0001, '0 0 0 4026531840', '68 0 0 1', '22 0 0 0'],
      ['bits that differ', 0x7000_0000, '0 0 0 4026531840', '164 0 0 2147483648', '22 0 0 0'],
      ['a shift to the left', 0x8000_0000, '0 0 0 3', '100 0 0 31', '22 0 0 0'],
      ['a shift to the left by 32', 0, '0 0 0 3', '1 0 0 32', '108 0 0 0', '22 0 0 0'],
      ['a shift to the right', 1, '0 0 0 2147483648', '116 0 0 31', '22 0 0 0'],
      ['a shift to the right by 32', 0, '0 0 0 3', '1 0 0 32', '124 0 0 0', '22 0 0 0'],
      ['a negation', 4294967295, '0 0 0 1', '132 0 0 0', '22 0 0 0'],
      ['a jump', 2, '5 0 0 1', '6 0 0 1', '6 0 0 2'],
      ['unsigned greater', 1, '0 0 0 4294967295', '37 0 1 1', '6 0 0 1', '6 0 0 2'],
      ['not greater', 2, '0 0 0 1', '37 0 1 1', '6 0 0 1', '6 0 0 2'],
      ['greater or equal', 1, '0 0 0 1', '53 0 1 1', '6 0 0 1', '6 0 0 2'],
      ['bits set', 1, '0 0 0 2147483648', '69 0 1 2147483649', '6 0 0 1', '6 0 0 2'],
      ['equal to X', 1, '0 0 0 7', '1 0 0 7', '29 0 1 0', '6 0 0 1', '6 0 0 2'],
    ];
    for (const [what, result, ...lines] of rows) {
      const program = parseBpf(`${lines.length}\n${lines.join('\n')}\n`);
      assert.equal(runBpf(program, packet, 0, packet.length, 1500), result, what);
      const stale = parseBpf('3\n0 0 0 99\n2 0 0 15\n6 0 0 1\n');
      assert.equal(runBpf(stale, packet, 0, packet.length, 1500), 1);
    }
  });

  it('is refused where it is none, or might not end', () => {
    const rows: readonly (readonly [text: string, error: RegExp])[] = [
      ['', /"" is no number/],
      ['0\n', /0 instructions/],
      ['2\n6 0 0 0\n', /2 instructions/],
      ['1\n6 0 0 0\n6 0 0 0\n', /1 instructions/],
      [`4097${'\n6 0 0 0'.repeat(4097)}`, /"4097" is no number to 4096/],
      ['1\n6 0 0\n', /"6 0 0" is no instruction/],
      ['1\n6 0 0 -1\n', /"-1" is no number/],
      ['1\n6 0 0 4294967296\n', /no number to 4294967295/],
      ['1\n256 0 0 0\n', /no number to 255/],
      ['1\n8 0 0 0\n', /unknown instruction 8/],
      ['1\n14 0 0 0\n', /unknown instruction 14/],
      ['2\n140 0 0 0\n6 0 0 0\n', /unknown instruction 140/],
      ['2\n13 0 0 0\n6 0 0 0\n', /unknown instruction 13/],
      ['1\n0 0 0 0\n', /does not end/],
      ['2\n5 0 0 1\n6 0 0 0\n', /jumps back or past/],
      ['2\n5 0 0 4294967295\n6 0 0 0\n', /jumps back or past/],
      ['2\n21 1 0 0\n6 0 0 0\n', /jumps past/],
      ['2\n21 0 1 0\n6 0 0 0\n', /jumps past/],
      ['1\n21 0 0 0\n', /jumps past/],
      ['2\n52 0 0 0\n6 0 0 0\n', /division by zero/],
      ['2\n148 0 0 0\n6 0 0 0\n', /division by zero/],
      ['2\n100 0 0 32\n6 0 0 0\n', /shift by 32/],
      ['2\n2 0 0 16\n6 0 0 0\n', /no memory at 16/],
      ['2\n97 0 0 16\n6 0 0 0\n', /no memory at 16/],
      ['2\n40 0 0 4294963204\n6 0 0 0\n', /only a capture on an interface/],
    ];
    for (const [text, error] of rows) assert.throws(() => parseBpf(text), error, text);
  });

  it('ends and reads nothing outside, whatever passes the check', () => {
    const seed = 7;
    const random = new Random(seed);
    const guard = 64;
    let taken = 0;
    for (let i = 0; i < 60_000; i++) {
      const count = 1 + random.below(6);
      const lines = Array.from({ length: count }, (_, n) => {
        const code = n === count - 1 ? 22 : random.below(256);
        const operand = [random.below(20), 2 ** 32 - 1 - random.below(9), random.below(2 ** 32)];
        return `${code} ${random.below(3)} ${random.below(3)} ${operand[random.below(3)]}`;
      });
      const text = `${count}\n${lines.join('\n')}`;
      let program;
      try {
        program = parseBpf(text);
      } catch {
        continue;
      }
      taken++;
      const packet = new Uint8Array(random.below(24));
      random.fill(packet);
      const results = [0, 0xff].map((around) => {
        const bytes = new Uint8Array(guard + packet.length + guard).fill(around);
        bytes.set(packet, guard);
        return runBpf(program, bytes, guard, packet.length, packet.length);
      });
      const where = `seed ${seed}, program ${i}:\n${text}`;
      assert.equal(results[0], results[1], where);
      assert.ok(Number.isInteger(results[0]) && results[0]! >= 0 && results[0]! < 2 ** 32, where);
    }
    assert.ok(taken > 1000, `${taken} programs`);
  });
});
