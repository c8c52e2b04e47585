/**
 * The page at `/`: draws throughput, round trip and loss of each link from `/status`, once a second. One
 * document without anything from elsewhere; its policy allows its own script and style, by their digests,
 * and requests to where it came from. Text from the status only ever becomes text.
 */
import { createHash } from 'node:crypto';

const STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #667; --line: #d5d9e0; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #99a; --line: #363c46; --paper: #14171c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
#about, .unit { color: var(--dim); }
#trouble { color: #c22; min-height: 1.45em; }
svg { width: 100%; height: 9rem; display: block; border-bottom: 1px solid var(--line); }
svg .grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
svg path { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--dim); font-weight: normal; }
.mark { display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: 50%; }
.suspect, .down { opacity: .55; }
`;

const SCRIPT = `
'use strict';
(() => {
  const COLOURS = ['#2f6fdf', '#d9692b', '#2a9d5c', '#a24fc0', '#b8901a', '#c33b5e', '#2698a8', '#6b7280'];
  const POINTS = 120;
  const WIDTH = 600;
  const HEIGHT = 140;
  const CHARTS = [
    { id: 'throughput', unit: 'Mbit/s', least: 1,
      lines: (l) => [l.up_bits_per_second / 1e6, l.down_bits_per_second / 1e6] },
    { id: 'rtt', unit: 'ms', least: 10, lines: (l) => [l.rtt_ms] },
    { id: 'loss', unit: '%', least: 1, lines: (l) => [l.loss_ratio * 100] },
  ];
  const history = new Map();
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  const find = (id) => document.getElementById(id);
  const svg = (tag, attributes) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const rate = (bits) => (bits === null ? '–' : (bits / 1e6).toFixed(bits < 1e7 ? 2 : 1));
  const number = (value) => (value === null ? '–' : value.toFixed(1));

  function colourOf(name) {
    return COLOURS[[...history.keys()].indexOf(name) % COLOURS.length];
  }

  function remember(links) {
    const present = new Map(links.map((link) => [link.name, link]));
    for (const name of present.keys()) {
      if (!history.has(name)) history.set(name, []);
    }
    for (const [name, points] of history) {
      points.push(present.get(name) ?? null);
      if (points.length > POINTS) points.shift();
      if (points.every((point) => point === null)) history.delete(name);
    }
  }

  function draw({ id, unit, least, lines }) {
    const chart = find(id);
    const all = [...history.values()].flat().filter((point) => point !== null).flatMap(lines);
    const top = Math.max(least, ...all.filter((value) => value !== null)) * 1.1;
    const parts = [0.5, 1].map((share) =>
      svg('line', { class: 'grid', x1: 0, x2: WIDTH, y1: HEIGHT * (1 - share), y2: HEIGHT * (1 - share) }));
    for (const [name, points] of history) {
      const count = lines(points.findLast((point) => point !== null)).length;
      for (let line = 0; line < count; line++) {
        let d = '';
        let isDown = false;
        points.forEach((point, i) => {
          const value = point === null ? null : lines(point)[line];
          if (value === null) { isDown = false; return; }
          const x = WIDTH * (POINTS - points.length + i) / (POINTS - 1);
          d += (isDown ? 'L' : 'M') + x.toFixed(1) + ' ' + (HEIGHT * (1 - value / top)).toFixed(1);
          isDown = true;
        });
        const look = line === 0 ? {} : { 'stroke-dasharray': '5 3' };
        if (d !== '') parts.push(svg('path', { d, stroke: colourOf(name), 'data-link': name, ...look }));
      }
    }
    chart.replaceChildren(...parts);
    find(id + '-top').textContent = 'full height: ' + top.toFixed(1) + ' ' + unit;
  }

  function cells(link) {
    return [
      link.name, link.state + (link.backup ? ' (backup)' : ''), link.endpoint || '–',
      number(link.rtt_ms), number(link.jitter_ms), (link.loss_ratio * 100).toFixed(2),
      rate(link.up_bits_per_second), rate(link.down_bits_per_second),
      rate(link.capacity_bits_per_second), (link.share * 100).toFixed(0), String(link.mtu || '–'),
    ];
  }

  function list(links) {
    find('links').replaceChildren(...links.map((link) => {
      const row = document.createElement('tr');
      row.className = link.state;
      cells(link).forEach((text, i) => {
        const cell = document.createElement('td');
        if (i === 0) {
          const mark = document.createElement('span');
          mark.className = 'mark';
          mark.style.background = colourOf(link.name);
          cell.append(mark);
        }
        cell.append(text);
        row.append(cell);
      });
      return row;
    }));
  }

  function show(status) {
    document.title = status.name + ': ' + status.state;
    find('name').textContent = status.name + ': ' + status.state;
    find('about').textContent = [
      status.role + ' on ' + status.tuntap.name, status.cipher ?? 'no keys', 'MTU ' + status.mtu,
      'keys ' + (status.key_age_seconds ?? '–') + ' s old',
      'up ' + rate(status.up_bits_per_second) + ', down ' + rate(status.down_bits_per_second) + ' Mbit/s',
    ].join(' · ');
    remember(status.tunnels);
    list(status.tunnels);
    CHARTS.forEach(draw);
  }

  async function poll() {
    try {
      const headers = token === null ? {} : { Authorization: 'Bearer ' + token };
      const answer = await fetch('/status', { headers, cache: 'no-store', signal: AbortSignal.timeout(3000) });
      if (answer.status === 401) throw new Error('a token is needed: open this page with #token=TOKEN');
      if (!answer.ok) throw new Error('refused (' + answer.status + ')');
      show(await answer.json());
      find('trouble').textContent = '';
    } catch (error) {
      find('trouble').textContent = 'no status: ' + error.message;
    }
    setTimeout(poll, 1000);
  }
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
<p id="trouble" role="status"></p>
<div class="scroll"><table>
<thead><tr><th>link<th>state<th>endpoint<th>RTT ms<th>jitter ms<th>loss %<th>up<th>down<th>capacity<th>share %<th>MTU</tr></thead>
<tbody id="links"></tbody>
</table></div>
<h2>Throughput <span class="unit">up solid, down dashed; <span id="throughput-top"></span></span></h2>
<svg id="throughput" viewBox="0 0 600 140" preserveAspectRatio="none"></svg>
<h2>Round trip <span class="unit" id="rtt-top"></span></h2>
<svg id="rtt" viewBox="0 0 600 140" preserveAspectRatio="none"></svg>
<h2>Loss <span class="unit" id="loss-top"></span></h2>
<svg id="loss" viewBox="0 0 600 140" preserveAspectRatio="none"></svg>
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
