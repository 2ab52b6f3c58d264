/** Exit codes of `overlayadm`. dladm knows 0 and 1; the others read as "failed" to whoever knows only those. */
import type { OverlayError } from '../errors.js';

export const USAGE = 2;

const codes: Readonly<Record<string, number>> = {
  ENOENT: 3,
  EEXIST: 4,
  EBUSY: 4,
  EPERM: 5,
  EACCES: 5,
  ECONNREFUSED: 6,
  ETIME: 7,
};

export function exitCodeOf(error: OverlayError): number {
  return codes[error.errno] ?? 1;
}
