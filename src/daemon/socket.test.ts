import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Failure } from '../report.ts';
import { Connection } from './connect.ts';
import { EventLog } from './eventlog.ts';
import type { ControlAction } from './protocol.ts';
import { ControlServer } from './socket.ts';
import { Turns } from './turns.ts';

const STATUS = `{"ok":true,"status":{"filler":"${'x'.repeat(5_000)}"}}\n`;

let folder = '';
let server: ControlServer;
let events: EventLog;
let turns: Turns;
let actions: ControlAction[];
/** Answers to `status` that were made. */
let made = 0;
/** What an action waits for. */
let gate: Promise<void>;
const sockets: Socket[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vpn-socket-'));
  events = new EventLog();
  turns = new Turns();
  actions = [];
  made = 0;
  gate = Promise.resolve();
  server = await openAt(join(folder, 'control.sock'));
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.close();
  turns.close();
  rmSync(folder, { recursive: true, force: true });
});

function openAt(path: string): Promise<ControlServer> {
  return ControlServer.open(path, {
    statusLine: () => {
      made++;
      return Buffer.from(STATUS);
    },
    plainStatusLine: () => Buffer.from('{"name":"home"}\n'),
    events,
    turns,
    act: async (action) => {
      actions.push(action);
      await gate;
      if (action.command === 'reload') return { ok: false, error: 'no file' };
      return { ok: true, lines: [action.command] };
    },
  });
}

/** A client that collects all it is sent; refusals end it. */
function client(): Socket & { text: string } {
  const socket = Object.assign(connect(server.path), { text: '' });
  sockets.push(socket);
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => (socket.text += text));
  socket.on('error', () => undefined);
  return socket;
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries++) {
    ok(tries < 5_000, `never: ${what}`);
    await new Promise((done) => setTimeout(done, 2));
  }
}

/** The lines that come in answer to `text`. */
async function ask(text: string, lines: number): Promise<string[]> {
  const socket = client();
  socket.write(text);
  await until(`${lines} lines`, () => socket.text.split('\n').length > lines);
  return socket.text.split('\n').slice(0, lines);
}

describe('the control socket', () => {
  it('is for its owner alone, and gone when it is closed', async () => {
    equal(statSync(server.path).mode & 0o777, 0o600);
    await server.close();
    ok(!existsSync(server.path));
  });

  it('answers in order, requests in pieces and several at once', async () => {
    const socket = client();
    socket.write('{"command":"sta');
    await new Promise((done) => setTimeout(done, 20));
    socket.write('tus"}\nstatus\n{"command":"reset"}\n{"command":"reload"}\nnonsense\nstatus\n');
    await until('six answers', () => socket.text.split('\n').length > 6);
    const lines = socket.text.split('\n');
    equal(`${lines[0]}\n`, STATUS);
    equal(lines[1], '{"name":"home"}');
    deepEqual(JSON.parse(lines[2]), { ok: true, lines: ['reset'] });
    deepEqual(JSON.parse(lines[3]), { ok: false, error: 'no file' });
    match(JSON.parse(lines[4]).error, /^unknown command "nonsense"; the commands are/);
    equal(lines[5], '{"name":"home"}');
  });

  it('answers others while an action takes its time', async () => {
    let open = (): void => {};
    gate = new Promise((done) => (open = done));
    const slow = client();
    slow.write('{"command":"reset"}\nstatus\n');
    await until('the action', () => actions.length === 1);
    deepEqual(await ask('status\n', 1), ['{"name":"home"}']);
    equal(slow.text, '');
    open();
    await until('both answers', () => slow.text.split('\n').length > 2);
    match(slow.text, /^\{"ok":true,"lines":\["reset"\]\}\n\{"name":"home"\}\n$/);
  });

  it('closes at quit, after all that was asked', async () => {
    const socket = client();
    socket.end('status\nquit\nstatus\n');
    await once(socket, 'close');
    equal(socket.text, '{"name":"home"}\n');
  });

  it('closes on a line that is too long, with and without an end', async () => {
    for (const line of ['x'.repeat(5_000), `${'x'.repeat(5_000)}\n`]) {
      const socket = client();
      socket.write(line);
      await once(socket, 'close');
      deepEqual(JSON.parse(socket.text), { ok: false, error: 'line too long' });
    }
  });

  it('asks a client for no more that does not read, and others do not notice', async () => {
    const stuck = client();
    stuck.pause();
    await once(stuck, 'connect');
    let accepted = 0;
    // 20 MB of answers, were they all given.
    for (let i = 0; i < 4_000; i++) {
      stuck.write('{"command":"status"}\n', () => accepted++);
    }
    for (let i = 0; i < 20; i++) deepEqual(await ask('status\n', 1), ['{"name":"home"}']);
    // What the two buffers of the socket take, and 256 KiB.
    ok(made < 500, `${made} answers were made`);
    // It gets everything when it reads after all.
    stuck.resume();
    const whole = 4_000 * STATUS.length;
    await until('all answers', () => stuck.text.length === whole);
    equal(accepted, 4_000);
  });

  it('drops one that follows events and does not read', async () => {
    const stuck = client();
    stuck.write('{"command":"events","follow":true}\n');
    await until('the first line', () => stuck.text.includes('\n'));
    stuck.pause();
    const reader = client();
    reader.write('{"command":"events","follow":true}\n');
    await until('the first line', () => reader.text.includes('\n'));
    let isClosed = false;
    stuck.on('close', () => (isClosed = true));
    for (let i = 0; i < 2_000; i++) {
      events.add({ event: 'back', cause: 'y'.repeat(500) }, i);
      if (i % 50 === 0) await new Promise((done) => setImmediate(done));
    }
    stuck.resume();
    await until('the end of the stuck one', () => isClosed);
    await until('all events', () => reader.text.split('\n').length > 2_001);
    const last = JSON.parse(reader.text.trimEnd().split('\n').at(-1)!) as { number: number };
    equal(last.number, 2_000);
  });

  it('tells followers what is remembered, then each event', async () => {
    events.add({ event: 'started', cause: 'by hand' }, 0);
    const connection = await Connection.open(server.path);
    const answer = await connection.ask({ command: 'events', follow: true });
    ok('events' in answer);
    deepEqual(
      answer.events.map(({ event }) => event),
      ['started'],
    );
    events.add({ event: 'silent', cause: '' }, 0);
    equal((await connection.nextEvent())?.event, 'silent');
    await server.close();
    equal(await connection.nextEvent(), undefined);
  });

  it('takes 128, then the one that was quiet for longest gives way, but none that follows', async () => {
    const follower = client();
    follower.write('{"command":"events","follow":true}\n');
    await until('the first line', () => follower.text.includes('\n'));
    const many: ReturnType<typeof client>[] = [];
    for (let i = 0; i < 127; i++) {
      const socket = client();
      socket.write('status\n');
      await until('an answer', () => socket.text !== '');
      many.push(socket);
    }
    // The first was quiet for longest, until now.
    many[0].write('status\n');
    await until('a second answer', () => many[0].text.split('\n').length > 2);
    deepEqual(await ask('status\n', 1), ['{"name":"home"}']);
    await until('the second to be closed', () => many[1].destroyed);
    ok(!follower.destroyed && !many[0].destroyed && !many[2].destroyed);
  });

  it('refuses when all follow', async () => {
    for (let i = 0; i < 128; i++) {
      const socket = client();
      socket.write('{"command":"events","follow":true}\n');
      await until('the first line', () => socket.text.includes('\n'));
    }
    const late = client();
    await once(late, 'close');
    match(late.text, /too many clients/);
  });

  it('ends though a client does not read', async () => {
    const stuck = client();
    stuck.pause();
    for (let i = 0; i < 1_000; i++) stuck.write('{"command":"status"}\n');
    await new Promise((done) => setTimeout(done, 50));
    await server.close();
    ok(!existsSync(server.path));
  });
});

describe('a path for the control socket', () => {
  it('is taken from a dead instance, never from a living one or a file', async () => {
    await rejects(openAt(server.path), /another instance answers there/);
    const path = join(folder, 'dead.sock');
    const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log())`;
    const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    await rejects(openAt(path), /another instance answers there/);
    child.kill('SIGKILL');
    await once(child, 'exit');
    ok(existsSync(path));
    const taken = await openAt(path);
    await taken.close();
    writeFileSync(path, 'precious');
    await rejects(openAt(path), /there is a file; give another path/);
    equal(readFileSync(path, 'utf8'), 'precious');
  });

  it('has to be short enough, in a folder that is there', async () => {
    await rejects(openAt(join(folder, 'x'.repeat(120))), Failure);
    await rejects(openAt(join(folder, 'none', 'control.sock')), /no such folder; run mkdir/);
  });
});
