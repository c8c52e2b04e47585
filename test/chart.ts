/** A bar chart as SVG: one group per row of a table, one bar per direction. */

export interface Bars {
  readonly label: string;
  readonly values: readonly number[];
}

const WIDTH = 720;
const LABEL_WIDTH = 190;
const BAR_HEIGHT = 16;
const GROUP_GAP = 14;
const TOP = 56;
const COLOURS = ['#2563a8', '#79a9d8'];

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

export function barChart(
  title: string,
  series: readonly string[],
  rows: readonly Bars[],
  unit: string,
): string {
  const largest = Math.max(...rows.flatMap(({ values }) => values));
  const scale = (WIDTH - LABEL_WIDTH - 110) / largest;
  const groupHeight = series.length * BAR_HEIGHT + GROUP_GAP;
  const height = TOP + rows.length * groupHeight + 8;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text x="12" y="22" font-size="15" font-weight="600" fill="#222">${escape(title)}</text>`,
    ...series.map(
      (name, i) =>
        `<rect x="${12 + i * 150}" y="32" width="12" height="12" fill="${COLOURS[i]}"/>` +
        `<text x="${30 + i * 150}" y="43" fill="#444">${escape(name)}</text>`,
    ),
  ];
  rows.forEach(({ label, values }, row) => {
    const top = TOP + row * groupHeight;
    const middle = top + (series.length * BAR_HEIGHT) / 2 + 5;
    parts.push(
      `<text x="${LABEL_WIDTH - 8}" y="${middle}" text-anchor="end" fill="#222">${escape(label)}</text>`,
    );
    values.forEach((value, i) => {
      const y = top + i * BAR_HEIGHT;
      const width = Math.max(1, value * scale);
      parts.push(
        `<rect x="${LABEL_WIDTH}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT - 2}" fill="${COLOURS[i]}"/>`,
        `<text x="${(LABEL_WIDTH + width + 6).toFixed(1)}" y="${y + 12}" fill="#444">${value.toFixed(2)} ${escape(unit)}</text>`,
      );
    });
  });
  return `${parts.join('\n')}\n</svg>\n`;
}
