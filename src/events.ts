/** What a user reads of a running tunnel: the line of each of its events. */
import type { ClientConfig, Config } from './config.ts';
import { CIPHER_NAMES } from './daemon/status.ts';
import type { TunnelEvent } from './host.ts';
import { log, verbose, warn } from './report.ts';

const REFUSALS = {
  'no-common-cipher': 'no cipher in common; give both ends the same --cipher',
  'addresses-differ': 'its tunnel addresses differ; give both ends the same two',
  'modes-differ': 'it was told another tuntap or cleartext_data; give both ends the same',
} as const;

/** What an end does when it has started. */
export function waitingFor(config: Config): string {
  return config.role === 'server'
    ? `waiting for the client on UDP port ${config.listen.map(({ port }) => port).join(', ')}`
    : `connecting to ${serverText(config)}`;
}

/** Where a client looks for its server: each host once, with the ports of all links to it. */
function serverText({ server, port, links }: ClientConfig): string {
  const remotes = links.map(({ remote }) => remote ?? { host: server, port });
  return [...new Set(remotes.map(({ host }) => host))]
    .map((host) => {
      const ports = remotes.filter((remote) => remote.host === host).map((remote) => remote.port);
      return `${host}, UDP port ${[...new Set(ports)].join(', ')}`;
    })
    .join('; ');
}

/** What a user should know of an end that has started. */
export function warnAtStart({ isCleartext }: Config): void {
  if (!isCleartext) return;
  const why = 'cleartext_data asks for it, and whoever sees a link reads the packets';
  warn(
    'data goes in the clear',
    why,
    'take it out on both ends unless all data is encrypted already',
  );
}

/** The line of an event; details only with -v. */
export function say(event: TunnelEvent, config: Config): void {
  const peer = config.role === 'server' ? 'client' : 'server';
  switch (event.kind) {
    case 'connected':
      log(`connected to ${event.endpoint} (${CIPHER_NAMES[event.cipher]})`);
      break;
    case 'silent':
      log(silenceLine(config, event.forMs));
      break;
    case 'back':
      log(`${peer} answers again`);
      break;
    case 'busy':
      log('server is busy: another client is connected; waiting until it is gone');
      break;
    case 'version':
      log(`server speaks another version (${event.peer}) of the protocol; upgrade the older end`);
      break;
    case 'refused':
      log(`server refuses: ${REFUSALS[event.why]}`);
      break;
    case 'closed':
      log(`${peer} has closed the tunnel`);
      break;
    case 'unresolved':
      log(
        `cannot resolve "${config.role === 'client' ? config.server : ''}" now; using what is known`,
      );
      break;
    case 'moved':
      log(`${peer} moved to ${event.endpoint}`);
      break;
    case 'handshake':
      verbose('protocol', `handshake for ${event.isRekey ? 'new keys' : 'a session'}`);
      break;
    case 'rekeyed':
      verbose('protocol', `new keys (epoch ${event.epoch})`);
      break;
    case 'tun-mtu':
      verbose('tuntap', `MTU of the tunnel: ${event.mtu}`);
      break;
    case 'tun-lost':
      break;
  }
}

function silenceLine(config: Config, forMs: number): string {
  const seconds = Math.round(forMs / 1000);
  return config.role === 'server'
    ? `nothing from the client for ${seconds} s; waiting`
    : `no reply from ${serverText(config)}, for ${seconds} s; check that vpn ` +
        'runs there, that the port is open, and that both keys match; trying on';
}
