/** A lock file held for as long as the process lives (man 2 flock): one daemon a state directory. */
import { constants, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayError } from '../errors.js';
import { LOCK_EX, LOCK_NB } from './abi.js';
import { EAGAIN, lastErrno, SystemError } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';
import { checkDirectory, openTrusted } from './trusted-file.js';

/** Makes the directory where needed and locks it; returns how to unlock. Throws EBUSY when another holds it. */
export function lockDirectory(directory: string): () => void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    throw new OverlayError(
      code,
      'state_dir',
      `the state directory cannot be made: ${message}; see --state-dir`,
    );
  }
  // Whoever may write in it could lead us elsewhere, or take the lock away.
  checkDirectory(directory, { isLinkFine: true });
  const path = join(directory, 'lock');
  const fd = openLock(path);
  if (libc.flock(fd, LOCK_EX | LOCK_NB) >= 0) return () => closeFd(fd);
  const errno = lastErrno();
  closeFd(fd);
  if (errno !== EAGAIN) throw new SystemError(errno, `flock of ${path}`);
  throw new OverlayError(
    'EBUSY',
    'state_dir_in_use',
    `another overlayd uses ${directory}: stop it, or give this one a --state-dir and --socket of its own`,
  );
}

function openLock(path: string): number {
  try {
    return openTrusted(path, constants.O_RDWR | constants.O_CREAT, {}, 0o600);
  } catch (error) {
    if (error instanceof OverlayError) throw error;
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    throw new OverlayError(
      code,
      'state_dir',
      `the state directory cannot be locked: ${message}; let the user that overlayd runs as write there, or see --state-dir`,
    );
  }
}
