/**
 * Makes doc/status-page.png: the page of a client with three emulated links, two minutes of two transfers in
 * which one link is cut for a while and another loses. Needs Chromium, which `npm test` does not install.
 *
 *   node test/pagepicture.ts [FILE]
 */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Browser, BROWSER, hasBrowser } from './browser.ts';
import { makeKey } from './ends.ts';
import { FileEnd } from './fileend.ts';
import { Bed, lacking, pass } from './netns.ts';
import { iperfServer, reaches, startIperf } from './traffic.ts';
import { wan, type Figures, type WanLink } from './wan.ts';

const PICTURE = resolve(import.meta.dirname, '../doc/status-page.png');
const SIZE = { width: 1280, height: 720, isDark: false };
const HTTP_PORT = 8080;
const SERVER_IP = '10.42.43.2';
const LINKS: readonly { readonly name: string; readonly figures: Figures }[] = [
  { name: 'dsl', figures: { rateMbit: 50, delayMs: 12, queueMs: 60 } },
  {
    name: 'lte',
    figures: { rateMbit: 30, delayMs: 30, jitterMs: 3, lossRatio: 0.004, queueMs: 80 },
  },
  { name: 'satellite', figures: { rateMbit: 20, delayMs: 55, jitterMs: 2, queueMs: 100 } },
];
const SECONDS = 116;

async function makePicture(bed: Bed): Promise<Buffer> {
  const [client, server] = [bed.host('client'), bed.host('server')];
  const links: WanLink[] = [];
  for (const [i, { name, figures }] of LINKS.entries())
    links.push(await wan(bed, client, server, { device: name, both: figures, seed: i + 1 }));
  const key = `key_file = ${makeKey(bed)}\ninterface_name = vpn0\n`;
  const far = LINKS.map(({ name }, i) => `[${name}]\nbindport = ${5080 + i}\n`);
  const near = LINKS.map(({ name }, i) => {
    const way = `device = ${name}\nremotehost = ${links[i]!.ipB}`;
    return `[${name}]\n${way}\nremoteport = ${5080 + i}\n`;
  });
  const head = (mode: string, ip: string): string =>
    `[general]\nmode = ${mode}\n${key}ip4 = ${ip}/30\n`;
  new FileEnd(bed, server, 'home', head('server', SERVER_IP) + far.join(''));
  const http = `control_bind_port = ${HTTP_PORT}\n`;
  new FileEnd(bed, client, 'home', head('client', '10.42.43.1') + http + near.join(''));
  await reaches(client, SERVER_IP);
  await iperfServer(server, 5201);
  await iperfServer(server, 5202);

  const [, lte, satellite] = links;
  const events: Readonly<Record<number, () => unknown>> = {
    6: () => startIperf(client, SERVER_IP, '-t 120'),
    30: () => startIperf(client, SERVER_IP, '-t 90 -p 5202 -R -b 25M'),
    50: () => lte!.set({ both: { isCut: true } }),
    72: () => lte!.set({ both: { isCut: false } }),
    90: () => satellite!.set({ both: { lossRatio: 0.02 } }),
    100: () => satellite!.set({ both: { lossRatio: 0 } }),
  };
  const browser = await Browser.start(['ip', 'netns', 'exec', client.namespace]);
  try {
    await browser.look(SIZE);
    await browser.open(`http://127.0.0.1:${HTTP_PORT}/`);
    for (let second = 0; second < SECONDS; second++) {
      await events[second]?.();
      await pass(1_000);
    }
    return await browser.picture();
  } finally {
    await browser.close();
  }
}

const reason = lacking(['iperf3']) || (hasBrowser() ? false : `needs ${BROWSER}`);
if (reason !== false) throw new Error(`the picture ${reason}`);
const bed = new Bed();
try {
  writeFileSync(process.argv[2] ?? PICTURE, await makePicture(bed));
} finally {
  await bed.close();
}
process.exit(0);
