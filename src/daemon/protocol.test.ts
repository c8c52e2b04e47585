import { deepEqual, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { UsageFailure } from '../report.ts';
import { parseLinkChange, parseRequest } from './protocol.ts';

describe('requests', () => {
  for (const [line, request] of [
    ['{"command":"status"}', { command: 'status' }],
    ['  {"command":"status"}\r', { command: 'status' }],
    ['{"command":"events"}', { command: 'events', follow: false }],
    ['{"command":"events","follow":true}', { command: 'events', follow: true }],
    ['{"command":"stop","else":1}', { command: 'stop' }],
    [
      '{"command":"link","name":"dsl","change":["backup","max=20mbit"]}',
      { command: 'link', name: 'dsl', change: { state: 'backup', maxRate: 2_500_000 } },
    ],
    ['status', { command: 'plain status' }],
    ['STATUS now', { command: 'plain status' }],
    ['quit', { command: 'quit' }],
  ] as const) {
    it(`understands ${line}`, () => deepEqual(parseRequest(line), request));
  }

  for (const line of [
    '',
    'STATS',
    '{',
    '{}',
    '{"command":7}',
    '{"command":"statuses"}',
    '{"command":"link","name":"dsl"}',
    '{"command":"link","change":["up"]}',
    '{"command":"link","name":"dsl","change":[]}',
    '{"command":"link","name":"dsl","change":"up"}',
  ]) {
    it(`refuses ${JSON.stringify(line)}`, () => {
      throws(() => parseRequest(line), UsageFailure);
    });
  }
});

describe('what a link can be', () => {
  it('is as in the words of the command', () => {
    deepEqual(parseLinkChange(['down']), { state: 'down' });
    deepEqual(parseLinkChange(['max=none']), { maxRate: 0 });
    deepEqual(parseLinkChange(['max=64kbit']), { maxRate: 8_000 });
  });

  for (const words of [
    [],
    ['sideways'],
    ['up', 'down'],
    ['max=1mbit', 'max=2mbit'],
    ['max='],
    ['max=fast'],
    ['max=63kbit'],
  ]) {
    it(`is not: ${words.join(' ')}`, () => throws(() => parseLinkChange(words), UsageFailure));
  }
});
