/** What a file may ask for and this version cannot do: refused, since a tunnel without it is another one. */
import type { Problems } from './problem.ts';
import type { Settings } from './settings.ts';

const NOT_YET = 'not supported by this version';

/** Adds an error, or a warning where the tunnel is the same without, for each. */
export function checkFeatures({ general, links }: Settings, problems: Problems): void {
  const refuse = (key: string, what: string, remedy: string): void =>
    problems.error(general.lineOf(key), what, NOT_YET, remedy);
  if (general.text('tuntap') === 'tap') refuse('tuntap', 'tuntap "tap"', 'write tuntap = "tun"');
  if (general.text('log') === 'json') refuse('log', 'log "json"', 'write log = "text"');
  for (const key of ['cleartext_data', 'kill_switch', 'proxy_arp']) {
    if (general.flag(key)) refuse(key, `key "${key}"`, 'take it out');
  }
  for (const key of ['dns', 'allow']) {
    if (general.list(key).length > 0) refuse(key, `key "${key}"`, 'take it out');
  }
  if (general.flag('default_routes') && general.has('statuscommand')) {
    const line = general.lineOf('default_routes');
    const why = 'the addresses are those of the statuscommand';
    problems.error(line, 'key "default_routes"', why, 'let the script set routes and NAT up');
  }
  // Whoever comes from MLVPN has it, and nothing else depends on it.
  if (general.has('user')) {
    const why = 'no privilege separation in this version';
    problems.warn(general.lineOf('user'), 'key "user"', why, 'it is ignored');
  }
  for (const { name, values } of links) {
    if (values.number('bindfib') === 0) continue;
    const line = values.lineOf('bindfib');
    problems.error(line, `key "bindfib" of [${name}]`, NOT_YET, 'write bindfib = 0');
  }
}
