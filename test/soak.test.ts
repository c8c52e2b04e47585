/** Forty seconds of `npm run soak` (soak.ts). VPN_TEST_LONG=1: five minutes. VPN_SEED: another course of events. */
import assert from 'node:assert/strict';
import { netTest } from './netns.ts';
import { soak, verdict } from './soak.ts';

const SECONDS = process.env['VPN_TEST_LONG'] === '1' ? 300 : 40;
const SEED = Number(process.env['VPN_SEED'] ?? 1);
const MOST_MS = (SECONDS + 200) * 1000;

netTest(
  `${SECONDS} s of links that lose, corrupt, duplicate, go and come: all arrives as it was sent`,
  ['mkfifo'],
  async (bed) => {
    const soaked = await soak(bed, SECONDS, SEED, () => {});
    assert.deepEqual(verdict(soaked, SECONDS), []);
  },
  MOST_MS,
);
