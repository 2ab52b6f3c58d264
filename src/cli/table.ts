/** dladm's tables: columns to read, or `-p` lines to parse. */
import { OverlayError } from '../errors.js';

/** Where nothing is. */
export const unset = '--';

export interface Column<Row> {
  readonly name: string;
  readonly width: number;
  readonly value: (row: Row) => string;
}

/**
 * The columns `-o` asks for, in its order; all of them for `all`, the first `shown` when it is not given. Throws EINVAL
 * naming the columns there are.
 */
export function chooseColumns<Row>(
  columns: readonly Column<Row>[],
  wanted: string | undefined,
  shown = columns.length,
): Column<Row>[] {
  if (wanted === undefined) return columns.slice(0, shown);
  if (wanted === 'all') return [...columns];
  return wanted.split(',').map((name) => {
    const column = columns.find((candidate) => candidate.name === name.trim().toUpperCase());
    if (column) return column;
    const names = columns.map((each) => each.name.toLowerCase()).join(', ');
    throw new OverlayError('EINVAL', 'no_such_column', `there is no column '${name}'; there are: ${names}`);
  });
}

/** One line: what a plugin or a peer has put into a text neither begins a line nor moves a cursor. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ');
}

/** Header and rows, padded; a column grows with what is in it. */
export function formatTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  return new Table(columns).next(rows);
}

/** A table that is printed page by page: the first page, with the header on top, sets the widths of all. */
export class Table<Row> {
  #widths: number[] | undefined;

  constructor(readonly columns: readonly Column<Row>[]) {}

  /** Lines of more rows. */
  next(rows: readonly Row[]): string[] {
    const lines = rows.map((row) => this.columns.map((column) => oneLine(column.value(row)) || unset));
    if (!this.#widths) {
      lines.unshift(this.columns.map(({ name }) => name));
      this.#widths = this.columns.map(({ width }, index) =>
        lines.reduce((most, line) => Math.max(most, line[index]!.length), width - 1),
      );
    }
    const widths = this.#widths;
    return lines.map((line) =>
      line
        .map((cell, index) => cell.padEnd(widths[index]!))
        .join(' ')
        .trimEnd(),
    );
  }
}

/**
 * One line a row, fields divided by ':', with ':' and '\' inside a field escaped by '\'. A single field is printed as
 * it is, since there is nothing to divide. There is no header, and nothing stands for an empty field.
 */
export function formatParsable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  const escaped =
    columns.length > 1 ? (text: string) => text.replace(/[\\:]/g, '\\$&') : (text: string) => text;
  return rows.map((row) => columns.map((column) => escaped(oneLine(column.value(row)))).join(':'));
}
