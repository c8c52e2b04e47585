/**
 * A TCP transfer whose bytes are checked at its end. Run inside hosts:
 *
 *   node transfer.ts receive PORT                           waits for the other
 *   node transfer.ts send HOST PORT MEGABYTES [MBIT [down]] connects to it
 *
 * The bytes go from "send" to "receive", or back with "down"; after SIGTERM the end that gives them gives
 * no more. Both print the SHA-256 of them as their last line. They are AES-CTR key stream: nothing
 * repeats, so that a piece in the wrong place shows.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const PIECE_BYTES = 64 * 1024;

interface Order {
  readonly bytes: number;
  readonly mbit: number;
  readonly isDown: boolean;
}

async function fetch(socket: Socket): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of socket) hash.update(piece as Buffer);
  // The other end waits for this, so that it knows that all came.
  socket.end('.');
  return hash.digest('hex');
}

async function give(socket: Socket, { bytes, mbit }: Order): Promise<string> {
  const stream = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16));
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(PIECE_BYTES);
  const startMs = performance.now();
  let isEnough = false;
  process.once('SIGTERM', () => (isEnough = true));
  for (let sent = 0; sent < bytes && !isEnough; sent += PIECE_BYTES) {
    const piece = stream.update(zeros.subarray(0, Math.min(PIECE_BYTES, bytes - sent)));
    hash.update(piece);
    if (!socket.write(piece)) await once(socket, 'drain');
    const aheadMs = (sent * 8) / (mbit * 1000) - (performance.now() - startMs);
    if (aheadMs > 1) await sleep(aheadMs);
  }
  socket.end();
  await once(socket.resume(), 'end');
  return hash.digest('hex');
}

async function receive(port: number): Promise<string> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  server.listen(port);
  await once(server, 'listening');
  process.stdout.write('listening\n');
  const [socket] = (await once(server, 'connection')) as [Socket];
  server.close();
  const order = JSON.parse(await line(socket)) as Order;
  return order.isDown ? give(socket, order) : fetch(socket);
}

/** The first line, with what follows left in the socket. */
async function line(socket: Socket): Promise<string> {
  for (let text = Buffer.alloc(0); ;) {
    await once(socket, 'readable');
    text = Buffer.concat([text, (socket.read() as Buffer | null) ?? Buffer.alloc(0)]);
    const end = text.indexOf('\n');
    if (end < 0) continue;
    socket.unshift(text.subarray(end + 1));
    return text.toString('utf8', 0, end);
  }
}

async function send(host: string, port: number, order: Order): Promise<string> {
  const socket = connect({ host, port, allowHalfOpen: true });
  await once(socket, 'connect');
  socket.write(`${JSON.stringify({ ...order, mbit: Math.min(order.mbit, 1e6) })}\n`);
  return order.isDown ? fetch(socket) : give(socket, order);
}

const [what, ...rest] = process.argv.slice(2);
const digest =
  what === 'receive'
    ? await receive(Number(rest[0]))
    : await send(rest[0]!, Number(rest[1]), {
        bytes: Number(rest[2]) * 1e6,
        mbit: Number(rest[3] ?? 1e6),
        isDown: rest[4] === 'down',
      });
process.stdout.write(`${digest}\n`);
