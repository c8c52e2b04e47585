/** What several things did over time, stacked, as lines of text. */

export interface Series {
  readonly name: string;
  /** One per column. */
  readonly values: readonly number[];
}

/** Something that happened at a column. */
export interface Mark {
  readonly column: number;
  readonly what: string;
}

/** By series, from the bottom of a column up: as different as text of one colour can be. */
const FILLS = ['█', '░', '▚'];
const LABEL_COLUMNS = 6;

/** `rows` lines of height for values from 0 to `most`, then an axis, the marks, and what is what. */
export function timeChart(
  series: readonly Series[],
  marks: readonly Mark[],
  { rows, most, unit }: { readonly rows: number; readonly most: number; readonly unit: string },
): string[] {
  const columns = Math.max(...series.map(({ values }) => values.length));
  const lines: string[] = [];
  for (let row = rows - 1; row >= 0; row--) {
    const label = String(Math.round((most * (row + 1)) / rows)).padStart(LABEL_COLUMNS - 2);
    let line = `${label} │`;
    for (let column = 0; column < columns; column++)
      line += fillAt(series, column, ((row + 0.5) / rows) * most);
    lines.push(line.trimEnd());
  }
  lines.push(`${unit.padStart(LABEL_COLUMNS - 2)} └${'─'.repeat(columns)}`);
  for (const { column, what } of marks)
    lines.push(`${' '.repeat(LABEL_COLUMNS + column)}↑ ${what}`);
  lines.push(
    `${' '.repeat(LABEL_COLUMNS)}${series.map(({ name }, i) => `${FILLS[i]} ${name}`).join('   ')}`,
  );
  return lines;
}

function fillAt(series: readonly Series[], column: number, height: number): string {
  let top = 0;
  for (const [i, { values }] of series.entries()) {
    top += values[column] ?? 0;
    if (top > height) return FILLS[i]!;
  }
  return ' ';
}
