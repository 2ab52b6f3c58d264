/** Pages of a list by name: a list of a thousand devices is neither built nor sent as a whole. */
import { z } from 'zod';
import { OverlayError } from '../errors.js';
import { CONTROL_PAGE_BYTES_MAX, CONTROL_PAGE_ROWS_MAX } from '../limits.js';

/** Which page is wanted: rows behind the name, which need not be there any more; the first without it. */
export const pageInput = {
  after: z.string().max(256).optional(),
  count: z
    .string()
    .regex(/^\d{1,9}$/, 'it is a whole number')
    .transform(Number)
    .optional(),
};

export interface PageWanted {
  readonly after?: string | undefined;
  readonly count?: number | undefined;
}

export interface Page<Row> {
  readonly rows: readonly (readonly [name: string, row: Row])[];
  /** `after` of the next page; null behind the last row. */
  readonly next: string | null;
}

/** Names in the order of pages, those of the wanted page first. Throws EINVAL for a count of 0, E2BIG for too many. */
export function namesAfter(names: readonly string[], { after, count }: PageWanted): string[] {
  if (count !== undefined && count < 1) {
    throw new OverlayError('EINVAL', 'bad_count', `a count is 1 to ${CONTROL_PAGE_ROWS_MAX}`);
  }
  if (count !== undefined && count > CONTROL_PAGE_ROWS_MAX) {
    throw new OverlayError('E2BIG', 'count_too_big', `a page has ${CONTROL_PAGE_ROWS_MAX} rows at most`);
  }
  return (after === undefined ? [...names] : names.filter((name) => name > after)).sort();
}

/** One page: rows in the order of their names, so many, and not more bytes of JSON than a page has. */
export function pageOf<Row>(
  names: readonly string[],
  wanted: PageWanted,
  rowOf: (name: string) => Row,
): Page<Row> {
  const left = namesAfter(names, wanted);
  const rows: (readonly [string, Row])[] = [];
  let bytes = 0;
  for (const name of left.slice(0, wanted.count ?? CONTROL_PAGE_ROWS_MAX)) {
    const row = rowOf(name);
    rows.push([name, row]);
    bytes += Buffer.byteLength(JSON.stringify(row));
    if (bytes >= CONTROL_PAGE_BYTES_MAX) break;
  }
  return { rows, next: rows.length < left.length ? (rows.at(-1)?.[0] ?? null) : null };
}
