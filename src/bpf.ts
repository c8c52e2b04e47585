/**
 * Classic BPF programs: read from the text that `tcpdump -ddd` prints, verified, and run over a packet.
 *
 * The instructions are those of bpf(4) and of Linux's Documentation/networking/filter.rst, without
 * what only a capture on an interface knows (Linux's negative offsets: direction, VLAN tag). A program
 * that is verified only jumps forward, so it ends after at most as many steps as it has instructions,
 * and cannot read outside the packet; a load from there rejects the packet, as in the kernels.
 */

/** A verified program, a column per field of `struct bpf_insn`. */
export interface BpfProgram {
  readonly codes: Uint8Array;
  readonly jumpsTrue: Uint8Array;
  readonly jumpsFalse: Uint8Array;
  readonly operands: Uint32Array;
}

/** linux/include/uapi/linux/bpf_common.h: BPF_MAXINSNS. The BSDs take fewer in the kernel only. */
const MOST_INSTRUCTIONS = 4096;
/** Words of scratch memory: BPF_MEMWORDS. */
const MEMORY_WORDS = 16;
/** Offsets from here on are negative ones: SKF_LL_OFF (linux/filter.h) is −0x200000. */
const FIRST_NEGATIVE = 2 ** 31;

/** Class, size or operation, mode or source of the operand in one byte, as bpf(4) puts them together. */
const Code = {
  loadWord: 0x20,
  loadHalf: 0x28,
  loadByte: 0x30,
  loadWordIndexed: 0x40,
  loadHalfIndexed: 0x48,
  loadByteIndexed: 0x50,
  loadConstant: 0x00,
  loadMemory: 0x60,
  loadLength: 0x80,
  indexConstant: 0x01,
  indexMemory: 0x61,
  indexLength: 0x81,
  /** X becomes the length of the IPv4 header at the operand. */
  indexHeader: 0xb1,
  store: 0x02,
  storeIndex: 0x03,
  add: 0x04,
  subtract: 0x14,
  multiply: 0x24,
  divide: 0x34,
  or: 0x44,
  and: 0x54,
  shiftLeft: 0x64,
  shiftRight: 0x74,
  negate: 0x84,
  modulo: 0x94,
  xor: 0xa4,
  jump: 0x05,
  jumpEqual: 0x15,
  jumpGreater: 0x25,
  jumpGreaterEqual: 0x35,
  jumpSet: 0x45,
  returnConstant: 0x06,
  returnAccumulator: 0x16,
  toIndex: 0x07,
  fromIndex: 0x87,
} as const;

/** Of arithmetic and conditional jumps: the operand is X. */
const BY_INDEX = 0x08;
const CLASS_MASK = 0x07;
const CLASS_ARITHMETIC = 0x04;
const CLASS_JUMP = 0x05;

const KNOWN_CODES: ReadonlySet<number> = new Set(
  Object.values(Code).flatMap((code) => {
    const kind = code & CLASS_MASK;
    const hasIndexForm =
      (kind === CLASS_ARITHMETIC && code !== Code.negate) ||
      (kind === CLASS_JUMP && code !== Code.jump);
    return hasIndexForm ? [code, code | BY_INDEX] : [code];
  }),
);

const memory = new Uint32Array(MEMORY_WORDS);

/**
 * Reads what `tcpdump -ddd` prints: a line with the number of instructions, then `code jt jf k` for
 * each, all decimal. Throws an `Error` that says what is wrong with it.
 */
export function parseBpf(text: string): BpfProgram {
  const [first = '', ...lines] = text.trimEnd().split('\n');
  const count = wholeNumber(first, MOST_INSTRUCTIONS);
  if (count === 0 || count !== lines.length) throw new Error(`${count} instructions announced`);
  const program = {
    codes: new Uint8Array(count),
    jumpsTrue: new Uint8Array(count),
    jumpsFalse: new Uint8Array(count),
    operands: new Uint32Array(count),
  };
  lines.forEach((line, i) => {
    const words = line.split(' ');
    if (words.length !== 4) throw new Error(`"${line}" is no instruction`);
    const [code = '', jumpTrue = '', jumpFalse = '', operand = ''] = words;
    program.codes[i] = wholeNumber(code, 0xff);
    program.jumpsTrue[i] = wholeNumber(jumpTrue, 0xff);
    program.jumpsFalse[i] = wholeNumber(jumpFalse, 0xff);
    program.operands[i] = wholeNumber(operand, 0xffff_ffff);
  });
  for (let i = 0; i < count; i++) verify(program, i);
  return program;
}

function wholeNumber(text: string, most: number): number {
  const number = Number(text);
  if (!/^\d{1,10}$/.test(text) || number > most)
    throw new Error(`"${text}" is no number to ${most}`);
  return number;
}

/** As strict as linux/net/core/filter.c, bpf_check_classic(); memory is zero where nothing was stored. */
function verify({ codes, jumpsTrue, jumpsFalse, operands }: BpfProgram, i: number): void {
  const code = codes[i];
  const operand = operands[i];
  const left = codes.length - 1 - i;
  if (!KNOWN_CODES.has(code)) throw new Error(`unknown instruction ${code}`);
  switch (code) {
    case Code.loadWord:
    case Code.loadHalf:
    case Code.loadByte:
      if (operand >= FIRST_NEGATIVE) throw new Error('only a capture on an interface knows that');
      break;
    case Code.loadMemory:
    case Code.indexMemory:
    case Code.store:
    case Code.storeIndex:
      if (operand >= MEMORY_WORDS) throw new Error(`no memory at ${operand}`);
      break;
    case Code.divide:
    case Code.modulo:
      if (operand === 0) throw new Error('division by zero');
      break;
    case Code.shiftLeft:
    case Code.shiftRight:
      if (operand >= 32) throw new Error(`shift by ${operand} bits`);
      break;
    default:
  }
  if (code === Code.jump) {
    // What libpcap makes of "protochain" goes back, as a negative number.
    if (operand >= left) throw new Error('it jumps back or past the end');
  } else if ((code & CLASS_MASK) === CLASS_JUMP) {
    if (jumpsTrue[i] >= left || jumpsFalse[i] >= left) throw new Error('it jumps past the end');
  }
  if (left === 0 && code !== Code.returnConstant && code !== Code.returnAccumulator) {
    throw new Error('it does not end');
  }
}

/**
 * What the program returns for a packet: 0 rejects it. `captured` bytes at `at` can be read; `length`
 * is what the packet counts as.
 */
export function runBpf(
  program: BpfProgram,
  bytes: Uint8Array,
  at: number,
  captured: number,
  length: number,
): number {
  const { codes, jumpsTrue, jumpsFalse, operands } = program;
  let a = 0;
  let x = 0;
  memory.fill(0);
  for (let i = 0; ; i++) {
    const code = codes[i];
    const k = operands[i];
    switch (code) {
      case Code.loadWord:
      case Code.loadWordIndexed: {
        const from = code === Code.loadWord ? k : x + k;
        if (from + 4 > captured) return 0;
        a = ((bytes[at + from] << 24) | (bytes[at + from + 1] << 16)) >>> 0;
        a += (bytes[at + from + 2] << 8) | bytes[at + from + 3];
        break;
      }
      case Code.loadHalf:
      case Code.loadHalfIndexed: {
        const from = code === Code.loadHalf ? k : x + k;
        if (from + 2 > captured) return 0;
        a = (bytes[at + from] << 8) | bytes[at + from + 1];
        break;
      }
      case Code.loadByte:
      case Code.loadByteIndexed: {
        const from = code === Code.loadByte ? k : x + k;
        if (from >= captured) return 0;
        a = bytes[at + from];
        break;
      }
      case Code.indexHeader:
        if (k >= captured) return 0;
        x = (bytes[at + k] & 0x0f) * 4;
        break;
      case Code.loadConstant:
        a = k;
        break;
      case Code.loadMemory:
        a = memory[k];
        break;
      case Code.loadLength:
        a = length;
        break;
      case Code.indexConstant:
        x = k;
        break;
      case Code.indexMemory:
        x = memory[k];
        break;
      case Code.indexLength:
        x = length;
        break;
      case Code.store:
        memory[k] = a;
        break;
      case Code.storeIndex:
        memory[k] = x;
        break;
      case Code.toIndex:
        x = a;
        break;
      case Code.fromIndex:
        a = x;
        break;
      case Code.jump:
        i += k;
        break;
      case Code.returnConstant:
        return k;
      case Code.returnAccumulator:
        return a;
      default: {
        const operand = (code & BY_INDEX) === 0 ? k : x;
        const operation = code & ~BY_INDEX;
        if ((code & CLASS_MASK) === CLASS_JUMP) {
          i += holds(operation, a, operand) ? jumpsTrue[i] : jumpsFalse[i];
          break;
        }
        const isDivision = operation === Code.divide || operation === Code.modulo;
        if (isDivision && operand === 0) return 0;
        a = compute(operation, a, operand);
      }
    }
  }
}

function holds(operation: number, a: number, operand: number): boolean {
  switch (operation) {
    case Code.jumpEqual:
      return a === operand;
    case Code.jumpGreater:
      return a > operand;
    case Code.jumpGreaterEqual:
      return a >= operand;
    default:
      return (a & operand) !== 0;
  }
}

/** Unsigned, 32 bits. Shifts by an index of 32 or more give 0, as in libpcap and the BSDs. */
function compute(operation: number, a: number, operand: number): number {
  switch (operation) {
    case Code.add:
      return (a + operand) >>> 0;
    case Code.subtract:
      return (a - operand) >>> 0;
    case Code.multiply:
      return Math.imul(a, operand) >>> 0;
    case Code.divide:
      return Math.floor(a / operand);
    case Code.modulo:
      return a % operand;
    case Code.or:
      return (a | operand) >>> 0;
    case Code.and:
      return (a & operand) >>> 0;
    case Code.xor:
      return (a ^ operand) >>> 0;
    case Code.shiftLeft:
      return operand < 32 ? (a << operand) >>> 0 : 0;
    case Code.shiftRight:
      return operand < 32 ? a >>> operand : 0;
    default:
      return -a >>> 0;
  }
}
