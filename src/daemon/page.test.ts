import { equal, match, ok } from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Script } from 'node:vm';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { LinkHistory } from './history.ts';
import { HttpServer } from './http.ts';
import { PAGE, PAGE_POLICY } from './page.ts';
import { publish } from './status.ts';
import type { Status } from './status.ts';
import { Turns } from './turns.ts';

const html = PAGE.toString();
const BROWSER = 'chromium';
const hasBrowser = spawnSync(BROWSER, ['--version']).status === 0;
/** Of the browser's own clock, which it winds forward: enough for several polls. */
const BUDGET_MS = 8_000;

const inner = (tag: string): string => new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(html)?.[1] ?? '';

describe('the page', () => {
  it('is allowed its own script and style by its policy, and both are whole', () => {
    for (const tag of ['script', 'style']) {
      const text = inner(tag);
      ok(text.length > 500, tag);
      const digest = createHash('sha256').update(text).digest('base64');
      ok(PAGE_POLICY.includes(`${tag}-src 'sha256-${digest}'`), tag);
      equal(html.split(`<${tag}`).length, 2, `one ${tag}`);
    }
    // Compiles, and is not run.
    ok(new Script(inner('script')) instanceof Script);
  });

  it('has nothing from elsewhere, and makes no markup of what it is told', () => {
    const addresses = html.match(/https?:\/\/[^\s"'`<>)]+/g) ?? [];
    equal(addresses.filter((one) => one !== 'http://www.w3.org/2000/svg').length, 0);
    ok(!/innerHTML|outerHTML|insertAdjacent|document\.write|eval|\bsrc=|@import|url\(/.test(html));
    ok(!/ on[a-z]+=| style=/.test(html));
  });

  it('has every element that its script looks for', () => {
    for (const [, id] of inner('script').matchAll(/find\('([a-z-]+)'\)/g)) {
      ok(html.includes(`id="${id}"`), id);
    }
    for (const [, id] of inner('script').matchAll(/id: '([a-z]+)'/g)) {
      ok(html.includes(`id="${id}"`) && html.includes(`id="${id}-top"`), id);
    }
  });

  it('reads only fields that the status has', () => {
    const links = tunnelStatus([linkStatus()]);
    const status = publish(links, new LinkHistory(), ABOUT, {
      nowMs: 0,
      startedMs: 0,
      reloadedMs: 0,
    });
    const known = new Set([...Object.keys(status), ...Object.keys(status.tunnels[0]), 'type']);
    const read = [...inner('script').matchAll(/\b(?:status|link|l)\.([a-z_]+)\b/g)];
    ok(read.length > 15);
    for (const [, name] of read) ok(known.has(name) || name === 'length', name);
  });
});

describe('the page in a browser', { skip: hasBrowser ? false : `no ${BROWSER} in PATH` }, () => {
  it('draws a line for each link and direction, and lists them', async () => {
    const turns = new Turns();
    const history = new LinkHistory();
    let polls = 0;
    const status = (): Status => {
      polls++;
      const links = ['dsl', '<b>lte</b>'].map((name, id) =>
        linkStatus({ id, name, sentBytes: polls * 100_000, receivedBytes: polls * 700_000 }),
      );
      const tunnel = tunnelStatus(links);
      history.observe(tunnel, polls * 1_000);
      return publish(tunnel, history, ABOUT, { nowMs: 1e6, startedMs: 0, reloadedMs: 0 });
    };
    const server = await HttpServer.open(
      { host: '127.0.0.1', port: 0, tokenFile: '' },
      {
        statusText: () => Buffer.from(JSON.stringify(status())),
        metricsText: () => Buffer.alloc(0),
        turns,
      },
    );
    const profile = mkdtempSync(join(tmpdir(), 'vpn-chromium-'));
    try {
      const dom = await dumpDom(`http://127.0.0.1:${server.port}/`, profile);
      ok(polls >= 2, `${polls} polls`);
      match(dom, /<title>home: connected<\/title>/);
      equal(dom.match(/<path [^>]*d="M[^"]*L[^"]*"/g)?.length, 8);
      match(dom, /&lt;b&gt;lte&lt;\/b&gt;/);
      match(dom, /<p id="trouble"[^>]*><\/p>/);
    } finally {
      await server.close();
      turns.close();
      rmSync(profile, { recursive: true, force: true });
    }
  });
});

/** The document as it is after its script has run for a while. */
function dumpDom(url: string, profile: string): Promise<string> {
  const root = process.geteuid?.() === 0 ? ['--no-sandbox'] : [];
  const words = ['--headless', '--disable-gpu', ...root, `--user-data-dir=${profile}`];
  words.push(`--virtual-time-budget=${BUDGET_MS}`, '--dump-dom', url);
  return new Promise((done, failed) => {
    const child = spawn(BROWSER, words, { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    child.on('error', failed);
    child.on('close', () => done(text));
  });
}
