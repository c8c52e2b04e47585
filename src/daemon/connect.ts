/** The other end of the control socket: what commands ask a running instance. */
import { connect, type Socket } from 'node:net';
import { Failure, reason } from '../report.ts';
import { after } from './clock.ts';
import type { LoggedEvent } from './eventlog.ts';
import type { ControlAnswer } from './protocol.ts';

/** A reload tries names and opens sockets; anything else takes milliseconds. */
const LIMIT_MS = 30_000;
/** An instance that lives takes a connection at once. */
const CONNECT_LIMIT_MS = 2_000;

/** Whether somebody takes connections at `path`. */
export function isAnswered(path: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(path);
    const stopWaiting = after(CONNECT_LIMIT_MS, () => finish(true));
    const finish = (isAlive: boolean): void => {
      stopWaiting();
      socket.destroy();
      done(isAlive);
    };
    socket.on('connect', () => finish(true));
    // A full backlog is an instance that is busy.
    socket.on('error', (error) => finish('code' in error && error.code === 'EAGAIN'));
  });
}

/** A conversation with one instance: one request at a time. */
export class Connection {
  private readonly path: string;
  private readonly socket: Socket;
  private text = '';
  private waiting: ((line: string | Failure) => void) | undefined = undefined;
  private lines: string[] = [];
  private end: Failure | undefined = undefined;

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.receive(text));
    socket.on('error', (error) => this.fail(this.lost(reason(error))));
    socket.on('close', () => this.fail(this.lost('it ended')));
  }

  /** Throws a `Failure`. */
  static async open(path: string): Promise<Connection> {
    const socket = connect(path);
    await new Promise<void>((done, failed) => {
      socket.once('connect', done);
      socket.once('error', (error) => {
        const remedy = 'see whether vpn runs, or start it';
        failed(new Failure(`cannot ask "${path}"`, reason(error), remedy));
      });
    });
    return new Connection(path, socket);
  }

  /** Throws a `Failure`, also for an answer that says that it failed. */
  async ask(request: object): Promise<Extract<ControlAnswer, { ok: true }>> {
    this.socket.write(`${JSON.stringify(request)}\n`);
    const stopWaiting = after(LIMIT_MS, () =>
      this.fail(this.lost(`no answer in ${LIMIT_MS / 1000} s`)),
    );
    try {
      const answer = JSON.parse(await this.nextLine()) as ControlAnswer;
      if (answer.ok) return answer;
      throw new Failure(answer.error, '', '');
    } finally {
      stopWaiting();
    }
  }

  /** The next line of a stream of events; undefined when the instance has ended. */
  async nextEvent(): Promise<LoggedEvent | undefined> {
    try {
      return JSON.parse(await this.nextLine()) as LoggedEvent;
    } catch (error) {
      if (error instanceof Failure) return undefined;
      throw error;
    }
  }

  close(): void {
    this.socket.destroy();
  }

  private receive(text: string): void {
    const lines = (this.text + text).split('\n');
    this.text = lines.pop() ?? '';
    this.lines.push(...lines);
    this.deliver();
  }

  private fail(failure: Failure): void {
    this.end ??= failure;
    this.socket.destroy();
    this.deliver();
  }

  private deliver(): void {
    const { waiting } = this;
    if (waiting === undefined) return;
    const line = this.lines.shift() ?? this.end;
    if (line === undefined) return;
    this.waiting = undefined;
    waiting(line);
  }

  private nextLine(): Promise<string> {
    return new Promise((done, failed) => {
      this.waiting = (line) => (typeof line === 'string' ? done(line) : failed(line));
      this.deliver();
    });
  }

  private lost(why: string): Failure {
    return new Failure(`no answer from "${this.path}"`, why, 'see whether vpn still runs');
  }
}
