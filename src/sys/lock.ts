/** A lock file held for as long as the process lives (man 2 flock): one daemon a state directory. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayError } from '../errors.js';
import { LOCK_EX, LOCK_NB, O_CLOEXEC, O_CREAT, O_RDWR } from './abi.js';
import { EAGAIN, lastErrno, must, SystemError } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';

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
  const path = join(directory, 'lock');
  const fd = must(libc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600), `open of ${path}`);
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
