import { deepEqual, equal } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clientConfig } from './config.ts';
import { parseLinks } from './linkconfig.ts';
import type { InterfaceAddress } from './linkwatch.ts';
import { parseArguments } from './options.ts';
import { Uplinks } from './uplinks.ts';

/** A host whose interfaces come and go, and a tunnel that writes down what it is told. */
class World {
  interfaces: Record<string, readonly InterfaceAddress[]> = {};
  exits: readonly string[] = [];
  readonly told: string[] = [];
  /** Links that the host has room for. */
  most = 16;
  /** What a socket cannot be bound to. */
  refuses = 'nothing';
  /** Called while the host's routes are made to follow. */
  meanwhile: () => void = () => undefined;
  readonly uplinks: Uplinks;
  #count = 0;

  constructor(...texts: readonly string[]) {
    const links = parseLinks(texts, 443);
    this.#count = links.filter((link) => !link.isAuto).length;
    this.uplinks = new Uplinks(links, {
      setup: {
        addLink: () => (this.#count < this.most ? this.#count++ : undefined),
        followLinks: async () => {
          this.told.push('follow');
          await Promise.resolve();
          this.meanwhile();
          return this.exits;
        },
        linkMark: (index) => 100 + index,
        replaceLink: () => undefined,
      },
      observe: () => ({ interfaces: this.interfaces, indexOf: () => '1' }),
      stateOf: () => 'its interface is down',
      openSocket: ({ device, address, mark }) =>
        device + address === this.refuses ? undefined : mark,
    });
  }

  plug(device: string, ...addresses: readonly string[]): void {
    this.interfaces = { ...this.interfaces, [device]: addresses.map((address) => ({ address })) };
  }

  unplug(device: string): void {
    const { [device]: _, ...rest } = this.interfaces;
    this.interfaces = rest;
  }

  /** As run.ts does it. */
  async start(): Promise<void> {
    await this.uplinks.prepare();
    this.uplinks.configs.forEach((_, index) => this.open(index));
    this.told.length = 0;
    this.uplinks.attach({
      linkUp: (index) => this.open(index),
      dropLink: (index) => this.told.push(`drop ${index}`),
      removeLink: (index) => this.told.push(`remove ${index}`),
      settled: () => Promise.resolve(),
      linkDown: (index) => this.told.push(`down ${index}`),
      addLink: (settings) => {
        this.told.push(`add ${settings.name}`);
        this.open(this.uplinks.configs.length - 1);
        return this.uplinks.configs.length - 1;
      },
    });
  }

  private open(index: number): void {
    const handle = this.uplinks.open(index);
    this.told.push(handle === undefined ? `absent ${index}` : `open ${index}`);
  }

  /** What was told since the last time, once everything has settled. */
  async news(): Promise<readonly string[]> {
    for (let i = 0; i < 20; i++) await Promise.resolve();
    return this.told.splice(0);
  }
}

describe('the links of a client', () => {
  it('that is bound to nothing is open, and nobody follows anything', async () => {
    const world = new World();
    await world.uplinks.prepare();
    equal(world.uplinks.open(0), 100);
    world.uplinks.changed();
    await world.uplinks.follow();
    deepEqual(await world.news(), []);
  });

  it('are closed at once when their interface goes, and opened when routes lead there again', async () => {
    const world = new World('eth0', 'eth1');
    world.plug('eth0', '10.0.0.2');
    world.plug('eth1', '10.1.0.2');
    await world.start();
    world.unplug('eth1');
    world.uplinks.changed();
    deepEqual(world.told.splice(0, 1), ['down 1'], 'before anything else');
    deepEqual(await world.news(), ['follow']);
    world.plug('eth1', '10.1.0.2');
    world.uplinks.changed();
    deepEqual(await world.news(), ['follow', 'open 1']);
    world.plug('eth0', '10.0.0.9');
    world.uplinks.changed();
    deepEqual(await world.news(), ['down 0', 'follow', 'open 0']);
  });

  it('may be absent at the start', async () => {
    const world = new World('eth0', '10.1.0.2');
    world.plug('eth0', '10.0.0.2');
    await world.start();
    equal(world.uplinks.open(1), undefined);
    world.plug('eth1', '10.1.0.2');
    world.uplinks.changed();
    deepEqual(await world.news(), ['follow', 'open 1']);
  });

  it('are tried again when an address could not be bound to yet', async () => {
    const world = new World('2001:db8::2');
    world.refuses = '2001:db8::2';
    world.plug('eth0', '2001:db8::2');
    await world.start();
    world.uplinks.changed();
    deepEqual(await world.news(), ['follow', 'absent 0']);
    world.refuses = 'nothing';
    world.uplinks.changed();
    deepEqual(await world.news(), ['follow', 'open 0']);
    world.uplinks.changed();
    deepEqual(await world.news(), []);
  });

  it('that went while the routes were followed are not opened', async () => {
    const world = new World('eth0');
    await world.start();
    world.plug('eth0', '10.0.0.2');
    world.meanwhile = () => world.unplug('eth0');
    world.uplinks.changed();
    deepEqual(await world.news(), ['follow']);
  });

  it('are followed once more when something changed meanwhile, not once for each change', async () => {
    const world = new World('eth0');
    await world.start();
    for (let i = 0; i < 5; i++) void world.uplinks.follow();
    deepEqual(await world.news(), ['follow', 'follow']);
  });

  it('of "auto" are the interfaces with a default route, also those that come later', async () => {
    const world = new World('auto,backup', 'eth0', '10.7.0.2');
    world.plug('eth0', '10.0.0.2');
    world.plug('eth7', '10.7.0.2');
    world.plug('wwan0', '10.8.0.2');
    world.exits = ['eth0', 'eth7', 'wwan0'];
    await world.start();
    deepEqual(
      world.uplinks.configs.map(({ name, device, isBackup, isAuto }) => [
        name,
        device,
        isBackup,
        isAuto,
      ]),
      [
        ['eth0', 'eth0', false, false],
        ['10.7.0.2', '', false, false],
        ['wwan0', 'wwan0', true, false],
      ],
    );
    world.plug('usb0', '10.9.0.2');
    world.exits = [...world.exits, 'usb0'];
    await world.uplinks.follow();
    deepEqual(await world.news(), ['follow', 'add usb0', 'absent 3', 'follow', 'open 3']);
  });

  it('come, change and go as a configuration says', async () => {
    const config = (...links: readonly string[]) =>
      clientConfig(parseArguments(['k', 'h', ...links.flatMap((link) => ['--link', link])]));
    const world = new World('eth0', 'eth1');
    world.plug('eth0', '10.0.0.2');
    world.plug('eth1', '10.1.0.2');
    world.plug('eth2', '10.2.0.2');
    await world.start();
    const { uplinks } = world;
    equal(uplinks.add(config('eth2'), 0), 2);
    uplinks.replace(0, config('eth2,name=other'), 0);
    uplinks.remove(1);
    deepEqual(await world.news(), ['add eth2', 'absent 2', 'drop 0', 'down 1', 'remove 1']);
    await uplinks.settle();
    deepEqual((await world.news()).toSorted(), ['follow', 'open 0', 'open 2']);
    // A place that is free is taken again.
    equal(uplinks.add(config('eth1'), 0), 1);
    await uplinks.settle();
    deepEqual(await world.news(), ['follow', 'open 1']);
  });

  it('stay closed while they are held', async () => {
    const world = new World('eth0', 'eth1');
    world.plug('eth0', '10.0.0.2');
    world.plug('eth1', '10.1.0.2');
    await world.start();
    world.uplinks.hold(1, true);
    await world.uplinks.settle();
    world.uplinks.changed();
    deepEqual(await world.news(), ['down 1', 'follow']);
    world.uplinks.hold(1, false);
    await world.uplinks.settle();
    deepEqual(await world.news(), ['follow', 'open 1']);
  });

  it('of "auto" are no more than there are marks for', async () => {
    const world = new World('auto');
    world.most = 1;
    world.plug('eth0', '10.0.0.2');
    world.plug('eth1', '10.1.0.2');
    world.exits = ['eth0', 'eth1'];
    await world.start();
    await world.uplinks.follow();
    deepEqual(
      world.uplinks.configs.map(({ name }) => name),
      ['eth0'],
    );
  });
});
