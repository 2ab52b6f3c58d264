/** Errors that cross between threads: whatever was thrown becomes three short texts, and those an `OverlayError`. */
import { OverlayError } from '../../errors.js';
import { type Fault, TEXT_MAX } from './protocol.js';

/** A plugin said something that its interface does not allow. */
export function lied(what: string): OverlayError {
  return new OverlayError('EINVAL', 'plugin_lied', what);
}

/**
 * Never throws, whatever was thrown. A plugin may have its own copy of `OverlayError`, so that fields count and not the
 * class. Node's system errors have the POSIX name as `code`.
 */
export function faultOf(thrown: unknown): Fault {
  try {
    const { errno, code, message } = (typeof thrown === 'object' ? (thrown ?? {}) : {}) as Record<
      string,
      unknown
    >;
    const text = typeof message === 'string' && message !== '' ? message : `it threw ${String(thrown)}`;
    const isOurs = isErrno(errno) && typeof code === 'string' && /^[a-z][a-z0-9_]{0,62}$/.test(code);
    return {
      errno: isOurs ? errno : isErrno(code) ? code : 'EIO',
      code: isOurs ? code : 'lookup_failed',
      message: text.slice(0, TEXT_MAX),
    };
  } catch {
    return { errno: 'EIO', code: 'lookup_failed', message: 'it threw something that cannot be shown' };
  }
}

export function errorOf({ errno, code, message }: Fault): OverlayError {
  return new OverlayError(errno, code, message);
}

function isErrno(value: unknown): value is string {
  return typeof value === 'string' && /^E[A-Z0-9]{1,15}$/.test(value);
}
