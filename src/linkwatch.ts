/**
 * Which links have something to be bound to: a pure state machine over what the system says of its
 * interfaces. Knows no socket and no route.
 */

/** One address of an interface that is up and running, as `os.networkInterfaces` has it. */
export interface InterfaceAddress {
  readonly address: string;
}

export interface Snapshot {
  /** Only interfaces that are up, with carrier, and have addresses. */
  readonly interfaces: Readonly<Record<string, readonly InterfaceAddress[] | undefined>>;
  /** A number that an interface made anew does not have again; '' if unknown. */
  readonly indexOf: (device: string) => string;
}

/** What a link is bound to; '' for not. */
export interface Bound {
  readonly device: string;
  readonly address: string;
}

export interface Changes {
  /** Links whose socket is of no more use. */
  readonly lost: readonly number[];
  /** Links without a socket that could have one. */
  readonly found: readonly number[];
}

/** Works without a router or DHCP, so it does not say that there is a network. */
const LINK_LOCAL = /^fe[89ab]/i;

interface State {
  bound: Bound;
  /** Not to be used now, whatever is there. */
  isHeld: boolean;
  /** What there is to be bound to: empty for nothing. */
  now: ReadonlySet<string>;
  /** The same when its socket was opened; undefined without one. */
  opened: ReadonlySet<string> | undefined;
}

export class LinkWatch {
  readonly #states: State[] = [];

  /** The next link. It counts as absent until `observe`. */
  add(bound: Bound): void {
    this.#states.push({ bound, isHeld: false, now: new Set(), opened: undefined });
  }

  /** Another in place of link `index`, whose socket is closed. It counts as absent until `observe`. */
  replace(index: number, bound: Bound): void {
    const state = this.#states[index];
    state.bound = bound;
    state.now = new Set();
    state.opened = undefined;
  }

  /** Whether link `index` counts as absent, from the next `observe` on. */
  hold(index: number, isHeld: boolean): void {
    this.#states[index].isHeld = isHeld;
  }

  isHeld(index: number): boolean {
    return this.#states[index].isHeld;
  }

  observe(snapshot: Snapshot): Changes {
    const lost: number[] = [];
    const found: number[] = [];
    this.#states.forEach((state, index) => {
      state.now = state.isHeld ? new Set() : basis(state.bound, snapshot);
      // What came in addition disturbs nobody.
      const isWhole = [...(state.opened ?? [])].every((one) => state.now.has(one));
      if (state.opened !== undefined && !isWhole) {
        state.opened = undefined;
        lost.push(index);
      }
      if (state.opened === undefined && state.now.size > 0) found.push(index);
    });
    return { lost, found };
  }

  /** As last observed. */
  isPresent(index: number): boolean {
    return this.#states[index].now.size > 0;
  }

  isOpen(index: number): boolean {
    return this.#states[index].opened !== undefined;
  }

  /** Its socket is open now. */
  opened(index: number): void {
    this.#states[index].opened = this.#states[index].now;
  }
}

/** What a socket of this link would stand on. When a part of it goes, a new socket is needed. */
function basis({ device, address }: Bound, { interfaces, indexOf }: Snapshot): ReadonlySet<string> {
  if (device === '' && address === '') return new Set(['any']);
  if (address !== '') {
    const isThere = Object.values(interfaces).some((held) =>
      held?.some((one) => one.address === address),
    );
    return new Set(isThere ? [address] : []);
  }
  const held = (interfaces[device] ?? []).filter((one) => !LINK_LOCAL.test(one.address));
  if (held.length === 0) return new Set();
  return new Set([`#${indexOf(device)}`, ...held.map((one) => one.address)]);
}
