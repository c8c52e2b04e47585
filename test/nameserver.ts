/** A name server that knows a few hosts: `node nameserver.ts ADDRESS FILE`, FILE with JSON, names to IPv4 addresses. */
import { decode, encode } from 'dns-packet';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';

const [address = '', file = ''] = process.argv.slice(2);
const known = JSON.parse(readFileSync(file, 'utf8')) as Readonly<Record<string, string>>;
const socket = createSocket('udp4');
socket.on('message', (message, { address: to, port }) => {
  const { id = 0, questions = [] } = decode(message);
  const answers = questions
    .filter(({ name, type }) => type === 'A' && known[name] !== undefined)
    .map(({ name }) => ({ type: 'A' as const, name, ttl: 1, data: known[name]! }));
  socket.send(encode({ type: 'response', id, flags: 0x180, questions, answers }), port, to);
});
socket.bind(53, address, () => process.stdout.write('ready\n'));
