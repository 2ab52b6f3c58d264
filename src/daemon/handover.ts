/**
 * A planned restart: this process becomes the program anew (man 2 execve), under the same process id, and the descriptors
 * of the links pass to it. A link that somebody holds open keeps its carrier, so that routes over it stay in force.
 */
import { accessSync, constants, fstatSync, readFileSync, writeSync } from 'node:fs';
import { OverlayError } from '../errors.js';
import type { Log } from '../log.js';
import { lastErrno, SystemError } from '../sys/errno.js';
import { closeFd, createMemoryFile, setInherited } from '../sys/fd.js';
import { execve } from '../sys/libc.js';

/**
 * Where the next program finds them: the number of a descriptor from which it reads `{"ov0":[20,21]}`. A string of the
 * environment itself may have 128 KiB at most (man 2 execve, MAX_ARG_STRLEN): too little for many workers and devices.
 */
const VARIABLE = 'OVERLAYD_LINKS';

export type LinkFds = Readonly<Record<string, readonly number[]>>;

/** Throws ENOENT, EACCES and the like when there is no program to become: an upgrade may have moved it. */
export function checkProgram(): void {
  const [, script = ''] = process.argv;
  for (const [path, mode] of [
    [process.execPath, constants.X_OK],
    [script, constants.R_OK],
  ] as const) {
    try {
      accessSync(path, mode);
    } catch (error) {
      const { code = 'EIO', message } = error as NodeJS.ErrnoException;
      throw new OverlayError(code, 'program_gone', `the program is not where it was: ${message}`);
    }
  }
}

/** Becomes the program anew. Throws SystemError when that cannot be; the descriptors are this process's alone then. */
export function becomeAnew(fds: LinkFds): never {
  const list = createMemoryFile('overlayd-links');
  // At a position, so that the next program reads from the beginning.
  writeSync(list, JSON.stringify(fds), 0);
  const environment = { ...process.env, [VARIABLE]: String(list) };
  const variables = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // Node has them closed on the way to another program where they are pipes.
  for (const standard of [0, 1, 2]) setInherited(standard, true);
  setInherited(list, true);
  // Both lists end with a null pointer.
  execve(process.execPath, [...words, null], [...variables, null]);
  const errno = lastErrno();
  closeFd(list);
  for (const fd of Object.values(fds).flat()) setInherited(fd, false);
  throw new SystemError(errno, `running ${process.execPath} anew`);
}

/**
 * What the program before this one has handed over; nothing when there was none. Throws EINVAL when the variable is not from
 * there.
 */
export function takeLinks(): LinkFds {
  const text = process.env[VARIABLE];
  delete process.env[VARIABLE];
  if (text === undefined) return {};
  const fd = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  try {
    // A pipe or a terminal of that number would keep us waiting.
    if (!fstatSync(fd).isFile()) throw new Error('it is not a regular file');
    const links = JSON.parse(readFileSync(fd, 'utf8')) as LinkFds;
    closeFd(fd);
    return links;
  } catch (error) {
    throw new OverlayError(
      'EINVAL',
      'bad_handover',
      `${VARIABLE}=${text} names no links (${(error as Error).message}): it is for a daemon that restarts itself; unset it`,
    );
  }
}

/** Closes what no device has taken. */
export function dropLinks(fds: LinkFds, taken: readonly string[], log: Log): void {
  for (const [name, links] of Object.entries(fds)) {
    if (taken.includes(name)) continue;
    log.warn({ device: name }, 'a link was handed over that no device has');
    for (const fd of links) closeFd(fd);
  }
}
