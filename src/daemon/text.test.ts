import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ABOUT, linkStatus, tunnelStatus } from '../../test/statussamples.ts';
import { LinkHistory } from './history.ts';
import { publish } from './status.ts';
import type { LinkStatus, Status } from './status.ts';
import {
  bytesText,
  durationText,
  msText,
  percentText,
  rateText,
  sparkline,
  stateText,
  statusText,
} from './text.ts';
import { frame, TopHistory } from './top.ts';

function status(links: readonly LinkStatus[]): Status {
  const history = new LinkHistory();
  const tunnel = tunnelStatus(links);
  history.observe(tunnel, 0);
  return publish(tunnel, history, ABOUT, { nowMs: 1e6, startedMs: 4e5, reloadedMs: 4e5 });
}

describe('numbers for people', () => {
  it('are rates of at most three digits', () => {
    deepEqual([0, 999, 1_000, 12_345, 99_940, 99_950, 999_499, 999_500, 5e9, null].map(rateText), [
      '0',
      '999',
      '1.0k',
      '12.3k',
      '99.9k',
      '100k',
      '999k',
      '1.0M',
      '5.0G',
      '-',
    ]);
  });

  it('are times in two units', () => {
    deepEqual([0, 59, 60, 3_599, 7_800, 90_000, 86_400].map(durationText), [
      '0s',
      '59s',
      '1m 0s',
      '59m 59s',
      '2h 10m',
      '1d 1h',
      '1d 0h',
    ]);
  });

  it('are bytes, shares and milliseconds', () => {
    deepEqual([0, 1_023, 1_024, 1_048_575, 2 ** 40].map(bytesText), [
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.0 MiB',
      '1.0 TiB',
    ]);
    deepEqual([0, 0.0002, 0.0123, 0.5, 1].map(percentText), [
      '0%',
      '0.02%',
      '1.23%',
      '50%',
      '100%',
    ]);
    deepEqual([0.3, 99.94, 99.95, 1_234.5, null].map(msText), [
      '0.3ms',
      '99.9ms',
      '100ms',
      '1235ms',
      '-',
    ]);
  });

  it('are bars, the last ones, with gaps where nothing is known', () => {
    equal(sparkline([0, 50, 100, 200], 4, 100), '▁▅██');
    equal(sparkline([1, 2, 3], 2, 3), '▆█');
    equal(sparkline([undefined, 3], 4, 3), '   █');
    equal(sparkline([0, 0], 2, 0), '▁▁');
  });
});

describe('vpn status', () => {
  it('is a head and a table with a line for each link', () => {
    const links = [
      linkStatus({}),
      linkStatus({
        id: 1,
        name: 'lte',
        isBackup: true,
        state: 'down',
        endpoint: '',
        rttMs: 0,
        mtu: 0,
      }),
    ];
    const lines = statusText(status(links)).split('\n');
    equal(lines[0], 'home: client on tun0, connected, running for 10m 0s');
    equal(lines[1], '  AES-256-GCM, keys 1m 1s old, MTU 1420, 192.168.192.1 to 192.168.192.254');
    deepEqual(
      lines.slice(4).map((line) => line.split(/ {2,}/)),
      [
        ['LINK', 'ENDPOINT', 'STATE', 'RTT', 'JITTER', 'LOSS', 'REPAIRED'].concat([
          ...['UP', 'DOWN', 'CAPACITY', 'SHARE', 'MTU'],
        ]),
        ['dsl', '192.0.2.1:443', 'up', '20.4ms', '1.2ms', '1.23%', '2'].concat([
          ...['0', '0', '10.0M', '0%', '1500'],
        ]),
        ['lte', '-', 'down (backup)', '-', '-', '1.23%', '2'].concat([
          ...['0', '0', '10.0M', '0%', '-'],
        ]),
        [''],
      ],
    );
  });

  it('says of a server without a session that it waits', () => {
    const text = (role: 'client' | 'server'): string =>
      stateText({ ...status([]), role, state: 'connecting' });
    equal(text('server'), 'server on tun0, waiting for the client, running for 10m 0s');
    equal(text('client'), 'client on tun0, connecting, running for 10m 0s');
  });

  it('says the same in two tables where one does not fit into the terminal', () => {
    const links = ['dsl', 'lte'].map((name, id) => linkStatus({ id, name }));
    const wide = statusText(status(links));
    const cells = (text: string): readonly string[] => (text.match(/\S+/g) ?? []).sort();
    const columns = Math.max(...wide.split('\n').map((line) => line.length));
    equal(statusText(status(links), columns), wide);
    const narrow = statusText(status(links), columns - 1);
    for (const line of narrow.split('\n')) ok(line.length <= 80, line);
    // The names stand in both.
    deepEqual(cells(narrow), cells(`${wide} LINK dsl lte`));
    match(narrow, /^LINK  STATE  ENDPOINT +MTU\ndsl   up     192\.0\.2\.1:443  1500$/m);
    match(narrow, /^LINK +RTT  JITTER .*\ndsl   20\.4ms   1\.2ms /m);
  });
});

describe('vpn top', () => {
  it('fits into every terminal, whatever there is to show', () => {
    const links = Array.from({ length: 40 }, (_, id) =>
      linkStatus({
        id,
        name: `a-very-long-name-of-a-link-${id}`,
        endpoint: '[2001:db8:1234:5678:9abc:def0:1234:5678]:44300',
      }),
    );
    for (const count of [0, 1, 2, 9, 40]) {
      const history = new TopHistory();
      const picture = status(links.slice(0, count));
      for (let i = 0; i < 300; i++) history.add(picture);
      for (const [columns, rows] of [
        [80, 24],
        [40, 10],
        [200, 60],
        [20, 3],
      ]) {
        const lines = frame(picture, history, columns, rows);
        ok(lines.length <= rows, `${count} links: ${lines.length} lines of ${rows}`);
        for (const line of lines) ok([...line].length <= columns, line);
      }
    }
  });

  it('has a head over its columns, and says since when a link is as it is', () => {
    const links = [
      linkStatus({ name: 'a-link-with-a-name' }),
      linkStatus({ id: 1, state: 'down' }),
    ];
    const history = new TopHistory();
    const picture = status(links);
    history.add(picture);
    const lines = frame(picture, history, 80, 24);
    const [head, first, , second, facts] = lines.slice(3);
    const at = head.indexOf('  UP', head.indexOf('SHARE')) + 2;
    const width = head.lastIndexOf('DOWN') - at - 2;
    match(head, /^LINK +UP +DOWN SHARE  UP +DOWN$/);
    match(first, /^a-link-with-a-name +0 +0 +0% +▁ +▁$/);
    // The newest bar is the last of its part.
    equal(first.indexOf('▁'), at + width - 1);
    equal(second.lastIndexOf('▁'), at + 2 * width + 1);
    match(
      facts,
      /^  down 0s  rtt 20\.4ms±1\.2ms  loss 1\.23%  can 10\.0M  192\.0\.2\.1:443  mtu 1500$/,
    );
    equal(lines.at(-1), `bars: the last ${width} s, full height 0bit/s; q ends`);
  });

  it('draws all links to one scale, and gaps where a link was not there', () => {
    const history = new TopHistory();
    const at = (rates: Readonly<Record<string, number>>): Status => {
      const base = status([linkStatus()]);
      const tunnels = Object.entries(rates).map(([name, up_bits_per_second]) => ({
        ...base.tunnels[0],
        name,
        up_bits_per_second,
        down_bits_per_second: 0,
      }));
      return { ...base, tunnels };
    };
    history.add(at({ a: 0 }));
    history.add(at({ a: 50, b: 100 }));
    history.add(at({ a: 25 }));
    equal(history.top(10), 100);
    deepEqual(history.up.get('a'), [0, 50, 25]);
    deepEqual(history.up.get('b'), [undefined, 100, undefined]);
    for (let i = 0; i < 300; i++) history.add(at({ a: 25 }));
    equal(history.up.get('b'), undefined);
    equal(history.up.get('a')?.length, 240);
    const lines = frame(at({ a: 25 }), history, 80, 24);
    ok(lines.some((line) => /^a .*█+/.test(line)));
  });
});
