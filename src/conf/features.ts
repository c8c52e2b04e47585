/**
 * What a file may ask for and this version, or what else is in the file, makes impossible: refused, since a
 * tunnel without it is another one.
 */
import type { Problems } from './problem.ts';
import type { Settings } from './settings.ts';
import { widerNetwork } from './values.ts';

const NOT_YET = 'not supported by this version';

/** Adds an error, or a warning where the tunnel is the same without, for each. */
export function checkFeatures(settings: Settings, problems: Problems): void {
  const { general, links } = settings;
  checkKillSwitch(settings, problems);
  for (const [key, what] of [
    ['default_routes', 'routes and NAT'],
    ['proxy_arp', 'proxy ARP'],
    ['allow', 'the firewall'],
    ['kill_switch', 'the firewall'],
    ['dns', 'name servers'],
  ] as const) {
    const isWanted = general.flag(key) || general.list(key).length > 0;
    if (!isWanted || !general.has('statuscommand')) continue;
    const why = 'the addresses are those of the statuscommand';
    problems.error(general.lineOf(key), `key "${key}"`, why, `let the script set ${what} up`);
  }
  for (const { name, values } of links) {
    if (values.number('bindfib') === 0) continue;
    const line = values.lineOf('bindfib');
    problems.error(line, `key "bindfib" of [${name}]`, NOT_YET, 'write bindfib = 0');
  }
}

/** It keeps everything in the tunnel, so the tunnel has to take everything. */
function checkKillSwitch({ general }: Settings, problems: Problems): void {
  // Beside a script there is an error already.
  if (!general.flag('kill_switch') || general.has('statuscommand')) return;
  const refuse = (why: string, remedy: string): void =>
    problems.error(general.lineOf('kill_switch'), 'key "kill_switch"', why, remedy);
  if (!general.flag('default_routes')) {
    refuse('not everything goes through the tunnel', 'add default_routes = yes');
  }
  for (const key of ['ip4_routes', 'ip6_routes']) {
    if (general.list(key).length === 0) continue;
    refuse(`beside ${key} other traffic is to go past the tunnel`, 'take one of them out');
  }
  // Those of a tap come with its addresses and lead nothing past it.
  const networks = general.text('tuntap') === 'tap' ? [] : ['ip4', 'ip6'];
  for (const key of networks) {
    if (widerNetwork(general.text(key)) === undefined) continue;
    refuse(`beside the network of ${key} other traffic is to go past the tunnel`, `narrow ${key}`);
  }
}
