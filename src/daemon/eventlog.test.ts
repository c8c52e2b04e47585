import { deepEqual, equal } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EventLog, newsOf, newsOfLink } from './eventlog.ts';
import type { LoggedEvent } from './eventlog.ts';

describe('the log of events', () => {
  it('dates and numbers them, keeps the last 512, and goes on after a restart', () => {
    const log = new EventLog();
    for (let i = 0; i < 600; i++) log.add({ event: 'back', cause: String(i) }, i * 1_000);
    equal(log.all.length, 512);
    deepEqual(log.all[0], {
      number: 89,
      time: '1970-01-01T00:01:28.000Z',
      event: 'back',
      cause: '88',
    });
    const next = new EventLog(log.all);
    next.add({ event: 'started', cause: 'worker ended by SIGSEGV' }, 0);
    equal(next.all.at(-1)?.number, 601);
    equal(next.all.length, 512);
  });

  it('is the same as JSON, also after another event', () => {
    const log = new EventLog();
    deepEqual(JSON.parse(log.json), []);
    log.add({ event: 'silent', cause: 'a' }, 0);
    deepEqual(JSON.parse(log.json), log.all);
    log.add({ event: 'back', link: 'dsl', cause: 'b' }, 0);
    deepEqual(JSON.parse(log.json), log.all);
  });

  it('tells those who follow, until they stop', () => {
    const log = new EventLog();
    const heard: LoggedEvent[] = [];
    const stop = log.follow((event) => heard.push(event));
    log.add({ event: 'silent', cause: '' }, 0);
    stop();
    log.add({ event: 'back', cause: '' }, 0);
    deepEqual(
      heard.map(({ event }) => event),
      ['silent'],
    );
  });

  it('knows changes of state from what is none', () => {
    equal(newsOf({ kind: 'rekeyed', epoch: 2 }), undefined);
    deepEqual(newsOf({ kind: 'moved', link: 1, endpoint: '192.0.2.7:5' }), {
      event: 'moved',
      cause: 'the peer moved to 192.0.2.7:5',
    });
    const link = { kind: 'connected', endpoint: '192.0.2.7:5', cipher: 2, ipv6: true } as const;
    equal(newsOf({ ...link, again: false })?.cause, '192.0.2.7:5, ChaCha20-Poly1305');
    deepEqual(newsOfLink({ link: 'lte', from: 'up', to: 'suspect' }), {
      event: 'link-suspect',
      link: 'lte',
      cause: 'nothing that was sent arrived lately',
    });
  });
});
