/** A command line taken apart. */
import { deepEqual, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseArguments } from './options.ts';
import { UsageFailure } from './report.ts';

const split = (line: string): readonly string[] => line.split(' ').filter((word) => word !== '');

describe('the options of a command line', () => {
  const rows: readonly (readonly [string, object])[] = [
    ['--mtu 1400', { mtu: ['1400'] }],
    ['--mtu=1400', { mtu: ['1400'] }],
    ['-v', { verbose: [''] }],
    ['-vv -v', { verbose: ['', '', ''] }],
    ['-q', { quiet: [''] }],
    ['-D rtt', { 'debug-token': ['rtt'] }],
    ['-vqDrtt -D net', { verbose: [''], quiet: [''], 'debug-token': ['rtt', 'net'] }],
    ['-u nobody -nhome', { user: ['nobody'], name: ['home'] }],
    ['-V', { version: [''] }],
  ];
  for (const [line, expected] of rows) {
    it(`are understood: ${line}`, () => {
      const { words, options } = parseArguments(split(`server ${line} key`));
      deepEqual(words, ['server', 'key']);
      deepEqual(Object.fromEntries(options), expected);
    });
  }

  const wrong: readonly (readonly [string, string])[] = [
    ['-vx', 'unknown option "-vx"; see vpn --help'],
    ['-v=1', 'unknown option "-v=1"; see vpn --help'],
    ['-vD', 'option -D: value missing; write -D TOKEN'],
    ['-D --debug', 'option -D: value missing; write -D TOKEN'],
    ['-na -nb', 'option -n: given twice; give it once'],
  ];
  for (const [line, message] of wrong) {
    it(`are refused: ${line}`, () => {
      throws(() => parseArguments(split(line)), { constructor: UsageFailure, message });
    });
  }
});
