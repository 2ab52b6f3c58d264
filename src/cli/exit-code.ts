/** Exit codes of `overlayadm`. dladm knows 0 and 1; the others read as "failed" to whoever knows only those. */
import type { OverlayError } from '../errors.js';

/** `status --check`, when anything is degraded: what a monitor takes for a failure. */
export const DEGRADED = 1;
export const USAGE = 2;

/** What each says, for `--help`. */
export const exitCodes: Readonly<Record<number, string>> = {
  0: 'done, or of status --check online',
  1: 'failed, or of status --check degraded',
  2: 'usage',
  3: 'not found',
  4: 'exists, or busy',
  5: 'not permitted',
  6: 'no daemon, or of events -f none any more',
  7: 'no answer, or not in time: it may have been done',
};

/** By errno. */
const failures: Readonly<Record<string, number>> = {
  ENOENT: 3,
  EEXIST: 4,
  EBUSY: 4,
  EPERM: 5,
  EACCES: 5,
  ETIME: 7,
};

/** By our own code: what makes them differs from others with the same errno. */
const special: Readonly<Record<string, number>> = {
  usage: USAGE,
  no_such_column: USAGE,
  daemon_unreachable: 6,
  daemon_gone: 6,
  no_answer: 7,
  daemon_busy: 4,
  too_many_connections: 4,
  too_many_requests: 4,
  too_many_readers: 4,
  answers_unread: 4,
};

export function exitCodeOf({ code, errno }: Pick<OverlayError, 'code' | 'errno'>): number {
  return special[code] ?? failures[errno] ?? 1;
}
