/**
 * Stand-ins for ifconfig, route, netstat, sysctl, pfctl, npfctl and kld* of macOS and the BSDs: they keep
 * state and refuse what the real ones refuse. `program.ts` runs them as programs.
 */
import { TABLES } from './tables.ts';

export type SystemName = 'darwin' | 'openbsd' | 'freebsd' | 'netbsd' | 'dragonfly';

export interface Result {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Interface {
  readonly addresses: { readonly local: string; readonly peer: string }[];
  isUp: boolean;
  mtu: number;
}

interface Route {
  readonly gateway: string;
  readonly device: string;
  readonly flags: string;
}

export interface State {
  interfaces: Record<string, Interface>;
  /** `inet net 0.0.0.0/1`: the route. */
  routes: Record<string, Route>;
  sysctls: Record<string, string>;
  pf: {
    isLoaded: boolean;
    isEnabled: boolean;
    tokens: string[];
    nextToken: number;
    nat: string[];
    rules: string[];
    skipped: string[];
    timeouts: Record<string, string>;
    /** Persistent, referred to by rules. */
    tables: string[];
    anchors: Record<string, string[]>;
  };
  npf: { isActive: boolean; config: string[] };
}

const ok = (stdout = '', stderr = ''): Result => ({ status: 0, stdout, stderr });
const refuse = (stderr: string, status = 1): Result => ({
  status,
  stdout: '',
  stderr: `${stderr}\n`,
});

const DEFAULT_TIMEOUTS = { 'tcp.first': '120s', interval: '10s' };
const OUTER: Readonly<Record<SystemName, string>> = {
  darwin: 'en0',
  openbsd: 'em0',
  freebsd: 'em0',
  netbsd: 'wm0',
  dragonfly: 'em0',
};
/** Their route(8) ends with 0 whatever happened. */
const ROUTE_NEVER_FAILS: readonly SystemName[] = ['darwin', 'dragonfly'];
const HAS_MODULE: readonly SystemName[] = ['freebsd', 'dragonfly'];

/** A host with one network, an administrator's pf rules where it is usual, and IPv6. */
export function initialState(system: SystemName): State {
  const apple = system === 'darwin';
  const hasRules = system === 'openbsd';
  return {
    interfaces: {
      lo0: {
        addresses: [
          { local: '127.0.0.1', peer: '' },
          { local: '::1', peer: '' },
        ],
        isUp: true,
        mtu: 16384,
      },
      [OUTER[system]]: {
        addresses: [
          { local: 'fe80::5054:ff:fe12:3456', peer: '' },
          { local: '203.0.113.2', peer: '' },
          { local: '2001:db8::2', peer: '' },
        ],
        isUp: true,
        mtu: 1500,
      },
    },
    routes: {},
    sysctls: {
      'net.inet.ip.forwarding': '0',
      'net.inet6.ip6.forwarding': '0',
      'kern.boottime': '{ sec = 1700000000, usec = 0 }',
      'kern.boot_id': '7ee1',
      'kern.bootsessionuuid': 'A0B1',
    },
    pf: {
      isLoaded: !HAS_MODULE.includes(system),
      isEnabled: system === 'openbsd',
      tokens: [],
      nextToken: 18_446_744,
      nat: apple ? ['nat-anchor "com.apple/*" all', 'rdr-anchor "com.apple/*" all'] : [],
      rules: apple
        ? ['scrub-anchor "com.apple/*" all fragment reassemble', 'anchor "com.apple/*" all']
        : hasRules
          ? [
              'block return all',
              'pass all flags S/SA',
              'block drop in on ! lo0 proto tcp to port 6000',
            ]
          : [],
      skipped: hasRules ? ['lo', 'lo0'] : [],
      timeouts: hasRules ? { ...DEFAULT_TIMEOUTS, 'tcp.first': '60s' } : { ...DEFAULT_TIMEOUTS },
      tables: [],
      anchors: {},
    },
    npf: { isActive: false, config: [] },
  };
}

export class StandIn {
  readonly system: SystemName;
  state: State;

  constructor(system: SystemName, state: State = initialState(system)) {
    this.system = system;
    this.state = state;
  }

  /** What the addon does: a device without addresses. */
  createTun(name: string): void {
    this.state.interfaces[name] = { addresses: [], isUp: false, mtu: 1500 };
  }

  /** What the kernel does when a device goes: its addresses and routes go with it. */
  destroyTun(name: string): void {
    delete this.state.interfaces[name];
    for (const [key, route] of Object.entries(this.state.routes)) {
      if (route.device === name) delete this.state.routes[key];
    }
  }

  /** Whether a command would only look. */
  static isProbe(argv: readonly string[]): boolean {
    const [program = '', ...words] = argv;
    return (
      ['netstat', 'which', 'kldstat'].includes(program) ||
      (program === 'ifconfig' && words[0] === '-a') ||
      (program === 'sysctl' && words[0] === '-n') ||
      (program === 'pfctl' && words.includes('-s')) ||
      (program === 'npfctl' && words[0] === 'show')
    );
  }

  run(argv: readonly string[], input = ''): Result {
    const [program = '', ...words] = argv;
    const programs: Readonly<Record<string, (words: readonly string[]) => Result>> = {
      ifconfig: (rest) => this.#ifconfig(rest),
      route: (rest) => this.#route(rest),
      netstat: (rest) => this.#netstat(rest),
      sysctl: (rest) => this.#sysctl(rest),
      pfctl: (rest) => this.#pfctl(rest, input),
      ...(HAS_MODULE.includes(this.system)
        ? {
            kldload: () => this.#kld('load'),
            kldunload: () => this.#kld('unload'),
            kldstat: () => (this.state.pf.isLoaded ? ok() : refuse('', 1)),
            which: (rest: readonly string[]) => ok(`/sbin/${rest[0]}\n`),
          }
        : {}),
      ...(this.system === 'netbsd'
        ? {
            npfctl: (rest: readonly string[]) => this.#npfctl(rest, input),
            pfctl: () => refuse('pfctl: not found', 127),
          }
        : {}),
    };
    return programs[program]?.(words) ?? refuse(`${program}: not found`, 127);
  }

  #ifconfig(words: readonly string[]): Result {
    const { interfaces } = this.state;
    const [name = '', ...rest] = words;
    if (name === '-a') {
      const lines = Object.entries(interfaces).flatMap(([device, { addresses, mtu }]) => [
        `${device}: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu ${mtu}`,
        ...addresses.map(({ local, peer }) =>
          local.includes(':')
            ? `\tinet6 ${local}${local.startsWith('fe80') ? `%${device}` : ''} prefixlen 64`
            : `\tinet ${local}${peer === '' ? '' : ` --> ${peer}`} netmask 0xffffff00`,
        ),
      ]);
      return ok(`${lines.join('\n')}\n`);
    }
    const device = interfaces[name];
    if (device === undefined) return refuse(`ifconfig: interface ${name} does not exist`);
    if (rest[0] === 'destroy') {
      this.destroyTun(name);
      return ok();
    }
    const [family, local = '', peer = ''] = rest;
    if (family !== 'inet' && family !== 'inet6') return refuse(`ifconfig: ${family}: bad value`);
    if (Object.values(interfaces).some((one) => one.addresses.some((a) => a.local === local))) {
      return refuse('ifconfig: ioctl (SIOCAIFADDR): File exists');
    }
    device.addresses.push({ local, peer });
    const mtu = rest[rest.indexOf('mtu') + 1];
    if (rest.includes('mtu')) device.mtu = Number(mtu);
    // These systems bring a device up that gets an address.
    device.isUp = true;
    return ok();
  }

  #deviceTo(gateway: string): string | undefined {
    if (gateway === '::1') return 'lo0';
    if (/^(203\.0\.113\.|2001:db8::|fe80::1)/.test(gateway)) return OUTER[this.system];
    const isPeer = ([, { addresses, isUp }]: readonly [string, Interface]): boolean =>
      isUp && addresses.some(({ peer }) => peer === gateway);
    return Object.entries(this.state.interfaces).find(isPeer)?.[0];
  }

  #route(words: readonly string[]): Result {
    const { routes } = this.state;
    const [numeric, verb = '', family = '', kind = '', to = '', ...rest] = words;
    const isKnown =
      numeric === '-n' &&
      ['add', 'delete'].includes(verb) &&
      ['-inet', '-inet6'].includes(family) &&
      ['-net', '-host'].includes(kind);
    if (!isKnown || to === '') return refuse('usage: route [-dnqtv] command', 64);
    const key = `${family.slice(1)} ${kind.slice(1)} ${to}`;
    const fail = (why: string): Result => ({
      status: ROUTE_NEVER_FAILS.includes(this.system) ? 0 : 1,
      stdout: `${verb} ${kind.slice(1)} ${to}: ${why}\n`,
      stderr: `route: writing to routing socket: ${why}\n`,
    });
    if (verb === 'delete') {
      if (routes[key] === undefined) return fail('not in table');
      delete routes[key];
      return ok(`delete ${kind.slice(1)} ${to}\n`);
    }
    if (routes[key] !== undefined) return fail('File exists');
    const byDevice = rest.findIndex((word) => word === '-interface' || word === '-iface');
    const gateway = byDevice < 0 ? (rest[0] ?? '') : '';
    const device = byDevice < 0 ? this.#deviceTo(gateway) : rest[byDevice + 1];
    if (device === undefined) return fail('Network is unreachable');
    routes[key] = { gateway, device, flags: rest.includes('-reject') ? 'UGRS' : 'UGS' };
    return ok(`add ${kind.slice(1)} ${to}: gateway ${gateway}\n`);
  }

  #netstat(words: readonly string[]): Result {
    const table = TABLES[this.system];
    if (words[0] !== '-rn' || words[1] !== '-f') return refuse('usage: netstat');
    const isSix = words[2] === 'inet6';
    const lines = (isSix ? table.six : table.four).trimEnd().split('\n');
    const header = lines.find((line) => line.startsWith('Destination'))?.split(/\s+/) ?? [];
    const own = Object.entries(this.state.routes)
      .filter(([key]) => key.startsWith(isSix ? 'inet6 ' : 'inet '))
      .map(([key, route]) =>
        header
          .filter((column) => column !== 'Expire')
          .map((column) => {
            if (column === 'Destination')
              return (key.split(' ')[2] ?? '').replace('0.0.0.0/', '0/');
            if (column === 'Gateway') return route.gateway || 'link#1';
            if (column === 'Flags') return route.flags;
            return /Netif|Iface|Interface/.test(column) ? route.device : '-';
          })
          .join('  '),
      );
    return ok(`${[...lines, ...own].join('\n')}\n`);
  }

  #sysctl(words: readonly string[]): Result {
    const { sysctls } = this.state;
    const [flag, word = ''] = words;
    const [name = '', value] = word.split('=');
    if (sysctls[name] === undefined) return refuse(`sysctl: unknown oid '${name}'`);
    if (flag === '-n') return ok(`${sysctls[name]}\n`);
    if (flag !== '-w' || value === undefined) return refuse('usage: sysctl');
    sysctls[name] = value;
    return ok(`${name}: 0 -> ${value}\n`);
  }

  #kld(verb: 'load' | 'unload'): Result {
    const { pf } = this.state;
    if ((verb === 'load') === pf.isLoaded) {
      return refuse(`kld${verb}: can't ${verb} pf: No such file or directory`);
    }
    // What it had is gone with it.
    this.state.pf = { ...initialState(this.system).pf, isLoaded: verb === 'load' };
    return ok();
  }

  #pfctl(words: readonly string[], input: string): Result {
    const { pf } = this.state;
    const apple = this.system === 'darwin';
    const noise = apple ? 'No ALTQ support in kernel\nALTQ related functions disabled\n' : '';
    if (!pf.isLoaded) return refuse('pfctl: /dev/pf: No such file or directory');
    const options = words.filter((word) => word.startsWith('-') && word !== '-');
    const after = (option: string): string => words[words.indexOf(option) + 1] ?? '';
    const known = this.system === 'openbsd' ? /^-[defFasv]$/ : /^-[defFasvmONREX]$/;
    const unknown = options.find((one) => !known.test(one) || (/^-[EX]$/.test(one) && !apple));
    if (unknown !== undefined) return refuse(`pfctl: unknown option -- ${unknown.slice(1)}`);
    if (options.includes('-E')) {
      const token = String((pf.nextToken += 1));
      pf.tokens.push(token);
      pf.isEnabled = true;
      return ok('', `${noise}pf enabled\nToken : ${token}\n`);
    }
    if (options.includes('-X')) {
      const left = pf.tokens.filter((token) => token !== after('-X'));
      if (left.length === pf.tokens.length)
        return refuse(`${noise}pfctl: DIOCSTOPREF: No such process`);
      pf.tokens = left;
      pf.isEnabled = left.length > 0;
      return ok('', `${noise}${pf.isEnabled ? 'disable request successful' : 'pf disabled'}\n`);
    }
    if (options.includes('-e') || options.includes('-d')) {
      const wanted = options.includes('-e');
      if (pf.isEnabled === wanted)
        return refuse(wanted ? 'pfctl: pf already enabled' : 'pfctl: pf not enabled');
      pf.isEnabled = wanted;
      return ok('', wanted ? 'pf enabled\n' : 'pf disabled\n');
    }
    if (options.includes('-s')) return this.#show(after('-s'), noise);
    const anchor = options.includes('-a') ? after('-a') : '';
    if (options.includes('-F')) {
      if (anchor === '') return refuse('this would flush what is not ours');
      if (pf.anchors[anchor] === undefined) return refuse('pfctl: Anchor does not exist.');
      delete pf.anchors[anchor];
      return ok('', `${noise}rules cleared\n`);
    }
    if (!options.includes('-f') || after('-f') !== '-') return refuse('usage: pfctl');
    return this.#load(anchor, options, input, noise);
  }

  #show(what: string, noise: string): Result {
    const { pf } = this.state;
    const lines = (rules: readonly string[]): Result =>
      ok(rules.map((line) => `${line}\n`).join(''), noise);
    switch (what) {
      case 'rules':
        return lines(pf.rules);
      case 'nat':
        return this.system === 'openbsd'
          ? refuse("pfctl: Unknown show modifier 'nat'")
          : lines(pf.nat);
      case 'queue':
        return lines([]);
      case 'info':
        return lines([`Status: ${pf.isEnabled ? 'Enabled' : 'Disabled'} for 0 days 00:01:02`]);
      case 'timeouts':
        return lines(Object.entries(pf.timeouts).map(([name, value]) => name.padEnd(28) + value));
      case 'Interfaces':
        return lines([...pf.skipped.map((name) => `${name} (skip)`), OUTER[this.system]]);
      default:
        return refuse(`pfctl: Unknown show modifier '${what}'`);
    }
  }

  /** Rough grammar: what belongs to the other dialect, and what is out of order, is a syntax error. */
  #load(anchor: string, options: readonly string[], input: string, noise: string): Result {
    const { pf } = this.state;
    const isOpenbsd = this.system === 'openbsd';
    const lines = input.split('\n').filter((line) => line !== '');
    const kind = (line: string): number =>
      /^(table|set) /.test(line)
        ? 0
        : /^(no )?scrub/.test(line)
          ? 1
          : /^(no )?(nat|rdr|binat)(-anchor)? /.test(line)
            ? 2
            : /^(anchor|pass|block|match|load) /.test(line)
              ? 3
              : -1;
    let last = 0;
    for (const [index, line] of lines.entries()) {
      const at = kind(line);
      const isForeign = isOpenbsd
        ? at === 1 || at === 2
        : /nat-to|scrub \(|^match /.test(line) || at < last;
      if (at < 0 || isForeign || /[$<>]/.test(line.replace(/->|<\w+>/g, ''))) {
        return refuse(`${noise}stdin:${index + 1}: syntax error`);
      }
      last = Math.max(last, at);
    }
    const shown = (line: string): string =>
      /^(nat-|scrub-)?anchor "[^"]*"$/.test(line) ? `${line} all` : line;
    if (anchor !== '') {
      pf.anchors[anchor] = lines;
      return ok('', noise);
    }
    const isPartial = ['-m', '-O', '-N', '-R'].every((one) => options.includes(one));
    if (!isOpenbsd && !isPartial) return refuse('this would lose the tables of the main ruleset');
    pf.skipped = lines.flatMap((line) => /^set skip on (\S+)$/.exec(line)?.[1] ?? []);
    if (isOpenbsd) {
      pf.timeouts = { ...DEFAULT_TIMEOUTS };
      for (const line of lines) {
        const [, name, value] = /^set timeout (\S+) (\d+)$/.exec(line) ?? [];
        if (name !== undefined) pf.timeouts[name] = `${value}s`;
      }
    }
    pf.nat = lines.filter((line) => kind(line) === 2).map(shown);
    pf.rules = lines.filter((line) => kind(line) === 1 || kind(line) === 3).map(shown);
    return ok('', noise);
  }

  #npfctl(words: readonly string[], input: string): Result {
    const { npf } = this.state;
    switch (words[0]) {
      case 'show':
        return ok(
          `# filtering:\t${npf.isActive ? 'active' : 'inactive'}\n` +
            `# config:\t${npf.config.length > 0 ? 'loaded' : 'empty'}\n\n${npf.config.join('\n')}\n`,
        );
      case 'reload': {
        const lines = input.split('\n').filter((line) => line !== '');
        if (words[1] !== '/dev/stdin') return refuse(`npfctl: could not open '${words[1]}'`);
        if (!lines.some((line) => line.startsWith('group default'))) {
          return refuse('npfctl: default group was not defined');
        }
        npf.config = lines;
        return ok();
      }
      case 'flush':
        npf.config = [];
        return ok();
      case 'start':
      case 'stop':
        npf.isActive = words[0] === 'start';
        return ok();
      default:
        return refuse('usage: npfctl');
    }
  }
}
