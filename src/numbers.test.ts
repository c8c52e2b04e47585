import { deepEqual, equal, ok, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../test/random.ts';
import { MOST_LINKS } from './constants.ts';
import { chooseNumbers, PREFERENCES } from './numbers.ts';
import type { Numbers, TakenNumbers } from './numbers.ts';

const FACTS = { tables: new Set<number>(), rules: [] };
const settings = (tun: string, mostLinks: number) => ({ tun, mark: 0, table: 0, mostLinks });

const takenBy = (numbers: Numbers): TakenNumbers => ({
  mark: numbers.mark,
  linkMarks: numbers.links.map((link) => link.mark),
  tables: [numbers.table, numbers.tableOut, ...numbers.links.map((link) => link.table)],
  preferences: [
    ...Array.from({ length: PREFERENCES }, (_, i) => numbers.preference + i),
    ...numbers.links.map((link) => link.preference),
  ],
});

/** Instances one after the other, until there is no room for another. */
function fill(sizes: (n: number) => number): readonly TakenNumbers[] {
  const instances: TakenNumbers[] = [];
  throws(() => {
    for (let n = 0; n < 1000; n++) {
      const tun = settings(`tun${n * 5}`, sizes(n));
      instances.push(takenBy(chooseNumbers(tun, FACTS, instances)));
    }
  }, /all of ours are in use/);
  return instances;
}

function assertDistinct(instances: readonly TakenNumbers[], what: string): void {
  const of = (pick: (instance: TakenNumbers) => readonly number[]): void => {
    const all = instances.flatMap(pick);
    equal(new Set(all).size, all.length, what);
  };
  of(({ mark, linkMarks = [] }) => [mark, ...linkMarks]);
  of(({ tables }) => tables);
  of(({ preferences }) => preferences);
  // One mask takes them all in.
  for (const { mark, linkMarks = [] } of instances)
    for (const one of [mark, ...linkMarks]) equal(one >>> 8, 0x10, what);
}

describe('the numbers of an instance', () => {
  it('are for seven with as many links as there may be, and for 256 without', () => {
    const many = fill(() => MOST_LINKS);
    equal(many.length, 7);
    assertDistinct(many, 'with links');
    const plain = fill(() => 0);
    equal(plain.length, 256);
    assertDistinct(plain, 'without links');
  });

  it('are their own whatever sizes there are', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      const instances = fill(() => random.below(MOST_LINKS + 1));
      assertDistinct(instances, `seed ${seed}`);
      ok(instances.length >= 4, `seed ${seed}: ${instances.length} instances`);
    }
  });

  it('are of neither rule nor table of the host', () => {
    const taken = chooseNumbers(settings('tun0', MOST_LINKS), FACTS, []);
    const tables = new Set([taken.links[3].table]);
    const again = chooseNumbers(settings('tun0', MOST_LINKS), { ...FACTS, tables }, []);
    ok(![again.table, again.tableOut].includes(taken.links[3].table));
    ok(again.links.every((link) => link.table !== taken.links[3].table));
    deepEqual(chooseNumbers(settings('tun0', MOST_LINKS), FACTS, []), taken);
  });
});
