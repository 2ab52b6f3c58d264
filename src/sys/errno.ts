/** errno numbers to names, and the error that a failed system call throws. */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import koffi from 'koffi';
import { type Errno, OverlayError } from '../errors.js';

export const { EPROTO, EOPNOTSUPP, ENOPROTOOPT } = constants.errno;
export const { EAGAIN, EINTR, EIO, EINVAL, ENOBUFS, ECONNREFUSED, EMSGSIZE, EPERM, EACCES } = constants.errno;
export const { ENETUNREACH, EHOSTUNREACH, ENETDOWN, EEXIST, ENOENT, EBUSY, ENOMEM, EADDRINUSE, ENODEV } =
  constants.errno;
/** Not in Node's list. */
export const ENOTSUP = 95;
export const EDESTADDRREQ = 89;
export const EHOSTDOWN = 112;
export const ENONET = 64;

const names = new Map<number, Errno>(Object.entries(constants.errno).map(([name, number]) => [number, name]));
names.set(ENOTSUP, 'ENOTSUP');
names.set(77, 'EBADFD');
names.set(EAGAIN, 'EAGAIN');
const texts = getSystemErrorMap();

/** Name of an errno number, `E123` for one that has none here. */
export function errnoName(errno: number): Errno {
  return names.get(errno) ?? `E${errno}`;
}

/** The system's own words for an errno number. */
export function errnoText(errno: number): string {
  return texts.get(-errno)?.[1] ?? `error ${errno}`;
}

/** errno of the FFI call this thread made last; read it before anything else is called. */
export const lastErrno: () => number = koffi.errno as () => number;

/** A system call failed. Callers that know what it was for put a better sentence around it. */
export class SystemError extends OverlayError {
  override readonly name: string = 'SystemError';
  constructor(
    readonly number: number,
    readonly what: string,
  ) {
    super(errnoName(number), 'system_call_failed', `${what}: ${errnoText(number)} (${errnoName(number)})`);
  }
}

/** Passes a system call's result on, or throws `SystemError` when it is negative. */
export function must(result: number, what: string): number {
  if (result < 0) throw new SystemError(lastErrno(), what);
  return result;
}
