/**
 * The page at `/`: draws throughput, round trip and loss of each link from `/status`, once a second. One
 * document without anything from elsewhere; its policy allows its own script and style, by their digests,
 * and requests to where it came from. Text from the status only ever becomes text.
 */
import { createHash } from 'node:crypto';

const STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5b6472; --line: #d9dde3; --paper: #ffffff;
  --good: #15803d; --warn: #946c00; --bad: #c01c28; }
.c0 { --of: #1d5fd1; } .c1 { --of: #c4500c; } .c2 { --of: #15803d; } .c3 { --of: #8e3bb0; }
.c4 { --of: #946c00; } .c5 { --of: #b8234b; } .c6 { --of: #0e7c8b; } .c7 { --of: #57606a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #9aa3b0; --line: #343a44; --paper: #14171c;
    --good: #4cc38a; --warn: #d9b23c; --bad: #ff7b72; }
  .c0 { --of: #6ea0ff; } .c1 { --of: #f08a4b; } .c2 { --of: #4cc38a; } .c3 { --of: #c58ae0; }
  .c4 { --of: #d9b23c; } .c5 { --of: #f0708f; } .c6 { --of: #4cc3d3; } .c7 { --of: #a3abb5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; margin: 0; }
p { margin: .25rem 0; color: var(--dim); }
#trouble { color: var(--bad); font-weight: 600; }
#trouble:empty { display: none; }
.up, .connected { color: var(--good); }
.suspect, .silent, .connecting { color: var(--warn); }
.down { color: var(--bad); }
.stale { opacity: .6; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid var(--line);
  vertical-align: bottom; white-space: nowrap; }
th { color: var(--dim); font-weight: normal; }
th small { display: block; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
td:first-child, td:nth-child(3) { white-space: normal; }
.mark { display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: 50%;
  background: var(--of); }
.mark.other { background: none; border: 2px dashed var(--of); }
#charts { display: grid; grid-template-columns: 1fr 1fr; gap: 1.25rem 2rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .6rem; display: flex; flex-wrap: wrap; gap: 0 1rem; }
figcaption div { display: flex; flex-wrap: wrap; gap: 0 .75rem; font-weight: normal; font-size: .85rem; }
.unit { color: var(--dim); font-weight: normal; }
.plot { display: grid; grid-template-columns: 3rem 1fr; font-size: .8rem; color: var(--dim);
  font-variant-numeric: tabular-nums; }
.values { display: flex; flex-direction: column; justify-content: space-between; text-align: right;
  padding-right: .5rem; margin: -.6rem 0; }
.times { grid-column: 2; display: grid; grid-template-columns: 1fr auto 1fr; padding-top: .2rem; }
.times span:last-child { text-align: right; }
svg { width: 100%; height: 9rem; display: block; overflow: visible; }
svg line { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
svg path { fill: none; stroke: var(--of); stroke-width: 2; vector-effect: non-scaling-stroke;
  stroke-linejoin: round; stroke-linecap: round; }
svg path.other { stroke-dasharray: 6 4; }
@media (max-width: 60rem) {
  #charts { grid-template-columns: 1fr; }
  thead { display: none; }
  table, tbody, tr { display: block; }
  tr { border-bottom: 1px solid var(--line); padding: .5rem 0; display: grid; gap: 0 1rem;
    grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
  td { border: 0; padding: 0; text-align: left; }
  td:nth-child(3) { grid-column: 1 / -1; }
  td:first-child { font-weight: 600; }
  td:nth-child(n+4)::before { content: attr(data-what) ' '; color: var(--dim); }
  td:nth-child(n+4)::after { content: ' ' attr(data-unit); color: var(--dim); }
}
`;

const SCRIPT = `
'use strict';
(() => {
  const EVERY_MS = 1000;
  const SPAN_MS = 120000;
  // With a longer gap between two answers nothing is known of the time between.
  const GAP_MS = 3500;
  const COLOURS = 8;
  const WIDTH = 600;
  const HEIGHT = 140;
  // A link that is not up is measured by nobody: the last that was is not drawn on.
  const whileUp = (link, value) => (link.state === 'up' ? value : null);
  const CHARTS = [
    { id: 'up', title: 'Up', unit: 'Mbit/s', least: 1, of: (link) => link.up_bits_per_second / 1e6 },
    { id: 'down', title: 'Down', unit: 'Mbit/s', least: 1, of: (link) => link.down_bits_per_second / 1e6 },
    { id: 'rtt', title: 'Round trip', unit: 'ms', least: 10, of: (link) => whileUp(link, link.rtt_ms) },
    { id: 'loss', title: 'Loss', unit: '%', least: 1, of: (link) => whileUp(link, link.loss_ratio * 100) },
  ];
  const COLUMNS = [
    ['link'], ['state'], ['endpoint'], ['RTT', 'ms'], ['jitter', 'ms'], ['loss', '%'], ['repaired'],
    ['up', 'Mbit/s'], ['down', 'Mbit/s'], ['capacity', 'Mbit/s'], ['share', '%'], ['MTU'],
  ];
  // By name: the number of its colour, and what was said of it and when.
  const history = new Map();
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  const find = (id) => document.getElementById(id);
  const rate = (bits) => (bits === null ? '–' : (bits / 1e6).toFixed(bits < 1e7 ? 2 : 1));
  const number = (value) => (value === null ? '–' : value.toFixed(1));

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    element.className = className;
    element.append(...children);
    return element;
  }

  function svg(tag, attributes) {
    const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  function duration(seconds) {
    const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
    const [size, unit] = units.find(([least]) => seconds >= least) ?? [1, 's'];
    return Math.floor(seconds / size) + ' ' + unit;
  }

  function frameOf({ id, title, unit }) {
    const picture = svg('svg', { id, viewBox: '0 0 ' + WIDTH + ' ' + HEIGHT, preserveAspectRatio: 'none',
      role: 'img', 'aria-label': title });
    const values = make('div', 'values');
    values.id = id + '-values';
    const times = make('div', 'times', make('span', '', '2 min ago'), make('span', '', '1 min ago'), make('span', '', 'now'));
    const key = make('div', '');
    key.id = id + '-key';
    const caption = make('figcaption', '', make('span', '', title + ' ', make('span', 'unit', unit)), key);
    return make('figure', '', caption, make('div', 'plot', values, picture, times));
  }

  function freeColour() {
    const used = new Set([...history.values()].map((past) => past.colour));
    let colour = 0;
    while (used.has(colour)) colour++;
    return colour;
  }

  // The look of a link: with more links than colours, the second of a colour is dashed.
  function classesOf(name) {
    const { colour } = history.get(name);
    return 'c' + colour % COLOURS + (Math.floor(colour / COLOURS) % 2 === 1 ? ' other' : '');
  }

  function remember(links, now) {
    for (const link of links) {
      if (!history.has(link.name)) history.set(link.name, { colour: freeColour(), points: [] });
      history.get(link.name).points.push({ at: now, link });
    }
  }

  function forget(now) {
    for (const [name, { points }] of history) {
      while (points.length > 0 && points[0].at < now - SPAN_MS) points.shift();
      if (points.length === 0) history.delete(name);
    }
  }

  const named = (name) => make('span', '', make('span', 'mark ' + classesOf(name)), name);

  function roundTop(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((top) => top >= value) ?? 10 * power;
  }

  function lineOf(points, of, top, now) {
    let d = '';
    let last = -Infinity;
    for (const { at, link } of points) {
      const value = of(link);
      if (value === null) { last = -Infinity; continue; }
      const x = (WIDTH * (1 - (now - at) / SPAN_MS)).toFixed(1);
      const y = (HEIGHT * (1 - value / top)).toFixed(1);
      // Of no length: a point alone is seen too.
      d += at - last > GAP_MS ? 'M' + x + ' ' + y + 'h0' : 'L' + x + ' ' + y;
      last = at;
    }
    return d;
  }

  function draw({ id, least, of }, now) {
    const all = [...history.values()].flatMap(({ points }) => points.map(({ link }) => of(link)));
    const top = roundTop(Math.max(least, ...all));
    const parts = [0, 0.5, 1].map((share) =>
      svg('line', { x1: 0, x2: WIDTH, y1: HEIGHT * share, y2: HEIGHT * share }));
    const names = [];
    for (const [name, { points }] of history) {
      const d = lineOf(points, of, top, now);
      if (d === '') continue;
      parts.push(svg('path', { d, class: classesOf(name), 'data-link': name }));
      names.push(named(name));
    }
    // With more the table says it better.
    find(id + '-key').replaceChildren(...(names.length > COLOURS ? [] : names));
    find(id).replaceChildren(...parts);
    const labels = [top, top / 2, 0].map((value) => make('span', '', String(Number(value.toPrecision(3)))));
    find(id + '-values').replaceChildren(...labels);
  }

  function cells(link) {
    return [
      named(link.name),
      make('span', link.state, link.state + (link.backup ? ' (backup)' : '')
        + (link.state === 'up' ? '' : ' for ' + duration(link.state_seconds))),
      link.endpoint || '–', number(link.rtt_ms), number(link.jitter_ms), (link.loss_ratio * 100).toFixed(2),
      String(link.repaired_packets), rate(link.up_bits_per_second), rate(link.down_bits_per_second),
      rate(link.capacity_bits_per_second), (link.share * 100).toFixed(0), String(link.mtu || '–'),
    ];
  }

  function rowOf(link) {
    return make('tr', '', ...cells(link).map((content, i) => {
      const cell = make('td', i > 2 && link.state !== 'up' ? 'stale' : '', content);
      [cell.dataset.what, cell.dataset.unit = ''] = COLUMNS[i];
      return cell;
    }));
  }

  function show(status) {
    document.title = status.name + ': ' + status.state;
    find('name').replaceChildren(status.name + ': ', make('span', status.state, status.state));
    find('about').textContent = [
      status.role + ' on ' + status.tuntap.name,
      status.cipher === null ? 'no keys' : status.cipher + ', keys ' + duration(status.key_age_seconds ?? 0) + ' old',
      'MTU ' + status.mtu, 'running for ' + duration(status.running_seconds),
    ].join(' · ');
    find('sums').textContent = 'up ' + rate(status.up_bits_per_second) + ' Mbit/s, down '
      + rate(status.down_bits_per_second) + ' Mbit/s · packets repaired '
      + status.repaired_packets + ', lost ' + status.abandoned_packets;
    remember(status.tunnels, performance.now());
    const rows = status.tunnels.map(rowOf);
    find('links').replaceChildren(...(rows.length > 0 ? rows : [make('tr', '', make('td', 'stale', 'no links'))]));
  }

  async function ask() {
    const headers = token === null ? {} : { Authorization: 'Bearer ' + token };
    const answer = await fetch('/status', { headers, cache: 'no-store', signal: AbortSignal.timeout(3000) });
    if (answer.status === 401) throw new Error('a token is needed: open this page with #token=TOKEN');
    if (!answer.ok) throw new Error('refused (' + answer.status + ')');
    return answer.json();
  }

  async function poll() {
    try {
      show(await ask());
      find('trouble').textContent = '';
      find('links').className = '';
    } catch (error) {
      document.title = 'vpn: no status';
      find('trouble').textContent = 'no status: ' + error.message;
      find('links').className = 'stale';
    }
    const now = performance.now();
    forget(now);
    for (const chart of CHARTS) draw(chart, now);
    setTimeout(poll, EVERY_MS);
  }

  find('head').replaceChildren(...COLUMNS.map(([what, unit = '']) => make('th', '', what, make('small', '', unit))));
  find('charts').replaceChildren(...CHARTS.map(frameOf));
  poll();
})();
`;

const HTML = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>vpn</title>
<style>${STYLE}</style>
<h1 id="name">vpn</h1>
<p id="about"></p>
<p id="sums"></p>
<p id="trouble" role="status"></p>
<table>
<thead><tr id="head"></tr></thead>
<tbody id="links"></tbody>
</table>
<div id="charts"></div>
<noscript>This page needs its script; the numbers alone are at /status and /metrics.</noscript>
<script>${SCRIPT}</script>
</html>
`;

export const PAGE: Buffer = Buffer.from(HTML);

/**
 * CSP level 3. The colours of marks are set through the object model, which the policy does not restrict.
 */
export const PAGE_POLICY: string = [
  `default-src 'none'`,
  `script-src ${digestOf(SCRIPT)}`,
  `style-src ${digestOf(STYLE)}`,
  `connect-src 'self'`,
  `img-src data:`,
  `base-uri 'none'`,
  `form-action 'none'`,
  `frame-ancestors 'none'`,
].join('; ');

function digestOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}
