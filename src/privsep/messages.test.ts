import { deepEqual, ok, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Random } from '../../test/random.ts';
import { wordOf } from './messages.ts';
import type { Word } from './messages.ts';

const LOGGED = { number: 1, time: '2026-01-01T00:00:00.000Z', event: 'started', cause: 'by hand' };

/** One of each, as a worker says it. */
const WORDS: readonly Word[] = [
  { word: 'running', httpPort: 1040 },
  { word: 'failed', line: 'cannot listen on "/x": permission denied; run as root' },
  {
    word: 'event',
    event: { kind: 'connected', endpoint: '[::1]:443', cipher: 1, ipv6: true, again: false },
  },
  { word: 'event', event: { kind: 'rekeyed', epoch: 3 } },
  { word: 'event', event: { kind: 'silent', forMs: 3000.5 } },
  { word: 'event', event: { kind: 'back' } },
  { word: 'event', event: { kind: 'busy' } },
  { word: 'event', event: { kind: 'version', peer: 2 } },
  { word: 'event', event: { kind: 'refused', why: 'modes-differ' } },
  { word: 'event', event: { kind: 'closed' } },
  { word: 'event', event: { kind: 'unresolved' } },
  { word: 'event', event: { kind: 'moved', link: 254, endpoint: '192.0.2.1:443' } },
  { word: 'event', event: { kind: 'tun-mtu', mtu: 1420 } },
  { word: 'event', event: { kind: 'tun-lost', errno: -77 } },
  { word: 'logged', event: LOGGED },
  { word: 'logged', event: { ...LOGGED, link: 'dsl' } },
  { word: 'mtu', mtu: 1280 },
  { word: 'names', id: 5, index: 1 },
  {
    word: 'hooks',
    calls: [
      { event: 'rtun_up', link: 'dsl' },
      { event: 'tuntap_up', link: '' },
    ],
  },
  { word: 'request', id: 6, request: { request: 'reload' } },
  { word: 'request', id: 7, request: { request: 'hold', index: 2, isHeld: true } },
  { word: 'reopen' },
  { word: 'settled', id: 8 },
  { word: 'hang-up' },
  { word: 'stop' },
  { word: 'ended' },
];

describe('the words of a worker', () => {
  for (const word of WORDS) {
    it(`are taken as they are: ${JSON.stringify(word)}`, () => {
      deepEqual(wordOf(JSON.parse(JSON.stringify(word))), word);
      // Whatever is said beyond is not handed on.
      deepEqual(wordOf({ ...word, extra: 1 }), word);
    });
  }

  const refused: readonly unknown[] = [
    ...[null, undefined, 1, 'stop', [], {}, { word: 'start' }, { word: 'constructor' }],
    ...[{ word: '__proto__' }, { word: 'toString' }, { word: ['stop', 1] }],
    { word: 'mtu', mtu: 68 },
    { word: 'mtu', mtu: '1280' },
    { word: 'mtu', mtu: Number.NaN },
    { word: 'names', id: 1, index: 1.5 },
    { word: 'names', id: 1, index: -1 },
    { word: 'failed', line: 'x\u001b[2J' },
    { word: 'failed', line: 'x'.repeat(2000) },
    { word: 'hooks', calls: [{ event: 'up', link: '' }] },
    { word: 'hooks', calls: [{ event: 'rtun_up', link: '$(reboot)' }] },
    { word: 'hooks', calls: [{ event: 'rtun_up', link: 'a\nb' }] },
    { word: 'hooks', calls: Array.from({ length: 65 }, () => ({ event: 'rtun_up', link: 'a' })) },
    { word: 'hooks', calls: { length: 1 } },
    { word: 'request', id: 1, request: { request: 'start' } },
    { word: 'event', event: { kind: 'refused', why: 'other' } },
    { word: 'event', event: { kind: 'later' } },
    { word: 'logged', event: { ...LOGGED, cause: 7 } },
  ];
  for (const message of refused) {
    it(`are not ${JSON.stringify(message)?.slice(0, 80)}`, () => {
      throws(() => wordOf(message), Error);
    });
  }

  it('are taken whole or not at all, whatever is put in their place', () => {
    const seed = 11;
    const random = new Random(seed);
    const next = (): number => random.next();
    const junk = [null, -1, 1e308, '', 'x', [], {}, true, '\u0000', Number.MAX_VALUE, ['a']];
    for (let i = 0; i < 20_000; i++) {
      const message = JSON.parse(JSON.stringify(WORDS[Math.floor(next() * WORDS.length)]));
      spoil(message, next, junk);
      let word: Word | undefined;
      try {
        word = wordOf(message);
      } catch (error) {
        ok(error instanceof Error, `seed ${seed}, ${i}`);
        continue;
      }
      // What is taken is one that a second look takes, too.
      deepEqual(wordOf(word), word, `seed ${seed}, ${i}`);
    }
  });
});

/** Puts junk in the place of one field somewhere. */
function spoil(
  fields: Record<string, unknown>,
  next: () => number,
  junk: readonly unknown[],
): void {
  const names = Object.keys(fields);
  const name = names[Math.floor(next() * names.length)];
  const inner = fields[name];
  if (typeof inner === 'object' && inner !== null && next() < 0.7) {
    spoil(inner as Record<string, unknown>, next, junk);
    return;
  }
  fields[name] = junk[Math.floor(next() * junk.length)];
}
