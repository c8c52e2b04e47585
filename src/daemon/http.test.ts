import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { HttpServer } from './http.ts';
import { Turns } from './turns.ts';

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

const folder = mkdtempSync(join(tmpdir(), 'vpn-http-'));
const turns = new Turns();
const deps = {
  statusText: () => Buffer.from('{"name":"home"}\n'),
  metricsText: () => Buffer.from('vpn_connected 1\n'),
  turns,
};
const open = (host: string): Promise<HttpServer> =>
  HttpServer.open({ host, port: 0, tokenFile: join(folder, 'home.token') }, deps);

let server: HttpServer;

function ask(
  path: string,
  headers: Readonly<Record<string, string>> = {},
  method = 'GET',
  port = server.port,
): Promise<Answer> {
  return new Promise((done, failed) => {
    const options = { host: '127.0.0.1', port, path, method, headers, agent: false };
    const asked = request(options, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => (body += text));
      response.on('end', () =>
        done({ status: response.statusCode ?? 0, headers: response.headers, body }),
      );
    });
    asked.on('error', failed);
    asked.end();
  });
}

const status = async (...words: Parameters<typeof ask>): Promise<number> =>
  (await ask(...words)).status;

before(async () => {
  server = await open('127.0.0.1');
});

after(async () => {
  await server.close();
  turns.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('the status over HTTP', () => {
  it('is JSON, metrics and a page, and nothing else', async () => {
    const json = await ask('/status');
    deepEqual([json.status, json.body], [200, '{"name":"home"}\n']);
    match(json.headers['content-type'] ?? '', /^application\/json/);
    const metrics = await ask('/metrics');
    deepEqual([metrics.status, metrics.body], [200, 'vpn_connected 1\n']);
    equal(metrics.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
    equal((await ask('/')).status, 200);
    for (const path of ['/status/', '/STATUS', '/favicon.ico', '/../status', '//status', '/%2e']) {
      equal(await status(path), 404, path);
    }
    equal(await status('/status?x=1'), 200);
  });

  it('is only to be read', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      equal(await status('/status', {}, method), 405, method);
    }
    const head = await ask('/status', {}, 'HEAD');
    deepEqual([head.status, head.body, head.headers['content-length']], [200, '', '16']);
    equal(head.headers['access-control-allow-origin'], undefined);
  });

  it('refuses a foreign Host: a name may lead here whoever owns it', async () => {
    const { port } = server;
    const own = ['127.0.0.1', 'localhost', '[::1]', '127.0.0.2'];
    for (const host of own) equal(await status('/status', { host: `${host}:${port}` }), 200, host);
    const foreign = ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', '8.8.8.8'];
    for (const host of foreign) {
      for (const path of ['/status', '/metrics', '/', '/none']) {
        equal(await status(path, { host: `${host}:${port}` }), 421, host + path);
      }
    }
    // Another port is another server.
    for (const host of ['127.0.0.1', `127.0.0.1:${port + 1}`, `127.0.0.1:${port}x`]) {
      equal(await status('/status', { host }), 421, host);
    }
  });

  it('refuses a request without Host', async () => {
    const socket = connect(server.port, '127.0.0.1');
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    socket.end('GET /status HTTP/1.0\r\n\r\n');
    await once(socket, 'close');
    match(text, /^HTTP\/1\.1 421 /);
  });

  it('refuses a foreign Origin, and what a browser says comes from another site', async () => {
    const host = `127.0.0.1:${server.port}`;
    equal(await status('/status', { origin: `http://${host}` }), 200);
    for (const origin of ['null', 'http://evil.example', `https://${host}`, 'http://127.0.0.1']) {
      equal(await status('/status', { origin }), 403, origin);
    }
    for (const [site, expected] of [
      ['same-origin', 200],
      ['none', 200],
      ['same-site', 403],
      ['cross-site', 403],
    ] as const) {
      equal(await status('/status', { 'sec-fetch-site': site }), expected, site);
    }
  });

  it('lets no page of others embed, keep or read its answers', async () => {
    const { headers } = await ask('/status');
    equal(headers['cross-origin-resource-policy'], 'same-origin');
    equal(headers['cache-control'], 'no-store');
    equal(headers['x-content-type-options'], 'nosniff');
    const policy = String((await ask('/')).headers['content-security-policy']);
    match(policy, /^default-src 'none'; script-src 'sha256-/);
    match(policy, /frame-ancestors 'none'/);
    ok(!policy.includes('unsafe'));
  });

  it('closes on headers that are too large, and on garbage', async () => {
    await rejects(ask('/status', { 'x-long': 'x'.repeat(20_000) }));
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.end('\x16\x03\x01 this is TLS, or nothing\r\n\r\n');
    await once(socket.resume(), 'close');
    equal(await status('/status'), 200);
  });

  it('takes 32 connections, and goes on when they are gone', async () => {
    const idle = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const socket = connect(server.port, '127.0.0.1');
        socket.on('error', () => undefined);
        await once(socket, 'connect');
        return socket;
      }),
    );
    await Promise.all(
      idle.slice(32).map(async (socket) => {
        if (!socket.destroyed) await once(socket.resume(), 'close');
      }),
    );
    for (const socket of idle) socket.destroy();
    for (let tries = 0; ; tries++) {
      const answered = await ask('/status').catch(() => undefined);
      if (answered?.status === 200) break;
      ok(tries < 2_000, 'never answers again');
      await new Promise((done) => setTimeout(done, 10));
    }
  });
});

describe('the status on other addresses than loopback', () => {
  it('asks for the token, which only the owner can read and which goes with the server', async () => {
    const wide = await open('0.0.0.0');
    const token = readFileSync(wide.tokenFile, 'utf8').trim();
    equal(statSync(wide.tokenFile).mode & 0o777, 0o600);
    ok(token.length >= 43);
    const { port } = wide;
    for (const path of ['/status', '/metrics', '/none']) {
      const refused = await ask(path, {}, 'GET', port);
      deepEqual(
        [refused.status, refused.headers['www-authenticate']],
        [401, 'Bearer realm="vpn"'],
        path,
      );
    }
    for (const given of ['Bearer', 'Bearer x', `Basic ${token}`, `Bearer ${token}x`, token]) {
      equal(await status('/status', { authorization: given }, 'GET', port), 401, given);
    }
    equal(await status('/status', { authorization: `Bearer ${token}` }, 'GET', port), 200);
    equal(await status('/', {}, 'GET', port), 200);
    const authorization = `Bearer ${token}`;
    const host = `evil.example:${port}`;
    equal(await status('/status', { authorization, host }, 'GET', port), 421);
    await wide.close();
    ok(!existsSync(wide.tokenFile));
  });

  it('makes another token at each start', async () => {
    const first = await open('0.0.0.0');
    const one = readFileSync(first.tokenFile, 'utf8');
    await first.close();
    const second = await open('0.0.0.0');
    const other = readFileSync(second.tokenFile, 'utf8');
    await second.close();
    ok(one !== other);
  });
});

describe('a port that is taken', () => {
  it('is a failure', async () => {
    const options = { host: '127.0.0.1', port: server.port, tokenFile: '' };
    await rejects(HttpServer.open(options, deps), /address already in use; give another/);
  });
});
