/**
 * Traffic whose loss and throughput are known packet by packet and tenth of a second by tenth. Run inside
 * hosts, which have one clock (CLOCK_MONOTONIC knows no namespace):
 *
 *   node meter.ts receive udp:PORT … tcp:PORT …   counts what comes to each
 *   node meter.ts send HOST udp:PORT …            2 Mbit/s of numbered datagrams to each
 *   node meter.ts send HOST tcp:PORT              one connection, as much as goes
 *
 * All run until SIGTERM and then print what they have counted, as a line of JSON.
 */
import { createSocket } from 'node:dgram';
import { connect, createServer, type Socket } from 'node:net';

/** What was sent to, or came to, one port. */
export interface Counted {
  /** Different datagrams. */
  datagrams: number;
  /** Came a second time. */
  twice: number;
  /** TCP payload by tenth of a second of the clock. */
  readonly bytes: Record<number, number>;
  /** Why a connection ended before SIGTERM; '' if none did. */
  ended: string;
}

export type Meter = Readonly<Record<string, Counted>>;

/** What a meter that has ended printed. */
export function countedBy({ output }: { readonly output: string }): Meter {
  return JSON.parse(output.trim().split('\n').at(-1)!) as Meter;
}

/** 2 Mbit/s, as voice and video: 250 datagrams of 1000 bytes. */
const DATAGRAM_BYTES = 1_000;
const DATAGRAMS_PER_MS = 0.25;
/** After a stall of this program what was not sent in time is not sent in one burst. */
const MOST_AT_ONCE = 5;
const PIECE_BYTES = 64 * 1024;

/** The tenth of a second that it is now, the same number in all programs of this machine. */
export function tenthNow(): number {
  return Math.floor(Number(process.hrtime.bigint()) / 1e8);
}

class Ports {
  readonly counted: Record<string, Counted> = {};

  add(port: string): Counted {
    return (this.counted[port] = { datagrams: 0, twice: 0, bytes: {}, ended: '' });
  }
}

function receiveDatagrams(port: number, counted: Counted): void {
  const seen = new Set<number>();
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  socket.on('message', (datagram) => {
    const number = datagram.readUInt32BE(0);
    if (seen.has(number)) counted.twice++;
    seen.add(number);
    counted.datagrams = seen.size;
  });
  socket.bind(port);
}

function sendDatagrams(host: string, port: number, counted: Counted): void {
  const socket = createSocket('udp4');
  const datagram = Buffer.alloc(DATAGRAM_BYTES);
  let lastMs = performance.now();
  let credit = 0;
  setInterval(() => {
    const nowMs = performance.now();
    credit = Math.min(MOST_AT_ONCE, credit + (nowMs - lastMs) * DATAGRAMS_PER_MS);
    lastMs = nowMs;
    for (; credit >= 1; credit--) {
      datagram.writeUInt32BE(counted.datagrams++);
      // A copy: it is sent later than this returns.
      socket.send(Buffer.from(datagram), port, host);
    }
  }, 1);
}

function watchEnd(socket: Socket, counted: Counted): void {
  socket.on('error', (error) => (counted.ended = error.message));
  socket.on('end', () => (counted.ended ||= 'closed by the other end'));
}

function receiveStream(port: number, counted: Counted): void {
  const server = createServer((socket) => {
    watchEnd(socket, counted);
    socket.on('data', (piece) => {
      const tenth = tenthNow();
      counted.bytes[tenth] = (counted.bytes[tenth] ?? 0) + piece.length;
    });
  });
  server.listen(port);
}

function sendStream(host: string, port: number, counted: Counted): void {
  const socket = connect(port, host);
  watchEnd(socket, counted);
  const piece = Buffer.alloc(PIECE_BYTES);
  const give = (): void => {
    while (socket.write(piece));
  };
  socket.on('connect', give);
  socket.on('drain', give);
}

function main([what, ...rest]: readonly string[]): void {
  const ports = new Ports();
  const host = what === 'send' ? rest[0]! : '';
  for (const word of what === 'send' ? rest.slice(1) : rest) {
    const counted = ports.add(word);
    const [protocol, port] = word.split(':') as [string, string];
    if (what === 'send') (protocol === 'udp' ? sendDatagrams : sendStream)(host, +port, counted);
    else (protocol === 'udp' ? receiveDatagrams : receiveStream)(Number(port), counted);
  }
  process.on('SIGTERM', () => {
    process.stdout.write(`${JSON.stringify(ports.counted)}\n`, () => process.exit(0));
  });
  process.stdout.write('ready\n');
}

if (import.meta.main) main(process.argv.slice(2));
