/** A host without a host: keeps state as a real one does, and refuses what a real one refuses. */
import { fstatSync } from 'node:fs';
import type { HostFiles } from '../src/hostfiles.ts';
import type { InOut, Outcome, Runner } from '../src/rules.ts';
import { NamesStandIn } from './standins/names.ts';

const SYSCTLS: readonly (readonly [string, string])[] = [
  ['net/ipv4/ip_forward', '0'],
  ['net/ipv4/conf/all/forwarding', '0'],
  ['net/ipv4/conf/eth0/forwarding', '0'],
  ['net/ipv4/conf/docker0/forwarding', '1'],
  ['net/ipv4/conf/all/accept_redirects', '0'],
  ['net/ipv4/conf/all/src_valid_mark', '0'],
  ['net/ipv4/conf/all/rp_filter', '0'],
  ['net/ipv4/conf/eth0/rp_filter', '1'],
  ['net/ipv6/conf/all/disable_ipv6', '0'],
  ['net/ipv6/conf/default/disable_ipv6', '0'],
  ['net/ipv6/conf/all/forwarding', '0'],
  ['net/ipv6/conf/eth0/forwarding', '0'],
  ['net/ipv6/conf/eth0/accept_ra', '1'],
  ['net/ipv4/conf/eth0/proxy_arp', '0'],
  ['net/ipv6/conf/eth0/proxy_ndp', '0'],
];
const PROBES: readonly (readonly [RegExp, string])[] = [
  [/address show/, '[{"ifname":"eth0","addr_info":[{"local":"203.0.113.2"}]}]'],
  [
    /-4 route show/,
    '[{"dst":"default","gateway":"203.0.113.1","dev":"eth0"},{"dst":"203.0.113.0/24","dev":"eth0"}]',
  ],
  [/-6 route show/, '[{"dst":"default","gateway":"fe80::1","dev":"eth0","protocol":"9"}]'],
  [
    /nft -y list chains/,
    'table inet firewalld {\n\tchain filter_FORWARD {\n\t\ttype filter hook forward priority 10; policy accept;\n\t}\n}\n',
  ],
  [/route get/, '203.0.113.9 dev eth0 src 203.0.113.2 uid 0'],
  [/rule show/, '[{"priority":32766,"table":"254"}]'],
];

/** Remembers firewall lines, rules and routes, and fails at the n-th command that changes something. */
export class PretendedHost implements Runner {
  readonly sysctls = new Map(SYSCTLS);
  readonly entries = new Set<string>();
  names = new NamesStandIn('nobody');
  readonly ran: string[] = [];
  handle = 0;
  failAt = 0;
  failWith: Partial<Outcome> = { status: 2, reason: 'exited with 2: no luck', refused: true };
  absent = /never/;
  /** To probes, before the usual ones. */
  answers: readonly (readonly [RegExp, string])[] = [];
  onChange: (line: string) => void = () => undefined;

  state(): readonly string[] {
    const sysctls = [...this.sysctls].map((pair) => pair.join('='));
    const lasting = [...this.entries].filter((entry) => !/^route \d main ip.* route /.test(entry));
    return [...lasting.sort(), ...sysctls, ...this.names.state()];
  }

  runSync(argv: readonly string[], { input = '' }: InOut = {}): Outcome {
    const line = argv.join(' ');
    const answer = (status: number, stdout: string, stderr: string): Outcome => ({
      status,
      stdout,
      stderr,
      reason: `exited with ${status}: ${stderr}`,
      refused: status !== 0,
    });
    if (this.absent.test(line)) return { ...answer(-1, '', ''), reason: 'was not found' };
    if (/ show| -S | -V|nft -[cy] |route get|^resolv\w+ (status|--version)/.test(line)) {
      if (/^resolv/.test(line)) {
        const said = this.names.run(argv, input);
        return said === undefined
          ? { ...answer(-1, '', ''), reason: 'was not found' }
          : answer(...said);
      }
      return answer(
        0,
        [...this.answers, ...PROBES].find(([pattern]) => pattern.test(line))?.[1] ?? '',
        '',
      );
    }
    // Looked at to undo what stands there, so it counts.
    this.ran.push(line);
    this.onChange(line);
    if (this.ran.length === this.failAt) return { ...answer(2, '', 'no luck'), ...this.failWith };
    if (line.startsWith('nft ')) return answer(...this.nft(line));
    if (/^resolv/.test(line)) return answer(...(this.names.run(argv, input) ?? [127, '', '']));
    if (/tables .* -[NXFA] /.test(line)) return answer(...this.chain(line));
    const [, verb] = / (-I|-D|add|del|replace|flush) /.exec(line) ?? [];
    const family = line.includes(' -6 ') ? 6 : 4;
    const key =
      /preference (\d+( fwmark \S+\/\S+)?)/.exec(line)?.[1] ?? line.replace(/ (-I|-D) /, ' ');
    const table = /table (\d{4,})/.exec(line)?.[1];
    const entry = line.includes('tables -w')
      ? key
      : line.includes(' rule ')
        ? `rule ${family} ${key}`
        : `route ${family} ${table ?? 'main'} ${line.replace(/ (add|del|replace) /, ' ')}`;
    if (verb === 'flush') {
      const isInTable = (one: string): boolean => one.startsWith(`route ${family} ${table} `);
      const doomed = [...this.entries].filter(isInTable);
      if (doomed.length === 0) return answer(2, '', 'Error: FIB table does not exist.');
      const only = /type unreachable|dev \S+/.exec(line)?.[0].replace('type ', '');
      for (const one of doomed) {
        if (only === undefined || one.includes(only)) this.entries.delete(one);
      }
    } else if (verb === '-D' || verb === 'del') {
      if (!this.entries.delete(entry)) return answer(2, '', 'No such file or directory');
    } else if (/tables -w|rule|table|neigh/.test(line) || /^ip (-6 )?route add/.test(line)) {
      // Nobody takes a tun device away here, nor with it the routes of table main.
      const isNew = verb === 'add' && !entry.includes(' main ');
      if (this.entries.has(entry) && isNew) return answer(2, '', 'File exists');
      this.entries.add(entry);
    }
    return answer(0, '', '');
  }
  /** Chains of our own: made, filled, emptied and removed; one that something leads to is not removed. */
  chain(line: string): [number, string, string] {
    const [, program, verb, name] = /^(\w+ .*?) -([NXFA]) (\S+)/.exec(line) ?? [];
    const made = `${program} -N ${name}`;
    const lines = [...this.entries].filter((one) => one.startsWith(`${program} -A ${name} `));
    if (verb === 'N' && this.entries.has(made)) return [1, '', 'Chain already exists.'];
    if (verb === 'N') this.entries.add(made);
    else if (!this.entries.has(made)) return [1, '', 'No chain/target/match by that name.'];
    else if (verb === 'A') this.entries.add(line);
    else if (verb === 'F') for (const one of lines) this.entries.delete(one);
    else {
      const isUsed = [...this.entries].some(
        (one) => one.includes(`${program} `) && one.endsWith(` -j ${name}`),
      );
      if (isUsed || lines.length > 0) return [4, '', 'CHAIN_DEL failed (Device or resource busy)'];
      this.entries.delete(made);
    }
    return [0, '', ''];
  }
  /** Tables go with their chains and lines; lines of others are deleted one by one. */
  nft(line: string): [number, string, string] {
    const none: [number, string, string] = [1, '', 'Error: No such file or directory'];
    const [, table] = / ((?:ip6?|inet) vpn-\S+)/.exec(line) ?? [];
    const [, chain, statement] =
      / (?:rule|chain) (inet firewalld \w+|ip6? vpn-\d+ \w+) ?(.*)/.exec(line) ?? [];
    const isOwn = table !== undefined && !/ table /.test(line);
    if (isOwn && !this.entries.has(`nft ${table}`)) return none;
    if (line.startsWith('nft add table')) this.entries.add(`nft ${table}`);
    else if (line.startsWith('nft delete table')) {
      if (!this.entries.has(`nft ${table}`)) return none;
      for (const one of [...this.entries]) {
        if (one.startsWith(`nft ${table}`)) this.entries.delete(one);
      }
    } else if (line.startsWith('nft delete chain')) {
      const isIts = (one: string): boolean =>
        one.startsWith(`nft ${chain} `) || one.includes(` add chain ${chain} `);
      for (const one of [...this.entries].filter(isIts)) this.entries.delete(one);
    } else if (chain === undefined || line.startsWith('nft add chain')) {
      this.entries.add(`nft ${table} ${line}`);
    } else if (/^nft (insert|add) rule/.test(line)) {
      this.handle += 1;
      this.entries.add(`nft ${chain} ${statement} # handle ${this.handle}`);
    } else if (line.includes(' list chain ')) {
      const ours = [...this.entries].filter((one) => one.startsWith(`nft ${chain} `));
      return [0, ours.reverse().join('\n'), ''];
    } else if (line.startsWith('nft delete rule')) {
      const one = [...this.entries].find(
        (entry) => entry.startsWith(`nft ${chain} `) && entry.endsWith(`# ${statement}`),
      );
      if (one === undefined || !this.entries.delete(one)) return none;
    } else throw new Error(`what is ${line}?`);
    return [0, '', ''];
  }
  run(argv: readonly string[], io?: InOut): Promise<Outcome> {
    return Promise.resolve(this.runSync(argv, io));
  }
  get files(): HostFiles {
    return this.names.asFiles((path) => {
      this.ran.push(`tee ${path}`);
      this.onChange(`tee ${path}`);
      if (this.ran.length === this.failAt) throw new Error('EROFS: read-only file system, write');
    });
  }
  readSysctl(name: string): string | undefined {
    return this.sysctls.get(name);
  }
  writeSysctl(name: string, value: string): void {
    this.ran.push(`${name}=${value}`);
    this.onChange(`${name}=${value}`);
    if (this.ran.length === this.failAt) throw new Error('EROFS: read-only file system, write');
    // What Linux does along with it (devinet_sysctl_forward, addrconf_fixup_forwarding).
    const all = /^(net\/ipv[46])\/(ip_forward|conf\/all\/forwarding)$/.exec(name)?.[1];
    for (const other of all === undefined ? [] : this.listSysctls(`${all}/conf/*/forwarding`)) {
      this.sysctls.set(other, value);
    }
    if (name === 'net/ipv4/ip_forward') {
      this.sysctls.set('net/ipv4/conf/all/accept_redirects', value === '1' ? '0' : '1');
    }
    this.sysctls.set(name, value);
  }
  listSysctls(pattern: string): readonly string[] {
    const [before = '', after = ''] = pattern.split('*');
    return [...this.sysctls.keys()].filter(
      (name) => name.startsWith(before) && name.endsWith(after),
    );
  }
}

/** flock(2) within one process. */
export function pretendedLocks(): { lockFile(fd: number): boolean; kill(path: string): void } {
  const holders = new Map<number, number>();
  return {
    lockFile(fd) {
      const { ino } = fstatSync(fd);
      const holder = holders.get(ino);
      if (holder !== undefined && holder !== fd) {
        try {
          if (fstatSync(holder).ino === ino) return false;
        } catch {
          // Closed, so unlocked.
        }
      }
      holders.set(ino, fd);
      return true;
    },
    kill: () => holders.clear(),
  };
}
