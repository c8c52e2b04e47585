/** What the tables of a system are made of, and what they may refer to. doc/host.md explains them. */
import type { Facts } from '../facts.ts';
import type { Runner } from '../rules.ts';

/** Stands in `Row.down` for the last word of the first line that `Row.find` gives. */
export const FOUND = '{found}';

export interface Find {
  /** A command. */
  readonly list: string;
  /** What the line has in it that is ours. */
  readonly holding: string;
}

/** A line of what a command reads. */
export interface Line {
  /** As in `Row`. */
  readonly need?: string;
  /** `$NAME` as in `Row`: a line stands for one line for each value of its list variables. */
  readonly text: string;
}

/** One change to the host, and how it is taken back. */
export type Row =
  | {
      /** Facts (`Situation.needs`), all of which must hold, separated by spaces. */
      readonly need?: string;
      /**
       * Words split at spaces, `$NAME` replaced within each word, run without a shell. A list variable
       * makes one row for each of its values; `$NAME*` is a word for each in one row.
       */
      readonly up: string;
      /** Absent when the change disappears with the tun device or with a row above. */
      readonly down?: string;
      /** For a `down` (or `remove`) with `FOUND` in it, which is known only once the change is made. */
      readonly find?: Find;
      /** The same, where `up` says it: a regular expression with the word in parentheses. */
      readonly says?: string;
      /** What `up` reads from its standard input. */
      readonly input?: readonly Line[];
      /**
       * Made once, however often it is asked for; taken back and made again when `up` is another while
       * `down` is the same.
       */
      readonly once?: true;
      /**
       * Without `down`: takes it back while the instance goes on, where at its end it goes with something
       * else. `find` is for it, too.
       */
      readonly remove?: string;
      /** Stands when its instance has ended, until `vpn cleanup` or the next start takes it back. */
      readonly stays?: true;
    }
  | {
      readonly need?: string;
      /** Takes back what rows below do. */
      readonly down: string;
      readonly up?: never;
      readonly stays?: true;
      /** A living instance has another way (its tun device goes when it is closed). */
      readonly ifDead?: true;
    }
  | {
      readonly need?: string;
      /** Takes back now what a row above with this `down` did. */
      readonly revert: string;
    }
  | {
      readonly need?: string;
      /** Set while an instance runs; the value found before is put back. Path below /proc/sys. */
      readonly sysctl: string;
      readonly value: string;
      /** What the kernel changes along with it (`*`: any one name), put back as well. */
      readonly beside?: readonly string[];
      /** A host that refuses this one still works, maybe: one warning. */
      readonly optional?: true;
    }
  | {
      readonly need?: string;
      /** A file that holds these lines while an instance runs; what was there is put back, if they still are. */
      readonly file: string;
      readonly lines: readonly Line[];
    };

export interface Platform {
  /** For an error line: what is opened, and what to do where it is not there. */
  readonly tun: { readonly file: string; readonly remedy: string };
  /** The same of a tap device; undefined where the system has none. */
  readonly tap?: Platform['tun'];
  /** Whether such a device can take and give many packets at once. */
  readonly hasOffload: boolean;
  /** Commands that read facts; facts.ts parses them. A failing one counts as "not there". */
  readonly probes: Readonly<Partial<Record<ProbeName, string>>>;
  /** Probes that are asked only where another failed, in whose place they stand. */
  readonly instead: Readonly<Partial<Record<ProbeName, ProbeName>>>;
  /** With an address as its last word: fails where no route leads to it, else names the `dev`. */
  readonly routeTo?: string;
  readonly server: readonly Row[];
  readonly client: readonly Row[];
  /** Client, once a session is up. */
  readonly connected: readonly Row[];
  /** Client, then and after every new session: safe to repeat, never a moment without a route of ours. */
  readonly everySession: readonly Row[];
  /** Client, last, once: from here on packets take the routes. */
  readonly enter: readonly Row[];
  /** Client, from then on every few seconds: what others may have changed. Failures are ignored. */
  readonly refresh: readonly Row[];
  /**
   * Client, before `enter`, and again when the way changes: routes to $SERVER4 or $SERVER6, where link
   * sockets have no mark. `wayTo` is the way to one address: a gateway, or a device that leads
   * everywhere; undefined where the address is on a network of this host.
   */
  readonly reach?: readonly Row[];
  readonly wayTo?: (
    server: string,
    tun: string,
    output: ReadonlyMap<ProbeName, string>,
  ) => { readonly gateway: string; readonly device: string } | undefined;
  /**
   * Client, for each link that is bound, before its socket is opened; none where links cannot be. From then
   * on its packets, with $LINK_MARK, take $LINK_TABLE.
   */
  readonly link?: readonly Row[];
  /** The rule that leads them there, as part of it; made anew when another program's comes in front of it. */
  readonly linkRule?: readonly Row[];
  /**
   * Client, one route of a link's table, to $LINK_TO, as it comes and goes ("gone4", "gone6"): by
   * $LINK_VIA on $LINK_IF ("via4", "via6"), which need not be on a network there ("onlink4", "onlink6")
   * or is of IPv6 ("across4"); or on $LINK_IF itself ("direct4", "direct6"). Taken back by `link`.
   */
  readonly linkRoute?: readonly Row[];
  /**
   * Client, before anything else: what keeps everything but the tunnel's own packets in. Absent where there
   * is none yet; so with `names`.
   */
  readonly killSwitch?: readonly Row[];
  /** Asked only where a kill switch is wanted. */
  readonly switchProbes?: Readonly<Partial<Record<ProbeName, string>>>;
  /** Client, behind `enter`: the name servers $DNS. */
  readonly names?: readonly Row[];
  /**
   * Both roles, behind `server` or `client`: forwarding between the tunnel and the networks of this host,
   * where that is asked for. Absent where there is none yet.
   */
  readonly site?: readonly Row[];
  /** Behind `site`, for each interface that has neighbours to answer: $PROXY_IF, $PROXY4, $PROXY6. */
  readonly proxy?: readonly Row[];
  /** Facts from the output of the probes, where facts.ts does not know what they print. */
  readonly facts?: (
    output: ReadonlyMap<ProbeName, string>,
    reasons: ReadonlyMap<ProbeName, string>,
  ) => Partial<Facts>;
  /** A runner that knows how sysctls are read and written here, and when a command has failed. */
  readonly adapt?: (runner: Runner) => Runner;
  /** A sysctl that is another after each boot. */
  readonly bootId?: string;
  /** stderr of an undo whose change is gone already. */
  readonly absent: RegExp;
}

export const PROBES = [
  'addresses',
  'rules4',
  'rules6',
  'routes4',
  'routes6',
  'filter4',
  'filter6',
  'raw4',
  'raw6',
  'mangle4',
  'mangle6',
  'nat4',
  'nat6',
  'iptables',
  'chains',
  'nft-filter4',
  'nft-filter6',
  'nft-raw4',
  'nft-raw6',
  'nft-mangle4',
  'nft-mangle6',
  'nft-nat4',
  'nft-nat6',
  'nft-switch',
] as const;
export type ProbeName = (typeof PROBES)[number];

/** The variables of the tables that have one value. */
export const SCALARS = [
  'TUN',
  'MTU',
  'MARK',
  'MARKS',
  'TABLE',
  'TABLE_OUT',
  'PREF',
  'PREF_MAIN',
  'PREF_OUT',
  'TAG',
  'MSS',
  'SWITCH',
] as const;
/** Those with any number of values: a row stands for one row each, none for none. */
export const LISTS = [
  'LOCAL',
  'PEER',
  'LOCAL6',
  'PEER6',
  'ON_LINK4',
  'ON_LINK6',
  'NET4',
  'NET6',
  'EXT_IF',
  'EXT_VIA',
  'EXT4',
  'EXT6',
  'GATEWAY4',
  'GATEWAY6',
  'GATEWAY_IF',
  'RA_IF',
  'CHAIN4',
  'CHAIN6',
  'FOREIGN',
  'OUT_IF4',
  'OUT_IF6',
  'SERVER4',
  'SERVER6',
  'VIA',
  'VIA_IF',
  'LINK_MARK',
  'LINK_TABLE',
  'LINK_PREF',
  'LINK_TO',
  'LINK_VIA',
  'LINK_IF',
  'STRICT_IF',
  'FROM4',
  'FROM6',
  'TO4',
  'TO6',
  'ALLOW4',
  'ALLOW6',
  'PROXY_IF',
  'PROXY4',
  'PROXY6',
  'SWITCH_MARK',
  'SWITCH_RANGE',
  'DNS',
  'DNS_NAME',
] as const;

/** Replaced by esbuild: the tables of the other variant are then not in the bundle. */
export const pointToPoint = process.env.NO_DEFAULT_ROUTES === '1';
