/** What a user may do to a running tunnel over its control socket. */
import type { ControlActions } from './daemon/daemon.ts';
import type { LinkRequest } from './daemon/protocol.ts';
import type { LinkSettings } from './peering.ts';
import { Failure } from './report.ts';
import type { Tunnel } from './vpn.ts';

export interface ActionDeps {
  readonly tunnel: Tunnel;
  /** Keeps the socket of a link closed, or lets it be opened again. Throws a `Failure`. */
  readonly hold: (place: number, isHeld: boolean) => Promise<void>;
  /** Opens all sockets that there can be anew. */
  readonly reopen: () => void;
  /** Throws a `Failure`. */
  readonly reload: () => Promise<readonly string[]>;
  /** As a signal does. */
  readonly stop: () => void;
}

export function controlActions(deps: ActionDeps): ControlActions {
  const { tunnel, hold, reopen, reload, stop } = deps;
  return {
    reset: () => {
      tunnel.reset();
      reopen();
      return Promise.resolve(['a new handshake is under way']);
    },
    link: async (name, change) => {
      const place = placeOf(tunnel, name);
      const settings = place === undefined ? undefined : tunnel.settings[place];
      if (place === undefined || settings === undefined) {
        const names = tunnel.settings.flatMap((one) => (one?.name ? [one.name] : []));
        const remedy = names.length === 0 ? 'see vpn status' : `there is ${names.join(', ')}`;
        throw new Failure(`link "${name}"`, 'no such link', remedy);
      }
      const through = tunnel.links.filter((link) => link.socket === tunnel.sockets[place]);
      if (tunnel.config.role === 'server' && through.length > 1) {
        const why = `one address of this server is for ${through.length} links`;
        throw new Failure(`link "${name}"`, why, 'change it on the client');
      }
      tunnel.setLink(place, changed(settings, change));
      if (change.state !== undefined) await hold(place, change.state === 'down');
      return [];
    },
    reload,
    // The answer goes first.
    stop: () => void setImmediate(stop),
  };
}

function changed(settings: LinkSettings, { state, maxRate }: LinkRequest): LinkSettings {
  return {
    ...settings,
    ...(state === undefined || state === 'down' ? {} : { isBackup: state === 'backup' }),
    // Bytes per second. It takes the place of what the configuration says.
    ...(maxRate === undefined ? {} : { maxRate: maxRate / 1000, uploadRate: 0 }),
  };
}

/** The number of a link by its name in the status (daemon/snapshot.ts). */
function placeOf(tunnel: Tunnel, name: string): number | undefined {
  const place = tunnel.settings.findIndex((settings) => settings?.name === name);
  if (place !== -1) return place;
  const named = tunnel.links.find(
    (link) => link.settings.name === name || name.endsWith(`#${link.id}`),
  );
  if (named === undefined) return undefined;
  return tunnel.config.role === 'client' ? named.id : tunnel.sockets.indexOf(named.socket);
}
