import assert from 'node:assert/strict';
import { test } from 'node:test';
import { timeChart } from './timechart.ts';

test('columns are stacked, rounded to whole characters, and marked', () => {
  const series = [
    { name: 'one', values: [30, 20, 0, 4] },
    { name: 'two', values: [10, 0, 40, 0] },
  ];
  const marks = [{ column: 1, what: 'less' }];
  assert.deepEqual(timeChart(series, marks, { rows: 4, most: 40, unit: 'm' }), [
    '  40 │░ ░',
    '  30 │█ ░',
    '  20 │██░',
    '  10 │██░',
    '   m └────',
    '       ↑ less',
    '      █ one   ░ two',
  ]);
});
