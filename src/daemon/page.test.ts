import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Script } from 'node:vm';
import { Browser, BROWSER, hasBrowser } from '../../test/browser.ts';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { LinkHistory } from './history.ts';
import { HttpServer } from './http.ts';
import { PAGE, PAGE_POLICY } from './page.ts';
import { publish } from './status.ts';
import type { LinkStatus, Status } from './status.ts';
import { Turns } from './turns.ts';

const html = PAGE.toString();
const CHARTS = ['up', 'down', 'rtt', 'loss'];

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
    const charts = [...inner('script').matchAll(/{ id: '([a-z]+)'/g)].map(([, id]) => id);
    deepEqual(charts, CHARTS);
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

/** WCAG 2, relative luminance and contrast ratio. */
function contrast(one: string, other: string): number {
  const [light, dark] = [one, other].map(luminance).sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

describe('the colours of the page', () => {
  it('stand out from its paper, by day and by night', () => {
    const [light, dark] = inner('style').split('@media (prefers-color-scheme: dark)');
    for (const scheme of [light, dark.split('@media')[0]]) {
      const [, paper] = /--paper: (#\w{6})/.exec(scheme) ?? [];
      const lines = [...scheme.matchAll(/--of: (#\w{6})/g)].map(([, colour]) => colour);
      const words = [...scheme.matchAll(/--(?:ink|dim|good|warn|bad): (#\w{6})/g)];
      equal(new Set(lines).size, 8);
      equal(words.length, 5);
      // WCAG 2, 1.4.11 and 1.4.3: graphics and text.
      for (const colour of lines) ok(contrast(colour, paper) >= 3, `${colour} on ${paper}`);
      for (const [, colour] of words) ok(contrast(colour, paper) >= 4.5, `${colour} on ${paper}`);
    }
  });
});

/** What the server of the page is told to publish, once for each time that it is asked. */
class Told {
  polls = 0;
  links: (polls: number) => readonly LinkStatus[] = () => [];
  private readonly history = new LinkHistory();

  publish(): Status {
    this.polls++;
    const nowMs = this.polls * 1_000;
    const tunnel = tunnelStatus(this.links(this.polls));
    this.history.observe(tunnel, nowMs);
    return publish(tunnel, this.history, ABOUT, { nowMs, startedMs: 0, reloadedMs: 0 });
  }
}

const counting = (changes: Partial<LinkStatus>, polls: number): LinkStatus =>
  linkStatus({ sentBytes: polls * 100_000, receivedBytes: polls * 700_000, ...changes });

describe('the page in a browser', { skip: hasBrowser() ? false : `no ${BROWSER} in PATH` }, () => {
  const turns = new Turns();
  let browser: Browser;
  let server: HttpServer;
  let told: Told;

  before(async () => {
    server = await HttpServer.open(
      { host: '127.0.0.1', port: 0, tokenFile: '' },
      {
        statusText: () => Buffer.from(JSON.stringify(told.publish())),
        metricsText: () => Buffer.alloc(0),
        turns,
      },
    );
    browser = await Browser.start();
  });
  after(async () => {
    await browser.close();
    await server.close();
    turns.close();
  });

  /** Opens the page anew, and lets `ms` of its time pass. */
  async function open(links: Told['links'], ms: number): Promise<void> {
    told = new Told();
    told.links = links;
    await browser.open('about:blank');
    await browser.open(`http://127.0.0.1:${server.port}/`);
    await browser.pass(ms);
  }

  const textOf = (selector: string): Promise<unknown> =>
    browser.value(`[...document.querySelectorAll('${selector}')].map((one) => one.textContent)`);
  /** The lines of a chart, by link. */
  const linesOf = async (chart: string): Promise<Readonly<Record<string, string>>> => {
    const of = "[one.dataset.link, one.getAttribute('d')]";
    const paths = `[...document.querySelectorAll('#${chart} path')].map((one) => ${of})`;
    return (await browser.value(`Object.fromEntries(${paths})`)) as Record<string, string>;
  };

  it('draws a line for each link in each chart, and lists them', async () => {
    const names = ['dsl', '<b>lte</b>'];
    await open((polls) => names.map((name, id) => counting({ id, name }, polls)), 8_000);
    ok(told.polls >= 2, `${told.polls} polls`);
    equal(await browser.value('document.title'), 'home: connected');
    deepEqual(await textOf('#links td:first-child'), names);
    for (const chart of CHARTS) {
      const lines = await linesOf(chart);
      deepEqual(Object.keys(lines), names);
      for (const line of Object.values(lines)) match(line, /^M[\d.]+ [\d.]+h0(L[\d.]+ [\d.]+)+$/);
      deepEqual(await textOf(`#${chart}-key > span`), names);
    }
    // 5.6 Mbit/s in each direction of 7 at most; 20.4 ms of 30; 1.23 % of 1.5.
    deepEqual(await textOf('#down-values span'), ['6', '3', '0']);
    deepEqual(await textOf('#rtt-values span'), ['30', '15', '0']);
    deepEqual(await textOf('#loss-values span'), ['1.5', '0.75', '0']);
    deepEqual(await textOf('#trouble'), ['']);
  });

  it('draws nothing measured of a link that is down, and goes on when it is back', async () => {
    const isDown = (polls: number): boolean => polls > 3 && polls <= 6;
    const dsl = (polls: number): LinkStatus =>
      counting({ name: 'dsl', state: isDown(polls) ? 'down' : 'up' }, polls);
    await open((polls) => [dsl(polls), counting({ id: 1, name: 'lte' }, polls)], 5_500);
    match(String(await textOf('#links tr:first-child td:nth-child(2)')), /^down for \d s$/);
    await browser.pass(4_000);
    for (const chart of ['rtt', 'loss']) {
      const { dsl: line, lte } = await linesOf(chart);
      equal(line.split('M').length, 3, `${chart}: ${line}`);
      equal(lte.split('M').length, 2, `${chart}: ${lte}`);
    }
    equal((await linesOf('up'))['dsl'].split('M').length, 2);
  });

  it('forgets a link that has been gone for two minutes', async () => {
    const links = (polls: number): readonly LinkStatus[] => [
      counting({ name: 'dsl' }, polls),
      ...(polls > 2 ? [] : [counting({ id: 1, name: 'lte' }, polls)]),
    ];
    await open(links, 3_500);
    deepEqual(await textOf('#links td:first-child'), ['dsl']);
    deepEqual(Object.keys(await linesOf('up')), ['dsl', 'lte']);
    await browser.pass(125_000);
    deepEqual(Object.keys(await linesOf('up')), ['dsl']);
    told.links = () => [];
    await browser.pass(2_000);
    deepEqual(await textOf('#links td'), ['no links']);
  });

  it('fits into a narrow and a wide window, whatever the names are', async () => {
    const endpoint = '[2001:db8:1234:5678:9abc:def0:1234:5678]:44300';
    const all = Array.from({ length: 20 }, (_, id) => ({ id, name: `x${id}`.padEnd(32, 'x') }));
    await open((polls) => all.map((one) => counting({ ...one, endpoint }, polls)), 3_000);
    for (const width of [320, 400, 800, 1280]) {
      await browser.look({ width, height: 800, isDark: false });
      equal(await browser.value('document.documentElement.scrollWidth'), width);
    }
    // Too many for a key: the table is it.
    deepEqual(await textOf('#up-key > span'), []);
    equal(((await textOf('#links .mark')) as string[]).length, all.length);
  });

  it('says so when nobody answers', async () => {
    await open((polls) => [counting({ name: 'dsl' }, polls)], 3_000);
    await server.close();
    await browser.pass(2_000);
    match(String(await textOf('#trouble')), /^no status: /);
    equal(await browser.value('document.title'), 'vpn: no status');
    deepEqual(await textOf('#links td:first-child'), ['dsl']);
  });
});
