/**
 * The control socket: a UNIX socket that only its owner may open, on which lines of JSON are answered in
 * order (protocol.ts). Whoever asks waits for its turn (turns.ts), and whoever does not read its answers is
 * not asked for more: memory and time are bounded for each client and for all of them.
 */
import { existsSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { Failure, reason, verbose } from '../report.ts';
import { after } from './clock.ts';
import { isAnswered } from './connect.ts';
import type { EventLog, LoggedEvent } from './eventlog.ts';
import { MOST_LINE_BYTES, parseRequest } from './protocol.ts';
import type { ControlAction, ControlAnswer } from './protocol.ts';
import type { Turns } from './turns.ts';

/** When there are more, the one that has been quiet for longest gives way. */
const MOST_CLIENTS = 128;
/** Requests of one client in one turn. */
const LINES_PER_TURN = 4;
/** Of answers that a client has not read: then it is asked for no more, and sent no more events. */
const MOST_UNREAD_BYTES = 256 * 1024;
/** What one read of node's brings, and the start of a line before it. */
const MOST_UNPARSED_BYTES = 64 * 1024 + MOST_LINE_BYTES;
const NEWLINE = 10;
/** sockaddr_un of the BSDs, less the terminator; Linux has four more (unix(7)). */
const MOST_PATH_BYTES = 103;
/** For clients to read their last answers when the instance ends. */
const LAST_WORDS_MS = 500;

export interface ControlDeps {
  /** The answer to `status`, and the same as MLVPN gives it, each with its newline; cached by the caller. */
  statusLine(): Buffer;
  plainStatusLine(): Buffer;
  readonly events: EventLog;
  readonly turns: Turns;
  /** Never rejects. */
  act(action: ControlAction): Promise<ControlAnswer>;
}

export class ControlServer {
  readonly path: string;
  private readonly server: Server;
  private readonly clients = new Set<Client>();

  private constructor(path: string, server: Server) {
    this.path = path;
    this.server = server;
  }

  /** Listens at `path`; a socket that nobody answers at is removed first. Throws a `Failure`. */
  static async open(path: string, deps: ControlDeps): Promise<ControlServer> {
    const what = `cannot listen on "${path}"`;
    if (Buffer.byteLength(path) > MOST_PATH_BYTES) {
      throw new Failure(what, `longer than ${MOST_PATH_BYTES} bytes`, 'give a shorter path');
    }
    await makeWay(path, what);
    const server = createServer();
    const control = new ControlServer(path, server);
    await new Promise<void>((done, failed) => {
      server.once('error', (error) => failed(new Failure(what, reason(error), 'run as root')));
      // The socket is made within `listen`: nobody else can open it for a moment either.
      const before = process.umask(0o177);
      try {
        server.listen({ path, backlog: MOST_CLIENTS }, done);
      } finally {
        process.umask(before);
      }
    });
    server.on('connection', (socket) => control.accept(socket, deps));
    // Out of descriptors: those who wait are taken when there are some again.
    server.on('error', () => undefined);
    return control;
  }

  private accept(socket: Socket, deps: ControlDeps): void {
    if (this.clients.size >= MOST_CLIENTS) {
      const quietest = this.quietest();
      if (quietest === undefined) {
        socket.on('error', () => undefined);
        socket.write(lineOf({ ok: false, error: 'too many clients; try again later' }));
        socket.destroySoon();
        return;
      }
      quietest.drop();
    }
    const client = new Client(socket, deps, (isThere) => {
      // Whoever was heard last stands last.
      this.clients.delete(client);
      if (isThere) this.clients.add(client);
    });
    this.clients.add(client);
  }

  /** Of those that follow no events. */
  private quietest(): Client | undefined {
    for (const client of this.clients) {
      // The set has those that were quiet for longest first.
      if (!client.isFollowing) return client;
    }
    return undefined;
  }

  /** Ends all connections, when what was written to them has gone out, and removes the socket. */
  async close(): Promise<void> {
    const closed = new Promise((done) => this.server.close(done));
    for (const client of this.clients) client.end();
    const stopWaiting = after(LAST_WORDS_MS, () => {
      for (const client of this.clients) client.drop();
    });
    await closed;
    stopWaiting();
  }
}

class Client {
  isFollowing = false;
  private readonly socket: Socket;
  private readonly deps: ControlDeps;
  private unparsed: Buffer = Buffer.alloc(0);
  private isBusy = false;
  /** No more requests are taken. */
  private isDeaf = false;
  private readonly active: (isThere: boolean) => void;
  private unfollow = (): void => {};

  /** `active` is told when the client asks something, and (false) when it is gone. */
  constructor(socket: Socket, deps: ControlDeps, active: (isThere: boolean) => void) {
    this.socket = socket;
    this.deps = deps;
    this.active = active;
    socket.on('data', (chunk: Buffer) => this.receive(chunk));
    socket.on('drain', () => this.proceed());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.unfollow();
      active(false);
    });
  }

  drop(): void {
    this.socket.destroy();
  }

  /** When all that was written has gone out. */
  end(): void {
    this.isDeaf = true;
    this.unparsed = Buffer.alloc(0);
    this.socket.destroySoon();
  }

  private receive(chunk: Buffer): void {
    if (this.isDeaf) return;
    this.active(true);
    this.unparsed = this.unparsed.length === 0 ? chunk : Buffer.concat([this.unparsed, chunk]);
    if (this.unparsed.length > MOST_UNPARSED_BYTES) return this.drop();
    if (this.unparsed.includes(NEWLINE)) {
      // No more is read until these lines are answered.
      this.socket.pause();
      this.proceed();
    } else if (this.unparsed.length > MOST_LINE_BYTES) {
      this.refuse('line too long');
    }
  }

  /** Takes a turn, unless one is waited for already or there is nothing to do in it. */
  private proceed(): void {
    if (this.isBusy || this.socket.destroyed) return;
    if (this.socket.writableLength > MOST_UNREAD_BYTES) return;
    if (!this.unparsed.includes(NEWLINE)) return;
    this.isBusy = true;
    this.deps.turns.add(() => void this.takeTurn());
  }

  private async takeTurn(): Promise<void> {
    this.socket.cork();
    for (let lines = 0; lines < LINES_PER_TURN; lines++) {
      const at = this.unparsed.indexOf(NEWLINE);
      if (at < 0 || this.socket.destroyed) break;
      const line = this.unparsed.subarray(0, at);
      this.unparsed = this.unparsed.subarray(at + 1);
      if (line.length > MOST_LINE_BYTES) {
        this.refuse('line too long');
        break;
      }
      const later = this.answer(line.toString());
      if (later !== undefined) await later;
    }
    this.socket.uncork();
    this.isBusy = false;
    if (this.unparsed.includes(NEWLINE)) this.proceed();
    else this.socket.resume();
  }

  /** A promise only of what takes longer: the next request waits for it. */
  private answer(line: string): Promise<void> | undefined {
    const { deps, socket } = this;
    let request;
    try {
      request = parseRequest(line);
    } catch (error) {
      verbose('control', `refused: ${reason(error)}`);
      this.say({ ok: false, error: reason(error) });
      return undefined;
    }
    verbose('control', `asked: ${request.command}`);
    switch (request.command) {
      case 'status':
        socket.write(deps.statusLine());
        return undefined;
      case 'plain status':
        socket.write(deps.plainStatusLine());
        return undefined;
      case 'quit':
        this.end();
        return undefined;
      case 'events':
        socket.write(`{"ok":true,"events":${deps.events.json}}\n`);
        if (request.follow) this.follow();
        return undefined;
      default:
        return this.act(request);
    }
  }

  private async act(action: ControlAction): Promise<void> {
    // Corked, the answer to what came before would wait too.
    this.socket.uncork();
    const answer = await this.deps.act(action);
    this.say(answer);
    this.socket.cork();
  }

  private follow(): void {
    this.isFollowing = true;
    this.isDeaf = true;
    this.unparsed = Buffer.alloc(0);
    this.unfollow = this.deps.events.follow((event) => this.tell(event));
  }

  private tell(event: LoggedEvent): void {
    if (this.socket.writableLength > MOST_UNREAD_BYTES) this.drop();
    else this.socket.write(`${JSON.stringify(event)}\n`);
  }

  private say(answer: ControlAnswer): void {
    if (!this.socket.destroyed) this.socket.write(lineOf(answer));
  }

  private refuse(error: string): void {
    this.say({ ok: false, error });
    this.end();
  }
}

function lineOf(answer: ControlAnswer): string {
  return `${JSON.stringify(answer)}\n`;
}

/** Removes a socket that a dead instance left. Throws a `Failure` for anything else that is there. */
async function makeWay(path: string, what: string): Promise<void> {
  // libuv says EACCES of a folder that is not there.
  if (!existsSync(dirname(path))) {
    throw new Failure(what, 'no such folder', `run mkdir -m 700 "${dirname(path)}"`);
  }
  let status;
  try {
    status = lstatSync(path);
  } catch {
    return;
  }
  if (!status.isSocket()) throw new Failure(what, 'there is a file', 'give another path');
  if (await isAnswered(path)) {
    throw new Failure(what, 'another instance answers there', 'stop it, or give another path');
  }
  try {
    unlinkSync(path);
  } catch (error) {
    throw new Failure(what, reason(error), 'remove it');
  }
}
