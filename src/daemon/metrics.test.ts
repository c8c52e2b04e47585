import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { LinkHistory } from './history.ts';
import { metrics } from './metrics.ts';
import { publish } from './status.ts';
import type { TunnelStatus } from './status.ts';

const MOMENTS = { nowMs: 1_000_000, startedMs: 400_000, reloadedMs: 400_000 };
/** The grammar of the text format 0.0.4, as strict as its documentation. */
const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|\})/;

interface Parsed {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

function expose(tunnel: TunnelStatus, about = ABOUT): string {
  const history = new LinkHistory();
  history.observe(tunnel, 0);
  return metrics(publish(tunnel, history, about, MOMENTS));
}

/** Reads an exposition as a server would; throws for what it would refuse. */
function parse(text: string): { samples: Parsed[]; types: Map<string, string> } {
  ok(text.endsWith('\n'));
  const types = new Map<string, string>();
  const samples: Parsed[] = [];
  let family = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line);
    if (comment !== null) {
      const [, kind, name, rest] = comment;
      if (kind === 'HELP') {
        // All lines of a family stand together.
        ok(!types.has(name), `${name} twice`);
        family = name;
      } else {
        equal(name, family);
        match(rest, /^(counter|gauge)$/);
        types.set(name, rest);
      }
      continue;
    }
    const name = NAME.exec(line)?.[0] ?? '';
    equal(name, family, line);
    let rest = line.slice(name.length);
    const labels: Record<string, string> = {};
    if (rest.startsWith('{')) {
      rest = rest.slice(1);
      for (let end = ''; end !== '}';) {
        const found = LABEL.exec(rest);
        ok(found !== null, line);
        labels[found[1]] = found[2];
        end = found[3];
        rest = rest.slice(found[0].length);
      }
    }
    match(rest, /^ -?[0-9.e+-]+$/, line);
    samples.push({ name, labels, value: Number(rest) });
  }
  return { samples, types };
}

describe('the metrics', () => {
  it('are valid, in base units, named after their type', () => {
    const { samples, types } = parse(expose(tunnelStatus()));
    for (const [name, type] of types) {
      match(name, /^vpn_/);
      equal(name.endsWith('_total'), type === 'counter', name);
      ok(!/_(ms|bits|percent|kbit|mbit)/.test(name), name);
    }
    const value = (name: string) => samples.find((sample) => sample.name === name)?.value;
    equal(value('vpn_link_rtt_seconds'), 0.0204);
    equal(value('vpn_link_capacity_bytes_per_second'), 1_250_000);
    equal(value('vpn_link_sent_bytes_total'), 140_000);
    equal(value('vpn_start_time_seconds'), 400);
    equal(value('vpn_connected'), 1);
    equal(
      new Set(samples.map((one) => JSON.stringify([one.name, one.labels]))).size,
      samples.length,
    );
  });

  it('say whether packets go in the clear', () => {
    for (const isCleartext of [false, true]) {
      const { samples } = parse(expose(tunnelStatus(), { ...ABOUT, isCleartext }));
      const found = samples.find(({ name }) => name === 'vpn_cleartext');
      equal(found?.value, isCleartext ? 1 : 0);
    }
  });

  it('say the state of a link as one of three', () => {
    const { samples } = parse(expose(tunnelStatus([linkStatus({ state: 'suspect' })])));
    const states = samples.filter(({ name }) => name === 'vpn_link_state');
    deepEqual(
      states.map(({ labels, value }) => [labels.state, value]),
      [
        ['up', 0],
        ['suspect', 1],
        ['down', 0],
      ],
    );
  });

  it('leave out what is not known', () => {
    const unknown = linkStatus({ rttMs: 0, capacity: 0 });
    const text = expose(tunnelStatus([unknown], { keyAgeMs: undefined }));
    ok(!/rtt|jitter|capacity|key_age/.test(text));
    parse(text);
  });

  it('escape what a name may have in it', () => {
    const name = 'a"b\\c\nd';
    const { samples } = parse(expose(tunnelStatus([linkStatus({ name })])));
    equal(samples.find((one) => one.name === 'vpn_link_mtu_bytes')?.labels.link, 'a\\"b\\\\c\\nd');
  });
});
