/**
 * Two kinds of failure (see `src/overlay.ts`): what an operator, a peer or the system did is an `OverlayError`,
 * with the POSIX error name illumos would return, a stable code of ours and a sentence that says what to do.
 * A mistake of our own is an `assert`, and crashes loudly.
 */

/** POSIX error names that operations answer with. */
export type Errno =
  | 'EACCES'
  | 'EADDRINUSE'
  | 'EADDRNOTAVAIL'
  | 'EAGAIN'
  | 'EBUSY'
  | 'ECONNREFUSED'
  | 'EEXIST'
  | 'EINVAL'
  | 'EIO'
  | 'ENOENT'
  | 'ENODEV'
  | 'ENOMEM'
  | 'ENOSPC'
  | 'ENOTSUP'
  | 'ENXIO'
  | 'EPERM'
  | 'ETIME'
  | (string & {});

export class OverlayError extends Error {
  override readonly name: string = 'OverlayError';
  /**
   * @param errno POSIX name, for programs that know illumos
   * @param code stable snake_case name of ours, finer than errno
   * @param message a sentence naming the thing and the remedy
   * @param parts one line for each part at fault, for operations on several parts; `details` in JSON
   */
  constructor(
    readonly errno: Errno,
    readonly code: string,
    message: string,
    readonly parts: readonly string[] = [],
  ) {
    super(message);
  }

  /** The form in which the control API carries it. */
  toJSON(): { errno: string; code: string; message: string; details?: readonly string[] } {
    const { errno, code, message, parts } = this;
    return parts.length > 0 ? { errno, code, message, details: parts } : { errno, code, message };
  }
}

/** Crashes on a mistake of our own; never for what came from outside. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

export class AssertionError extends Error {
  override readonly name: string = 'AssertionError';
}
