/** What goes wrong with files of the state directory, in words that say what to do. */
import { OverlayError } from '../errors.js';

const access = 'let the user that overlayd runs as read and write it';

/** What an operator does about an errno; others are told to look at the directory. */
const remedies: Readonly<Record<string, string>> = {
  ENOSPC: 'make room on its file system',
  EDQUOT: 'raise the quota of the user that overlayd runs as',
  EFBIG: 'raise the limit of the size of files that overlayd runs with',
  EROFS: 'mount its file system for writing',
  EACCES: access,
  EPERM: access,
  EIO: 'check its disk, and the kernel log for why',
  EMFILE: 'raise the limit of open files that overlayd runs with',
  ENFILE: "raise the system's limit of open files, fs.file-max",
};

/** What was being done with a file. */
export type Deed = 'read' | 'written' | 'removed';

/**
 * The OverlayError (code `state_failed`, errno as the system has it) for what a call of Node's fs threw. Throws on what
 * did not come from the system: that is a mistake of ours.
 */
export function stateFault(error: unknown, file: string, deed: Deed): OverlayError {
  if (error instanceof OverlayError) return error;
  if (!isSystemFault(error)) throw error;
  const { code, message } = error;
  const remedy = remedies[code] ?? 'look at the state directory, or give another with --state-dir';
  return new OverlayError(code, 'state_failed', `${file} cannot be ${deed}: ${remedy} (${wordsOf(message)})`);
}

/** The error of a file that a newer overlayd wrote, and that this one leaves alone. */
export function newerFault(file: string, version: number, known: number): OverlayError {
  return new OverlayError(
    'ENOTSUP',
    'state_newer',
    `${file} has format ${version}, and this overlayd knows none above ${known}: run the newer overlayd, or move the ` +
      'file away to do without it',
  );
}

/** True for what a failed system call of Node's fs throws. */
export function isSystemFault(error: unknown): error is Error & { readonly code: string } {
  return error instanceof Error && 'code' in error && 'syscall' in error && typeof error.code === 'string';
}

export function isMissing(error: unknown): boolean {
  return isSystemFault(error) && error.code === 'ENOENT';
}

/** `ENOSPC: no space left on device` of Node's message, which goes on with the call and the path. */
function wordsOf(message: string): string {
  return message.slice(0, message.includes(',') ? message.indexOf(',') : message.length);
}
