/** The links of this end: what each is bound to, and how its socket is opened. */
import type { Config } from './config.ts';
import type { LinkBinding } from './daemon/status.ts';
import { Listeners } from './listeners.ts';
import type { Native } from './native.ts';
import { interfaceState, observeInterfaces, openLinkSocket } from './runtime.ts';
import type { HostSetup } from './setup.ts';
import { Uplinks } from './uplinks.ts';

/** The links of this end, and how their sockets are opened. */
export function waysOf(native: Native, config: Config, setup: HostSetup): Uplinks | Listeners {
  const { offload } = config;
  if (config.role === 'server') {
    return new Listeners(config.listen, (listen) =>
      openLinkSocket(native, { ...listen, device: '', mark: 0, offload }),
    );
  }
  return new Uplinks(config.links, {
    setup,
    observe: observeInterfaces,
    stateOf: interfaceState,
    openSocket: (bound) => openLinkSocket(native, { ...bound, offload }),
  });
}

export function bindingOf(ways: Uplinks | Listeners, place: number): LinkBinding {
  if (ways instanceof Listeners) {
    const { address = '', port = 0 } = ways.configs.at(place) ?? {};
    return { device: '', address, port };
  }
  const { device = '', address = '', localPort: port = 0 } = ways.configs.at(place) ?? {};
  return { device, address, port };
}
