/**
 * The status over HTTP, for browsers and monitors: `GET /status` (JSON), `/metrics` (Prometheus) and `/`, a
 * page that draws them. Changes nothing, and answers no page but its own: a browser on this host can be
 * made to ask by any site it visits (DNS rebinding, cross-origin requests).
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import type { AddressInfo } from 'node:net';
import { Failure, reason, verbose } from '../report.ts';
import { METRICS_TYPE } from './metrics.ts';
import { PAGE, PAGE_POLICY } from './page.ts';
import type { Turns } from './turns.ts';

const MOST_CLIENTS = 32;
const MOST_HEADER_BYTES = 8 * 1024;
const MOST_HEADERS = 64;
/** For a whole request, and between two of one connection. */
const REQUEST_LIMIT_MS = 5_000;
const IDLE_LIMIT_MS = 10_000;
const JSON_TYPE = 'application/json; charset=utf-8';
const TOKEN_BYTES = 32;

export interface HttpOptions {
  /** Address to listen on. */
  readonly host: string;
  /** 0: one that the kernel chooses (tests). */
  readonly port: number;
  /** Where the token is left for who may read it; written only where one is asked for. */
  readonly tokenFile: string;
}

export interface HttpDeps {
  /** JSON of the status, and the metrics; cached by the caller. */
  statusText(): Buffer;
  metricsText(): Buffer;
  readonly turns: Turns;
}

interface Refusal {
  readonly status: number;
  readonly why: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export class HttpServer {
  readonly port: number;
  /** '' where none is asked for: on loopback. */
  readonly tokenFile: string;
  private readonly server: Server;

  private constructor(server: Server, tokenFile: string) {
    this.server = server;
    this.port = (server.address() as AddressInfo).port;
    this.tokenFile = tokenFile;
  }

  /** Throws a `Failure`. */
  static async open(options: HttpOptions, deps: HttpDeps): Promise<HttpServer> {
    const { host, port } = options;
    const token = isLoopback(host) ? undefined : newToken(options.tokenFile);
    const server = createServer({
      maxHeaderSize: MOST_HEADER_BYTES,
      headersTimeout: REQUEST_LIMIT_MS,
      requestTimeout: REQUEST_LIMIT_MS,
      keepAliveTimeout: IDLE_LIMIT_MS,
      connectionsCheckingInterval: REQUEST_LIMIT_MS,
    });
    server.maxConnections = MOST_CLIENTS;
    server.maxHeadersCount = MOST_HEADERS;
    // A client that does not read its answer holds it no longer than this.
    server.timeout = IDLE_LIMIT_MS;
    await new Promise<void>((done, failed) => {
      server.once('error', (error) => {
        const what = `cannot serve the status on ${host}, TCP port ${port}`;
        failed(new Failure(what, reason(error), 'give another control_bind_port'));
      });
      server.listen({ host, port }, done);
    });
    server.on('error', () => undefined);
    const http = new HttpServer(server, token === undefined ? '' : options.tokenFile);
    server.on('request', (request, response) => {
      deps.turns.add(() => answer(request, response, { host, port: http.port, token }, deps));
    });
    server.on('clientError', (_, socket) => socket.destroy());
    return http;
  }

  async close(): Promise<void> {
    const closed = new Promise((done) => this.server.close(done));
    this.server.closeAllConnections();
    await closed;
    if (this.tokenFile !== '') rmSync(this.tokenFile, { force: true });
  }
}

interface Place {
  readonly host: string;
  readonly port: number;
  /** SHA-256 of the token; undefined: none is asked for. */
  readonly token: Buffer | undefined;
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  place: Place,
  deps: HttpDeps,
): void {
  // Nobody sends a body with GET; what comes of one is not read.
  if (request.headers['content-length'] !== undefined || 'transfer-encoding' in request.headers) {
    response.shouldKeepAlive = false;
  }
  const path = (request.url ?? '').split('?')[0];
  const refusal = refusalOf(request, path, place);
  const from = request.socket.remoteAddress ?? 'somebody who is gone';
  // A path that is not ours is not repeated: anybody may have made it up.
  verbose('control', `HTTP, ${from}: ${refusal?.why ?? path}`);
  if (refusal !== undefined) {
    const headers = { ...refusal.headers, 'Content-Type': 'text/plain; charset=utf-8' };
    write(request, response, refusal.status, headers, Buffer.from(`${refusal.why}\n`));
    return;
  }
  switch (path) {
    case '/status':
      write(request, response, 200, { 'Content-Type': JSON_TYPE }, deps.statusText());
      break;
    case '/metrics':
      write(request, response, 200, { 'Content-Type': METRICS_TYPE }, deps.metricsText());
      break;
    default: {
      const headers = {
        'Content-Type': 'text/html; charset=utf-8',
        'Content-Security-Policy': PAGE_POLICY,
      };
      write(request, response, 200, headers, PAGE);
    }
  }
}

/** The order matters: who is not meant to be here learns no path. */
function refusalOf(request: IncomingMessage, path: string, place: Place): Refusal | undefined {
  const { host, origin } = request.headers;
  if (!isOurs(host, place)) return { status: 421, why: 'not the host that was asked for' };
  if (origin !== undefined && origin !== `http://${host}`) {
    return { status: 403, why: 'not for other sites' };
  }
  const site = request.headers['sec-fetch-site'];
  // What a user types is 'none'.
  if (site !== undefined && site !== 'same-origin' && site !== 'none') {
    return { status: 403, why: 'not for other sites' };
  }
  // The page itself tells nothing; a browser could not send a token for it.
  if (path !== '/' && !hasToken(request, place)) {
    const headers = { 'WWW-Authenticate': 'Bearer realm="vpn"' };
    return { status: 401, why: 'a token is needed', headers };
  }
  if (!['/', '/status', '/metrics'].includes(path)) return { status: 404, why: 'not here' };
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, why: 'only to be read', headers: { Allow: 'GET, HEAD' } };
  }
  return undefined;
}

/** Whether `Host` names this server by an address: a name may be anybody's, and lead here all the same. */
function isOurs(header: string | undefined, { host, port }: Place): boolean {
  const [, name = '', given = '80'] = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(header ?? '') ?? [];
  if (Number(given) !== port) return false;
  const address = name.replaceAll(/[[\]]/g, '');
  if (isLoopback(host)) return address === 'localhost' || isLoopback(address) || address === host;
  const isAny = host === '0.0.0.0' || host === '::';
  return isAny ? address === 'localhost' || isIP(address) !== 0 : address === host;
}

function hasToken(request: IncomingMessage, { token }: Place): boolean {
  if (token === undefined) return true;
  const [, given = ''] = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
  // Of equal length whatever was given, and compared in constant time.
  return timingSafeEqual(digest(given), token);
}

function isLoopback(address: string): boolean {
  return address === '::1' || (isIP(address) === 4 && address.startsWith('127.'));
}

/** Writes a new token where only its owner can read it, and returns its digest. Throws a `Failure`. */
function newToken(file: string): Buffer {
  const token = randomBytes(TOKEN_BYTES).toString('base64url');
  try {
    rmSync(file, { force: true });
    writeFileSync(file, `${token}\n`, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    throw new Failure(`cannot write "${file}"`, reason(error), 'make room, or make it writable');
  }
  return digest(token);
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function write(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
): void {
  response.writeHead(status, {
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    ...headers,
    'Content-Length': body.length,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}
