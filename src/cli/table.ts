/** dladm's tables: columns to read, or `-p` lines to parse. */
import { OverlayError } from '../errors.js';

export interface Column<Row> {
  readonly name: string;
  readonly width: number;
  readonly value: (row: Row) => string;
}

/**
 * The columns `-o` asks for, in its order; all of them for `all` or when it is not given. Throws EINVAL naming the
 * columns there are.
 */
export function chooseColumns<Row>(
  columns: readonly Column<Row>[],
  wanted: string | undefined,
): Column<Row>[] {
  if (wanted === undefined || wanted === 'all') return [...columns];
  return wanted.split(',').map((name) => {
    const column = columns.find((candidate) => candidate.name === name.trim().toUpperCase());
    if (column) return column;
    const names = columns.map((each) => each.name.toLowerCase()).join(', ');
    throw new OverlayError('EINVAL', 'no_such_column', `there is no column '${name}'; there are: ${names}`);
  });
}

/** Header and rows, padded; a column grows with what is in it. */
export function formatTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  const cells = rows.map((row) => columns.map((column) => column.value(row)));
  const lines = [columns.map(({ name }) => name), ...cells];
  const widths = columns.map(({ width }, index) =>
    Math.max(width - 1, ...lines.map((line) => line[index]!.length)),
  );
  return lines.map((line) =>
    line
      .map((cell, index) => cell.padEnd(widths[index]!))
      .join(' ')
      .trimEnd(),
  );
}

/**
 * One line a row, fields divided by ':', with ':' and '\' inside a field escaped by '\'. A single field is printed as
 * it is, since there is nothing to divide.
 */
export function formatParsable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  const escaped =
    columns.length > 1 ? (text: string) => text.replace(/[\\:]/g, '\\$&') : (text: string) => text;
  return rows.map((row) => columns.map((column) => escaped(column.value(row))).join(':'));
}
