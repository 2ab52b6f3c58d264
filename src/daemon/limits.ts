/** Limits of the process (man 2 getrlimit) without which the program cannot even be loaded, looked at before it is. */
import { readFileSync } from 'node:fs';
import { OverlayError } from '../errors.js';

/** Files that loading the program takes at a time, and those of the daemon without any device. */
const DESCRIPTORS_LEAST = 128;
const GIB = 2 ** 30;
/** The engine reserves 10 GiB for guard regions around the one memory; it and the program take the rest. */
const ADDRESS_BYTES_BASE = 12 * GIB;
/** Of each thread with an engine of its own: 0.58 GiB are measured. */
const ADDRESS_BYTES_THREAD = 0.75 * GIB;

/** Each may be unknown, or without a limit. */
export interface Limits {
  /** RLIMIT_NOFILE: Node has raised the soft limit to the hard one. */
  readonly descriptorsMax: number | undefined;
  /** RLIMIT_AS, bytes. */
  readonly addressBytesMax: number | undefined;
}

/** Reads them from /proc (man 5 proc). */
export function readLimits(): Limits {
  const limits = readProc('/proc/self/limits');
  return {
    descriptorsMax: softLimit(limits, 'Max open files'),
    addressBytesMax: softLimit(limits, 'Max address space'),
  };
}

/**
 * Throws EMFILE or ENOMEM for a limit with which the start ends in the middle, or the engine by a trap. More threads need more
 * address space.
 */
export function checkLimits({ descriptorsMax, addressBytesMax }: Limits, threads = 1): void {
  if (descriptorsMax !== undefined && descriptorsMax < DESCRIPTORS_LEAST) {
    throw new OverlayError(
      'EMFILE',
      'limit_too_low',
      `at most ${descriptorsMax} files may be open, and overlayd needs ${DESCRIPTORS_LEAST} to start: raise the hard limit ` +
        '(LimitNOFILE= of systemd, ulimit -Hn)',
    );
  }
  const needed = ADDRESS_BYTES_BASE + threads * ADDRESS_BYTES_THREAD;
  if (addressBytesMax !== undefined && addressBytesMax < needed) {
    throw new OverlayError(
      'ENOMEM',
      'limit_too_low',
      `the address space (RLIMIT_AS) may be ${mebibytes(addressBytesMax)} MiB, and overlayd reserves up to ` +
        `${mebibytes(needed)} MiB of it, most of which is never used: set no such limit (LimitAS=infinity of systemd, ` +
        'ulimit -v unlimited), and limit memory by the control group',
    );
  }
}

export function mebibytes(bytes: number): number {
  return Math.floor(bytes / 2 ** 20);
}

/** Undefined for `unlimited` and when it is not shown. */
function softLimit(limits: string, name: string): number | undefined {
  const text = new RegExp(`^${name}\\s+(\\d+|unlimited)\\s`, 'm').exec(limits)?.[1];
  return text === undefined || text === 'unlimited' ? undefined : Number(text);
}

/** Text of a file there, or nothing. */
export function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Without /proc nothing is known, and whatever is missing shows when it is used.
    return '';
  }
}
