/** The control socket under load beside a real tunnel over loopback: nothing that the tunnel carries is lost. */
import { equal, ok } from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { withNativeCode } from '../src/assets.ts';
import { startDaemonServices } from '../src/daemon/daemon.ts';
import { snapshot } from '../src/daemon/snapshot.ts';
import { loadNative } from '../src/native.ts';
import { makeHost } from '../src/runtime.ts';
import { Tunnel } from '../src/vpn.ts';
import { CountingTun, loadConfig, LOOPBACK } from './controlload.ts';
import { ABOUT, linkStatus, tunnelStatus } from './statussamples.ts';

const CLIENTS = 100;
const REQUESTS = 1_000;
const PACKETS = 40_000;
/** A quarter of what `vpn` asks for: a third of a second at the pace of the peer. */
const BUFFER_BYTES = 1024 * 1024;
const HELPER = join(import.meta.dirname, 'controlload.ts');

/** Starts a process; `said` settles when it has printed a line that begins so. */
function helper(...words: readonly string[]): (start: string) => Promise<string> {
  const child = spawn(process.execPath, [HELPER, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  let wake = (): void => {};
  let hasEnded = false;
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    wake();
  });
  child.on('close', () => {
    hasEnded = true;
    wake();
  });
  return async (start) => {
    for (;;) {
      const line = text.split('\n').find((one) => one.startsWith(start));
      if (line !== undefined) return line;
      ok(!hasEnded, `${words.join(' ')} ended without "${start}"`);
      await new Promise<void>((done) => (wake = done));
    }
  };
}

describe('100 control clients with 1000 requests each', () => {
  it('get their answers, and the tunnel loses no packet', async () => {
    const native = withNativeCode('vpn.node', loadNative);
    const folder = mkdtempSync(join(tmpdir(), 'vpn-load-'));
    const tun = new CountingTun();
    let port = 0;
    const options = {
      native,
      tun,
      openSocket: () => {
        const opened = native.udpOpen({ ...LOOPBACK, bufferBytes: BUFFER_BYTES });
        port = opened.port;
        return opened.handle;
      },
      resolve: () => Promise.resolve([]),
      report: () => undefined,
    };
    const host = makeHost(options, () => tunnel.onTimer());
    const tunnel: Tunnel = new Tunnel(loadConfig('server'), host, []);
    tunnel.start();
    const links = Array.from({ length: 4 }, (_, id) => linkStatus({ id, name: `wan${id}` }));
    const services = await startDaemonServices({
      native,
      stateDir: folder,
      about: ABOUT,
      controlPath: '',
      http: undefined,
      hooks: undefined,
      snapshot: () => {
        snapshot(tunnel.parts, tunnel.host.nowMs());
        return tunnelStatus(links);
      },
      actions: {
        reset: async () => [],
        link: async () => [],
        reload: async () => [],
        stop: () => undefined,
      },
      cause: 'test',
    });
    try {
      const peer = helper('peer', String(port), String(PACKETS));
      await peer('ready');
      const clients = helper('clients', services.controlPath, String(CLIENTS), String(REQUESTS));
      const answered = await clients('answers');
      equal(answered, `answers ${CLIENTS * REQUESTS}`);
      equal(await peer('sent'), `sent ${PACKETS}`);
      equal(tun.written, PACKETS);
    } finally {
      tunnel.close();
      await services.close('test over');
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
