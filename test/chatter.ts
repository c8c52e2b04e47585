/**
 * What the programs of a host send all the time, whether it gets anywhere or not:
 *
 *   node chatter.ts <listen host>  accepts TCP connections on port 7070 and reads
 *   node chatter.ts PLAN           does what a JSON file (`Talk`) says, until it is killed
 */
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { connect, createServer, isIPv6 } from 'node:net';

export interface Talk {
  /** To each of these UDP datagrams and TCP connections; `from`: of this source address. */
  readonly to: readonly { readonly address: string; readonly from?: string }[];
  /** Over connections to these, made at once, lines from then on. */
  readonly held: readonly string[];
}

export const PORT = 7070;
const EVERY_MS = 50;
const nothing = (): void => undefined;

function talk({ to, held }: Talk): void {
  const sockets = to.map(({ address, from }) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    socket.on('error', nothing);
    if (from !== undefined) socket.bind({ address: from, exclusive: true });
    return { address, from, socket };
  });
  const lines = held.map((host) => {
    const line = connect({ host, port: PORT });
    line.on('error', nothing);
    line.once('connect', () => process.stdout.write(`connected to ${host}\n`));
    return line;
  });
  setInterval(() => {
    for (const { address, from, socket } of sockets) {
      socket.send('chatter', PORT, address, nothing);
      const attempt = connect({
        host: address,
        port: PORT,
        ...(from === undefined ? {} : { localAddress: from }),
      });
      attempt.on('error', nothing);
      setTimeout(() => attempt.destroy(), EVERY_MS * 4);
    }
    for (const line of lines) line.write('chatter\n');
  }, EVERY_MS);
}

if (import.meta.main) {
  const [word = ''] = process.argv.slice(2);
  if (word.endsWith('.json')) talk(JSON.parse(readFileSync(word, 'utf8')) as Talk);
  else {
    const server = createServer((socket) => socket.on('error', nothing).resume());
    server.listen(PORT, word, () => process.stdout.write('listening\n'));
  }
}
