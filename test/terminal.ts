/** A picture of a terminal, for the README: lines of text as an SVG. */

const COLUMNS = 100;
const CHARACTER_PX = 7.25;
const LINE_PX = 16;
const MARGIN_PX = 16;

/** Longer lines are cut; a line that starts with "✓" or "#" after its indent stands out. */
export function terminalPicture(lines: readonly string[]): string {
  const width = Math.ceil(COLUMNS * CHARACTER_PX + 2 * MARGIN_PX);
  const height = lines.length * LINE_PX + 2 * MARGIN_PX;
  const rows = lines.map((line, i) => {
    const text = line.length > COLUMNS ? `${line.slice(0, COLUMNS - 1)}…` : line;
    const y = MARGIN_PX + (i + 0.75) * LINE_PX;
    return `<text x="${MARGIN_PX}" y="${y}" fill="${colour(line)}">${escape(text)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<rect width="100%" height="100%" rx="8" fill="#1b1f27"/>`,
    `<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12" xml:space="preserve">`,
    ...rows,
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

function colour(line: string): string {
  if (/^\s*✓/.test(line)) return '#8fd694';
  if (/^\s*[a-z]+#/.test(line)) return '#ffffff';
  if (/^\d\./.test(line)) return '#7fb4ff';
  return '#aab2c0';
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
